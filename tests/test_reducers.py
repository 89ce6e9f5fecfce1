import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from toy import PROMPTS, toy_halves

from maskrl import testing
from maskrl.errors import RecipeError
from maskrl.grpo.diversity import step_change
from maskrl.grpo.update import collect
from maskrl.reducers.computational import Computational
from maskrl.reducers.largest_change import LargestChange
from maskrl.reducers.none import NoReduction
from maskrl.reducers.random import RandomSteps
from maskrl.reducers.unmasking import Unmasking
from maskrl.transitions.random_remask import RandomRemask
from maskrl.types import Stream


def train_steps(reducer, num_steps):
    return reducer.train_steps(reducer.rollout_steps(num_steps), Stream(0))


def reducers(k):
    yield NoReduction(NoReduction.Config())
    yield Computational(Computational.Config(steps=k))
    yield Computational(Computational.Config(steps=k, which="last"))
    yield Unmasking(Unmasking.Config(steps=k))
    yield RandomSteps(RandomSteps.Config(steps=k))
    yield LargestChange(LargestChange.Config(steps=k))


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
    "reducer",
    [kind(kind.Config(steps=9)) for kind in (Computational, Unmasking, RandomSteps, LargestChange)],
)
def test_more_steps_than_there_are_is_an_error(reducer):
    with pytest.raises(RecipeError, match=r"reducer.steps = 9 exceeds num_steps = 8"):
        reducer.rollout_steps(8)


@pytest.mark.parametrize(
    "config", [Computational.Config, Unmasking.Config, RandomSteps.Config, LargestChange.Config]
)
def test_the_number_of_steps_must_be_given(config):
    with pytest.raises(ValidationError):
        config()


def test_random_draws_every_step_as_often():
    reducer = RandomSteps(RandomSteps.Config(steps=2))
    drawn = [reducer.train_steps(5, Stream(0).child("steps", update)) for update in range(2000)]
    counts = torch.cat([steps for steps, _ in drawn]).bincount(minlength=5)
    assert counts.tolist() == pytest.approx([800] * 5, abs=5 * (2000 * 0.4 * 0.6) ** 0.5)
    assert drawn[0][1].tolist() == [0.5, 0.5]


def test_the_steps_of_the_largest_change_teach():
    reducer = LargestChange(LargestChange.Config(steps=2))
    steps, weights = reducer.train_steps_by(torch.tensor([0.0, 0.3, 0.1, 0.3, 0.9]), Stream(0))
    assert steps.tolist() == [1, 4]  # of equal ones the first
    assert weights.tolist() == [0.5, 0.5]


def test_change_is_the_share_of_other_codes():
    proposals = torch.tensor([[[0, 1, 2, 3], [0, 1, 2, 0], [1, 2, 3, 0]]])
    assert step_change(proposals).tolist() == [[0.0, 0.25, 0.75]]


def test_a_batch_trains_the_steps_at_which_its_images_change():
    batch = collect(toy_halves(reducer=LargestChange(LargestChange.Config(steps=1))).actor, PROMPTS, 0)
    change = step_change(batch.trajectory.proposals).mean(dim=0)
    assert batch.steps.tolist() == [int(change.argmax())]
    assert change.argmax() > 0


def test_change_is_of_what_was_painted_whatever_is_scored():
    reducer = LargestChange(LargestChange.Config(steps=1))
    painted = collect(toy_halves(reducer=reducer).actor, PROMPTS, 0)
    masked_again = toy_halves(reducer=reducer, transition=RandomRemask(RandomRemask.Config()))
    assert torch.equal(collect(masked_again.actor, PROMPTS, 0).steps, painted.steps)
    assert painted.steps.tolist() != [0]


def test_a_reducer_that_knows_no_change_is_asked_as_before():
    class Old(Computational):
        def train_steps(self, rollout_steps, stream):
            return super().train_steps(rollout_steps, stream)

    old = Old(Old.Config(steps=1, which="last"))
    assert collect(toy_halves(reducer=old).actor, PROMPTS, 0).steps.tolist() == [2]


@pytest.mark.parametrize("kind", [RandomSteps, LargestChange])
def test_they_keep_the_contract(kind):
    testing.check_reducer(kind(kind.Config(steps=3)))
