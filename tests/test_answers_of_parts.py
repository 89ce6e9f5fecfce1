"""What filters, reducers, transitions, generators, detectors and prompt sets answer is looked at too."""

import numpy as np
import pytest
import torch
from toy import ToyGenerator, ToyReward, toy_halves

from maskrl.component import ComponentConfig
from maskrl.errors import PluginError, TrainingError
from maskrl.filters.keep_all import KeepAll
from maskrl.geneval import answers as detectors
from maskrl.grpo import answers
from maskrl.grpo.update import collect, learn
from maskrl.interfaces import Detection, Detector, PromptSet, StepReducer, TransitionProb
from maskrl.reducers.none import NoReduction
from maskrl.runtime import checkpoint, prompts
from maskrl.runtime.wrapper import Wrapper
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Prompt, Stream

PROMPTS = [Prompt("dark"), Prompt("bright"), Prompt("grey"), Prompt("other")]
IMAGES = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def make(interface, **methods):
    component = type("Mine", (interface,), {"__module__": __name__, **methods})
    return component(interface.Config())


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
        collect(toy_halves(filter=group_filter).actor, PROMPTS[:2], 0)


@pytest.mark.parametrize("kept", [[True, False], np.array([True, False])])
def test_decisions_that_are_plainly_meant_are_taken(kept):
    group_filter = make(KeepAll, keep=lambda self, rewards: kept)
    assert answers.keep(group_filter, torch.zeros(2, 3)).tolist() == [True, False]


def measuring(**found):
    return make(KeepAll, metrics=lambda self: found)


def test_a_filters_metrics_cannot_take_the_place_of_others():
    batch = collect(toy_halves(filter=measuring(reward_mean=77.0, filter_x=1, kind=True)).actor, PROMPTS, 0)
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


@pytest.mark.parametrize("state", [{"seen": torch.ones(1)}, {"seen": float("nan")}])
def test_a_filters_state_is_json(state):
    with pytest.raises(
        PluginError, match="the filter 'Mine' breaks its contract: state_dict cannot be saved"
    ):
        answers.filter_state(make(KeepAll, state_dict=lambda self: state))


def test_a_filter_whose_state_is_no_dict_is_refused():
    with pytest.raises(PluginError, match="state_dict returned list, not a dict"):
        answers.filter_state(make(KeepAll, state_dict=lambda self: [1, 2]))


@pytest.mark.parametrize(
    ("raised", "error", "complaint"),
    [
        (
            RuntimeError("shared"),
            PluginError,
            r"the generator 'Mine' raised RuntimeError: shared \(.*parts.py, line",
        ),
        (OSError(28, "No space left"), TrainingError, "cannot write the checkpoint .*: No space left"),
    ],
)
def test_a_generator_that_cannot_be_saved(tmp_path, raised, error, complaint):
    def save(self, folder):
        raise raised

    with pytest.raises(error, match=complaint):
        checkpoint.save(tmp_path, 1, make(ToyGenerator, save=save), {}, {}, keep=1)


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
        collect(toy_halves(reducer=reducer).actor, PROMPTS, 0)


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
        collect(toy_halves(reducer=reducer).actor, PROMPTS, 0)


@pytest.mark.parametrize("score_batch", [100, 2])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda logp: logp.sum(), "breaks its contract: log_prob returned"),
        (lambda logp: logp.detach(), "log_prob is cut off from the logits"),
        (lambda logp: logp.bfloat16(), r"log_prob returned bfloat16 \[\d\] instead of float32"),
        (lambda logp: logp / "x", r"raised TypeError: .*\(.*parts.py, line"),
    ],
)
def test_a_transitions_scores(change, complaint, score_batch):
    def log_prob(self, logits, transition):
        return change(PTheta2(PTheta2.Config()).log_prob(logits, transition))

    halves = toy_halves(
        transition=make(TransitionProb, log_prob=log_prob), score_batch=score_batch, micro_batch=6
    )
    batch = collect(halves.actor, PROMPTS, 0)
    with pytest.raises(PluginError, match=f"the transition 'Mine' .*{complaint.removeprefix('breaks ')}"):
        learn(halves.learner, batch)


def test_a_sound_transition_of_others_is_checkpointed_too():
    """Activation checkpointing ends a second pass by an exception of its own, which is nobody's fault."""
    halves = toy_halves(
        transition=make(
            TransitionProb, log_prob=lambda self, *given: PTheta2(PTheta2.Config()).log_prob(*given)
        ),
        score_batch=2,
        micro_batch=6,
    )
    assert learn(halves.learner, collect(halves.actor, PROMPTS, 0))["grad_norm"] > 0


def test_scored_returns_as_many_images():
    def scored(self, trajectory, stream):
        return trajectory.select(torch.tensor([0]))

    transition = make(PTheta2, scored=scored)
    with pytest.raises(PluginError, match="scored returned no Trajectory of 3 images"):
        collect(toy_halves(transition=transition).actor, PROMPTS, 0)


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
            collect(toy_halves(painter).actor, PROMPTS, 0)


@pytest.mark.parametrize(
    ("method", "change", "complaint"),
    [
        (
            "logits",
            lambda logits: logits[:, 1:],
            r"breaks its contract: logits .* are float64 \[\d+, 3\], not Float",
        ),
        ("logits", lambda logits: logits[None], "breaks its contract: logits at some positions are float64"),
        (
            "logits",
            lambda logits: logits.argmax(dim=-1),
            "breaks its contract: logits at some positions are int64",
        ),
        ("logits", lambda logits: logits / None, r"raised TypeError: .*\(.*parts.py, line"),
        ("encode", lambda condition: condition / None, r"raised TypeError: .*\(.*parts.py, line"),
        ("prefill", lambda condition: condition / None, r"raised TypeError: .*\(.*parts.py, line"),
    ],
)
def test_a_generators_conditions_and_logits(method, change, complaint):
    original = getattr(ToyGenerator, method)

    def changed(self, *given, **named):
        return change(original(self, *given, **named))

    with pytest.raises(PluginError, match=f"^the generator 'Mine' {complaint}"):
        collect(toy_halves(make(ToyGenerator, **{method: changed})).actor, PROMPTS, 0)


def test_pixels_of_other_precision_are_taken():
    decode = lambda self, *given: ToyGenerator.decode(self, *given).double()  # noqa: E731
    generator = make(ToyGenerator, decode=decode)
    batch = collect(toy_halves(generator).actor, PROMPTS, 0)
    assert batch.images.dtype == torch.float32
    assert torch.equal(batch.images, collect(toy_halves().actor, PROMPTS, 0).images)


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
    assert detectors.detect(found, IMAGES[0]) == {"cat": [sound]}
    assert detectors.color(found, IMAGES[0], sound, "cat") == "red"
    for wrong in ([sound], {"cat": [("box", 0.5)]}, {"cat": [Detection((0, 0, 1, 1), 50.0, sound.mask)]}):
        with pytest.raises(PluginError, match="the detector 'Mine' breaks its contract: detect"):
            detectors.detect(detecting(wrong), IMAGES[0])
    with pytest.raises(PluginError, match="color returned 'crimson', which is not in 'colors'"):
        detectors.color(detecting({}, "crimson"), IMAGES[0], sound, "cat")


@pytest.mark.parametrize("wrong", [["a cat"], [Prompt(" ")], [Prompt(3)]])
def test_a_prompt_sets_prompts(wrong):
    with pytest.raises(PluginError, match="the prompt set 'Mine' breaks its contract: prompts holds"):
        prompts.ask(make(PromptSet, prompts=lambda self: wrong))


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [((1, float("nan")), "not finite"), (3, "not a pair"), (("many", 2.0), "'many', no number")],
)
def test_a_rewards_cost(answer, complaint):
    reward = type("Mine", (ToyReward,), {"cost": classmethod(lambda cls, config: answer)})
    with pytest.raises(PluginError, match=f"the reward 'Mine' breaks its contract: .*{complaint}"):
        answers.cost(reward, ComponentConfig())
