"""The terms of a reward: kept as columns, named, weighed, and standardised by themselves where a recipe says so."""

import copy
from pathlib import Path

import pytest
import torch
from test_update import split
from toy import PROMPTS, Scripted, ToyReward, toy, toy_halves

from maskrl.component import ComponentConfig
from maskrl.errors import PluginError, RecipeError, TrainingError
from maskrl.grpo.terms import term_weights
from maskrl.grpo.update import collect, learn
from maskrl.interfaces import RewardModel
from maskrl.runtime.metrics import read_rows
from maskrl.runtime.offload import OffloadedReward
from maskrl.testing import check_reward

TERMS = {"advantage_of": "terms"}


class TwoTerms(RewardModel):
    """Brightness of the left and of the right half, which add up; ``change`` and ``say`` make it another reward."""

    change = staticmethod(lambda left, right: left + right)
    say = staticmethod(lambda: None)

    def score(self, images, prompts):
        return self.score_terms(images, prompts)[0]

    def score_terms(self, images, prompts):
        half = images.shape[-1] // 2
        left, right = images[..., :half].mean(dim=(1, 2, 3)), 10 * images[..., half:].mean(dim=(1, 2, 3))
        return self.change(left, right), {"left": left, "right": right}

    def term_weights(self):
        return self.say()


def two_terms(**changes):
    kind = type("Changed", (TwoTerms,), {name: staticmethod(change) for name, change in changes.items()})
    return kind(ComponentConfig())


def halves_of(reward, **changes):
    return toy_halves(toy(sharpness=0.5), reward=reward, **changes)


@pytest.mark.parametrize("of", ["score", "terms"])
def test_a_batch_keeps_every_term_as_a_column(of):
    halves = halves_of(two_terms(), config={"advantage_of": of})
    batch = collect(halves.actor, PROMPTS, 0)
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    total, terms = halves.actor.reward.score_terms(batch.images, prompts)
    assert batch.reward_names == ("left", "right")
    assert batch.reward_columns.shape == (4, 3, 2)
    for r, name in enumerate(batch.reward_names):
        assert torch.equal(batch.reward_columns[..., r], terms[name].view(4, 3))
        assert batch.metrics[f"reward_{name}_mean"] == float(terms[name].mean())
        assert batch.metrics[f"reward_{name}_std"] == float(terms[name].std(correction=0))
    assert torch.equal(batch.rewards, total.view(4, 3))


def test_a_reward_without_terms_is_one_column_with_its_own_name_and_no_metric_of_terms():
    batch = collect(toy_halves().actor, PROMPTS, 0)
    assert batch.reward_names == ("ToyReward",)
    assert torch.equal(batch.reward_columns[..., 0], batch.rewards)
    assert "reward_ToyReward_mean" not in batch.metrics


def test_the_score_is_what_the_reward_returned_and_not_a_sum_of_columns():
    product = halves_of(two_terms(change=lambda left, right: left * right))
    batch = collect(product.actor, PROMPTS, 0)
    assert torch.equal(batch.rewards, batch.reward_columns.prod(dim=-1))


def by_hand(batch, weights):
    columns = batch.reward_columns.double()
    centred = columns - columns.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    total = (torch.tensor(weights, dtype=torch.float64) * centred / (spread + 1e-4)).sum(dim=-1)
    return (total / (total.std(correction=0) + 1e-4)).float()


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({}, [1.0, 1.0]),
        ({"say": lambda: {"right": 3, "left": -0.5}}, [-0.5, 3.0]),
        (
            {"say": lambda: {"right": 3, "left": -0.5}, "change": lambda left, right: left * right},
            [-0.5, 3.0],
        ),
    ],
)
def test_terms_teach_by_the_weights_of_the_reward(changes, weights):
    halves = halves_of(two_terms(**changes), config=TERMS)
    batch = collect(halves.actor, PROMPTS, 0)
    torch.testing.assert_close(batch.adv, by_hand(batch, weights), rtol=1e-4, atol=1e-4)
    assert learn(halves.learner, batch)["grad_norm"] > 0
    of_score = collect(halves_of(two_terms(**changes)).actor, PROMPTS, 0)
    assert not torch.allclose(of_score.adv, batch.adv, rtol=0.05)


def test_terms_that_do_not_add_up_are_refused_in_one_line_and_the_advice_helps():
    product = two_terms(change=lambda left, right: left * right)
    with pytest.raises(RecipeError, match="terms left, right of 'Changed' do not add up") as caught:
        collect(halves_of(product, config=TERMS).actor, PROMPTS, 0)
    assert "\n" not in str(caught.value)
    assert "set grpo.advantage_of = 'score'" in str(caught.value)
    assert collect(halves_of(product, config={"advantage_of": "score"}).actor, PROMPTS, 0)
    nearly = two_terms(change=lambda left, right: (left + right) * 1.01)
    with pytest.raises(RecipeError):
        collect(halves_of(nearly, config=TERMS).actor, PROMPTS, 0)
    assert collect(halves_of(two_terms(change=lambda left, right: right + left)).actor, PROMPTS, 0)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"left": 1.0}, r"term_weights has \['left'\], and its terms are \['left', 'right'\]"),
        ({"left": 1.0, "right": 1.0, "top": 1.0}, r"term_weights has \['left', 'right', 'top'\]"),
        ([1.0, 1.0], "term_weights has list, and"),
        ({"left": "much", "right": 1.0}, "term_weights holds something else than numbers"),
        ({"left": float("nan"), "right": 1.0}, "term_weights is not finite"),
    ],
)
def test_weights_of_other_terms_are_refused(said, complaint):
    reward = two_terms(say=lambda: said)
    with pytest.raises(PluginError, match=complaint):
        collect(halves_of(reward, config=TERMS).actor, PROMPTS, 0)
    with pytest.raises(PluginError, match=complaint):
        check_reward(reward)
    assert collect(halves_of(reward).actor, PROMPTS, 0)  # nobody asks


def test_wrappers_pass_the_weights_on():
    reward = two_terms(say=lambda: {"left": 2.0, "right": 1.0})
    wrapped = OffloadedReward(reward, torch.device("cpu"))
    assert wrapped.term_weights() == reward.term_weights()
    assert term_weights(ToyReward(ToyReward.Config()), ["a"]) is None
    check_reward(reward)


def test_terms_whose_names_change_from_draw_to_draw_are_refused():
    class Fickle(TwoTerms):
        calls = 0

        def score_terms(self, images, prompts):
            total, terms = super().score_terms(images, prompts)
            Fickle.calls += 1
            return total, {f"{name}{Fickle.calls}": values for name, values in terms.items()}

    filters = Scripted([True, False, True, True], [True])
    halves = halves_of(Fickle(ComponentConfig()), filter=filters, reward_batch=100)
    with pytest.raises(PluginError, match=r"its terms are .*left1.* in one call and .*left2.* in another"):
        collect(halves.actor, PROMPTS, 0)


def test_a_term_that_is_not_finite_stops_before_any_advantage():
    def term(left, right):
        left[0] = torch.nan
        return right

    with pytest.raises(TrainingError, match="the reward 'left' gave nan"):
        collect(halves_of(two_terms(change=term), config=TERMS).actor, PROMPTS, 0)


@pytest.mark.parametrize("of", ["score", "terms"])
def test_splitting_the_prompts_changes_no_advantage_of_terms(of):
    shared = {"reward": two_terms(), "config": {"advantage_of": of}}
    batch = collect(toy_halves(**copy.deepcopy(shared)).actor, PROMPTS, 2)
    seats = [b for _, b, _ in split(PROMPTS, 2, **shared)]
    torch.testing.assert_close(batch.adv, torch.cat([b.adv for b in seats]))
    assert torch.equal(batch.reward_columns, torch.cat([b.reward_columns for b in seats]))
    for name in ("reward_left_mean", "reward_right_std"):
        assert seats[0].metrics[name] == seats[1].metrics[name] == batch.metrics[name]


TOY = Path(__file__).with_name("toy_run.py")
MIX = f"""name = "weighted_sum"
[reward.terms.red]
reward = "{TOY}:Red"
weight = 2.0
mean = 0.3
std = 0.5
[reward.terms.less]
reward = "{TOY}:Red"
weight = -0.25
"""


def test_a_recipe_says_so_and_a_mix_is_standardised_term_by_term(cli, toy_recipe, tmp_path):
    toy_recipe.write_text(toy_recipe.read_text().replace(f'name = "{TOY}:Red"\n', MIX))
    norms = {}
    for of in ("score", "terms"):
        run = tmp_path / of
        assert (
            cli("train", "--recipe", toy_recipe, "--run", run, "--set", f"grpo.advantage_of={of}").code == 0
        )
        rows = [row for row in read_rows(run) if row["kind"] == "update"]
        norms[of] = [row["grad_norm"] for row in rows]
        assert all("reward_red_mean" in row for row in rows)
    assert norms["score"][0] != norms["terms"][0]
    settings = ("--set", "grpo.advantage_of=terms", "--set", "grpo.advantage_std=none")
    refused = cli("train", "--recipe", toy_recipe, "--run", tmp_path / "x", *settings)
    assert refused.code == 2
    assert "advantage_of = 'terms' standardises each term" in refused.err
