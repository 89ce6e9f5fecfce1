"""The tables of the sampler: values as published, names that stand once, and what a rule does to rollout and ratio."""

import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from toy import PROMPTS, ToyGenerator, gradients, rowwise, toy, toy_halves

from maskrl.errors import PluginError, RecipeError
from maskrl.evals.sameness import differing, unknown
from maskrl.evals.sampled import sampling_settings
from maskrl.grpo import guidance, positions, schedule, temperature
from maskrl.grpo.config import GRPOConfig, SamplingConfig, resolve
from maskrl.grpo.guidance import guidance_weights, guided
from maskrl.grpo.objective import KL
from maskrl.grpo.policy import at, policy_logits, temperature_at
from maskrl.grpo.rollout import rollout
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.temperature import temperatures, tempered, value_temperatures
from maskrl.grpo.update import collect, learn
from maskrl.reducers.computational import Computational
from maskrl.testing import check_generator
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.transitions.random_remask import RandomRemask
from maskrl.types import SamplerDefaults, StepIndex, Stream

TABLES = {
    "schedule": schedule.SCHEDULES,
    "temperature_rule": temperature.TEMPERATURE_RULES,
    "value_temperature_rule": temperature.VALUE_TEMPERATURES,
    "score": positions.SCORES,
    "position_policy": positions.POSITION_POLICIES,
    "guidance_rule": guidance.GUIDANCE_RULES,
}
RULES = [
    {"guidance_rule": "linear"},
    {"guidance_rule": "cosine"},
    {"value_temperature": 0.7},
    {"value_temperature_rule": "maskgen", "value_temperature": 2.0},
    {"schedule": "arccos"},
    {"temperature_rule": "maskgit", "tau_init": 4.5},
    {"temperature_rule": "constant"},
]


# values


def test_arccos_reveals_as_many_as_maskgen():
    """The counts that ``MaskGen.generate`` gives for 128 tokens in 16 steps (bytedance/1d-tokenizer, 942a96f)."""
    published = [6, 5, 5, 5, 5, 6, 5, 6, 6, 7, 6, 8, 8, 9, 13, 28]
    assert unmask_counts(128, 16, "arccos") == published


def test_maskgens_temperatures_are_the_published_ones():
    """What ``MaskGen.generate`` computes with R = 2 and T = 16; it proposes greedily at the last step."""
    published = [2.34, 2.10, 1.87, 1.65, 1.44, 1.25, 1.07, 0.90, 0.74, 0.60, 0.47, 0.35, 0.24, 0.15, 0.07]
    found = value_temperatures(16, "maskgen", 2.0)
    assert found[:-1] == pytest.approx(published, abs=0.0051)
    assert found[-1] == 0
    assert temperatures(16, "maskgit", 2.0) == pytest.approx([2 * (1 - (t + 1) / 16) for t in range(16)])


def test_a_constant_temperature_is_that_of_lumina_dimoo():
    assert temperatures(3, "constant", 1.0) == [1.0, 1.0, 1.0]
    assert value_temperatures(3, "constant", 0.5) == [0.5, 0.5, 0.5]


def test_maskgens_guidance_is_the_published_ramp():
    """w_t of ``MaskGen.generate`` with w = 12 and T = 16: 1.11, 1.42, 1.93 and at last 12."""
    ramp = guidance_weights(16, "cosine", 12.0)
    assert ramp[:3] == pytest.approx([1.11, 1.42, 1.93], abs=0.0051)
    assert ramp[-1] == 12.0


def test_haltons_guidance_is_linear_and_a_single_step_has_none_of_it():
    assert guidance_weights(5, "linear", 4.0) == [0.0, 1.0, 2.0, 3.0, 4.0]  # w * index / (T - 1)
    assert guidance_weights(1, "linear", 4.0) == [0.0]
    assert guidance_weights(2, "constant", 4.0) == [4.0, 4.0]


@pytest.mark.parametrize("rule", guidance.GUIDANCE_RULES)
def test_no_guidance_is_none_at_every_step(rule):
    assert guidance_weights(4, rule, 0.0) == [0.0] * 4


# names


@pytest.mark.parametrize("key", TABLES)
def test_names_are_those_of_the_table(key):
    for name in TABLES[key]:
        spec = replace(toy().spec, grid=(2, 3))
        assert getattr(resolve(SamplingConfig(**{key: name}), spec), key) == name
    near = next(iter(TABLES[key]))[:-1]
    with pytest.raises(ValidationError) as error:
        SamplingConfig(**{key: near})
    known = ", ".join(TABLES[key])
    assert (
        f"no {key} is called {near!r}; did you mean {next(iter(TABLES[key]))!r}? (there are: {known})"
        in str(error.value)
    )


def test_a_kl_is_a_name_of_its_table(cli):
    assert all(GRPOConfig(kl=name).kl == name for name in KL)
    result = cli("recipe", "check", "shapes_clip", "--set", "grpo.kl=k1")
    assert result.code == 2
    assert "grpo.kl: no kl is called 'k1' (there are: exact, k2, k3)" in result.err


def test_a_wrong_name_in_a_recipe_is_one_line(cli):
    result = cli("recipe", "check", "shapes_clip", "--set", "sampling.guidance_rule=cosin")
    assert result.code == 2
    assert "sampling.guidance_rule: no guidance_rule is called 'cosin'; did you mean 'cosine'?" in result.err


@pytest.mark.parametrize("key", TABLES)
def test_a_wrong_name_in_a_generators_spec_names_the_generator(key):
    generator = toy()
    wrong = replace(generator.spec, sampler=replace(generator.spec.sampler, **{key: "none"}))
    with pytest.raises(
        PluginError, match=f"generator 'ToyGenerator' breaks .*: spec.sampler: {key}: no {key}"
    ):
        resolve(SamplingConfig(), wrong, generator)


def test_a_generators_defaults_are_taken_and_overridden():
    published = SamplerDefaults(
        num_steps=3,
        schedule="arccos",
        temperature_rule="maskgit",
        tau_init=2.0,
        guidance=12.0,
        guidance_rule="cosine",
        value_temperature_rule="maskgen",
        value_temperature=2.0,
        score="generator",
    )
    spec = replace(toy().spec, sampler=published)
    taken = resolve(SamplingConfig(), spec)
    for key in {field.name for field in fields(published)} - {"num_steps", "guidance"}:
        assert getattr(taken, key) == getattr(published, key)
    assert (taken.guidance_train, taken.guidance_eval) == (0.0, 12.0)
    given = {"schedule": "linear", "score": "log_prob", "guidance_rule": "constant", "value_temperature": 1.5}
    changed = resolve(SamplingConfig(**given), spec)
    assert {key: getattr(changed, key) for key in given} == given
    assert changed.tau_init == 2.0


def test_a_new_entry_in_a_table_is_a_policy(monkeypatch):
    monkeypatch.setitem(
        positions.POSITION_POLICIES, "backwards", lambda candidates, tau: candidates.places.float()
    )
    halves = toy_halves(transition=PTheta2(PTheta2.Config()), sampling={"position_policy": "backwards"})
    rank = collect(halves.actor, PROMPTS, 0).trajectory.reveal_rank
    assert (rank[:, 0, -1] == 0).all()


def test_a_random_order_is_that_of_the_noise():
    halves = toy_halves(transition=PTheta2(PTheta2.Config()), sampling={"position_policy": "random"})
    trajectory = collect(halves.actor, PROMPTS, 0).trajectory
    streams = [Stream(0).child("rollout", 0, 0, i // 3, i % 3) for i in range(12)]
    noise_BN = torch.stack([torch.rand(3, 2, 6, generator=s.generator()) for s in streams])[:, 0, 1]
    assert torch.equal(trajectory.reveal_rank[:, 0] == 0, noise_BN == noise_BN.amax(dim=1, keepdim=True))


def test_the_docs_name_what_the_tables_hold():
    text = (Path(__file__).parents[1] / "docs" / "concepts.md").read_text()
    section = text[text.index("### The sampler's choices") : text.index("## Layers")]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    said = {re.findall("`(.*?)`", row[1])[0]: re.findall("`(.*?)`", row[2]) for row in rows}
    assert said == {key: list(table) for key, table in TABLES.items()}


# guidance of each row


def test_every_row_has_the_weight_of_its_own_step():
    step = StepIndex(torch.tensor([2, 0, 1]), 3)
    assert at(step, guidance_weights(3, "linear", 4.0)).tolist() == [4.0, 0.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("w", [0.1, 0.18, 1.07, 1.75, 5.0])
def test_guidance_is_rounded_as_a_number_is(dtype, w):
    """In fp32 the weight of a row gives other logits for 87 of 1000 weights: 1 + w would be rounded twice."""
    cond, uncond = (torch.randn(6, 8, generator=torch.Generator().manual_seed(i)).to(dtype) for i in (0, 1))
    wide = [x.float() if dtype == torch.bfloat16 else x for x in (cond, uncond)]
    plain = (1 + w) * wide[0] - w * wide[1]
    positions_BN = torch.tensor([[True, True, False, True], [True, False, True, True]])
    assert torch.equal(guided(cond, uncond, rowwise(w, 2), positions_BN), plain)
    shaped = [x.view(2, 3, 8) for x in (cond, uncond)]
    assert torch.equal(guided(*shaped, rowwise(w, 2)), plain.view(2, 3, 8))


def test_a_row_without_guidance_beside_one_with_it_is_the_conditional_branch():
    cond, uncond = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    found = guided(cond, uncond, torch.tensor([0.0, 1.5], dtype=torch.float64))
    assert torch.equal(found[0], cond[0])
    assert torch.equal(found[1], 2.5 * cond[1] - 1.5 * uncond[1])


@pytest.mark.parametrize("rule", ["linear", "cosine"])
def test_a_rule_changes_the_rollout_from_the_step_on_at_which_its_weight_differs(rule):
    generator = toy(sharpness=6.0)
    condition, streams = generator.encode(PROMPTS), [Stream(i) for i in range(4)]
    records = {
        name: rollout(
            generator, condition, streams, 3, resolve(SamplingConfig(guidance_rule=name), generator.spec), 3.0
        )
        for name in ("constant", rule)
    }
    asked = [w for _, w in generator.calls[-3:]]
    assert asked == pytest.approx(guidance_weights(3, rule, 3.0))
    assert not torch.equal(records["constant"].proposals[:, 0], records[rule].proposals[:, 0])


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("mode", ["same", "rollout_only"])
@pytest.mark.parametrize("transition", [PTheta1(PTheta1.Config()), PTheta2(PTheta2.Config())])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_first_update_has_ratio_one_under_every_rule(rule, transition, mode, recorded):
    sampling = {"guidance_train": 1.5, "guidance_in_loss": mode, **rule}
    halves = toy_halves(toy(dtype="float32"), transition=transition, sampling=sampling, record_logp=recorded)
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert (metrics["ratio_min"], metrics["ratio_max"]) == (1, 1)
    assert gradients(halves.generator).abs().max() > 0


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_reference_is_asked_as_the_policy_is(rule):
    """Of equal weights the KL is 0: under the same guidance and temperature, row by row."""
    config = {"kl_coef": 1.0}
    halves = toy_halves(
        sampling={"guidance_train": 1.5, **rule}, config=config, reference=toy(), micro_batch=5
    )
    assert learn(halves.learner, collect(halves.actor, PROMPTS, 0))["kl"] == 0
    other = halves.but(reference=toy(seed=1))
    assert learn(other.learner, collect(other.actor, PROMPTS, 0))["kl"] > 0


@pytest.mark.parametrize("rule", RULES[:4], ids=str)
def test_scores_reproduce_the_rollouts_own_probabilities(rule):
    """Loss and sampler have the same logits: p of the least likely revealed proposal is the recorded threshold."""
    halves = toy_halves(toy(dtype="float32"), sampling={"guidance_train": 1.5, **rule})
    batch = collect(halves.actor, PROMPTS, 0)
    step = batch.trajectory.transitions(torch.arange(12), torch.full((12,), 1))
    condition = batch.condition.select(torch.arange(12) // 3)
    inputs = (step.step, halves.algorithm.sampling, halves.algorithm.sampling.guidance_loss, step.places)
    p_MV = policy_logits(halves.generator, step.state, condition, *inputs).softmax(-1)
    p = step.unpack(p_MV.gather(-1, step.pack(step.proposals)[:, None]).squeeze(-1))
    torch.testing.assert_close(p.masked_fill(~step.revealed, 2.0).amin(dim=1), step.threshold.float())


# temperature of the proposals


def test_a_temperature_of_one_leaves_the_very_logits():
    halves = toy_halves()
    assert temperature_at(StepIndex(torch.zeros(2, dtype=torch.long), 3), halves.algorithm.sampling) is None
    logits = torch.randn(3, 4).bfloat16()
    assert tempered(logits, None) is logits
    assert tempered(logits, torch.ones(3)).dtype == torch.float32
    assert halves.algorithm.sampling.value_temperature == 1.0


def test_cold_proposals_are_the_likeliest_and_hot_ones_are_not():
    generator, streams = toy(), [Stream(i) for i in range(60)]
    condition = generator.encode([PROMPTS[0]] * 60)
    entropy = {}
    for value in (0.01, 1.0, 30.0):
        sampling = resolve(SamplingConfig(value_temperature=value), generator.spec)
        record = rollout(generator, condition, streams, 3, sampling, 0.0)
        entropy[value] = float(record.entropy[:, 0].mean())
    assert entropy[0.01] < 0.1 < entropy[1.0] < entropy[30.0]
    assert entropy[30.0] == pytest.approx(math.log(4), abs=0.01)


GREEDY = {"value_temperature_rule": "maskgen", "value_temperature": 2.0}


def test_a_greedy_step_takes_the_likeliest_codes():
    generator, streams = toy(), [Stream(i) for i in range(20)]
    condition = generator.encode([PROMPTS[0]] * 20)
    record = rollout(generator, condition, streams, 3, resolve(SamplingConfig(**GREEDY), generator.spec), 1.5)
    for t, chance in enumerate([True, True, False]):
        step = record.transitions(torch.arange(20), torch.full((20,), t))
        logits = generator.logits(step.state, condition, step.step, rowwise(1.5, 20))
        likeliest = torch.equal(logits.argmax(dim=-1)[step.masked], step.proposals[step.masked])
        assert likeliest != chance
    assert (record.entropy[:, 2] == 0).all()
    assert (record.threshold[:, 2] == 1).all()


@pytest.mark.parametrize("recorded", [False, True])
def test_a_greedy_step_has_no_term_in_the_loss(recorded):
    """Estimators that make steps of their own are no exception: ``random_remask`` has the temperature of each."""
    for transition in (PTheta2(PTheta2.Config()), RandomRemask(RandomRemask.Config())):
        generator = toy(dtype="float32", sharpness=1.0)
        halves = toy_halves(generator, transition=transition, sampling=GREEDY, record_logp=recorded)
        batch = collect(halves.actor, PROMPTS, 0)
        assert batch.steps.tolist() == [0, 1]
        assert batch.weights.tolist() == pytest.approx([1 / 3, 1 / 3])
        assert learn(halves.learner, batch)["grad_norm"] > 0


@pytest.mark.parametrize("recorded", [False, True])
def test_an_update_of_greedy_steps_alone_moves_nothing(recorded):
    last = Computational(Computational.Config(steps=1, which="last"))
    halves = toy_halves(transition=PTheta2(PTheta2.Config()), reducer=last, record_logp=recorded)
    assert learn(halves.learner, collect(halves.actor, PROMPTS, 0))["skipped"] == 0
    halves = toy_halves(
        transition=PTheta2(PTheta2.Config()), reducer=last, sampling=GREEDY, record_logp=recorded
    )
    metrics = learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert (metrics["skipped"], metrics["grad_norm"]) == (1, 0)


def test_greedy_steps_alone_are_refused_and_else_left_out_of_the_check(cli, toy_recipe):
    greedy = ("--set", "sampling.value_temperature_rule=maskgen", "--set", "transition.name=p_theta2")
    for command in (("check", "on-policy"), ("train",)):
        done = cli(*command, "--recipe", toy_recipe, *greedy, "--set", "grpo.num_steps=1")
        assert done.code == 2
        assert "T = 1 every step proposes the likeliest codes, and there is nothing to learn from" in done.err
    done = cli("check", "on-policy", "--recipe", toy_recipe, *greedy)
    assert (done.code, [line.split()[0] for line in done.out.splitlines()]) == (0, ["step", "0", "1", "on"])


def test_the_loss_has_the_temperature_of_each_row():
    halves = toy_halves(
        toy(dtype="float32", sharpness=1.0),
        transition=PTheta2(PTheta2.Config()),
        sampling=GREEDY,
        micro_batch=100,
    )
    batch = collect(halves.actor, PROMPTS, 0)
    learn(halves.learner, batch)
    by_hand = []
    for t, value in enumerate(value_temperatures(3, "maskgen", 2.0)[:2]):  # the last one is greedy
        row = batch.trajectory.transitions(torch.arange(12), torch.full((12,), t))
        condition = batch.condition.select(torch.arange(12) // 3)
        logits = halves.generator.logits(
            row.state, condition, row.step, rowwise(0.0, 12), positions=row.masked
        )
        by_hand.append(halves.algorithm.transition.log_prob(logits / value, row))
    weights = batch.adv.flatten() / (3 * 12)
    loss = -sum((logp * weights).sum() for logp in by_hand)
    found = gradients(halves.generator).clone()
    assert found.any()
    halves.generator.module.zero_grad()
    loss.backward()
    torch.testing.assert_close(found, gradients(halves.generator), rtol=1e-4, atol=1e-6)


# other scores than log p


def test_logits_with_the_noise_of_the_proposals_order_as_maskgen_does():
    """Its score is the logit over s, with noise of temperature a; both are multiplied by s here."""
    generator = toy(sharpness=6.0)
    sampling = resolve(
        SamplingConfig(score="logit", temperature_rule="maskgen", tau_init=2.0, **GREEDY), generator.spec
    )
    streams = [Stream(i) for i in range(50)]
    condition = generator.encode([PROMPTS[0]] * 50)
    record = rollout(generator, condition, streams, 3, sampling, 1.5)
    noise = torch.stack([torch.rand(3, 2, 6, generator=stream.generator()) for stream in streams])
    differ = 0
    for t in range(2):
        step = record.transitions(torch.arange(50), torch.full((50,), t))
        logits = generator.logits(step.state, condition, step.step, rowwise(1.5, 50))
        at_proposal, r = logits.gather(-1, step.proposals.clamp(max=3)[..., None]).squeeze(-1), (t + 1) / 3
        gumbel = positions.gumbel(noise[:, t, 1])
        found = at_proposal / (0.5 + 0.8 * (1 - r)) + 2 * (1 - r) * gumbel
        best = found.masked_fill(~step.masked, -math.inf).argsort(dim=1, descending=True)
        count = int(step.revealed.sum(dim=1)[0])
        wanted = torch.zeros_like(step.masked).scatter(1, best[:, :count], True)
        assert torch.equal(step.revealed, wanted)
        normalised = found - logits.logsumexp(dim=-1) / (0.5 + 0.8 * (1 - r))
        other = normalised.masked_fill(~step.masked, -math.inf).argsort(dim=1, descending=True)
        differ += int((other[:, :count] != best[:, :count]).any(dim=1).sum())
    assert differ > 0  # by log p others would have been revealed


# a generator's own score


class Own(ToyGenerator):
    """Ranks positions by the guided logit of the proposal, and one of the codes last."""

    def confidence(self, logits, proposals, step):
        assert logits.shape[:1] == proposals.shape == step.t.shape
        return logits.gather(1, proposals[:, None]).squeeze(1) - 10 * (proposals == 2)


def test_a_generators_own_score_ranks_the_positions():
    generator = Own(ToyGenerator.Config())
    sampling = resolve(SamplingConfig(score="generator", tau_init=0.0, value_temperature=0.5), generator.spec)
    condition, streams = generator.encode([PROMPTS[0]] * 50), [Stream(i) for i in range(50)]
    record = rollout(generator, condition, streams, 3, sampling, 1.5)
    step = record.transitions(torch.arange(50), torch.zeros(50, dtype=torch.long))
    logits = generator.logits(step.state, condition, step.step, rowwise(1.5, 50))
    score = logits.gather(-1, step.proposals[..., None]).squeeze(-1) - 10 * (step.proposals == 2)
    assert torch.equal(
        step.reveal_rank.argmax(dim=1), _last_of_the_best(score, int(step.revealed.sum(dim=1)[0]))
    )


def _last_of_the_best(score, count):
    return score.argsort(dim=1, descending=True, stable=True)[:, count - 1]


def test_a_generator_without_a_score_of_its_own_says_so():
    generator = toy()
    sampling = resolve(SamplingConfig(score="generator"), generator.spec)
    with pytest.raises(RecipeError, match=r'ToyGenerator has no confidence.*choose "log_prob"'):
        rollout(generator, generator.encode(PROMPTS), [Stream(i) for i in range(4)], 3, sampling, 0.0)


@pytest.mark.parametrize("answer", [torch.zeros(2), torch.full((24,), math.inf), None])
def test_a_score_that_is_none_is_refused(answer):
    class Wrong(ToyGenerator):
        def confidence(self, logits, proposals, step):
            return (
                answer.expand(len(proposals))
                if answer is not str and getattr(answer, "ndim", 1) == 0
                else answer
            )

    generator = Wrong(ToyGenerator.Config())
    sampling = resolve(SamplingConfig(score="generator"), generator.spec)
    with pytest.raises(PluginError, match=r"confidence returned .* instead of finite Float"):
        rollout(generator, generator.encode(PROMPTS), [Stream(i) for i in range(4)], 3, sampling, 0.0)


@pytest.mark.parametrize("command", [("check", "on-policy"), ("train",)])
@pytest.mark.parametrize("score", ["generator", "logit"])
def test_p_theta1_refuses_another_score_before_anything_is_painted(cli, toy_recipe, command, score):
    changes = ("--set", "transition.name=p_theta1", "--set", f"sampling.score={score}")
    result = cli(*command, "--recipe", toy_recipe, *changes)
    assert result.code == 2
    assert "PTheta1 takes for granted that the proposals of the highest log p are revealed" in result.err
    assert 'choose score = "log_prob" and position_policy = "confidence", or another transition' in result.err


# a plugin's guidance


class Lumped(ToyGenerator):
    """Takes the first row's weight for all."""

    def logits(self, tokens, condition, step, guidance, positions=None):
        return super().logits(tokens, condition, step, guidance[:1].expand_as(guidance), positions)


class Old(ToyGenerator):
    """Written for a number."""

    def logits(self, tokens, condition, step, guidance: float, positions=None):
        if guidance == 0:
            return super().logits(tokens, condition, step, rowwise(0.0, len(tokens)), positions)
        return super().logits(tokens, condition, step, rowwise(guidance, len(tokens)), positions)


def test_a_generator_that_lumps_the_rows_is_found():
    with pytest.raises(PluginError, match="guidance is one weight for each row"):
        check_generator(Lumped(ToyGenerator.Config(dtype="float32")), PROMPTS)


def test_a_generator_written_for_a_number_is_told():
    with pytest.raises(PluginError, match="'Old' breaks its contract: logits takes guidance as a float"):
        resolve(SamplingConfig(), toy().spec, Old(ToyGenerator.Config()))


# what was painted


def painted(**sampling):
    generator = toy(dtype="float32")
    resolved = resolve(SamplingConfig(**sampling), generator.spec)
    settings = sampling_settings(generator, PROMPTS, 1, 3, resolved, Stream(0))
    return json.loads(json.dumps(settings))


NEW = ("value_temperature_rule", "value_temperature", "score", "position_policy", "guidance_rule")


def test_images_know_every_choice_and_older_ones_are_those_of_the_defaults():
    now = painted()
    old = {key: value for key, value in now.items() if key not in NEW}
    assert len(old) == len(now) - len(NEW)
    assert differing(now, old) == unknown(now, old) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("value_temperature_rule", "maskgen"),
        ("value_temperature", 2.0),
        ("score", "generator"),
        ("guidance_rule", "cosine"),
    ],
)
def test_images_of_another_choice_are_others_than_older_ones(key, value):
    old = {name: saved for name, saved in painted().items() if name not in NEW}
    assert differing(painted(**{key: value}), old) == [key]
