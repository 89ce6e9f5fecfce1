"""A gradient is the same each time, whatever threads add it up."""

import pytest
import torch
from torch.utils import deterministic

from maskrl.grpo.in_order import in_order
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.training.setup import set_up

CPU = torch.device("cpu")


def settings():
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        deterministic.fill_uninitialized_memory,
    )


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_gradient_of_rows_that_many_share_is_the_same_each_time(two_threads):
    weight = torch.randn(64, 128, requires_grad=True)
    rows, factor = torch.randint(0, 64, (100_000,)), torch.randn(100_000, 128)

    def gradient():
        (found,) = torch.autograd.grad((weight[rows] * factor).sum(), weight)
        return found

    with in_order(CPU):
        first = gradient()
        assert all(torch.equal(first, gradient()) for _ in range(4))


def test_settings_are_as_they_were_afterwards_and_elsewhere_untouched():
    before = settings()
    with in_order(torch.device("cuda")):
        assert settings() == before
    with pytest.raises(ZeroDivisionError), in_order(CPU):
        raise ZeroDivisionError
    assert settings() == before


def test_the_pass_of_the_loss_adds_up_in_order_forward_and_backward():
    small = ("training.device=cpu", "eval=", "training.prompts_per_update=2", "grpo.group_size=2")
    setup = set_up(read_recipe("shapes_clip", [*small, "grpo.num_steps=4", "reducer.steps=4"]))
    batch, seen = collect(setup.actor, setup.prompts[:2], 0), []
    weight = next(setup.learner.generator.module.parameters())
    weight.register_hook(lambda grad: seen.append(settings()))
    before = settings()
    learn(setup.learner, batch)
    assert seen
    assert set(seen) == {(True, True, False)}
    assert settings() == before
