"""What components answer: what is plainly meant is taken as it is meant, the rest is refused in a line with a name."""

import re

import numpy as np
import pytest
import torch
from toy import ToyGenerator, ToyReward, toy_parts

from maskrl.asking import asking
from maskrl.component import ComponentConfig, build
from maskrl.errors import PluginError, RecipeError, TrainingError
from maskrl.evals.scores import score_each
from maskrl.filters.keep_all import KeepAll
from maskrl.grpo import answers
from maskrl.grpo.judging import Judging
from maskrl.grpo.update import collect, learn
from maskrl.interfaces import Detection, Detector, PromptSet, RewardModel, StepReducer, TransitionProb
from maskrl.reducers.none import NoReduction
from maskrl.runtime.wrapper import Wrapper
from maskrl.training.watch import Watch
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Prompt, Stream

PROMPTS = [Prompt("dark"), Prompt("bright"), Prompt("grey"), Prompt("other")]
IMAGES = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def make(interface, **methods):
    component = type("Mine", (interface,), {"__module__": __name__, **methods})
    return component(interface.Config())


def rewarding(score):
    """A reward whose scores are made of the right ones: the mean of red."""
    return make(RewardModel, score=lambda self, images, prompts: score(images[:, 0].mean(dim=(1, 2))))


MEANT = {
    "a list": lambda right: right.tolist(),
    "a tuple": lambda right: tuple(right.tolist()),
    "a list of tensors": list,
    "numpy": lambda right: right.numpy(),
    "numpy fp64": lambda right: right.double().numpy(),
    "fp64": lambda right: right.double(),
    "a gradient": lambda right: right.clone().requires_grad_(),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("meant", MEANT.values(), ids=MEANT)
def test_scores_that_are_plainly_meant_are_taken(meant):
    right = IMAGES[:, 0].mean(dim=(1, 2))
    found = answers.score(rewarding(meant), IMAGES, PROMPTS)
    assert torch.equal(found, right)
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize(
    "meant",
    [
        torch.Tensor.half,
        torch.Tensor.bfloat16,
        torch.Tensor.bool,
        torch.Tensor.int,
        lambda x: x.bool().tolist(),
    ],
)
def test_other_types_of_numbers_are_taken_too(meant):
    reward = rewarding(lambda right: meant((right > 0.5).float()))
    assert answers.score(reward, IMAGES, PROMPTS).tolist() == (IMAGES[:, 0].mean(dim=(1, 2)) > 0.5).tolist()


NOT_MEANT = {
    "a column": (lambda right: right[:, None], r"score returned float32 \[4, 1\] for 4 images"),
    "a scalar": (lambda right: right.mean(), r"score returned float32 \[\] for 4 images"),
    "a float": (lambda right: 0.5, r"score returned float32 \[\] for 4 images"),
    "one too few": (lambda right: right[1:], r"score returned float32 \[3\] for 4 images"),
    "one too many": (lambda right: [0.0, *right.tolist()], r"score returned float32 \[5\] for 4 images"),
    "nothing": (lambda right: None, "score returned NoneType that holds no row of numbers"),
    "words": (lambda right: ["good"] * 4, "score returned list that holds no row of numbers"),
    "by name": (lambda right: dict(enumerate(right)), "score returned dict that holds no row of numbers"),
    "complex": (lambda right: right * 1j, r"score returned complex64 \[4\]"),
    "a pair": (lambda right: (right, {}), "score returned tuple that holds no row of numbers"),
}


@pytest.mark.parametrize(("answer", "complaint"), NOT_MEANT.values(), ids=NOT_MEANT)
def test_other_scores_are_refused_wherever_they_arrive(answer, complaint):
    reward = rewarding(answer)
    judging = Judging(reward, PROMPTS, 4, overlap=False)
    judging.add(IMAGES)
    for ask in (
        judging.scores,
        lambda: score_each(reward, list(IMAGES), PROMPTS, 4),
        lambda: collect(toy_parts(reward=reward, config={"group_size": 4}, reward_batch=4), PROMPTS[:1], 0),
    ):
        with pytest.raises(
            PluginError, match=f"^the reward 'Mine' breaks its contract: {complaint}"
        ) as error:
            ask()
        assert "\n" not in str(error.value)


def test_a_column_is_refused_where_groups_are_as_many_as_images_of_one():
    """P = G = 3: a column of scores would have been broadcast, and trained."""
    reward = make(RewardModel, score=lambda self, images, prompts: images.mean(dim=(1, 2, 3))[:, None])
    with pytest.raises(PluginError, match=r"float32 \[5, 1\] for 5 images"):
        collect(toy_parts(reward=reward), PROMPTS[:3], 0)


def test_a_held_out_reward_is_looked_at_too():
    batch = collect(toy_parts(), PROMPTS, 2)
    watch = Watch({"mine": rewarding(lambda right: right[1:])}, 3, 6, toy_parts().process)
    with pytest.raises(PluginError, match=r"'Mine' breaks its contract: score returned float32 \[5\] for 6"):
        watch.look(batch)


def test_a_held_out_reward_is_not_called_what_the_agreement_of_another_is():
    rewards = {"a": ToyReward(ComponentConfig()), "a_agreement": ToyReward(ComponentConfig())}
    with pytest.raises(RecipeError, match="'a_agreement' is what the agreement of another is called"):
        Watch(rewards, 1, 1, toy_parts().process)


def test_a_score_that_overflows_fp32_is_not_finite():
    with pytest.raises(TrainingError, match="the reward 'Mine' gave inf"):
        collect(toy_parts(reward=rewarding(lambda right: right.double() + 1e300)), PROMPTS, 0)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda total: total, "score_terms returned Tensor, not a pair|score_terms returned float32"),
        (lambda total: (total, [total]), "score_terms returned list for the terms, not a dict"),
        (lambda total: (total, {"a b": total}), "calls a term 'a b'"),
        (lambda total: (total, {1: total}), "calls a term 1"),
        (lambda total: (total, {"a": total[1:]}), r"the term 'a' returned float32 \[3\] for 4 images"),
        (lambda total: (total[1:], {"a": total}), r"score returned float32 \[3\] for 4 images"),
    ],
)
def test_terms_are_looked_at(answer, complaint):
    def score_terms(self, images, prompts):
        return answer(images.mean(dim=(1, 2, 3)))

    reward = make(RewardModel, score=ToyReward.score, score_terms=score_terms)
    with pytest.raises(PluginError, match=complaint):
        answers.score_terms(reward, IMAGES, PROMPTS)


def test_terms_are_the_same_in_every_portion():
    def score_terms(self, images, prompts):
        total = images.mean(dim=(1, 2, 3))
        return total, {prompts[0].text: total}

    judging = Judging(
        make(RewardModel, score=ToyReward.score, score_terms=score_terms), PROMPTS, 2, overlap=False
    )
    judging.add(IMAGES)
    with pytest.raises(PluginError, match=r"its terms are \['dark'\] in one call and \['grey'\] in another"):
        judging.scores()


def test_a_mix_names_the_reward_that_is_wrong(tmp_path):
    code = (
        "from maskrl.interfaces import RewardModel\n"
        "class Short(RewardModel):\n"
        "    def score(self, images, prompts):\n"
        "        return images.mean(dim=(1, 2, 3))[1:]\n"
    )
    (tmp_path / "short.py").write_text(code)
    terms = {"one": {"reward": "short.py:Short"}}
    mix = build("rewards", {"name": "weighted_sum", "terms": terms}, tmp_path)
    with pytest.raises(PluginError, match=r"the reward 'Short' breaks .* float32 \[3\] for 4 images"):
        answers.score_terms(mix, IMAGES, PROMPTS)


# what code of a component raises


@pytest.mark.parametrize("raised", [ValueError("no\nway"), SystemExit(0), AssertionError(), KeyError("x")])
@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_component_raises_names_it_and_the_line(raised, overlap):
    def score(self, images, prompts):
        raise raised

    judging = Judging(make(RewardModel, score=score), PROMPTS, 4, overlap)
    judging.add(IMAGES)
    reason = re.escape(" ".join(f"{type(raised).__name__}: {raised}".split()))
    with pytest.raises(
        PluginError, match=rf"^the reward 'Mine' raised {reason} \(.*test_answers.py, line \d+\)$"
    ):
        judging.scores()


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), torch.OutOfMemoryError("full"), RecipeError("yours")]
)
def test_some_errors_pass_as_they_are(raised):
    with pytest.raises(type(raised)) as error, asking(make(RewardModel, score=ToyReward.score)):
        raise raised
    assert error.value is raised


def test_our_own_components_keep_their_tracebacks():
    with pytest.raises(ZeroDivisionError), asking(KeepAll(KeepAll.Config())):
        _ = 1 / 0


def test_a_constructor_is_code_of_the_component_too(tmp_path):
    code = (
        "from maskrl.interfaces import RewardModel\n"
        "class Late(RewardModel):\n"
        "    def __init__(self, config):\n"
        "        raise OSError('no file')\n"
        "    def score(self, images, prompts): ...\n"
    )
    (tmp_path / "late.py").write_text(code)
    with pytest.raises(
        PluginError, match=r"^the reward 'Late' raised OSError: no file \(.*late.py, line 4\)$"
    ):
        build("rewards", {"name": "late.py:Late"}, tmp_path)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise SystemExit(0)", "the reward 'Bad' raised SystemExit: 0 ("),
        ("return [0.5] * 9", "breaks its contract: score returned float32 [9] for 8 images"),
    ],
)
def test_a_run_ends_with_the_plugins_exit_code_and_its_name(cli, toy_recipe, tmp_path, body, complaint):
    code = (
        "from maskrl.interfaces import RewardModel\n"
        f"class Bad(RewardModel):\n    def score(self, images, prompts):\n        {body}\n"
    )
    (tmp_path / "bad.py").write_text(code)
    result = cli(
        "train",
        "--recipe",
        toy_recipe,
        "--run",
        tmp_path / "run",
        "--set",
        f"reward.name={tmp_path}/bad.py:Bad",
    )
    assert result.code == 3
    assert complaint in result.err.replace("\n", " ")
    assert "Traceback" not in result.err


# filters, reducers, transitions, generators, detectors, prompt sets


@pytest.mark.parametrize(
    ("kept", "complaint"),
    [
        (lambda rewards: rewards.std(dim=1), r"float32 \[2\] instead of Bool \[2\]"),
        (lambda rewards: torch.tensor([True]), r"bool \[1\] instead of Bool \[2\]"),  # would be broadcast
        (lambda rewards: True, r"bool \[\] instead of Bool \[2\]"),
        (lambda rewards: None, "NoneType"),
    ],
)
def test_a_filters_decisions(kept, complaint):
    group_filter = make(KeepAll, keep=lambda self, rewards: kept(rewards))
    with pytest.raises(
        PluginError, match=f"the filter 'Mine' breaks its contract: keep returned {complaint}"
    ):
        collect(toy_parts(filter=group_filter), PROMPTS[:2], 0)


@pytest.mark.parametrize("kept", [[True, False], np.array([True, False])])
def test_decisions_that_are_plainly_meant_are_taken(kept):
    group_filter = make(KeepAll, keep=lambda self, rewards: kept)
    assert answers.keep(group_filter, torch.zeros(2, 3)).tolist() == [True, False]


def measuring(**found):
    return make(KeepAll, metrics=lambda self: found)


def test_a_filters_metrics_cannot_take_the_place_of_others():
    batch = collect(toy_parts(filter=measuring(reward_mean=77.0, filter_x=1, kind=True)), PROMPTS, 0)
    assert batch.metrics["reward_mean"] == pytest.approx(float(batch.rewards.mean()))
    found = {name: value for name, value in batch.metrics.items() if name.startswith("filter_")}
    assert found == {"filter_reward_mean": 77.0, "filter_x": 1.0, "filter_kind": 1.0}
    assert "kind" not in batch.metrics


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        ({"x": "wide"}, "the metric 'x' is 'wide', no number"),
        ({"x": float("inf")}, "the metric 'x' is inf, which is not finite"),
        ({"x": 1.0, "filter_x": 2.0}, "metrics holds 'filter_x' twice"),
    ],
)
def test_a_filters_metrics_are_numbers(found, complaint):
    with pytest.raises(PluginError, match=complaint):
        answers.metrics(measuring(**found))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (torch.arange(3), r"int64 \[3\], not a pair"),
        ((torch.arange(3.0), torch.ones(3)), r"float32 \[3\] for the steps"),
        ((torch.arange(0), torch.ones(0)), r"int64 \[0\] for the steps"),
        ((torch.tensor([0, 0]), torch.ones(2)), "a step twice"),
        ((torch.tensor([1, 3]), torch.ones(2)), r"outside \[0, 3\): \[1, 3\]"),
        ((torch.tensor([-1, 1]), torch.ones(2)), r"outside \[0, 3\): \[-1, 1\]"),
        ((torch.tensor([0, 1]), torch.ones(3)), r"float32 \[3\] for the weights instead of Float \[2\]"),
        ((torch.tensor([0, 1]), torch.tensor([1.0, -1.0])), "negative or not finite"),
        ((torch.tensor([0, 1]), torch.tensor([1.0, torch.nan])), "negative or not finite"),
    ],
)
def test_a_reducers_steps(answer, complaint):
    reducer = make(NoReduction, train_steps=lambda self, t, stream: answer)
    with pytest.raises(
        PluginError, match=f"the reducer 'Mine' breaks its contract: train_steps.*{complaint}"
    ):
        collect(toy_parts(reducer=reducer), PROMPTS, 0)


def test_a_reducers_lists_are_taken():
    answer = ([0, 2], [0.25, 0.75])
    reducer = make(
        StepReducer, rollout_steps=lambda self, t: np.int64(t), train_steps=lambda self, t, stream: answer
    )
    steps, weights = answers.train_steps(reducer, 3, Stream(0))
    assert (steps.dtype, steps.tolist()) == (torch.long, [0, 2])
    assert (weights.dtype, weights.tolist()) == (torch.float32, [0.25, 0.75])
    assert answers.rollout_steps(reducer, 3) == 3


@pytest.mark.parametrize("steps", [0, 4, 2.5, None])
def test_a_reducers_number_of_steps(steps):
    reducer = type("Mine", (NoReduction,), {"rollout_steps": lambda self, num_steps: steps})(
        ComponentConfig()
    )
    with pytest.raises(PluginError, match=rf"rollout_steps\(3\) is {steps}, not a number in 1..3"):
        collect(toy_parts(reducer=reducer), PROMPTS, 0)


@pytest.mark.parametrize("score_batch", [100, 2])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda logp: logp.sum(), "breaks its contract: log_prob returned"),
        (lambda logp: logp.detach(), "log_prob is cut off from the logits"),
        (lambda logp: logp.bfloat16(), r"log_prob returned bfloat16 \[\d\] instead of float32"),
        (lambda logp: logp / "x", r"raised TypeError: .*\(.*test_answers.py, line"),
    ],
)
def test_a_transitions_scores(change, complaint, score_batch):
    def log_prob(self, logits, transition):
        return change(PTheta2(PTheta2.Config()).log_prob(logits, transition))

    parts = toy_parts(
        transition=make(TransitionProb, log_prob=log_prob), score_batch=score_batch, micro_batch=6
    )
    batch = collect(parts, PROMPTS, 0)
    with pytest.raises(PluginError, match=f"the transition 'Mine' .*{complaint.removeprefix('breaks ')}"):
        learn(parts, batch)


def test_a_sound_transition_of_others_is_checkpointed_too():
    """Activation checkpointing ends a second pass by an exception of its own, which is nobody's fault."""
    parts = toy_parts(
        transition=make(
            TransitionProb, log_prob=lambda self, *given: PTheta2(PTheta2.Config()).log_prob(*given)
        ),
        score_batch=2,
        micro_batch=6,
    )
    assert learn(parts, collect(parts, PROMPTS, 0))["grad_norm"] > 0


def test_scored_returns_as_many_images():
    def scored(self, trajectory, stream):
        return trajectory.select(torch.tensor([0]))

    transition = make(PTheta2, scored=scored)
    with pytest.raises(PluginError, match="scored returned no Trajectory of 3 images"):
        collect(toy_parts(transition=transition), PROMPTS, 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda images: images[1:],
            r"decode returned float32 \[11, 3, 1, 6\] instead of Float \[12, 3, 1, 6\]",
        ),
        (lambda images: images[..., 1:], r"decode returned float32 \[12, 3, 1, 5\]"),
        (lambda images: (images * 255).byte(), "decode returned uint8"),
        (lambda images: images * 2 - 1, r"pixels in \[-1, 1\]"),
        (lambda images: images / 0 * 0, r"pixels in \[nan, nan\]"),
        (lambda images: images / None, "raised TypeError"),
    ],
)
def test_a_generators_pixels(change, complaint):
    decode = lambda self, tokens, condition: change(ToyGenerator.decode(self, tokens, condition))  # noqa: E731
    generator = make(ToyGenerator, decode=decode)
    for painter in (generator, Wrapper(generator)):
        with pytest.raises(PluginError, match=f"the generator 'Mine' .*{complaint}"):
            collect(toy_parts(painter), PROMPTS, 0)


def test_pixels_of_other_precision_are_taken():
    decode = lambda self, *given: ToyGenerator.decode(self, *given).double()  # noqa: E731
    generator = make(ToyGenerator, decode=decode)
    batch = collect(toy_parts(generator), PROMPTS, 0)
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.images, collect(toy_parts(), PROMPTS, 0).images)


def detecting(found, color="red"):
    return make(
        Detector,
        classes=("cat",),
        colors=("red",),
        detect=lambda self, image: found,
        color=lambda self, image, detection, class_name: color,
    )


def test_a_detectors_answers():
    sound = Detection((0, 0, 1, 1), 0.5, np.ones((2, 2), dtype=bool))
    found = detecting({"cat": [sound]})
    assert answers.detect(found, IMAGES[0]) == {"cat": [sound]}
    assert answers.color(found, IMAGES[0], sound, "cat") == "red"
    for wrong in ([sound], {"cat": [("box", 0.5)]}, {"cat": [Detection((0, 0, 1, 1), 50.0, sound.mask)]}):
        with pytest.raises(PluginError, match="the detector 'Mine' breaks its contract: detect"):
            answers.detect(detecting(wrong), IMAGES[0])
    with pytest.raises(PluginError, match="color returned 'crimson', which is not in 'colors'"):
        answers.color(detecting({}, "crimson"), IMAGES[0], sound, "cat")


@pytest.mark.parametrize("wrong", [["a cat"], [Prompt(" ")], [Prompt(3)]])
def test_a_prompt_sets_prompts(wrong):
    with pytest.raises(PluginError, match="the prompt set 'Mine' breaks its contract: prompts holds"):
        answers.prompts(make(PromptSet, prompts=lambda self: wrong))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [((1, float("nan")), "not finite"), (3, "not a pair"), (("many", 2.0), "'many', no number")],
)
def test_a_rewards_cost(answer, complaint):
    reward = type("Mine", (ToyReward,), {"cost": classmethod(lambda cls, config: answer)})
    with pytest.raises(PluginError, match=f"the reward 'Mine' breaks its contract: .*{complaint}"):
        answers.cost(reward, ComponentConfig())
