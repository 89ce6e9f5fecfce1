"""Images of one prompt of which nothing is painted yet are the same to Show-o, and run as one."""

import pytest
import torch
from test_showo import folders, generator  # noqa: F401  # fixtures
from test_showo_table import assert_alike
from toy import rowwise

from maskrl.types import Prompt, StepIndex

MASK = 8
TEXTS = torch.tensor([0, 1, 0, 0, 1, 0, 1])
BLANK = torch.tensor([True, True, False, True, False, True, True])


def batch(generator, blank):  # noqa: F811
    """Tokens, their condition, and what is asked for: masked positions, all of them or some of each row."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, MASK, (len(TEXTS), 9), generator=random)
    tokens[:, :5] = MASK
    tokens[blank] = MASK
    some = (tokens == MASK) & (torch.rand(tokens.shape, generator=random) < 0.4)
    condition = generator.encode([Prompt("a"), Prompt("b c")]).select(TEXTS)
    return tokens, condition, {"all": tokens == MASK, "some": some, "everywhere": None}


def run(generator, tokens, condition, guidance, asked):  # noqa: F811
    """Logits and gradients of a pass."""
    generator.module.zero_grad(set_to_none=True)
    step = StepIndex(torch.zeros(len(tokens), dtype=torch.long), 4)
    found = generator.logits(tokens, condition, step, rowwise(guidance, len(tokens)), positions=asked)
    found.square().sum().backward()
    return found.detach(), {n: p.grad for n, p in generator.module.named_parameters() if p.grad is not None}


def one_by_one(generator, tokens, condition, guidance, asked):  # noqa: F811
    """The same, row by row."""
    logits, total = [], {}
    for row in range(len(tokens)):
        index = torch.tensor([row])
        part = None if asked is None else asked[index]
        found, gradient = run(generator, tokens[index], condition.select(index), guidance, part)
        logits.append(found)
        total = {name: total.get(name, 0) + value for name, value in gradient.items()}
    return torch.cat(logits), total


@pytest.fixture
def rows(generator):  # noqa: F811
    """How many rows of images each pass has, seen where the first layer's attention ends."""
    calls = []
    generator.module.layers[0].self_attn.dense.register_forward_pre_hook(
        lambda _, given: calls.append(len(given[0])) if given[0].shape[1] == 11 else None
    )
    return calls


@pytest.mark.parametrize("asked", ["all", "some", "everywhere"])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("blank", [BLANK, torch.ones(7, dtype=torch.bool)], ids=["some", "all"])
def test_they_run_as_one_and_logits_and_gradients_are_those_of_each(generator, rows, asked, guidance, blank):  # noqa: F811
    tokens, condition, positions = batch(generator, blank)
    found = run(generator, tokens, condition, guidance, positions[asked])
    distinct = 2 + int((~blank).sum())  # a blank one of each text
    assert rows == [distinct + (distinct - 1 if guidance else 0)]  # and one blank without a text
    assert_alike(found, one_by_one(generator, tokens, condition, guidance, positions[asked]))


def test_a_blank_row_is_one_without_any_code(generator, rows):  # noqa: F811
    tokens, condition, _ = batch(generator, torch.ones(7, dtype=torch.bool))
    tokens[3, 8] = 0
    run(generator, tokens, condition, 0.0, tokens == MASK)
    assert rows == [3]
