"""Credit by step: what each step changed in what its image was going to score."""

import pytest
import torch
from test_update import gradient_of, logps, split
from toy import PROMPTS, Scripted, ToyGenerator, ToyReward, gradients, toy, toy_halves

from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.sampled import sampling_settings
from maskrl.grpo.advantage import standardise
from maskrl.grpo.config import GRPOConfig, SamplingConfig, resolve
from maskrl.grpo.credit import check_credit, step_advantages
from maskrl.grpo.positions import POSITION_POLICIES, SCORES
from maskrl.grpo.unmask import Rule, unmask
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.training.setup import set_up
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.transitions.random_remask import RandomRemask
from maskrl.types import Stream

BY_STEP = {"credit": "step", "credit_decay": 0.6}
BY_CHANCE = {"position_policy_train": "random"}
TRANSITION = PTheta2(PTheta2.Config())


def halves(**changes):
    config = {**BY_STEP, **changes.pop("config", {})}
    return toy_halves(transition=TRANSITION, config=config, sampling=BY_CHANCE, **changes)


def example(groups=5, size=4, steps=6):
    stream = torch.Generator().manual_seed(3)
    rewards = torch.randn(groups, size, generator=stream)
    values = 0.5 * torch.randn(groups, size, steps, generator=stream) + rewards[..., None]
    return values, rewards, torch.tensor([True, True, False, True, True])[:groups]


def by_hand(values, rewards, keep, decay, divisor, std):
    """The definition, number by number."""
    groups, size, steps = values.shape
    kept = [p for p in range(groups) if keep[p]]
    reward = [[float(rewards[p, g] - rewards[p].mean()) for g in range(size)] for p in range(groups)]
    value = [
        [[float(values[p, g, t] - values[p, :, t].mean()) for t in range(steps)] for g in range(size)]
        for p in range(groups)
    ]
    slope = [0.0] * steps
    for t in range(1, steps):
        both = sum(value[p][g][t] * reward[p][g] for p in kept for g in range(size))
        slope[t] = min(1.0, max(0.0, both / sum(value[p][g][t] ** 2 for p in kept for g in range(size))))
    wanted = torch.zeros(groups, size, steps, dtype=torch.float64)
    for p in kept:
        expected = [
            [0.0, *(slope[t] * value[p][g][t] for t in range(1, steps)), reward[p][g]] for g in range(size)
        ]
        by = float(divisor[p])
        if std == "group":
            spreads = [(sum(expected[g][t] ** 2 for g in range(size)) / size) ** 0.5 for t in range(steps)]
            by = max(by, *spreads)
        for g in range(size):
            for t in range(steps):
                changes = (decay ** (k - t) * (expected[g][k + 1] - expected[g][k]) for k in range(t, steps))
                wanted[p, g, t] = sum(changes) / by
    return wanted


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("std", ["group", "global", "none"])
def test_each_advantage_against_plain_loops(decay, std):
    values, rewards, keep = example()
    config = GRPOConfig(credit="step", credit_decay=decay, advantage_std=std)
    image = standardise(rewards, keep, std, config.advantage_eps)
    centred = (rewards - rewards.mean(dim=1, keepdim=True)).double()
    divisor = torch.where(keep, (centred / image)[:, 0], 1.0)
    found = step_advantages(values, rewards, keep, config)
    wanted = by_hand(values, rewards, keep, decay, divisor, std)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert (found[2] == 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.zeros(5, 6, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("difference", [0.0, 1e-6])
@pytest.mark.parametrize("std", ["group", "global"])
def test_a_group_that_ends_alike_teaches_no_more_than_others(std, difference):
    values, rewards, keep = example()
    rewards[0] = 0.5 + difference * torch.arange(4)  # its completions differ all the same
    config = GRPOConfig(credit="step", credit_decay=0.6, advantage_std=std)
    found = step_advantages(values, rewards, keep, config).abs().amax(dim=(1, 2))
    assert 0.05 < found[0] < 4


def test_values_that_say_nothing_leave_each_step_the_advantage_of_its_image():
    _, rewards, keep = example()
    config = GRPOConfig(credit="step", credit_decay=1.0)
    image = standardise(rewards, keep, "group", config.advantage_eps)[..., None].expand(-1, -1, 6)
    for values in (
        torch.full((5, 4, 6), 7.0),
        -rewards[..., None].expand(-1, -1, 6),
    ):  # the slope is not negative
        torch.testing.assert_close(step_advantages(values, rewards, keep, config), image)


def test_completions_that_vary_less_than_what_follows_are_not_stretched():
    _, rewards, keep = example()
    values = 0.5 * rewards[..., None].expand(-1, -1, 6)  # the slope would be 2
    config = GRPOConfig(credit="step", credit_decay=0.0)
    found = step_advantages(values, rewards, keep, config)
    half = 0.5 * standardise(rewards, keep, "group", config.advantage_eps)
    for t, wanted in enumerate([half, *[torch.zeros_like(half)] * 4, half]):
        torch.testing.assert_close(found[..., t], wanted)


def test_the_step_after_which_all_is_known_has_all_the_credit():
    _, rewards, keep = example()
    values = torch.zeros(5, 4, 6)
    values[..., 3:] = rewards[..., None]  # before step 3 nobody knows anything, and step 2 decides
    config = GRPOConfig(credit="step", credit_decay=0.0)
    found = step_advantages(values, rewards, keep, config)
    image = standardise(rewards, keep, "group", config.advantage_eps)
    torch.testing.assert_close(found[..., 2], image)
    assert found[..., [0, 1, 3, 4, 5]].abs().max() < 1e-6


def test_completions_hold_the_likeliest_code_of_every_masked_position():
    made = halves()
    batch = collect(made.actor, PROMPTS[:2], 0)
    seen = batch.trajectory
    rows = torch.arange(seen.num_images)
    for t in range(seen.num_steps):
        at = seen.transitions(rows, torch.full_like(rows, t))
        condition = made.generator.encode(batch.prompts).select(rows // 3)
        likeliest = made.generator.logits(at.state, condition, at.step, torch.zeros(len(rows))).argmax(dim=-1)
        wanted = torch.where(at.state == seen.mask_id, likeliest, at.state)
        assert torch.equal(seen.completions[:, t], wanted)
    assert collect(toy_halves().actor, PROMPTS[:2], 0).trajectory.completions.numel() == 0


class Tinted(ToyGenerator):
    """Paints by its condition too."""

    def decode(self, tokens, condition):
        assert len(tokens) == len(condition.numbers)
        return super().decode(tokens, condition) * condition.numbers[:, None, None, None] / 16


DRAWN_AGAIN = {"filter": Scripted([False, True, True, False], [True, False], [False])}


@pytest.mark.parametrize("changes", [{"reward_batch": 5}, {"rollout_batch": 4}, DRAWN_AGAIN])
def test_a_batch_has_the_advantages_of_what_its_completions_score(changes):
    made = halves(generator=Tinted(ToyGenerator.Config()), **changes)
    batch = collect(made.actor, PROMPTS, 1)
    seen, prompts = batch.trajectory, [prompt for prompt in PROMPTS for _ in range(3)]
    condition = made.generator.encode(prompts)
    values = torch.zeros(len(prompts), seen.num_steps)
    for t in range(1, seen.num_steps):
        images = made.generator.decode(seen.completions[:, t], condition)
        values[:, t] = made.actor.reward.score(images, prompts)
    wanted = step_advantages(values.view(4, 3, -1), batch.rewards, batch.keep, made.algorithm.config)
    torch.testing.assert_close(batch.step_adv, wanted.float())
    assert batch.step_adv.std(dim=-1).max() > 0.1


def test_completions_are_judged_once_the_filter_has_chosen():
    judged = []

    class Counted(ToyReward):
        def score(self, images, prompts):
            judged.extend(prompt.text for prompt in prompts)
            return super().score(images, prompts)

    rounds = [False, True, True, False], [True, False], [False]
    collect(halves(reward=Counted(Counted.Config()), filter=Scripted(*rounds)).actor, PROMPTS, 1)
    finished, unfinished = 3 * sum(map(len, rounds)), 3 * 4 * (3 - 1)
    assert len(judged) == finished + unfinished
    of_each = [prompt.text for prompt in PROMPTS for _ in range(3)]
    assert judged[finished:] == 2 * of_each


def test_each_step_is_learnt_from_with_its_own_advantage():
    made = halves()
    batch = collect(made.actor, PROMPTS, 0)
    learn(made.learner, batch)
    found = gradients(made.generator).clone()
    logp = logps(made, batch)
    loss = -(logp * batch.step_adv.flatten(0, 1) * batch.weights).sum() / len(logp)
    made.generator.module.zero_grad()
    torch.testing.assert_close(found, gradient_of(loss, made.generator), rtol=1e-6, atol=1e-9)
    of_images = collect(toy_halves(transition=TRANSITION, sampling=BY_CHANCE).actor, PROMPTS, 0)
    assert of_images.step_adv is None
    assert torch.equal(of_images.trajectory.tokens, batch.trajectory.tokens)
    assert torch.equal(of_images.adv, batch.adv)


def test_splitting_the_prompts_changes_no_advantage():
    changes = {"transition": TRANSITION, "config": {**BY_STEP, "max_resamples": 0}, "sampling": BY_CHANCE}
    made = toy_halves(**changes)
    batch = collect(made.actor, PROMPTS, 2)
    learn(made.learner, batch)
    for part, (seat, found, _) in enumerate(split(PROMPTS, 2, **changes)):
        torch.testing.assert_close(found.step_adv, batch.step_adv[2 * part : 2 * part + 2])
        torch.testing.assert_close(
            gradients(seat.generator), gradients(made.generator), rtol=1e-10, atol=1e-12
        )


def test_processes_that_draw_again_agree_with_one():
    shared = {"transition": TRANSITION, "config": BY_STEP, "sampling": BY_CHANCE}
    rounds = [True, False, False, False], [True, False, False], [True, False]
    made = toy_halves(filter=Scripted(*rounds), **shared)
    batch = collect(made.actor, PROMPTS, 2)
    learn(made.learner, batch)
    assert batch.keep.tolist() == [True, True, True, False]
    seats = split(PROMPTS, 2, filter=Scripted(*rounds), **shared)
    torch.testing.assert_close(torch.cat([found.step_adv for _, found, _ in seats]), batch.step_adv)
    assert (batch.step_adv[3] == 0).all()
    assert (batch.step_adv[:3].abs().amax(dim=(1, 2)) > 0.1).all()
    for seat, _, _ in seats:
        torch.testing.assert_close(
            gradients(seat.generator), gradients(made.generator), rtol=1e-10, atol=1e-12
        )


def test_a_finished_image_without_a_number_is_named_before_its_completions():
    class Never(ToyReward):
        def score(self, images, prompts):
            return super().score(images, prompts) * torch.nan

    with pytest.raises(
        TrainingError, match=r"^update 0: the reward 'Never' gave nan for an image of 'bright'"
    ):
        collect(halves(reward=Never(Never.Config())).actor, PROMPTS[:1], 0)


def test_a_reward_of_an_unfinished_image_that_is_no_number_is_named():
    class Late(ToyReward):
        calls = 0

        def score(self, images, prompts):
            self.calls += 1
            return super().score(images, prompts) * (1.0 if self.calls < 2 else torch.nan)

    made = halves(reward=Late(Late.Config()), reward_batch=100)
    with pytest.raises(TrainingError, match="update 0, of an unfinished image: the reward 'Late' gave nan"):
        collect(made.actor, PROMPTS[:1], 0)


def test_training_chooses_positions_its_own_way_and_evaluation_as_before():
    generator, chance = toy(), {"position_policy": "random"}
    by = {
        name: resolve(SamplingConfig(**x), generator.spec)
        for name, x in (("train", BY_CHANCE), ("all", chance))
    }
    assert (by["train"].position_policy, by["train"].in_training.position_policy) == ("confidence", "random")
    assert by["all"].in_training == by["all"]
    plain = resolve(SamplingConfig(), generator.spec)
    assert plain.in_training == plain
    first, second, third = (
        collect(toy_halves(transition=TRANSITION, sampling=x).actor, PROMPTS[:2], 0).trajectory
        for x in (BY_CHANCE, chance, {})
    )
    assert torch.equal(first.reveal_rank, second.reveal_rank)
    assert not torch.equal(first.reveal_rank, third.reveal_rank)
    paints = [
        sampling_settings(generator, PROMPTS, 1, 3, x, Stream(0)) for x in (by["train"], plain, by["all"])
    ]
    assert paints[0] == paints[1] != paints[2]


def refused(changes):
    with pytest.raises(RecipeError) as error:
        set_up(read_recipe("shapes_clip", ["training.device=cpu", *changes]))
    return str(error.value)


def test_credit_by_step_is_refused_where_a_step_s_score_has_a_mean_of_its_own():
    said = refused(["grpo.credit=step"])
    assert "needs positions that are chosen whatever is proposed there" in said
    for advice in ("sampling.position_policy_train=random", "sampling.score=max_prob", "grpo.credit=image"):
        name, value = advice.split("=")
        assert f"{name} = '{value}'" in said
        set_up(read_recipe("shapes_clip", ["training.device=cpu", "grpo.credit=step", advice]))
    by_chance = ["grpo.credit=step", "sampling.position_policy_train=random"]
    said = refused([*by_chance, "transition.name=random_remask"])
    assert "RandomRemask scores others; choose transition.name = 'p_theta2'" in said
    with pytest.raises(
        RecipeError, match=r"follows the score.*choose advantage_of = 'score', or credit = 'image'"
    ):
        read_recipe("shapes_clip", [*by_chance, "grpo.advantage_of=terms"])
    read_recipe("shapes_clip", [*by_chance, "grpo.advantage_of=score"])
    read_recipe("shapes_clip", [*by_chance, "grpo.advantage_of=terms", "grpo.credit=image"])
    set_up(read_recipe("shapes_clip", ["training.device=cpu", *by_chance, "transition.name=p_theta2"]))


def test_a_decay_that_nothing_reads_is_refused():
    with pytest.raises(RecipeError, match=r"credit_decay = 0\.5 .* choose credit = 'step', or leave"):
        read_recipe("shapes_clip", ["grpo.credit_decay=0.5"])
    read_recipe("shapes_clip", ["grpo.credit_decay=0.5", "grpo.credit=step"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [("PTheta1", ["transition.name=p_theta1"]), ("PTheta2", ["transition.order_from=0.5"])],
)
def test_what_is_of_the_most_confident_is_told_of_another_transition_too(name, changes):
    said = refused(["grpo.credit=step", *changes])
    assert (
        f"{name} refuses such positions: choose transition.name = 'p_theta2' too, without order_from" in said
    )
    asked = ["training.device=cpu", "grpo.credit=step", "sampling.position_policy_train=random"]
    set_up(read_recipe("shapes_clip", [*asked, "transition.name=p_theta2"]))


def test_the_policy_of_training_is_named_where_it_is_what_a_transition_refuses():
    of_train = ["transition.name=p_theta1", "sampling.position_policy_train=random"]
    said = refused(of_train)
    assert 'sampling has score = "log_prob" and position_policy_train = "random"' in said
    assert 'choose score = "log_prob" and position_policy_train = "confidence", or another' in said
    advice = "sampling.position_policy_train=confidence"
    set_up(read_recipe("shapes_clip", ["training.device=cpu", *of_train, advice]))
    of_both = ["transition.name=p_theta1", "sampling.position_policy=random"]
    assert 'and position_policy = "confidence", or another' in refused(of_both)
    set_up(read_recipe("shapes_clip", ["training.device=cpu", *of_both, advice]))


def test_names_of_training_s_policy_are_looked_up_as_evaluation_s_are():
    with pytest.raises(RecipeError, match=r"position_policy_train.*'centre'.*random"):
        read_recipe("shapes_clip", ["sampling.position_policy_train=centre"])
    with pytest.raises(RecipeError, match=r'position_policy_train = "halton" spreads.*choose "random"'):
        resolve(SamplingConfig(position_policy_train="halton"), toy().spec)
    resolve(SamplingConfig(position_policy_train="random"), toy().spec)


def test_what_scores_other_steps_is_refused_with_any_order():
    config, sampling = GRPOConfig(credit="step"), resolve(SamplingConfig(**BY_CHANCE), toy().spec)
    check_credit(config, TRANSITION, sampling)
    with pytest.raises(RecipeError, match="of the steps that painted"):
        check_credit(config, RandomRemask(RandomRemask.Config()), sampling)


@pytest.mark.parametrize(
    ("policy", "score", "tau", "is_free"),
    [
        ("random", "log_prob", 1.0, True),
        ("confidence", "max_prob", 1.0, True),
        ("confidence", "log_prob", 1.0, False),
        ("confidence", "log_prob", 0.0, False),
    ],
)
def test_the_mean_score_of_what_is_revealed_is_0_where_positions_are_free_of_values(
    policy, score, tau, is_free
):
    rows, places, codes, mask = 20_000, 4, 3, 3
    stream = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(places, codes, generator=stream, dtype=torch.float64)
    packed = logits.repeat(rows, 1)
    rule = Rule(
        2,
        tau,
        score=lambda some, codes, logp: SCORES[score](toy(), some, codes, logp, None),
        order=POSITION_POLICIES[policy],
    )
    uniform = torch.rand(rows, 2, places, generator=stream)
    made = unmask(packed, torch.full((rows, places), mask), uniform, rule, mask)
    revealed = (made.reveal_rank >= 0)[..., None]
    of_row = torch.where(
        revealed, torch.eye(codes + 1)[made.proposals][..., :codes] - logits.softmax(-1), 0.0
    )
    error = of_row.std(dim=0) / rows**0.5
    deviation = (of_row.mean(dim=0).abs() / error.clamp(min=1e-12)).max()
    assert deviation < 4.5 if is_free else deviation > 20
