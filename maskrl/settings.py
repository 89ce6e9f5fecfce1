"""Settings: how strictly they are read, from which folder their paths start, and what is needed of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
from pydantic_core import to_json

from maskrl import registry

M = TypeVar("M", bound=BaseModel)


class ComponentConfig(BaseModel):
    """The settings of a component: one section of a recipe.

    Unknown keys are errors, types are taken at their word (``"2"``, ``2.0`` and ``true`` are no integers, 2 is a float)
    and numbers are finite.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Needs:
    """What a command needs of a recipe: installed components of these ``kinds``, and of ``files`` those in a file.

    The others stay unread: not looked for, not imported, until somebody asks for them.
    """

    kinds: Collection[str] = tuple(registry.KINDS)
    files: Collection[str] = tuple(registry.KINDS)


def validate(model: type[M], data: Mapping[str, Any], context: Mapping[str, Any]) -> M:
    """Validate what TOML or JSON held: as strictly as the model says, a list where it says a tuple.

    Raises:
        ValidationError: pydantic's.
    """
    return model.model_validate_json(to_json(data, inf_nan_mode="constants"), context=dict(context))


def at_most(limit: int, reason: str) -> AfterValidator:
    """Annotate a number that has a limit, and say why in the message."""

    def check(value: int) -> int:
        if value > limit:
            raise ValueError(f"{value:,} is more than {limit:,}: {reason}")
        return value

    return AfterValidator(check)


def base_of(info: ValidationInfo) -> Path:
    """Return the folder that relative paths start from, while settings are validated."""
    return info.context["base"] if info.context else Path()


def needs_of(info: ValidationInfo) -> Needs:
    """Return what is needed of a recipe, while settings are validated: all of it, if nobody says."""
    needs: Needs = (info.context or {}).get("needs", Needs())
    return needs
