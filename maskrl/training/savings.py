"""What to change in a recipe for a smaller device, in the order in which it costs least."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from maskrl.recipe import Recipe
from maskrl.sections import LoraConfig


def cheaper(recipe: Recipe) -> Iterator[tuple[list[str], Recipe]]:
    """Yield the same recipe with less and less memory: the changes, as ``--set`` takes them, and the result."""
    steps: list[tuple[str, Any]] = [("training.activation_checkpointing", True)]
    size = recipe.training.micro_batch
    while size > 1:
        size //= 2
        steps.append(("training.micro_batch", size))
    steps += [
        ("training.rollout_batch", recipe.grpo.group_size),
        *((f"eval.{label}.batch", 1) for label in recipe.eval),
        ("training.score_batch", 1),
        ("training.rollout_batch", 1),
        ("training.offload", True),
    ]
    changes: dict[str, Any] = {}
    for key, value in steps:
        recipe = _changed(recipe, key.split("."), value)
        changes[key] = value
        yield _as_overrides(changes), recipe
    adapters = recipe.model_copy(update={"lora": LoraConfig(base_dtype="bf16")})
    yield [*_as_overrides(changes), "lora.base_dtype=bf16"], adapters


def _changed(recipe: Recipe, keys: Sequence[str], value: Any) -> Recipe:
    """Return a recipe with another value of ``SECTION.KEY``, or of ``eval.NAME.KEY``."""
    if keys[0] != "eval":
        section, name = keys
        changed: Any = getattr(recipe, section).model_copy(update={name: value})
        return recipe.model_copy(update={section: changed})
    _, label, name = keys
    one = recipe.eval[label]
    other = replace(one, config=one.config.model_copy(update={name: value}))
    return recipe.model_copy(update={"eval": {**recipe.eval, label: other}})


def _as_overrides(changes: Mapping[str, Any]) -> list[str]:
    return [f"{key}={str(value).lower()}" for key, value in changes.items()]
