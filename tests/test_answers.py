"""What components answer: what is plainly meant is taken as it is meant, the rest is refused in a line with a name."""

import re

import pytest
import torch
from toy import ToyReward, toy_halves

from maskrl.asking import asking
from maskrl.component import ComponentConfig, build
from maskrl.errors import PluginError, RecipeError, TrainingError
from maskrl.evaluations.scores import score_each
from maskrl.filters.keep_all import KeepAll
from maskrl.grpo import answers
from maskrl.grpo.reward_scorer import RewardScorer
from maskrl.grpo.update import collect
from maskrl.interfaces import RewardModel
from maskrl.training.held_out import HeldOutRewards
from maskrl.types import Prompt

PROMPTS = [Prompt("dark"), Prompt("bright"), Prompt("grey"), Prompt("other")]
IMAGES = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def make(interface, **methods):
    component = type("Mine", (interface,), {"__module__": __name__, **methods})
    return component(interface.Config())


def rewarding(score):
    """A reward whose scores are made of the right ones: the mean of red."""
    return make(RewardModel, score=lambda self, images, prompts: score(images[:, 0].mean(dim=(1, 2))))


MEANT = {
    "a list": lambda right: right.tolist(),
    "a tuple": lambda right: tuple(right.tolist()),
    "a list of tensors": list,
    "numpy": lambda right: right.numpy(),
    "numpy fp64": lambda right: right.double().numpy(),
    "fp64": lambda right: right.double(),
    "a gradient": lambda right: right.clone().requires_grad_(),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize("meant", MEANT.values(), ids=MEANT)
def test_scores_that_are_plainly_meant_are_taken(meant):
    right = IMAGES[:, 0].mean(dim=(1, 2))
    found = answers.score(rewarding(meant), IMAGES, PROMPTS)
    assert torch.equal(found, right)
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize(
    "meant",
    [
        torch.Tensor.half,
        torch.Tensor.bfloat16,
        torch.Tensor.bool,
        torch.Tensor.int,
        lambda x: x.bool().tolist(),
    ],
)
def test_other_types_of_numbers_are_taken_too(meant):
    reward = rewarding(lambda right: meant((right > 0.5).float()))
    assert answers.score(reward, IMAGES, PROMPTS).tolist() == (IMAGES[:, 0].mean(dim=(1, 2)) > 0.5).tolist()


NOT_MEANT = {
    "a column": (lambda right: right[:, None], r"score returned float32 \[4, 1\] for 4 images"),
    "a scalar": (lambda right: right.mean(), r"score returned float32 \[\] for 4 images"),
    "a float": (lambda right: 0.5, r"score returned float32 \[\] for 4 images"),
    "one too few": (lambda right: right[1:], r"score returned float32 \[3\] for 4 images"),
    "one too many": (lambda right: [0.0, *right.tolist()], r"score returned float32 \[5\] for 4 images"),
    "nothing": (lambda right: None, "score returned NoneType that holds no row of numbers"),
    "words": (lambda right: ["good"] * 4, "score returned list that holds no row of numbers"),
    "by name": (lambda right: dict(enumerate(right)), "score returned dict that holds no row of numbers"),
    "complex": (lambda right: right * 1j, r"score returned complex64 \[4\]"),
    "a pair": (lambda right: (right, {}), "score returned tuple that holds no row of numbers"),
}


@pytest.mark.parametrize(("answer", "complaint"), NOT_MEANT.values(), ids=NOT_MEANT)
def test_other_scores_are_refused_wherever_they_arrive(answer, complaint):
    reward = rewarding(answer)
    scorer = RewardScorer(reward, PROMPTS, 4, overlap=False)
    scorer.add(IMAGES)
    for ask in (
        scorer.scores,
        lambda: score_each(reward, list(IMAGES), PROMPTS),
        lambda: collect(
            toy_halves(reward=reward, config={"group_size": 4}, reward_batch=4).actor, PROMPTS[:1], 0
        ),
    ):
        with pytest.raises(
            PluginError, match=f"^the reward 'Mine' breaks its contract: {complaint}"
        ) as error:
            ask()
        assert "\n" not in str(error.value)


def test_a_column_is_refused_where_groups_are_as_many_as_images_of_one():
    """P = G = 3: a column of scores would have been broadcast, and trained."""
    reward = make(RewardModel, score=lambda self, images, prompts: images.mean(dim=(1, 2, 3))[:, None])
    with pytest.raises(PluginError, match=r"float32 \[5, 1\] for 5 images"):
        collect(toy_halves(reward=reward).actor, PROMPTS[:3], 0)


def test_a_held_out_reward_is_looked_at_too():
    batch = collect(toy_halves().actor, PROMPTS, 2)
    watch = HeldOutRewards({"mine": rewarding(lambda right: right[1:])}, 3, 6, toy_halves().actor.process)
    with pytest.raises(PluginError, match=r"'Mine' breaks its contract: score returned float32 \[5\] for 6"):
        watch.score_if_due(batch)


def test_a_held_out_reward_is_not_called_what_the_agreement_of_another_is():
    rewards = {"a": ToyReward(ComponentConfig()), "a_agreement": ToyReward(ComponentConfig())}
    with pytest.raises(RecipeError, match="'a_agreement' is what the agreement of another is called"):
        HeldOutRewards(rewards, 1, 1, toy_halves().actor.process)


def test_a_score_that_overflows_fp32_is_not_finite():
    with pytest.raises(TrainingError, match="the reward 'Mine' gave inf"):
        collect(toy_halves(reward=rewarding(lambda right: right.double() + 1e300)).actor, PROMPTS, 0)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda total: total, "score_terms returned Tensor, not a pair|score_terms returned float32"),
        (lambda total: (total, [total]), "score_terms returned list for the terms, not a dict"),
        (lambda total: (total, {"a b": total}), "calls a term 'a b'"),
        (lambda total: (total, {1: total}), "calls a term 1"),
        (lambda total: (total, {"a": total[1:]}), r"the term 'a' returned float32 \[3\] for 4 images"),
        (lambda total: (total[1:], {"a": total}), r"score returned float32 \[3\] for 4 images"),
    ],
)
def test_terms_are_looked_at(answer, complaint):
    def score_terms(self, images, prompts):
        return answer(images.mean(dim=(1, 2, 3)))

    reward = make(RewardModel, score=ToyReward.score, score_terms=score_terms)
    with pytest.raises(PluginError, match=complaint):
        answers.score_terms(reward, IMAGES, PROMPTS)


def test_terms_are_the_same_in_every_portion():
    def score_terms(self, images, prompts):
        total = images.mean(dim=(1, 2, 3))
        return total, {prompts[0].text: total}

    scorer = RewardScorer(
        make(RewardModel, score=ToyReward.score, score_terms=score_terms), PROMPTS, 2, overlap=False
    )
    scorer.add(IMAGES)
    with pytest.raises(PluginError, match=r"its terms are \['dark'\] in one call and \['grey'\] in another"):
        scorer.scores()


def test_a_mix_names_the_reward_that_is_wrong(tmp_path):
    code = (
        "from maskrl.interfaces import RewardModel\n"
        "class Short(RewardModel):\n"
        "    def score(self, images, prompts):\n"
        "        return images.mean(dim=(1, 2, 3))[1:]\n"
    )
    (tmp_path / "short.py").write_text(code)
    terms = {"one": {"reward": "short.py:Short"}}
    mix = build("rewards", {"name": "weighted_sum", "terms": terms}, tmp_path)
    with pytest.raises(PluginError, match=r"the reward 'Short' breaks .* float32 \[3\] for 4 images"):
        answers.score_terms(mix, IMAGES, PROMPTS)


# what code of a component raises


@pytest.mark.parametrize("raised", [ValueError("no\nway"), SystemExit(0), AssertionError(), KeyError("x")])
@pytest.mark.parametrize("overlap", [False, True])
def test_what_a_component_raises_names_it_and_the_line(raised, overlap):
    def score(self, images, prompts):
        raise raised

    scorer = RewardScorer(make(RewardModel, score=score), PROMPTS, 4, overlap)
    scorer.add(IMAGES)
    reason = re.escape(" ".join(f"{type(raised).__name__}: {raised}".split()))
    with pytest.raises(
        PluginError, match=rf"^the reward 'Mine' raised {reason} \(.*test_answers.py, line \d+\)$"
    ):
        scorer.scores()


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt(), torch.OutOfMemoryError("full"), RecipeError("yours")]
)
def test_some_errors_pass_as_they_are(raised):
    with pytest.raises(type(raised)) as error, asking(make(RewardModel, score=ToyReward.score)):
        raise raised
    assert error.value is raised


def test_our_own_components_keep_their_tracebacks():
    with pytest.raises(ZeroDivisionError), asking(KeepAll(KeepAll.Config())):
        _ = 1 / 0


def test_a_constructor_is_code_of_the_component_too(tmp_path):
    code = (
        "from maskrl.interfaces import RewardModel\n"
        "class Late(RewardModel):\n"
        "    def __init__(self, config):\n"
        "        raise OSError('no file')\n"
        "    def score(self, images, prompts): ...\n"
    )
    (tmp_path / "late.py").write_text(code)
    with pytest.raises(
        PluginError, match=r"^the reward 'Late' raised OSError: no file \(.*late.py, line 4\)$"
    ):
        build("rewards", {"name": "late.py:Late"}, tmp_path)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("raise SystemExit(0)", "the reward 'Bad' raised SystemExit: 0 ("),
        ("return [0.5] * 9", "breaks its contract: score returned float32 [9] for 8 images"),
    ],
)
def test_a_run_ends_with_the_plugins_exit_code_and_its_name(cli, toy_recipe, tmp_path, body, complaint):
    code = (
        "from maskrl.interfaces import RewardModel\n"
        f"class Bad(RewardModel):\n    def score(self, images, prompts):\n        {body}\n"
    )
    (tmp_path / "bad.py").write_text(code)
    result = cli(
        "train",
        "--recipe",
        toy_recipe,
        "--run",
        tmp_path / "run",
        "--set",
        f"reward.name={tmp_path}/bad.py:Bad",
    )
    assert result.code == 3
    assert complaint in result.err.replace("\n", " ")
    assert "Traceback" not in result.err
