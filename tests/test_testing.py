"""The contract checks of what judges: they pass what is sound, and name what is not."""

import sys

import numpy as np
import pytest
import torch
import toy_run
from planting import NOISE, broken, built, make, mine, refuse
from torch import Tensor, nn

from maskrl import testing
from maskrl.component import ComponentConfig
from maskrl.filters.keep_all import KeepAll
from maskrl.interfaces import PromptSet, RewardModel
from maskrl.types import Prompt


@pytest.mark.parametrize(
    ("config", "paths", "complaint"),
    [
        (
            type("Config", (ComponentConfig,), {"model_config": {"extra": "ignore"}}),
            (),
            "accepts unknown keys",
        ),
        (type("Config", (ComponentConfig,), {"__annotations__": {"name": str}}), (), "'name'"),
        (ComponentConfig, ("checkpoint",), "'paths' names 'checkpoint'"),
        (dict, (), "no ComponentConfig"),
    ],
)
def test_a_class_must_own_a_closed_config(config, paths, complaint):
    broken(testing.check_class, type("Mine", (KeepAll,), {"Config": config, "paths": paths}), complaint)


class Reward(RewardModel):
    """The brightness of the left half; more where the prompt is long; a network that does nothing."""

    def __init__(self, config):
        super().__init__(config)
        self.network = nn.Linear(2, 1).requires_grad_(False)
        self.modules = (self.network,)

    @classmethod
    def cost(cls, config):
        return 3, 1.0

    def score(self, images: Tensor, prompts) -> Tensor:
        lengths = torch.tensor([len(prompt.text) / 100 for prompt in prompts])
        return images[..., : images.shape[-1] // 2].mean(dim=(1, 2, 3)) + lengths

    def score_terms(self, images, prompts):
        scores = self.score(images, prompts)
        return scores, {"half": scores / 2}


def test_a_sound_reward_passes():
    testing.check_reward(make(Reward))
    testing.check_reward(make(toy_run.Red))


def is_dark(self, images, prompts):
    """Sparse: 1 of what is nearly black, 0 of all noise."""
    return (images.mean(dim=(1, 2, 3)) < 0.1).float()


def test_a_reward_that_tells_only_some_images_apart_is_shown_them():
    dark = torch.ones(3, 3, 8, 8) * torch.tensor([0.0, 1.0, 0.5])[:, None, None, None]
    sparse = mine(RewardModel, score=is_dark)
    testing.check_reward(sparse, images=dark)
    broken(testing.check_reward, sparse, "hand check_reward images that it tells apart")


@pytest.mark.parametrize(
    "meant",
    [
        Tensor.tolist,
        Tensor.numpy,
        list,
        Tensor.double,
        Tensor.half,
        lambda x: (x * 1e6).long(),
        lambda x: x * 1e-9,
    ],
)
def test_what_training_takes_for_scores_passes(meant):
    testing.check_reward(mine(RewardModel, score=lambda self, *given: meant(Reward.score(self, *given))))


def test_the_prompts_of_other_checks_stay_as_they_are():
    broken(testing.check_reward, mine(Reward, **shown(note)), "it changed the prompts")
    assert all(prompt.metadata == {} for prompt in testing.PROMPTS)


def scored(change):
    return {"score": lambda self, images, prompts: change(Reward.score(self, images, prompts))}


def shown(change):
    return {"score": lambda self, images, prompts: Reward.score(self, *change(images, prompts))}


def told(change):
    return {"score_terms": lambda self, images, prompts: change(*Reward.score_terms(self, images, prompts))}


def costing(*cost):
    return {"cost": classmethod(lambda cls, config: cost)}


def caching(key):
    """Remember scores by less than what they depend on."""

    def score(self, images, prompts):
        seen = self.__dict__.setdefault("seen", {})
        right = Reward.score(self, images, prompts) + images[:, 0].mean(dim=(1, 2))
        keys = map(key, images, prompts)
        return torch.stack([seen.setdefault(key, one) for key, one in zip(keys, right, strict=True)])

    return {"score": score}


def note(images, prompts):
    for prompt in prompts:
        prompt.metadata["seen"] = True
    return images, prompts


REWARDS = {
    "a column": (scored(lambda x: x[:, None]), r"score returned float32 \[3, 1\] for 3 images"),
    "a scalar": (scored(torch.mean), r"float32 \[\] for 3 images"),
    "a dict": (scored(lambda x: {"score": x}), "score returned dict"),
    "the batch, at a tiny scale": (
        scored(lambda x: 1e-4 * x.mean() + 1e-5 * torch.arange(len(x))),
        "rest of its",
    ),
    "the place, far from 0": (scored(lambda x: 1e6 + x + 100 * torch.arange(len(x))), "rest of its batch"),
    "constant": (scored(torch.zeros_like), "the same whatever the image; if it gives all noise"),
    "the prompt alone": (
        {"score": lambda self, images, prompts: torch.tensor([float(len(p.text)) for p in prompts])},
        "the same whatever the image",
    ),
    "the first score of a prompt": (
        caching(lambda image, prompt: prompt.text),
        "the same whatever the image",
    ),
    "a score as light as before": (
        caching(lambda image, prompt: (prompt.text, round(float(image.mean()), 1))),
        "depends on what was asked before",
    ),
    "32 images": (scored(lambda x: x[torch.arange(len(x)) % 32]), "is another in a batch of 33"),
    "metadata": (shown(note), "it changed the prompts, or their metadata"),
    "not finite": (scored(lambda x: x * torch.nan), "not finite"),
    "gradient": (scored(torch.Tensor.requires_grad_), "gradient"),
    "noise of 1e-3": (scored(lambda x: x + 1e-3 * torch.rand(len(x), generator=NOISE)), "score has noise"),
    "global noise": (scored(lambda x: x + torch.rand(1)), "global random numbers"),
    "global seed": (scored(lambda x: [torch.manual_seed(0), x][1]), "global random numbers"),
    "batch mean": (scored(lambda x: x - x.mean()), "depends on the rest of its batch"),
    "batch rank": (scored(lambda x: x.argsort().argsort().float()), "depends on the rest of its batch"),
    "order": (scored(lambda x: torch.arange(len(x)).float()), "depends on the rest of its batch"),
    "first prompt": (
        shown(lambda images, prompts: (images, prompts[:1] * len(prompts))),
        "rest of its batch",
    ),
    "sorted prompts": (
        shown(lambda images, prompts: (images, sorted(prompts, key=str))),
        "rest of its batch",
    ),
    "images changed": (shown(lambda images, prompts: (images.mul_(0.5), prompts)), "changed the images"),
    "prompts changed": (shown(lambda images, prompts: (images, [prompts.pop(), *prompts])), "score"),
    "raises": ({"score": refuse}, "'Mine' raised ValueError: no"),
    "exits": ({"score": lambda self, images, prompts: sys.exit(0)}, "'Mine' raised SystemExit: 0"),
    "check raises": ({"check": refuse}, "'Mine' raised ValueError: no"),
    "other terms": (told(lambda total, terms: (total + 1, terms)), "score_terms gives other scores"),
    "no terms": (told(lambda total, terms: total), "score_terms returned"),
    "short terms": (told(lambda total, terms: (total, {"half": total[1:]})), "the term 'half' returned"),
    "terms of a batch": (
        told(lambda total, terms: (total, {"half": total - total.mean()})),
        "depends on the others",
    ),
    "names of terms": (
        told(lambda total, terms: (total, {f"x{len(total)}": total})),
        "names of its terms change",
    ),
    "unlisted": (built(Reward, lambda self: setattr(self, "modules", ())), "'network' is not in 'modules'"),
    "cost": (costing(4, 1.0), "cost says 4 parameters, 'modules' have 3"),
    "no cost": (costing("much", 1.0), "the cost in parameters is 'much'"),
}


@pytest.mark.parametrize(("changes", "complaint"), REWARDS.values(), ids=REWARDS)
def test_a_reward_that_breaks_its_contract_is_named(changes, complaint):
    with torch.random.fork_rng(devices=[]):
        broken(testing.check_reward, mine(Reward, **changes), complaint)


class Tiles(toy_run.Tiles):
    """The toy's detector, for an image that is as large as the toy's."""


def check_detector(detector):
    testing.check_detector(detector, image_size=(8, 12))


def test_a_sound_detector_passes():
    check_detector(make(Tiles))


MASK = np.ones((8, 12), dtype=bool)


def finding(box=(0, 0, 3, 3), score=0.5, mask=MASK):
    return {"detect": lambda self, image: {"sky": [toy_run.Detection(box, score, mask)]}}


def paint_over(self, image):
    return Tiles.detect(self, image.zero_())


def turned(self, image):
    mask = np.ones(image.shape[:0:-1], dtype=bool)
    return {"sky": [toy_run.Detection((0, 0, 3, 3), 0.5, mask)]}


def random_mask(self, image):
    mask = np.random.default_rng().random(image.shape[1:]) > 0.5
    return {"sky": [toy_run.Detection((0, 0, 3, 3), 0.5, mask)]}


def random_color(self, image, detection, class_name):
    return toy_run.HUES[int(torch.randint(3, (1,), generator=NOISE))]


def tired(self, image):
    self.images = getattr(self, "images", 0) + 1
    return finding(score=0.9 if self.images < 5 else 0.1)["detect"](self, image)


def chance(self, image):
    return finding(score=float(torch.rand(1, generator=NOISE)))["detect"](self, image)


DETECTORS = {
    "unknown class": ({"classes": ("poppy",)}, "not in 'classes'"),
    "no classes": ({"classes": ()}, "it has no 'classes'"),
    "a class twice": ({"classes": (*toy_run.NAMES, "sky")}, "names a class twice"),
    "classes that run out": ({"classes": iter(toy_run.NAMES)}, "it has no 'classes', or no sequence"),
    "a mask that is turned": ({"detect": turned}, r"no Bool \[8, 12\]"),
    "a random mask": ({"detect": random_mask}, "detect has noise"),
    "a random color": (finding() | {"color": random_color}, "color has noise"),
    "tired": ({"detect": tired}, "depends on what it was asked before"),
    "the official label": (
        {"label": "GenEval"},
        "label is 'GenEval', which is the official detector's alone",
    ),
    "nothing": ({"detect": lambda self, image: None}, "detect returned NoneType, not a dict"),
    "a tuple": (
        {"detect": lambda self, image: {"sky": [((0, 0, 3, 3), 0.9, MASK)]}},
        "no Detection with a score",
    ),
    "not a number": (finding(score=float("nan")), "no Detection with a score"),
    "unknown color": ({"colors": ("red",)}, "not in 'colors'"),
    "no label": ({"label": " "}, "no label"),
    "outside": (finding(box=(0, 0, 13, 4)), "outside the image"),
    "turned": (finding(box=(3, 0, 0, 4)), "outside the image"),
    "score in percent": (finding(score=50.0), r"no Detection with a score in \[0, 1\]"),
    "no mask": (finding(mask=None), r"no Bool \[8, 12\]"),
    "a mask of numbers": (finding(mask=MASK.astype(float)), r"no Bool \[8, 12\]"),
    "a small mask": (finding(mask=MASK[:4]), r"no Bool \[8, 12\]"),
    "image changed": ({"detect": paint_over}, "changed the image"),
    "noise": ({"detect": chance}, "detect has noise"),
    "unlisted": (
        built(Tiles, lambda self: setattr(self, "eye", nn.Linear(1, 1))),
        "'eye' is not in 'modules'",
    ),
    "raises": ({"self_test": refuse}, "raised ValueError: no"),
}


@pytest.mark.parametrize(("changes", "complaint"), DETECTORS.values(), ids=DETECTORS)
def test_a_detector_that_breaks_its_contract_is_named(changes, complaint):
    broken(check_detector, mine(Tiles, **changes), complaint)


class Sentences(PromptSet):
    def prompts(self):
        return [Prompt("a star"), Prompt("a tree", {"tag": "one"})]


def shuffled(self):
    return [Sentences.prompts(self)[i] for i in torch.randperm(2, generator=NOISE)] + [
        Prompt(str(NOISE.seed()))
    ]


PROMPT_SETS = {
    "none": (lambda self: [], "no prompts"),
    "no list": (lambda self: iter(Sentences.prompts(self)), "no list"),
    "no text": (lambda self: [Prompt("a"), Prompt(" ")], "without a text"),
    "strings": (lambda self: ["a star"], "which is no Prompt"),
    "no words": (lambda self: [Prompt(None)], "which is no Prompt"),
    "metadata": (lambda self: [Prompt("a star", None)], "which is no Prompt"),
    "order": (shuffled, "differ from call to call"),
    "instance": (lambda self: [Prompt(str(id(self)))], "differ from instance to instance"),
    "global": (lambda self: [Prompt(str(torch.rand(1)))], "global random numbers"),
    "raises": (refuse, "raised ValueError: no"),
}


def test_a_sound_prompt_set_passes():
    testing.check_prompts(make(Sentences))


@pytest.mark.parametrize(("prompts", "complaint"), PROMPT_SETS.values(), ids=PROMPT_SETS)
def test_a_prompt_set_that_breaks_its_contract_is_named(prompts, complaint):
    with torch.random.fork_rng(devices=[]):
        broken(testing.check_prompts, mine(Sentences, prompts=prompts), complaint)
