"""A rollout asks a device for the same operations on the same shapes whatever it paints: so it could be captured."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskrl.grpo.rollout import rollout
from maskrl.grpo.unmask import unmask
from maskrl.recipe import read_recipe
from maskrl.training.setup import set_up
from maskrl.types import Stream

TEXTS = 4


class _Shapes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, torch.Tensor)]
        self.seen.append((func._schema.name, tuple(tuple(tensor.shape) for tensor in tensors)))
        return found


@pytest.fixture(scope="module")
def setup():
    return set_up(read_recipe("shapes_clip", ["training.device=cpu", "eval=", "grpo.num_steps=5"]))


def painted(setup, seed, guidance):
    actor = setup.actor
    condition = actor.generator.encode(setup.prompts[:TEXTS])
    streams = [Stream(seed).child("image", row) for row in range(TEXTS)]
    with torch.no_grad(), _Shapes() as shapes:
        trajectory = rollout(actor.generator, condition, streams, 5, actor.algorithm.sampling, guidance)
    return trajectory.tokens, shapes.seen


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_what_is_painted_changes_no_operation_and_no_shape(setup, guidance):
    (some, first), (others, second) = (painted(setup, seed, guidance) for seed in (1, 2))
    assert not torch.equal(some, others)
    assert len(first) > 100
    assert first == second


def test_a_shape_that_follows_the_noise_is_seen(setup, monkeypatch):
    def peeking(logits, tokens, *rest, **options):
        logits[logits[:, 0] > logits[:, 1]]  # as many rows as the network likes
        return unmask(logits, tokens, *rest, **options)

    monkeypatch.setattr("maskrl.grpo.rollout.unmask", peeking)
    assert painted(setup, 1, 0.0)[1] != painted(setup, 2, 0.0)[1]
