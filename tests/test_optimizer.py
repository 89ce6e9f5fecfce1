"""What the optimizer does to which weights, and how fast: decay, and a schedule that outlives the run."""

import math

import pytest
import torch
from toy_run import ToyGenerator

from maskrl.errors import RecipeError
from maskrl.recipe import read_recipe
from maskrl.sections import TrainingConfig
from maskrl.training.schedule import learning_rate
from maskrl.training.setup import build_optimizer

RATE = 0.1


def config(**settings):
    return TrainingConfig(**{"updates": 4, "prompts_per_update": 1, "learning_rate": RATE, **settings})


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize(("decay", "of_vectors"), [("all", 1 - RATE * 0.5), ("matrices", 1.0)])
def test_decay_acts_on_what_it_names(kind, decay, of_vectors):
    parameters = dict(ToyGenerator(ToyGenerator.Config()).module.named_parameters())
    settings = config(weight_decay=0.5, decay=decay, optimizer=kind)
    optimizer = build_optimizer(parameters.values(), settings)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert {parameter.ndim for parameter in parameters.values()} == {1, 2}
    for name, parameter in parameters.items():
        factor = 1 - RATE * 0.5 if parameter.ndim == 2 else of_vectors
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_a_schedule_may_end_after_the_run():
    settings = config(updates=625, warmup_updates=63, schedule_updates=1000, lr_schedule="cosine")
    assert learning_rate(62, settings) == RATE
    last = RATE * (1 + math.cos(math.pi * (624 - 63) / (1000 - 63))) / 2
    assert learning_rate(624, settings) == pytest.approx(last)
    assert 0.3 * RATE < last < 0.4 * RATE
    whole = config(updates=1000, warmup_updates=63, lr_schedule="cosine")
    assert [learning_rate(u, settings) for u in range(625)] == [learning_rate(u, whole) for u in range(625)]


def test_a_schedule_may_not_end_before_the_run(toy_recipe):
    with pytest.raises(
        RecipeError, match=r"schedule_updates = 1 is less than updates = 2: .* raise it"
    ) as error:
        read_recipe(toy_recipe, ["training.schedule_updates=1"])
    assert "\n" not in str(error.value)
    for advice in ("training.schedule_updates=2", "training.schedule_updates="):
        assert read_recipe(toy_recipe, [advice]).training.updates == 2
