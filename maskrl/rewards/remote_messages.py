"""What a reward server and those who ask it say to each other: typed JSON over HTTP, images as files in base64."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, model_validator

SCORE, CHECK, JUDGE = "/v1/score", "/v1/check", "/v1/judge"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    """Read strictly: a text is no number, and no number is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AskedPrompt(_Asked):
    """A prompt: its text, and what a reward may want to know about it."""

    text: str
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


class Prompts(_Asked):
    """All prompts of a run, to be looked at before it begins."""

    prompts: list[AskedPrompt] = Field(min_length=1)


class PngFiles(_Asked):
    """B images of 8 bits, RGB, of one size: a PNG each."""

    format: Literal["png"]
    files: list[Base64Bytes] = Field(min_length=1)


class TensorFile(_Asked):
    """B images as numbers: a safetensors file with one tensor, ``images``: Float [B, 3, H, W] in [0, 1]."""

    format: Literal["safetensors"]
    file: Base64Bytes


class Question(_Asked):
    """Images to be scored, and who shall: ``judge`` is the sha256 that a server tells of its reward."""

    judge: Digest
    prompts: list[AskedPrompt] = Field(min_length=1)
    images: PngFiles | TensorFile = Field(discriminator="format")


class Scores(_Answer):
    """A score for each image, and as many of each term."""

    judge: Digest
    scores: list[FiniteFloat]
    terms: dict[str, list[FiniteFloat]]


class Checked(_Answer):
    """All prompts can be judged."""

    judge: Digest


class Judge(_Answer):
    """Who judges: the answer to a health check.

    Attributes:
        reward: its name in the recipe.
        version: of maskrl.
        judge: sha256 of ``identity``.
        identity: its settings, with the contents of weights in the place of paths.
        term_weights: what its terms count, as :meth:`maskrl.interfaces.RewardModel.term_weights` says.
        max_request: bytes of the largest request that is read.
    """

    reward: str
    version: str
    judge: Digest
    identity: dict[str, JsonValue]
    term_weights: dict[str, FiniteFloat] | None
    max_request: int

    @model_validator(mode="after")
    def _is_of_this_identity(self) -> Self:
        if self.judge != fingerprint(self.identity):
            raise ValueError("judge is the sha256 of another identity")
        return self


class Problem(_Answer):
    """What is wrong, in one line."""

    detail: str


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return the sha256 of an identity, as :func:`maskrl.identity.identity` tells it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
