"""The last layer of Show-o runs where it is asked: queries there alone, and the same logits and gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_showo import folders, generator  # noqa: F401  # fixtures
from test_showo_blank import one_by_one
from test_showo_table import assert_alike, inputs
from toy import rowwise

from maskrl.generators.showo import generator as showo
from maskrl.generators.showo.asked import ask
from maskrl.types import Prompt, StepIndex

MASK = 8


@given(data=st.data())
def test_what_is_asked_for_is_found_among_the_queries_of_its_row(data):
    rows, images, codes = (data.draw(st.integers(1, most)) for most in (3, 6, 5))
    flags = st.lists(st.booleans(), min_size=codes, max_size=codes)
    positions = torch.tensor(data.draw(st.lists(flags, min_size=images, max_size=images)))
    one = st.integers(0, rows - 1)
    runs_as = torch.tensor(data.draw(st.lists(one, min_size=images, max_size=images)))
    of_row = torch.zeros(rows, dtype=torch.long).index_add(0, runs_as, positions.sum(dim=1))
    at_most = int(of_row.max()) + data.draw(st.integers(0, 2))
    asked = ask(positions, runs_as, rows, int(positions.sum()), at_most)
    expected = [int(runs_as[image]) * (codes + 2) + 1 + int(at) for image, at in positions.nonzero().tolist()]
    assert asked.places.tolist() == expected
    if at_most >= codes:
        assert asked.queries is None
        assert asked.answers.tolist() == expected
    else:
        assert asked.queries.shape == (rows, at_most)
        flat = torch.arange(rows)[:, None] * (codes + 2) + asked.queries
        assert flat.flatten()[asked.answers].tolist() == expected


@pytest.fixture
def queries(generator):  # noqa: F811
    """Of how many positions the last layer makes queries in each pass, and keys."""
    seen = []
    attention = generator.module.layers[-1].self_attn
    for part in (attention.q_proj, attention.k_proj):
        part.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[:2])))
    return seen


def run(generator, guidance, asked=None):  # noqa: F811
    """Logits and gradients where some positions are asked for, in rows of unlike numbers, without a table."""
    generator.module.zero_grad(set_to_none=True)
    tokens, condition, step, _, positions = inputs(generator)
    positions[0], positions[1, 2:] = False, False
    positions = positions if asked is None else asked(positions)
    found = generator.logits(tokens, condition, step, rowwise(guidance, len(tokens)), positions=positions)
    return positions, found


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_queries_are_made_for_as_many_positions_as_the_fullest_row_has(generator, queries, guidance):  # noqa: F811
    positions, _ = run(generator, guidance)
    rows, most = len(positions) * (2 if guidance else 1), int(positions.sum(dim=1).max())
    assert most < 9
    assert (rows, most) in queries
    assert (rows, 11) in queries  # keys


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_they_are_those_of_attention_everywhere(generator, monkeypatch, guidance, checkpointing):  # noqa: F811
    if checkpointing:
        generator.checkpoint_activations()

    def learnt():
        _, found = run(generator, guidance)
        found.square().sum().backward()
        return found.detach(), {
            n: p.grad for n, p in generator.module.named_parameters() if p.grad is not None
        }

    found = learnt()

    def everywhere(*given):
        asked = ask(*given)
        assert asked.queries is not None
        return replace(asked, queries=None, answers=asked.places)

    monkeypatch.setattr(showo, "ask", everywhere)
    assert_alike(found, learnt())


def test_nothing_may_be_asked_for(generator):  # noqa: F811
    _, found = run(generator, 0.0, asked=torch.zeros_like)
    assert found.shape == (0, 8)


def test_what_two_blank_images_ask_of_one_row_may_be_the_same(generator):  # noqa: F811
    tokens = torch.full((3, 9), MASK)
    positions = torch.zeros(3, 9, dtype=torch.bool)
    positions[0, 2:4], positions[1, 3:5], positions[2, 8] = True, True, True
    condition = generator.encode([Prompt("a")]).select(torch.zeros(3, dtype=torch.long))
    step = StepIndex(torch.zeros(3, dtype=torch.long), 4)
    found = generator.logits(tokens, condition, step, rowwise(0.0, 3), positions=positions)
    logits, _ = one_by_one(generator, tokens, condition, 0.0, positions)
    torch.testing.assert_close(found.detach(), logits, rtol=1e-5, atol=1e-6)
