"""A policy learns only from what it has painted: the record tells, though the ratio is 1 by construction."""

from dataclasses import replace

import pytest
import torch
from toy import ToyGenerator, toy_halves

from maskrl.errors import PluginError, TrainingError
from maskrl.grpo.painted import policy_gap
from maskrl.grpo.update import collect, learn
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Prompt

PROMPTS = [Prompt("dark"), Prompt("bright"), Prompt("left")]


def make(component, **methods):
    return type("Mine", (component,), {"__module__": __name__, **methods})(component.Config())


def one_update(**changes):
    halves = toy_halves(**changes)
    return learn(halves.learner, collect(halves.actor, PROMPTS, 0))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"generator": ToyGenerator(ToyGenerator.Config(dtype="float32"))},
        {"micro_batch": 1},
        {"micro_batch": 7, "score_batch": 2},
        {"sampling": {"guidance_train": 1.5}},
        {"sampling": {"value_temperature": 0.7}},
        {"config": {"num_updates": 3}},
        {"sampling": {"tau_init": 3.0}},
        {"sampling": {"guidance_train": 1.5, "guidance_rule": "linear"}},
        {
            "generator": make(
                ToyGenerator, confidence=lambda self, logits, proposals, step: -logits.amax(dim=1)
            ),
            "sampling": {"score": "generator"},
            "transition": make(PTheta2),
        },
    ],
)
def test_a_sound_policy_has_no_gap(changes):
    assert one_update(**changes)["policy_gap"] < 1e-5


def noisy(found):
    return torch.nn.functional.dropout(found, 0.1)


def batch_norm(found):
    return found - found.mean(dim=0)


def otherwise_with_a_gradient(found):
    return 1.1 * found if torch.is_grad_enabled() else found


@pytest.mark.parametrize("change", [noisy, otherwise_with_a_gradient, batch_norm])
def test_a_policy_that_is_another_when_it_learns_is_named(change):
    def logits(self, tokens, condition, step, guidance, positions=None):
        found = change(ToyGenerator.logits(self, tokens, condition, step, guidance))
        return found if positions is None else found[positions]

    torch.manual_seed(0)
    with pytest.raises(
        PluginError, match=r"the generator 'Mine' breaks its contract: .* \(policy_gap [0-9.]+ nats\)"
    ):
        one_update(generator=make(ToyGenerator, logits=logits))


def test_no_weight_has_moved_where_a_gap_was_found():
    generator = make(
        ToyGenerator,
        logits=lambda self, *given, **named: otherwise_with_a_gradient(
            ToyGenerator.logits(self, *given, **named)
        ),
    )
    before = [p.clone() for p in generator.module.parameters()]
    halves = toy_halves(generator, optimizer=torch.optim.SGD(generator.module.parameters(), lr=1.0))
    with pytest.raises(PluginError):
        learn(halves.learner, collect(halves.actor, PROMPTS, 0))
    assert all(torch.equal(p, old) for p, old in zip(generator.module.parameters(), before, strict=True))


def own_steps(self, trajectory, stream):
    return replace(trajectory, threshold=trajectory.threshold / 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"sampling": {"guidance_train": 1.5, "guidance_in_loss": "rollout_only"}},
        {"transition": make(PTheta2, scored=own_steps)},
    ],
)
def test_what_cannot_be_compared_is_not(changes):
    assert one_update(**changes)["policy_gap"] == 0


def test_the_gap_is_that_of_the_least_likely_code():
    halves = toy_halves()
    batch = collect(halves.actor, PROMPTS, 0)
    rows = torch.arange(9)
    taken = batch.trajectory.transitions(rows, rows % 3)
    logits = torch.randn(int(taken.masked.sum()), 4, dtype=torch.float64)
    logp_BN = torch.zeros(9, 6, 4, dtype=torch.float64)
    logp_BN[taken.masked] = logits.log_softmax(-1)
    for row, gap in enumerate(policy_gap(logits, taken)):
        least = min(logp_BN[row, i, taken.proposals[row, i]] for i in range(6) if taken.revealed[row, i])
        assert float(gap) == pytest.approx(abs(float(least - taken.threshold[row].log())), abs=1e-6)


@pytest.mark.parametrize("wrong", [torch.nan, -torch.inf])
def test_logits_that_are_no_numbers_are_the_generators(wrong):
    def logits(self, *given, **named):
        return ToyGenerator.logits(self, *given, **named) + wrong

    with pytest.raises(
        TrainingError, match=r"update 0: the logits of 'Mine' are not finite for 'dark' at step 0"
    ):
        one_update(generator=make(ToyGenerator, logits=logits))
