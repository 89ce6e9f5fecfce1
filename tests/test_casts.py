"""In bf16 a weight is cast once a rollout and once a pass of the loss, and nothing else changes."""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from maskrl.grpo import learn as learning
from maskrl.grpo.casts import casting_once
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.training.setup import set_up


class Casts(TorchDispatchMode):
    def __init__(self, module):
        super().__init__()
        self.weights = {p.data_ptr() for p in module.parameters() if p.requires_grad}
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = kwargs or {}
        if func._schema.name == "aten::_to_copy" and given.get("dtype") == torch.bfloat16:
            self.number += args[0].data_ptr() in self.weights
        return func(*args, **given)


def made(*changes):
    small = ("training.device=cpu", "eval=", "training.prompts_per_update=2", "grpo.group_size=2")
    return set_up(read_recipe("shapes_clip", [*small, "training.dtype=bf16", "grpo.num_steps=4", *changes]))


def counted(setup, call):
    with Casts(setup.learner.generator.module) as casts:
        result = call()
    return casts.number, result


def test_a_rollout_casts_each_weight_once_whatever_its_steps():
    few, many = made(), made("grpo.num_steps=8")
    numbers = [counted(setup, lambda s=setup: collect(s.actor, s.prompts[:2], 0))[0] for setup in (few, many)]
    assert numbers[0] == numbers[1] > 0


@pytest.mark.parametrize(
    "changes", [(), pytest.param(("training.activation_checkpointing=true",), marks=pytest.mark.slow)]
)
def test_a_pass_casts_each_weight_once_whatever_its_micro_batches(changes, monkeypatch):
    grads = {}
    for size in (16, 4):
        setup = made(f"training.micro_batch={size}", *changes)
        batch = collect(setup.actor, setup.prompts[:2], 0)
        grads[size], _ = counted(setup, lambda s=setup, b=batch: learn(s.learner, b))
    assert grads[16] == grads[4] > 0
    again = made("training.micro_batch=4", *changes)
    monkeypatch.setattr(learning, "casting_once", lambda device: nullcontext())
    batch = collect(again.actor, again.prompts[:2], 0)
    number, _ = counted(again, lambda: learn(again.learner, batch))
    assert number > 2 * grads[4], "without it every micro-batch casts anew"
    gradients = [
        torch.cat([p.grad.flatten() for p in s.learner.generator.module.parameters()]) for s in (setup, again)
    ]
    assert torch.equal(*gradients)
    assert gradients[0].norm() > 0


def test_each_of_several_passes_casts_the_weights_as_they_are_then():
    setup = made("grpo.num_updates=2")
    batch = collect(setup.actor, setup.prompts[:2], 0)
    ratios = learn(setup.learner, batch)
    assert ratios["ratio_max"] > 1 > ratios["ratio_min"], "the second pass saw the weights of the first"


def test_the_block_changes_no_autocast():
    with casting_once(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
    with torch.autocast("cpu", dtype=torch.float16), casting_once(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_autocast_dtype("cpu") == torch.float16
