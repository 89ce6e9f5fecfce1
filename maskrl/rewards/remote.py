"""A reward that is served elsewhere: another environment, another device, another machine (``maskrl serve-reward``)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from maskrl import pixels
from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError, quote
from maskrl.interfaces import RewardModel
from maskrl.rewards.remote_images import pack
from maskrl.rewards.remote_messages import (
    CHECK,
    SCORE,
    AskedPrompt,
    Checked,
    Judge,
    Prompts,
    Question,
    Scores,
)
from maskrl.rewards.remote_servers import Servers
from maskrl.rewards.remote_token import VARIABLE, token_of_environment
from maskrl.types import Prompt

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _urls(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError('name at least one server: urls = ["http://HOST:PORT"]')
    return tuple(_url(value) for value in values)


def _url(value: str) -> str:
    if "@" in value:
        raise ValueError("an address holds no password: a recipe is no place for secrets")
    parts = urlsplit(value)
    is_server = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
    try:
        is_server = is_server and parts.port != 0
    except ValueError:  # no number, or none of a port
        is_server = False
    if not is_server:
        raise ValueError(f"{value!r} is no address of a server: write http://HOST:PORT")
    return value.rstrip("/")


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError(
            "names an environment variable, which holds the token; the token itself stands in no recipe"
        )
    return value


class Remote(RewardModel):
    """Sends images and prompts to a server, and returns the scores that the reward there gives, to the last bit."""

    class Config(ComponentConfig):
        """Whom to ask, and how patiently.

        ``urls`` are servers that judge alike; when one fails the next is asked. ``timeout`` is in seconds, of one
        answer; ``retries`` is how often all servers are asked again, after ``wait`` seconds, then twice as long each
        time. ``token_variable`` names the environment variable that holds the token, where servers want one.
        ``pixels``: "exact" sends the numbers that were painted, "8bit" what a file would hold: a tenth of the bytes,
        and scores of files.
        """

        urls: Annotated[tuple[str, ...], AfterValidator(_urls)]
        timeout: float = Field(default=300.0, gt=0)
        retries: int = Field(default=4, ge=0, le=100)
        wait: float = Field(default=1.0, ge=0)
        token_variable: Annotated[str, AfterValidator(_variable)] = VARIABLE
        pixels: Literal["exact", "8bit"] = "exact"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._servers = _servers(config)

    @classmethod
    def stands_for(cls, config: Config) -> Mapping[str, Any]:
        """Return the identity of the reward that is served, wherever it is.

        Raises:
            RecipeError: two servers judge differently.
            TrainingError: no server answers.
        """
        identity = _servers(config).judge().identity
        return identity if config.pixels == "exact" else {"pixels": config.pixels, "judge": identity}

    @classmethod
    def cost(cls, config: Config) -> tuple[int, float]:
        """See :class:`RewardModel`: nothing is held or computed here."""
        return 0, 0.0

    @cached_property
    def _judge(self) -> Judge:
        return self._servers.judge()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Let the reward that is served look at the prompts.

        Raises:
            RecipeError: it cannot judge one; or two servers judge differently.
            TrainingError: no server answers, or the reward does not work there.
        """
        question = Prompts(prompts=[_asked(prompt) for prompt in prompts])
        self._servers.ask(CHECK, question, Checked, self._of_another, self._judge.max_request)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B], fp32."""
        return self.score_terms(images, prompts)[0]

    def score_terms(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scores, and those of the terms, Float [B] each, that the reward gives where it is served.

        Raises:
            RecipeError: it cannot judge one of the prompts.
            TrainingError: no server answers, or none with a number for each image.
        """
        shown = pixels.rounded(images) if self.config.pixels == "8bit" else images
        question = Question(
            judge=self._judge.judge, prompts=[_asked(prompt) for prompt in prompts], images=pack(shown)
        )

        def complaint(found: Scores) -> str | None:
            for name, column in (("scores", found.scores), *found.terms.items()):
                if len(column) != len(prompts):
                    return f"answers {len(column)} {name} for {len(prompts)} images"
            return self._of_another(found)

        found = self._servers.ask(SCORE, question, Scores, complaint, self._judge.max_request)
        as_tensor = partial(torch.tensor, dtype=torch.float32, device=images.device)
        return as_tensor(found.scores), {name: as_tensor(column) for name, column in found.terms.items()}

    def term_weights(self) -> Mapping[str, float] | None:
        """Return what the reward says where it is served."""
        return self._judge.term_weights

    def _of_another(self, found: Scores | Checked) -> str | None:
        return None if found.judge == self._judge.judge else "answers for another reward than was asked"


def _servers(config: Remote.Config) -> Servers:
    token = token_of_environment(config.token_variable)
    return Servers(config.urls, token, config.timeout, config.retries, config.wait)


def _asked(prompt: Prompt) -> AskedPrompt:
    """Write a prompt as JSON can say it.

    Raises:
        RecipeError: it cannot.
    """
    try:
        metadata = json.loads(json.dumps(dict(prompt.metadata)))
        return AskedPrompt(text=prompt.text, metadata=metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(
            f"the prompt {quote(prompt.text)} cannot be sent to a reward server: {error}"
        ) from error
