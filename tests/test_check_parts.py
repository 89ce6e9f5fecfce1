"""The contract checks of transitions, filters and reducers pass what is sound, and name what is not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import NOISE, broken, make, mine, refuse

from maskrl import testing
from maskrl.errors import PluginError, RecipeError
from maskrl.filters.keep_all import KeepAll
from maskrl.filters.std_percentile import StdPercentile
from maskrl.interfaces import GroupFilter, StepReducer, TransitionProb
from maskrl.reducers.computational import Computational
from maskrl.reducers.none import NoReduction
from maskrl.reducers.unmasking import Unmasking
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2

THRESHOLDS = [make(PTheta1, threshold=name) for name in ("current", "recorded", "kept_set", "border")]


@pytest.mark.parametrize("transition", [make(Ar), make(PTheta2), *THRESHOLDS])
@settings(max_examples=10)
@given(num_tokens=st.integers(2, 8), num_codes=st.integers(2, 9))
def test_the_built_in_transitions_pass(transition, num_tokens, num_codes):
    testing.check_transition(transition, num_tokens, num_codes)


def test_a_transition_that_says_it_needs_the_revealed_alone_and_looks_at_others_is_named():
    class Wrong(Ar):
        needs_remasked = False

    with pytest.raises(PluginError, match="needs_remasked is False, but log_prob is another"):
        testing.check_transition(Wrong(Wrong.Config()))


def transition(change):
    def log_prob(self, logits, taken):
        return change(PTheta2(PTheta2.Config()).log_prob(logits, taken))

    return {"log_prob": log_prob}


def seen(change):
    def log_prob(self, logits, taken):
        return PTheta2(PTheta2.Config()).log_prob(*change(logits, taken))

    return {"log_prob": log_prob}


def raw(self, logits, taken):
    """The logits, not the log-probabilities."""
    picked = logits.gather(1, taken.pack(taken.proposals)[:, None])[:, 0]
    scored = picked.to(max_precision(logits)).masked_fill(~taken.pack(taken.revealed), 0.0)
    return taken.sum_rows(scored) - 100


def in_its_own_precision(self, logits, taken):
    """The softmax in bf16, where the logits are."""
    logp = logits.log_softmax(-1).gather(1, taken.pack(taken.proposals)[:, None])[:, 0]
    return taken.sum_rows(logp.masked_fill(~taken.pack(taken.revealed), 0.0)).to(max_precision(logits))


def max_precision(logits):
    return torch.promote_types(logits.dtype, torch.float32)


def of_the_best(self, logits, taken):
    """Of the likeliest codes, whatever was proposed."""
    return PTheta2(PTheta2.Config()).log_prob(logits, replace(taken, proposals=at_best(logits, taken)))


def at_best(logits, taken):
    return taken.proposals.masked_scatter(taken.masked, logits.argmax(dim=-1))


def of_the_first_step(self, logits, taken):
    return PTheta2(PTheta2.Config()).log_prob(logits * (1 + taken.step.t[0]), taken)


def log_p(logits, taken):
    precise = logits.to(max_precision(logits))
    return precise.log_softmax(-1).gather(1, taken.pack(taken.proposals)[:, None])[:, 0]


def of_the_first_revealed(self, logits, taken):
    return taken.sum_rows(log_p(logits, taken).masked_fill(taken.pack(taken.reveal_rank) != 0, 0.0))


def seen_by_row(change):
    def log_prob(self, logits, taken):
        return change(PTheta2(PTheta2.Config()).log_prob(logits, taken), taken.revealed.sum(dim=1))

    return {"log_prob": log_prob}


def without_normaliser(self, logits, taken):
    precise = logits.to(max_precision(logits))
    picked = precise.gather(1, taken.pack(taken.proposals)[:, None])[:, 0]
    scored = picked - precise.detach().logsumexp(-1)
    return taken.sum_rows(scored.masked_fill(~taken.pack(taken.revealed), 0.0))


def log_of_softmax(self, logits, taken):
    logp = logits.to(max_precision(logits)).softmax(-1).log()
    scored = logp.gather(1, taken.pack(taken.proposals)[:, None])[:, 0]
    return taken.sum_rows(scored.masked_fill(~taken.pack(taken.revealed), 0.0))


def overwrite(logits, taken):
    with torch.no_grad():
        logits *= 0.5
    return logits, taken


def with_their_order(self, logits, taken):
    """Also how likely the order was in which they were revealed, up to its denominators."""
    logp = log_p(logits, taken)
    everywhere = taken.unpack(logp, -1e9)
    order = everywhere.masked_fill(~taken.revealed, 0.0).sum(dim=1)
    order = order - everywhere.logsumexp(dim=1) * taken.revealed.sum(dim=1)
    return taken.sum_rows(logp.masked_fill(~taken.pack(taken.revealed), 0.0)) + order.clamp(max=0)


def test_a_sound_transition_may_know_the_order():
    testing.check_transition(mine(TransitionProb, log_prob=with_their_order))


@pytest.mark.parametrize("change", [lambda logp: logp, lambda logp: logp / 2, lambda logp: logp.double()])
def test_a_sound_transition_passes(change):
    testing.check_transition(mine(TransitionProb, **transition(change)))


TRANSITIONS = {
    "of all rows": (transition(torch.sum), r"returned float32 \[\] instead of float32 \[3\]"),
    "fp32 of fp64": (transition(torch.Tensor.float), "returned float32"),
    "fp16": (transition(torch.Tensor.half), "returned float16"),
    "infinite": (transition(lambda x: x - torch.inf), "not finite"),
    "no gradient": (transition(lambda x: x * 0), "gradient of log_prob is 0"),
    "detached": (transition(torch.Tensor.detach), "cut off from the logits"),
    "batch mean": (transition(lambda x: x - x.mean() / 2), "depends on the other rows"),
    "step of the first row": ({"log_prob": of_the_first_step}, "depends on the other rows"),
    "the first revealed": (
        {"log_prob": of_the_first_revealed},
        "does not depend on the logits of some code",
    ),
    "of the batch's longest": (seen_by_row(lambda logp, n: logp / n.max()), "depends on the other rows"),
    "normaliser cut off": ({"log_prob": without_normaliser}, "part is cut off"),
    "log of the softmax": (
        {"log_prob": log_of_softmax},
        "log_prob of large logits returned a number that is not",
    ),
    "infinite where unlikely": (transition(lambda x: x.masked_fill(x < -60, -torch.inf)), "of large logits"),
    "32 rows": (transition(lambda x: x[torch.arange(len(x)) % 32]), "is another in a batch of 33 rows"),
    "flipped": (transition(torch.neg), "a probability above 1"),
    "flipped and lowered": (transition(lambda x: -x - 100), "does not rise"),
    "a probability": (transition(torch.exp), "a probability above 1"),
    "raw logits": ({"log_prob": raw}, "which changes no probability"),
    "proposals ignored": ({"log_prob": of_the_best}, "does not rise|does not depend on what was proposed"),
    "bf16 inside": ({"log_prob": in_its_own_precision}, "not computed in fp32"),
    "logits overwritten": (seen(overwrite), "changed the logits|log_prob has noise"),
    "noise": (transition(lambda x: x - torch.rand(1, generator=NOISE).to(x.dtype)), "log_prob has noise"),
    "global noise": (transition(lambda x: x - torch.rand(1)), "global random numbers"),
    "raises": ({"log_prob": refuse}, "raised ValueError: no"),
}


@pytest.mark.parametrize(("changes", "complaint"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_transition_that_breaks_its_contract_is_named(changes, complaint):
    with torch.random.fork_rng(devices=[]):
        broken(testing.check_transition, mine(TransitionProb, **changes), complaint)


def hide(trajectory, noise):
    """Score each image as one step that reveals what the noise hides, and its first token."""
    hidden = (noise < 0.5)[:, None]
    hidden[..., 0] = True
    return replace(
        trajectory.select(torch.arange(trajectory.num_images)),
        state=torch.where(hidden, trajectory.mask_id, trajectory.tokens[:, None]),
        proposals=trajectory.tokens[:, None],
        reveal_rank=torch.where(hidden, hidden.long().cumsum(dim=-1) - 1, -1),
        floored=torch.zeros_like(hidden),
        threshold=trajectory.threshold[:, :1],
        entropy=trajectory.entropy[:, :1],
        tau=trajectory.tau[:1],
        sets=None,
    )


def test_an_estimator_of_its_own_steps_passes():
    def scored(self, trajectory, stream):
        return hide(trajectory, torch.rand(trajectory.tokens.shape, generator=stream.generator()))

    testing.check_transition(mine(PTheta2, scored=scored))


def test_an_estimator_must_take_its_noise_from_the_stream():
    def scored(self, trajectory, stream):
        return hide(trajectory, torch.rand(trajectory.tokens.shape))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        broken(
            testing.check_transition, mine(PTheta1, scored=scored), "scored uses the global random numbers"
        )


def test_an_estimator_must_repeat_itself():
    def scored(self, trajectory, stream):
        return hide(trajectory, torch.rand(trajectory.tokens.shape, generator=NOISE))

    broken(testing.check_transition, mine(PTheta1, scored=scored), "noise that is not the stream's")


def test_an_estimator_must_keep_the_images():
    broken(
        testing.check_transition,
        mine(PTheta1, scored=lambda self, trajectory, stream: trajectory.select(torch.tensor([0]))),
        "scored returned no Trajectory of 3 images",
    )


@pytest.mark.parametrize("values", [{}, {"percentile": 50, "warmup": 4}])
def test_the_built_in_filters_pass(values):
    testing.check_filter(make(StdPercentile, **values))
    testing.check_filter(make(KeepAll))


class Filter(GroupFilter):
    """Keeps groups above the mean spread of the rounds seen."""

    def __init__(self, config):
        super().__init__(config)
        self.seen: list[float] = []

    def keep(self, rewards):
        self.seen.append(float(rewards.std(dim=1).mean()))
        return rewards.std(dim=1) > sum(self.seen) / len(self.seen)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = list(state["seen"])

    def metrics(self):
        return {"spread": self.seen[-1]}


SOUND = {
    "as it is": {},
    "a list": {"keep": lambda self, rewards: Filter.keep(self, rewards).tolist()},
    "an array": {"keep": lambda self, rewards: Filter.keep(self, rewards).numpy()},
    "integers": {"metrics": lambda self: {"filter_rounds": len(self.seen), "filter_any": torch.tensor(True)}},
}


@pytest.mark.parametrize("changes", SOUND.values(), ids=SOUND)
def test_a_sound_filter_passes(changes):
    """What training takes is sound."""
    testing.check_filter(mine(Filter, **changes))


def keep(self, rewards):
    return Filter.keep(self, rewards.mul_(2))


FILTERS = {
    "no decision": ({"keep": lambda self, rewards: rewards.std(dim=1)}, "keep returned float32"),
    "of images": ({"keep": lambda self, rewards: rewards > 0}, r"bool \[8, 4\] instead of Bool \[8\]"),
    "a single yes": ({"keep": lambda self, rewards: [True]}, r"keep returned bool \[1\]"),
    "chance in metrics": ({"metrics": lambda self: {"x": float(torch.rand(1))}}, "metrics uses the global"),
    "a pair of metrics": ({"metrics": lambda self: [("x", 1.0)]}, "metrics returned list, not a dict"),
    "rewards changed": ({"keep": keep}, "keep changed the rewards"),
    "chance": ({"keep": lambda self, rewards: torch.rand(len(rewards)) > 0.5}, "global random numbers"),
    "tensor": ({"state_dict": lambda self: {"seen": torch.ones(2)}}, "cannot be saved as JSON"),
    "not a number": ({"state_dict": lambda self: {"seen": [float("nan")]}}, "cannot be saved as JSON"),
    "state not saved": (
        {"state_dict": lambda self: {}, "load_state_dict": lambda self, state: None},
        "decides otherwise|other metrics",
    ),
    "state not loaded": ({"load_state_dict": lambda self, state: None}, "another state_dict"),
    "part of the state": (
        {"load_state_dict": lambda self, state: self.seen.extend(state["seen"][1:])},
        "another state",
    ),
    "a word": ({"metrics": lambda self: {"spread": "wide"}}, "no number|not finite"),
    "infinite": ({"metrics": lambda self: {"spread": float("inf")}}, "no number|not finite"),
    "raises": ({"keep": refuse}, "raised ValueError: no"),
}


@pytest.mark.parametrize(("changes", "complaint"), FILTERS.values(), ids=FILTERS)
def test_a_filter_that_breaks_its_contract_is_named(changes, complaint):
    with torch.random.fork_rng(devices=[]):
        broken(testing.check_filter, mine(Filter, **changes), complaint)


def test_the_built_in_reducers_pass():
    testing.check_reducer(make(NoReduction))
    for component in (Computational, Unmasking):
        for steps in (1, 20):
            testing.check_reducer(make(component, steps=steps))
    testing.check_reducer(make(Computational, steps=3, which="last"))


def refuse_all(num_steps):
    raise RecipeError("reducer.steps exceeds num_steps")


def reducer(
    rollout=lambda num_steps: num_steps, steps=lambda t: torch.arange(t), weights=lambda t: torch.ones(t) / t
):
    methods = {
        "rollout_steps": lambda self, num_steps: rollout(num_steps),
        "train_steps": lambda self, rollout_steps, stream: (steps(rollout_steps), weights(rollout_steps)),
    }
    return make(type("Mine", (StepReducer,), methods))


def one(num_steps):
    return torch.ones(1)


def refuse_few(num_steps):
    if num_steps < 100:
        raise RecipeError("at least 100 steps")
    return num_steps


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"steps": lambda t: list(range(t)), "weights": lambda t: [1 / t] * t},
        {"steps": lambda t: np.arange(t), "weights": lambda t: np.ones(t) / t},
        {"steps": lambda t: torch.arange(t).int(), "weights": lambda t: torch.ones(t).double() / t},
        {"rollout": np.int64},
        {"rollout": refuse_few},
    ],
)
def test_a_sound_reducer_passes(behaviour):
    """What training takes is sound."""
    testing.check_reducer(reducer(**behaviour))


def test_a_pair_is_a_tuple():
    steps = {"train_steps": lambda self, t, stream: [torch.arange(t), torch.ones(t) / t]}
    broken(testing.check_reducer, mine(NoReduction, **steps), "train_steps returned list, not a pair")


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ({"rollout": lambda t: t + 1}, r"rollout_steps\(1\) is 2"),
        ({"rollout": lambda t: 0}, r"rollout_steps\(1\) is 0"),
        ({"steps": lambda t: torch.arange(t) + 1}, r"outside \[0, 1\)"),
        ({"steps": lambda t: torch.zeros(t).long()}, "names a step twice"),
        ({"steps": lambda t: torch.arange(float(t))}, "train_steps returned float32"),
        ({"weights": lambda t: torch.ones(t + 1)}, "for the weights instead of Float"),
        ({"weights": lambda t: -torch.ones(t)}, "a weight that is negative"),
        ({"weights": lambda t: torch.ones(t) / 0}, "not finite"),
        ({"steps": lambda t: torch.randint(t, (1,)), "weights": one}, "global random numbers"),
        (
            {"steps": lambda t: torch.randint(t, (1,), generator=NOISE), "weights": one},
            "noise that is not the stream's",
        ),
        ({"weights": lambda t: torch.rand(t, generator=NOISE).softmax(0)}, "noise that is not the stream's"),
        ({"weights": lambda t: torch.ones(t)}, "weights sum to 2, not to 1"),
        ({"weights": lambda t: torch.ones(t) / (t + 1)}, "weights sum to 0.5, not to 1"),
        ({"rollout": lambda t: float(t)}, r"rollout_steps\(1\) is 1.0"),
        ({"rollout": lambda t: 1 + int(torch.randint(t, (1,), generator=NOISE))}, "rollout_steps has noise"),
        ({"rollout": refuse_all}, "refuses every number of steps"),
        ({"steps": lambda t: torch.arange(0)}, "for the steps instead of Long"),
    ],
)
def test_a_reducer_that_breaks_its_contract_is_named(behaviour, complaint):
    broken(testing.check_reducer, reducer(**behaviour), complaint)
