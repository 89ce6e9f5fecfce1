"""The token that a reward server wants to see: in an environment variable or a file, never in a recipe."""

from __future__ import annotations

import os
import re
from pathlib import Path

from maskrl.errors import RecipeError

VARIABLE = "MASKRL_REWARD_TOKEN"
_TOKEN = re.compile(r"[\x21-\x7e]+")


def token_of_environment(variable: str) -> str | None:
    """Return the token in an environment variable; None where there is no such variable.

    Raises:
        RecipeError: it holds no token.
    """
    found = os.environ.get(variable)
    return None if found is None else _checked(found, f"the environment variable {variable}")


def token_of_file(file: Path) -> str:
    """Return the token in a file.

    Raises:
        RecipeError: it cannot be read, or holds no token.
    """
    try:
        found = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the token file {str(file)!r} cannot be read: {error}") from error
    return _checked(found, f"the token file {str(file)!r}")


def _checked(found: str, where: str) -> str:
    token = found.strip()
    if not _TOKEN.fullmatch(token):
        raise RecipeError(f"{where} holds no token: one word of visible ASCII characters is wanted")
    return token
