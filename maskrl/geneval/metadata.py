"""What GenEval must know of a prompt: ``tag``, ``include``, ``exclude``, checked before painting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from maskrl.errors import RecipeError
from maskrl.interfaces import Detector
from maskrl.types import Prompt

Task = Literal["single_object", "two_object", "counting", "colors", "position", "color_attr"]
TASKS: tuple[str, ...] = get_args(Task)
Relation = Literal["left of", "right of", "above", "below"]
RELATIONS: tuple[str, ...] = get_args(Relation)


def _whole(value: object) -> object:
    """Take 2.0 for 2: whoever kept metadata in a table of numbers wrote it so. A text is no number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("is no whole number")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]


class _Clause(BaseModel):
    name: str = Field(alias="class")
    count: Annotated[Whole, Field(ge=1)]
    color: str | None = None
    position: tuple[Relation, Annotated[Whole, Field(ge=0)]] | None = None


class _Metadata(BaseModel):
    tag: Task
    include: list[_Clause] = Field(min_length=1)
    exclude: list[_Clause] = []

    @model_validator(mode="after")
    def _targets_come_first(self) -> Self:
        for index, clause in enumerate(self.include):
            if clause.position is not None and clause.position[1] >= index:
                raise ValueError(f"the target of 'position' in clause {index} must be an earlier clause")
        return self


def check_prompts(prompts: Sequence[Prompt], detector: Detector) -> None:
    """Refuse prompts that GenEval cannot judge, or that ``detector`` cannot.

    Raises:
        RecipeError: metadata is missing or malformed, or names a class or colour unknown to the detector.
    """
    for prompt in prompts:
        metadata = _read(prompt)
        for clause in (*metadata.include, *metadata.exclude):
            _check_known(prompt, "class", clause.name, detector.classes)
            if clause.color is not None:
                _check_known(prompt, "colour", clause.color, detector.colors)


def read_metadata(prompt: Prompt) -> dict[str, Any]:
    """Return ``tag``, ``include`` and ``exclude`` as they were understood: the rules take nothing else.

    Raises:
        RecipeError: they are malformed.
    """
    return _read(prompt).model_dump(by_alias=True, exclude_none=True)


def asked_number(prompt: Prompt) -> tuple[str, int] | None:
    """Return class and number of a counting prompt that asks for nothing else; None for every other prompt.

    Raises:
        RecipeError: its metadata are malformed.
    """
    if prompt.metadata.get("tag") != "counting":
        return None
    clauses = _read(prompt).include
    if len(clauses) > 1 or clauses[0].color is not None:
        return None
    return clauses[0].name, clauses[0].count


def _read(prompt: Prompt) -> _Metadata:
    try:
        return _Metadata.model_validate(dict(prompt.metadata))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "metadata"
        message = f"GenEval cannot judge the prompt {prompt.text!r}: {where}: {first['msg']}"
        raise RecipeError(message) from error


def _check_known(prompt: Prompt, kind: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        names = ", ".join(known)
        message = f"the prompt {prompt.text!r} asks for the {kind} {value!r}; the detector knows {names}"
        raise RecipeError(message)


def metadata_line(prompt: Prompt) -> str:
    """Return a prompt as a line of the official metadata file: its metadata, then ``prompt``."""
    line: Mapping[str, Any] = {**prompt.metadata, "prompt": prompt.text}
    return json.dumps(line)
