"""The version of weights: a checksum of their bits, that notices every change and nothing else."""

import copy

import pytest
import torch
from torch import nn
from toy import toy

from maskrl.grpo import version as versions
from maskrl.grpo.version import version


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 5), nn.Linear(5, 5), nn.Linear(5, 5)).to(dtype)


def nudged(value, bits=1):
    """The next number upwards, or downwards."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
    return (value.view(integers) + bits).view(value.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_equal_weights_have_equal_versions_and_one_bit_makes_another(dtype):
    module = network(dtype)
    first = version(module)
    assert first == version(copy.deepcopy(module)) == version(module)
    seen = {first}
    for parameter in module.parameters():
        for index in range(parameter.numel()):
            with torch.no_grad():
                entry = parameter.view(-1)[index : index + 1]
                before = entry.clone()
                entry.copy_(nudged(before))
                seen.add(version(module))
                entry.copy_(before)
    assert len(seen) == 1 + sum(p.numel() for p in module.parameters())
    assert version(module) == first


def test_changes_that_a_sum_would_not_notice_are_noticed():
    module, seen = network(), set()
    first = version(module)
    weight = module[2].weight.data

    def changed(change):
        kept = {name: value.clone() for name, value in module.state_dict().items()}
        change()
        seen.add(version(module))
        module.load_state_dict(kept)

    def up_and_down():
        weight[0, 0], weight[3, 2] = nudged(weight[:1, 0])[0], nudged(weight[3:4, 2], -1)[0]

    def exchange_tensors():
        module[2].weight.data, module[3].weight.data = module[3].weight.data, module[2].weight.data

    changed(up_and_down)
    changed(exchange_tensors)
    changed(lambda: weight.copy_(weight.clone().T))
    changed(lambda: weight.copy_(weight.clone().roll(1)))
    changed(lambda: weight.zero_())
    changed(lambda: weight.neg_())
    assert len(seen) == 6
    assert version(module) == first not in seen


def test_portions_are_told_apart(monkeypatch):
    """The bits of one portion exchanged with those of another, in a network of several."""
    module, seen = nn.Linear(4, 6, bias=False), set()
    monkeypatch.setattr(versions, "PORTION", 2)
    for rows in ([0, 1, 2, 3, 4, 5], [1, 0, 2, 3, 4, 5], [0, 1, 2, 3, 5, 4], [5, 1, 2, 3, 4, 0]):
        other = copy.deepcopy(module)
        other.weight.data = module.weight.data[rows]
        seen.add(version(other))
    assert len(seen) == 4


def test_names_shapes_and_types_count_and_layout_does_not():
    weight = torch.randn(4, 6)
    one, transposed = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)
    one.weight.data, transposed.weight.data = weight, weight.T.contiguous().T
    assert version(one) == version(transposed)
    assert version(nn.ModuleDict({"a": one})) != version(nn.ModuleDict({"b": one}))
    zero = nn.Linear(6, 4, bias=False).requires_grad_(False)
    zero.weight.zero_()  # as half of an adapter is at first
    assert version(nn.ModuleDict({"a": zero})) != version(nn.ModuleDict({"b": zero}))
    flat = nn.Linear(24, 1, bias=False)
    flat.weight.data = weight.view(1, 24)
    assert version(flat) != version(one)
    as_integers = nn.Module()
    as_integers.weight = nn.Parameter(weight.view(torch.int32), requires_grad=False)
    assert version(as_integers) != version(one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("size", [1, 3, 8, 13])
@pytest.mark.parametrize("offset", [0, 1, 2, 5])
def test_weights_may_lie_anywhere_in_a_buffer(dtype, size, offset):
    """Sharded and flattened weights are views that begin at no word."""
    buffer = (torch.arange(32) * 7 % 29).to(dtype)
    module, copied = nn.Module(), nn.Module()
    module.part = nn.Parameter(buffer[offset : offset + size], requires_grad=False)
    copied.part = nn.Parameter(module.part.detach().clone(), requires_grad=False)
    assert module.part.storage_offset() == offset
    first = version(module)
    assert first == version(copied)
    buffer[offset + size] += 1  # a neighbour
    assert version(module) == first
    buffer[offset + size - 1] += 1
    assert version(module) != first


def test_integers_of_quantised_weights_and_no_weights_at_all():
    module = nn.Module()
    module.codes = nn.Parameter(torch.arange(16, dtype=torch.uint8), requires_grad=False)
    module.empty = nn.Parameter(torch.empty(0, 3))
    first = version(module)
    module.codes.data[3] += 1
    assert version(module) != first
    assert version(nn.Identity()) == 0


def test_buffers_are_no_weights():
    module = network()
    first = version(module)
    module.register_buffer("cache", torch.randn(3))
    assert version(module) == first


def test_a_few_equal_steps_of_many_weights_never_cancel():
    """bf16 weights that move by a bit up or down: as many up as down sum to nothing, and are found."""
    torch.manual_seed(0)
    weights = torch.randn(64, 64).bfloat16()
    module = nn.Linear(64, 64, bias=False, dtype=torch.bfloat16)
    module.weight.data = weights
    seen = {version(module)}
    for seed in range(50):
        order = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(seed))
        moved = weights.flatten().clone()
        moved[order[:8]], moved[order[8:16]] = nudged(moved[order[:8]]), nudged(moved[order[8:16]], -1)
        module.weight.data = moved.view(64, 64)
        seen.add(version(module))
    assert len(seen) == 51


@pytest.mark.gpu
def test_the_device_does_not_matter():
    if not torch.cuda.is_available():
        pytest.skip("there is no accelerator")
    generator = toy()
    assert version(generator.module) == version(copy.deepcopy(generator.module).cuda())
