"""What a reward promises."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.attributes import check_attributes
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.terms import term_weights
from maskrl.interfaces import RewardModel
from maskrl.testing.classes import check_class
from maskrl.testing.promises import (
    NOISE,
    PROMPTS,
    TOLERANCE,
    apart,
    pictures,
    quiet,
    require,
    require_floats,
    require_listed,
)
from maskrl.types import Prompt

MANY = 33  # images: no multiple of what a reward may take at a time
ROUNDING = 1e-5  # of a score: that of deep networks in fp32, between batches of different sizes
DEPENDS = "the score of an image depends on the rest of its batch"


def check_reward(
    component: RewardModel,
    prompts: Sequence[Prompt] = PROMPTS,
    image_size: tuple[int, int] = (64, 64),
    images: Tensor | None = None,
) -> None:
    """Check shape and finiteness, and that a score depends on its own image and prompt alone, and on the image at all.

    Also that scores have no noise and none of what was asked before, that terms go with them and weights with the
    terms, that networks are listed and costs are theirs. What training takes for scores, a list say, is taken here.

    Args:
        component: on the CPU.
        prompts: that it can judge.
        image_size: (H, W) of the pictures of noise that it is shown.
        images: Float [B, 3, H, W] in [0, 1], one for each prompt, in their place: for a reward that gives all noise the
            same score.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.RewardModel`.
        RecipeError: these prompts are none that it can judge.
    """
    check_class(type(component))
    check_attributes(component)
    shown = pictures(len(prompts), image_size) if images is None else images
    with asking(component):
        asked = copy.deepcopy(list(prompts))
        component.check(tuple(asked))
        require_listed(component, "'modules'", component.modules)
        scores = _check_scores(component, asked, shown)
        _check_images(component, asked, shown, scores)
        _check_memory(component, asked, shown, scores)
        _check_terms(component, asked, shown)
        _check_cost(component)
        require(component, asked == list(prompts), "it changed the prompts, or their metadata")


def _check_scores(component: RewardModel, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
    with quiet(component, "score"):
        found = component.score(images.clone(), list(prompts))
    if isinstance(found, Tensor):
        require(component, not found.requires_grad, "score returned a tensor with a gradient")
        fine = found.device == images.device
        require(component, fine, f"score left the images' device for {found.device}")
    asked = list(prompts)
    scores = answers.score(component, images, asked)
    require(component, asked == list(prompts), "score changed the prompts")
    require_floats(component, "score", scores, (len(prompts),), torch.float32)
    _require_same(component, scores, answers.score(component, images, prompts), "score has noise", NOISE)
    backwards = answers.score(component, images.flip(0), list(reversed(prompts))).flip(0)
    _require_same(component, scores, backwards, DEPENDS)
    alone = [answers.score(component, images[i : i + 1], [prompts[i]]) for i in range(len(prompts))]
    _require_same(component, scores, torch.cat(alone), DEPENDS)
    rows = torch.arange(MANY) % len(prompts)
    many = answers.score(component, images[rows], [prompts[row] for row in rows.tolist()])
    _require_same(component, scores[rows], many, f"{DEPENDS}: it is another in a batch of {MANY}")
    return scores


def _check_images(component: RewardModel, prompts: Sequence[Prompt], images: Tensor, scores: Tensor) -> None:
    """The same prompts have other scores with other images."""
    others = [answers.score(component, other, prompts) for other in _others(images)]
    differs = any(apart(scores, other) > 0 for other in others)
    advice = "; if it gives all noise the same score, hand check_reward images that it tells apart"
    require(component, differs, f"the score of a prompt is the same whatever the image{advice}")


def _check_memory(component: RewardModel, prompts: Sequence[Prompt], images: Tensor, scores: Tensor) -> None:
    """An instance that was asked something else before gives the same scores."""
    another = type(component)(component.config)
    for other in _others(images):
        answers.score(another, other, prompts)
    later = answers.score(another, images, prompts)
    _require_same(component, scores, later, "the score of an image depends on what was asked before")


def _others(images: Tensor) -> tuple[Tensor, Tensor]:
    """Make other images for the same prompts: in other colours, as light as before; and in another order."""
    return images.roll(1, dims=1), images.flip(0)


def _require_same(
    component: RewardModel, left: Tensor, right: Tensor, complaint: str, tolerance: float = TOLERANCE
) -> None:
    """Require scores that are the same beside the spread of scores, which is what advantages are divided by."""
    spread, size = float(left.max() - left.min()), float(left.abs().max())
    difference = apart(left, right)
    fine = difference <= max(tolerance * spread, ROUNDING * size)
    require(component, fine, f"{complaint} (by {difference:.2g}; scores spread over {spread:.2g})")


def _check_terms(component: RewardModel, prompts: Sequence[Prompt], images: Tensor) -> None:
    scores, terms = answers.score_terms(component, images, prompts)
    plain = answers.score(component, images, prompts)
    _require_same(component, plain, scores, "score_terms gives other scores than score", NOISE)
    alone = [answers.score_terms(component, images[i : i + 1], [prompts[i]])[1] for i in range(len(prompts))]
    require(component, all(one.keys() == terms.keys() for one in alone), "the names of its terms change")
    for name, values in terms.items():
        require_floats(component, f"the term {name!r}", values, (len(prompts),), torch.float32)
        single = torch.cat([one[name] for one in alone])
        _require_same(component, values, single, f"the term {name!r} of an image depends on the others")
    term_weights(component, list(terms))


def _check_cost(component: RewardModel) -> None:
    try:
        parameters, _ = answers.cost(type(component), component.config)
    except RecipeError:  # it does not say
        return
    held = {id(p): p.numel() for network in component.modules for p in network.parameters()}
    numbers = f"cost says {parameters} parameters, 'modules' have {sum(held.values())}"
    require(component, parameters == sum(held.values()), numbers)
