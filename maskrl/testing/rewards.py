"""What a reward promises."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.terms import term_weights
from maskrl.interfaces import RewardModel
from maskrl.testing.classes import check_class
from maskrl.testing.promises import (
    NOISE,
    PROMPTS,
    pictures,
    quiet,
    require,
    require_close,
    require_floats,
    require_listed,
)
from maskrl.types import Prompt

DEPENDS = "the score of an image depends on the rest of its batch"


def check_reward(
    component: RewardModel, prompts: Sequence[Prompt] = PROMPTS, image_size: tuple[int, int] = (64, 64)
) -> None:
    """Check shape, dtype and finiteness, and that a score depends on its own image and prompt alone.

    Also that scores have no noise, that terms go with them and weights with the terms, that networks are listed and
    costs are theirs.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.RewardModel`.
        RecipeError: these prompts are none that it can judge.
    """
    check_class(type(component))
    with asking(component):
        component.check(prompts)
        require_listed(component, "'modules'", component.modules)
        _check_scores(component, prompts, pictures(len(prompts), image_size))
        _check_terms(component, prompts, pictures(len(prompts), image_size))
        _check_cost(component)


def _check_scores(component: RewardModel, prompts: Sequence[Prompt], images: Tensor) -> None:
    given, asked = images.clone(), list(prompts)
    with quiet(component, "score"):
        scores = component.score(images, asked)
    require_floats(component, "score", scores, (len(prompts),), torch.float32)
    require(component, not scores.requires_grad, "score returned a tensor with a gradient")
    require(component, scores.device == images.device, f"score left the images' device for {scores.device}")
    require(component, torch.equal(images, given), "score changed the images")
    require(component, asked == list(prompts), "score changed the prompts")
    require_close(component, scores, component.score(images, prompts), "score has noise", NOISE)
    backwards = component.score(images.flip(0), list(reversed(prompts))).flip(0)
    require_close(component, scores, backwards, DEPENDS)
    alone = torch.cat([component.score(images[i : i + 1], [prompts[i]]) for i in range(len(prompts))])
    require_close(component, scores, alone, DEPENDS)


def _check_terms(component: RewardModel, prompts: Sequence[Prompt], images: Tensor) -> None:
    scores, terms = answers.score_terms(component, images, prompts)
    require_close(
        component,
        component.score(images, prompts),
        scores,
        "score_terms gives other scores than score",
        NOISE,
    )
    alone = [answers.score_terms(component, images[i : i + 1], [prompts[i]])[1] for i in range(len(prompts))]
    require(component, all(one.keys() == terms.keys() for one in alone), "the names of its terms change")
    for name, values in terms.items():
        require_floats(component, f"the term {name!r}", values, (len(prompts),), torch.float32)
        single = torch.cat([one[name] for one in alone])
        require_close(component, values, single, f"the term {name!r} of an image depends on the others")
    term_weights(component, list(terms))


def _check_cost(component: RewardModel) -> None:
    try:
        parameters, _ = answers.cost(type(component), component.config)
    except RecipeError:  # it does not say
        return
    held = {id(p): p.numel() for network in component.modules for p in network.parameters()}
    numbers = f"cost says {parameters} parameters, 'modules' have {sum(held.values())}"
    require(component, parameters == sum(held.values()), numbers)
