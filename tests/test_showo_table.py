"""The first layer of Show-o, looked up in a table: the same logits and gradients, for less work."""

import pytest
import torch
from test_showo import folders, generator  # noqa: F401  # fixtures
from toy import rowwise

from maskrl.generators.showo import layer, network
from maskrl.runtime.autocast import Autocast
from maskrl.types import Prompt, StepIndex

NOT_TEXT = 10 + 8 + 1  # ids: special ones, codes, the mask
ROWS = 6


def inputs(generator, rows=ROWS):  # noqa: F811
    """Tokens of some rows, their condition without memory, the step, guidance, and what is asked for."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 9, (rows, 9), generator=random)
    condition = generator.encode([Prompt("a"), Prompt("b c")]).select(torch.arange(rows) % 2)
    step = StepIndex(torch.zeros(rows, dtype=torch.long), 4)
    return tokens, condition, step, rowwise(1.5, rows), torch.rand(rows, 9, generator=random) < 0.5


def logits_and_gradient(generator, **changes):  # noqa: F811
    """Run a pass forward and backward."""
    generator.module.zero_grad(set_to_none=True)
    tokens, condition, *others = inputs(generator)
    found = generator.logits(tokens, condition, *others[:-1], positions=others[-1])
    found.square().sum().backward()
    return found.detach(), {n: p.grad for n, p in generator.module.named_parameters() if p.grad is not None}


def assert_alike(found, expected):
    """The same but for rounding, and gradients of the same parameters."""
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6, name


@pytest.fixture
def seen(generator):  # noqa: F811
    """How many positions each call of the first layer's MLP has."""
    calls = []
    generator.module.layers[0].mlp.register_forward_pre_hook(
        lambda _, given: calls.append(given[0].shape[:-1].numel())
    )
    return calls


@pytest.mark.parametrize("checkpointing", [False, True])
def test_it_gives_the_logits_and_the_gradients_of_every_position(generator, monkeypatch, seen, checkpointing):  # noqa: F811
    monkeypatch.setattr(network, "REPEATS", 1e9)
    expected = logits_and_gradient(generator)
    assert 2 * ROWS * 11 in seen  # both branches of guidance
    monkeypatch.undo()
    if checkpointing:
        generator.checkpoint_activations()
    seen.clear()
    assert_alike(logits_and_gradient(generator), expected)
    assert NOT_TEXT in seen
    assert 2 * ROWS * 11 not in seen


def test_it_keeps_the_precision_that_every_part_has_under_autocast(generator, monkeypatch):  # noqa: F811
    halved = Autocast(generator)
    found, gradient = logits_and_gradient(halved)
    monkeypatch.setattr(network, "REPEATS", 1e9)
    expected, expected_gradient = logits_and_gradient(halved)
    exact, exact_gradient = logits_and_gradient(generator)
    assert (found - exact).abs().mean() < 1.2 * (expected - exact).abs().mean()
    off, before = (
        sum((one[name] - exact_gradient[name]).square().sum() for name in exact_gradient).sqrt()
        for one in (gradient, expected_gradient)
    )
    assert off < 1.2 * before


def test_with_few_positions_it_is_not_made(generator, seen):  # noqa: F811
    tokens, condition, step, _, asked = inputs(generator, rows=3)
    generator.logits(tokens, condition, step, rowwise(0.0, 3), positions=asked)
    assert NOT_TEXT not in seen
    assert 3 * 11 in seen


def test_a_rollout_makes_it_once_and_it_is_of_the_weights_as_they_are(generator, seen):  # noqa: F811
    tokens, condition, *others = inputs(generator)
    ready = generator.prefill(condition)
    assert seen.pop() == NOT_TEXT
    seen.clear()
    before = generator.logits(tokens, ready, *others)
    assert seen == []
    with torch.no_grad():
        generator.module.layers[0].mlp.fc2.weight.mul_(30.0)
    torch.testing.assert_close(generator.logits(tokens, ready, *others), before)  # ready is of before
    after = generator.logits(tokens, generator.prefill(condition), *others)
    torch.testing.assert_close(after, generator.logits(tokens, condition, *others), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-3)


def test_processes_with_fewer_images_make_it_too(generator):  # noqa: F811
    for rows in (0, 1, 6):  # else sharded processes would wait for each other
        assert generator.prefill(inputs(generator, rows=rows)[1]).memory.table is not None


def test_gradients_of_many_positions_are_added_up_in_fp32():
    """As of the mask, of which a micro-batch has thousands: bf16 stands still at 256."""
    values = torch.zeros(3, 2, dtype=torch.bfloat16, requires_grad=True)
    layer._rows(values, torch.ones(64, 64, dtype=torch.long)).sum().backward()
    assert values.grad[1].tolist() == [4096, 4096]
