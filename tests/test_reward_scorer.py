"""Images judged in portions, beside the painting or after it; how different images of a group are."""

import threading

import pytest
import torch
from toy import ToyReward, toy, toy_halves

from maskrl.component import ComponentConfig
from maskrl.errors import PluginError, TrainingError
from maskrl.grpo.diversity import mean_square_difference, token_diversity
from maskrl.grpo.reward_scorer import RewardScorer
from maskrl.grpo.update import collect
from maskrl.interfaces import RewardModel
from maskrl.sections import TrainingConfig
from maskrl.types import Prompt

PROMPTS = [Prompt("dark"), Prompt("bright"), Prompt("grey"), Prompt("grey")]


class Recorder(RewardModel):
    """Remembers the portions, and where it ran."""

    def __init__(self):
        super().__init__(ComponentConfig())
        self.portions, self.threads, self.settings = [], set(), set()

    def score(self, images, prompts):
        self.portions.append([prompt.text for prompt in prompts])
        self.threads.add(threading.get_ident())
        self.settings.add((torch.is_grad_enabled(), torch.get_num_threads()))
        return images.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("arriving", [[7], [3, 4], [1, 1, 5], [2, 2, 2, 1]])
def test_portions_do_not_depend_on_how_images_arrive(overlap, arriving):
    images = torch.arange(7.0).view(7, 1, 1, 1).expand(7, 3, 2, 2)
    recorder, prompts = Recorder(), [Prompt(str(i)) for i in range(7)]
    with torch.no_grad():
        scorer = RewardScorer(recorder, prompts, 3, overlap)
        for portion in images.split(arriving):
            scorer.add(portion)
        scores, terms = scorer.scores()
    assert scores.tolist() == list(range(7))
    assert terms == {}
    assert recorder.portions == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert (recorder.threads == {threading.get_ident()}) != overlap
    assert recorder.settings == {(False, torch.get_num_threads())}


class Slow(RewardModel):
    """Waits in its first portion until the next images have come."""

    def __init__(self):
        super().__init__(ComponentConfig())
        self.came = threading.Event()

    def score(self, images, prompts):
        assert self.came.wait(timeout=20)
        return images.mean(dim=(1, 2, 3))


def test_painting_goes_on_while_images_are_judged():
    slow = Slow()
    scorer = RewardScorer(slow, PROMPTS, 2, overlap=True)
    scorer.add(torch.zeros(2, 3, 2, 2))
    slow.came.set()  # without a thread of its own, the reward would still be waiting for this
    scorer.add(torch.ones(2, 3, 2, 2))
    assert scorer.scores()[0].tolist() == [0, 0, 1, 1]


class Broken(ToyReward):
    def score(self, images, prompts):
        raise ValueError("no")


@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_reward_raises_arrives(overlap):
    halves = toy_halves(
        reward=Broken(ComponentConfig()), rollout_batch=4, reward_batch=4, overlap_reward=overlap
    )
    with pytest.raises(
        PluginError, match=r"the reward 'Broken' raised ValueError: no \(.*test_reward_scorer.py, line"
    ):
        collect(halves.actor, PROMPTS, 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_overlapping_changes_no_bit_of_a_batch(dtype):
    base = toy_halves(toy(dtype=dtype), rollout_batch=4, reward_batch=4)
    first, second = (collect(base.but(overlap_reward=o).actor, PROMPTS, 3) for o in (False, True))
    assert torch.equal(first.rewards, second.rewards)
    assert torch.equal(first.adv, second.adv)
    assert torch.equal(first.trajectory.tokens, second.trajectory.tokens)


def test_overlapping_needs_portions():
    with pytest.raises(ValueError, match="set rollout_batch"):
        TrainingConfig(updates=1, prompts_per_update=1, learning_rate=1, overlap_reward=True)


# diversity


def test_diversity_of_tokens_is_the_share_of_positions_in_which_pairs_differ():
    tokens = torch.tensor(
        [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 0, 0], [5, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 5]]
    )
    assert float(token_diversity(tokens, 3)) == pytest.approx((0 + 0.5 + 0.5) / 3 / 2)
    assert float(token_diversity(tokens, 2)) == pytest.approx((0 + 1 + 0) / 3)


def test_diversity_of_pixels_comes_from_the_squares_of_differences():
    images = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(1)).flip(3)[..., ::2]
    pairs = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]
    squares = torch.stack([(images[i] - images[j]).square().mean() for i, j in pairs])
    assert float(mean_square_difference(images, 3)) == pytest.approx(float(squares.mean()), rel=1e-5)
    assert float(mean_square_difference(torch.ones(4, 3, 2, 2), 2)) == 0


def test_an_update_reports_the_diversity_of_its_groups():
    halves = toy_halves()
    batch = collect(halves.actor, PROMPTS, 0)
    assert batch.metrics["diversity_tokens"] == float(token_diversity(batch.trajectory.tokens, 3))
    assert batch.metrics["diversity_pixels"] == pytest.approx(
        float(mean_square_difference(batch.images, 3)) ** 0.5
    )
    assert 0 < batch.metrics["diversity_tokens"] < 1


def test_a_reward_names_itself_when_it_is_not_finite():
    class Nan(ToyReward):
        def score(self, images, prompts):
            return super().score(images, prompts) / 0

    with pytest.raises(TrainingError, match="the reward 'Nan' gave"):
        collect(toy_halves(reward=Nan(ComponentConfig())).actor, PROMPTS, 0)
