import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskrl.errors import RecipeError
from maskrl.reducers.computational import Computational
from maskrl.reducers.none import NoReduction
from maskrl.reducers.unmasking import Unmasking
from maskrl.types import Stream


def train_steps(reducer, num_steps):
    return reducer.train_steps(reducer.rollout_steps(num_steps), Stream(0))


def reducers(k):
    yield NoReduction(NoReduction.Config())
    yield Computational(Computational.Config(steps=k))
    yield Computational(Computational.Config(steps=k, which="last"))
    yield Unmasking(Unmasking.Config(steps=k))


@given(st.integers(1, 60), st.data())
def test_weights_add_up_to_one_and_steps_exist(num_steps, data):
    for reducer in reducers(data.draw(st.integers(1, num_steps))):
        rollout_steps = reducer.rollout_steps(num_steps)
        steps, weights = reducer.train_steps(rollout_steps, Stream(0))
        assert weights.sum().item() == pytest.approx(1)
        assert len(steps) == len(weights) == len(steps.unique())
        assert ((steps >= 0) & (steps < rollout_steps)).all()
        assert rollout_steps <= num_steps


def test_none_takes_every_step():
    steps, weights = train_steps(NoReduction(NoReduction.Config()), 4)
    assert steps.tolist() == [0, 1, 2, 3]
    assert weights.tolist() == [0.25] * 4


def test_computational_rolls_out_all_steps_and_trains_some():
    first = Computational(Computational.Config(steps=25))
    last = Computational(Computational.Config(steps=25, which="last"))
    assert first.rollout_steps(50) == 50
    assert train_steps(first, 50)[0].tolist() == list(range(25))
    assert train_steps(last, 50)[0].tolist() == list(range(25, 50))
    assert torch.equal(train_steps(last, 50)[1], torch.full((25,), 1 / 25))


def test_unmasking_shortens_the_rollout():
    reducer = Unmasking(Unmasking.Config(steps=20))
    assert reducer.rollout_steps(50) == 20
    steps, weights = train_steps(reducer, 50)
    assert steps.tolist() == list(range(20))
    assert torch.equal(weights, torch.full((20,), 1 / 20))


@pytest.mark.parametrize(
    "reducer", [Computational(Computational.Config(steps=9)), Unmasking(Unmasking.Config(steps=9))]
)
def test_more_steps_than_there_are_is_an_error(reducer):
    with pytest.raises(RecipeError, match=r"reducer.steps = 9 exceeds num_steps = 8"):
        reducer.rollout_steps(8)


@pytest.mark.parametrize("config", [Computational.Config, Unmasking.Config])
def test_the_number_of_steps_must_be_given(config):
    with pytest.raises(ValidationError):
        config()
