"""How often the host would wait for the device: counted on the CPU, by the operations that need an answer from it."""

import linecache
import sys
from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from maskrl.grpo.collect import collect
from maskrl.grpo.learn import learn
from maskrl.recipe import read_recipe
from maskrl.training.setup import set_up

T = torch.Tensor
READ = {T.tolist, T.item, T.cpu, T.numpy, T.__bool__, T.__int__, T.__float__, T.__index__}
ASK = {"aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero", "aten::bincount"}
UNIQUE = ("aten::unique", "aten::_unique")
INDEX = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# Lines that read what is on the CPU whatever the device: the texts of rows, and rows that the learner keeps there.
HOSTS_OWN = ("condition.rows.tolist()", "self.rows[rows.cpu()]")


def caller():
    frame = sys._getframe(1)
    while "/maskrl/" not in frame.f_code.co_filename.replace("\\", "/"):
        if frame.f_back is None:
            return "?"
        frame = frame.f_back
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"{frame.f_code.co_filename.split('/maskrl/')[-1]}:{frame.f_lineno}: {line}"


class _Asked(TorchDispatchMode):
    """Operations whose result has a size, or is a number, that only the device knows."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, given = func._schema.name, kwargs or {}
        is_unsized = name == "aten::repeat_interleave" and given.get("output_size") is None
        by_mask = name in INDEX and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in ASK or name.startswith(UNIQUE) or by_mask or is_unsized:
            self.waits[f"{name} {caller()}"] += 1
        return func(*args, **given)


class _Read(TorchFunctionMode):
    """Numbers that Python reads."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in READ:
            where = caller()
            if not any(own in where for own in HOSTS_OWN):
                self.waits[f"{func.__name__} {where}"] += 1
        return func(*args, **(kwargs or {}))


def waits(call):
    found = Counter()
    with _Asked(found), _Read(found):
        call()
    return found


def set_up_with(*changes):
    small = ("training.device=cpu", "eval=", "training.prompts_per_update=2", "grpo.group_size=2")
    return set_up(
        read_recipe(
            "shapes_clip", [*small, "filter={ name = 'keep_all' }", "reducer={ name = 'none' }", *changes]
        )
    )


def more(few, many):
    """What the second has more of: a start and an end are in both."""
    return {what: number - few[what] for what, number in many.items() if number > few[what]}


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_a_step_of_a_rollout_waits_twice_at_most(guidance):
    def painting(steps):
        setup = set_up_with(f"grpo.num_steps={steps}", f"sampling.guidance_train={guidance}")
        return waits(lambda: collect(setup.actor, setup.prompts[:2], 0))

    extra = more(painting(4), painting(9))
    # the schedule is counted on the host, before anything is painted
    ours = {what: number for what, number in extra.items() if "grpo/schedule.py" not in what}
    assert sum(ours.values()) <= 2 * (9 - 4), ours
    assert sum(ours.values()) >= 9 - 4, "nothing was counted: the network needs the number of its places"


@pytest.mark.parametrize("changes", [(), ("grpo.kl_coef=0.1",), ("sampling.guidance_in_loss=rollout_only",)])
def test_a_micro_batch_waits_twice_at_most(changes):
    def learning(size):
        setup = set_up_with("grpo.num_steps=4", f"training.micro_batch={size}", *changes)
        batch = collect(setup.actor, setup.prompts[:2], 0)
        return waits(lambda: learn(setup.learner, batch))

    extra = more(learning(16), learning(4))  # 1 and 4 micro-batches
    networks = 2 if "kl" in "".join(changes) else 1
    assert sum(extra.values()) <= (1 + networks) * 3, extra
    assert sum(extra.values()) >= 3, "nothing was counted"


def test_each_way_of_waiting_is_counted():
    tensor = torch.tensor([1.0, 0.0])
    ways = {
        "nonzero": lambda: tensor.nonzero(),
        "index": lambda: tensor[tensor > 0],
        "put": lambda: tensor.clone().__setitem__(tensor > 0, 2.0),
        "item": lambda: float(tensor[0]),
        "tolist": lambda: tensor.tolist(),
        "cpu": lambda: tensor.cpu(),
        "equal": lambda: torch.equal(tensor, tensor),
        "unique": lambda: tensor.unique(),
        "repeat": lambda: tensor.repeat_interleave(torch.tensor([1, 2])),
    }
    for name, way in ways.items():
        assert sum(waits(way).values()) >= 1, name
    assert not waits(lambda: torch.nonzero_static(tensor, size=1))
    assert not waits(lambda: tensor.repeat_interleave(torch.tensor([1, 2]), output_size=3))
