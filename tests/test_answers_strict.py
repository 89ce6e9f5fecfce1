"""Answers that end a run with a line and a name, where they once ended it with a traceback, or not at all."""

from dataclasses import replace

import pytest
import torch
from toy import ToyGenerator, ToyReward, toy_halves

from maskrl.errors import PluginError
from maskrl.filters.keep_all import KeepAll
from maskrl.grpo import answers
from maskrl.grpo.update import collect, learn
from maskrl.interfaces import RewardModel
from maskrl.reducers.none import NoReduction
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Prompt, Trajectory

PROMPTS = [Prompt("dark"), Prompt("bright")]


def make(interface, **methods):
    component = type("Mine", (interface,), {"__module__": __name__, **methods})
    return component(interface.Config())


def refused(complaint, **changes):
    """One update with a component that is at fault."""
    halves = toy_halves(**changes)
    with pytest.raises(PluginError, match=f"'Mine' breaks its contract: .*{complaint}") as error:
        learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert "\n" not in str(error.value)


def after(method, change):
    original = getattr(ToyGenerator, method)
    return {method: lambda self, *given, **named: change(original(self, *given, **named))}


def spoil(which):
    """Write into what ``logits`` was handed, once it has computed."""

    def logits(self, tokens, condition, step, guidance, positions=None):
        found = ToyGenerator.logits(self, tokens, condition, step, guidance, positions)
        given = {"tokens": tokens, "step": step.t, "guidance": guidance, "positions": positions}
        given[which].copy_(given[which].clone())
        return found

    return {"logits": logits}


def everywhere(self, tokens, condition, step, guidance, positions=None):
    return ToyGenerator.logits(self, tokens, condition, step, guidance).flatten(0, 1)


GENERATORS = {
    "no gradient": (after("logits", torch.Tensor.detach), "logits are cut off from the parameters"),
    "all positions": (
        {"logits": everywhere},
        r"logits at some positions are float64 \[\d+, 4\], not Float \[\d+, 4\]",
    ),
    "a condition that is none": (
        {"encode": lambda self, prompts: None},
        "encode returned NoneType, which is no Cond",
    ),
    "a tensor for a condition": (after("encode", lambda found: found.numbers), "encode returned int64"),
    "no prefill": ({"prefill": lambda self, condition: None}, "prefill returned NoneType"),
    "tokens overwritten": (spoil("tokens"), "logits changed the tokens that it was handed"),
    "step overwritten": (spoil("step"), "logits changed the step"),
    "positions overwritten": (spoil("positions"), "logits changed the positions"),
}


@pytest.mark.parametrize(("changes", "complaint"), GENERATORS.values(), ids=GENERATORS)
def test_a_generators_answers(changes, complaint):
    refused(complaint, generator=make(ToyGenerator, **changes))


def spoiled(name):
    def log_prob(self, logits, transition):
        found = PTheta2.log_prob(self, logits, transition)
        with torch.no_grad():
            given = logits if name == "logits" else getattr(transition, name)
            given.copy_(given.clone())
        return found

    return {"log_prob": log_prob}


def estimating(change):
    return {"scored": lambda self, trajectory, stream: change(trajectory)}


def zero_ranks(trajectory):
    trajectory.reveal_rank.zero_()
    return trajectory


TRANSITIONS = {
    "state overwritten": (spoiled("state"), "log_prob changed the state"),
    "proposals overwritten": (spoiled("proposals"), "log_prob changed the proposals"),
    "logits overwritten": (spoiled("logits"), "log_prob changed the logits"),
    "other images": (
        estimating(lambda x: x.select(torch.tensor([2, 1, 0]))),
        "other images than it was given",
    ),
    "trajectory overwritten": (estimating(zero_ranks), "scored changed the reveal_rank"),
    "a short rank": (
        estimating(lambda x: replace(x, reveal_rank=x.reveal_rank[..., 1:])),
        r"scored returned int64 \[3, 3, 5\] as 'reveal_rank' instead of int64 \[3, 3, 6\]",
    ),
    "no entropy": (estimating(lambda x: replace(x, entropy=None)), "scored returned NoneType as 'entropy'"),
    "ranks as floats": (
        estimating(lambda x: replace(x, reveal_rank=x.reveal_rank.float())),
        "scored returned float32",
    ),
    "tau of other steps": (estimating(lambda x: replace(x, tau=x.tau[1:])), r"float32 \[2\] as 'tau'"),
    "sets of other tokens": (estimating(lambda x: replace(x, sets=x.sets[:, :, 1:])), r"as 'sets', of other"),
}


@pytest.mark.parametrize(("changes", "complaint"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_transitions_answers(changes, complaint):
    refused(complaint, transition=make(PTheta2, **changes))


def test_a_trajectory_of_ones_own_needs_no_sets():
    def scored(self, trajectory, stream):
        kept = {name: value for name, value in vars(trajectory).items() if name != "sets"}
        return Trajectory(**kept)

    halves = toy_halves(transition=make(PTheta2, scored=scored))
    own = learn(halves.learner, batch := collect(halves.actor, PROMPTS, 0))
    assert batch.trajectory.sets is None
    plain = toy_halves(transition=make(PTheta2))
    assert own["grad_norm"] == learn(plain.learner, collect(plain.actor, PROMPTS, 0))["grad_norm"]


class Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no way back")


def overwritten_for_the_way_back(logits, transition):
    powers = logits.float().exp()
    logs = powers.sum(-1, keepdim=True).log()
    powers.mul_(2)  # that sum and logarithm need it is PyTorch's to notice, on the way back
    return transition.sum_rows((powers / 2).log().mean(-1) - logs[:, 0])


@pytest.mark.parametrize(
    ("log_prob", "said"),
    [
        (
            lambda self, *given: Backwards.apply(PTheta2.log_prob(self, *given)),
            r"the transition 'Mine' raised ValueError: no way back \(.*strict.py, line \d+\)",
        ),
        (
            lambda self, *given: overwritten_for_the_way_back(*given),
            "the transition 'Mine' raised RuntimeError: one of the variables needed for gradient",
        ),
    ],
)
def test_the_way_back_is_a_components_code_too(log_prob, said):
    halves = toy_halves(transition=make(PTheta2, log_prob=log_prob))
    with pytest.raises(PluginError, match=said):
        learn(halves.learner, collect(halves.actor, PROMPTS, 0))


META = torch.ones(6, device="meta")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"reward": make(RewardModel, score=lambda self, images, prompts: META)},
            "score returned .*without its numbers",
        ),
        (
            {"reward": make(RewardModel, score=lambda self, x, prompts: x[:, 0, 0, 0].to_sparse())},
            r"score returned float32 \[5\] without its numbers \(cpu, torch.sparse",
        ),
        (
            {"filter": make(KeepAll, keep=lambda self, rewards: META[:2].bool())},
            "keep returned .*without its numbers",
        ),
        (
            {"reducer": make(NoReduction, train_steps=lambda self, t, stream: (torch.arange(t), META[:t]))},
            "train_steps returned .*without its numbers",
        ),
        (
            {"reward": make(ToyReward, score=lambda self, x, prompts: x.mul_(0.5).mean(dim=(1, 2, 3)))},
            "score.* changed the images",
        ),
        (
            {"filter": make(KeepAll, keep=lambda self, x: x.sub_(1).mean(dim=1) < 9)},
            "keep changed the rewards",
        ),
        ({"filter": make(KeepAll, metrics=lambda self: None)}, "metrics returned NoneType, not a dict"),
        ({"filter": make(KeepAll, metrics=lambda self: [("x", 1.0)])}, "metrics returned list, not a dict"),
        ({"filter": make(KeepAll, metrics=lambda self: {3: 1.0})}, "metrics calls a number 3"),
        ({"filter": make(KeepAll, metrics=lambda self: {"a\nb": 1.0})}, "metrics calls a number"),
        ({"filter": make(KeepAll, metrics=lambda self: {"x": 10**5000})}, "'x' is of type int, no number"),
    ],
)
def test_answers_of_the_others(changes, complaint):
    refused(complaint, **changes)


def test_a_state_that_is_too_deep_is_no_json():
    def state_dict(self):
        state = {}
        for _ in range(10**5):
            state = {"a": state}
        return state

    with pytest.raises(PluginError, match="state_dict cannot be saved as JSON: maximum recursion"):
        answers.filter_state(make(KeepAll, state_dict=state_dict))


@pytest.mark.parametrize("weight", [1.0, 0.0, 0.1])
def test_the_weights_of_steps_sum_to_1(weight):
    reducer = make(
        NoReduction, train_steps=lambda self, t, stream: (torch.arange(t), torch.full((t,), weight))
    )
    refused(f"train_steps' weights sum to {3 * weight:g}, not to 1: divide", reducer=reducer)
