"""What a component is, told by what its settings lead to: the same weights are the same, wherever they lie.

A number, a run and a set of images are of components with an identity. Paths are for people.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from maskrl import files, registry
from maskrl.asking import asking
from maskrl.component import Chosen, Component, open_path

_REVISION = re.compile(r"[0-9a-f]{40}")


def identity(component: Component | Chosen[Any]) -> dict[str, Any]:
    """Return which class a component is and its settings: plain values, of which equal ones mean the same component.

    In the place of a setting that names a file or a folder stands the sha256 of its contents; of a hub id, the id and
    the revision that lies in the cache. A class from a file is told by its name and the file's sha256; one that stands
    for something elsewhere, by that.

    Raises:
        RecipeError: a setting names a package that is not installed, or a file that cannot be read.
    """
    if isinstance(component, Chosen):
        return _of(component.component, component.config)
    return _of(type(component), component.config)


def _of(kind: type[Component], config: BaseModel) -> dict[str, Any]:
    with asking(kind):
        elsewhere = kind.stands_for(config)
    if elsewhere is not None:
        return dict(elsewhere)
    settings = {
        name: content(value) if name in kind.paths and isinstance(value, str) else _plain(value)
        for name, value in config
    }
    return {**name_class(kind), **settings}


def name_class(kind: type[Component]) -> dict[str, str]:
    """Return ``class``, and for one from a file ``source_sha256``."""
    source = source_of(kind)
    if digest := getattr(
        kind, "source_sha256", None
    ):  # of a function, which has no file, or is a part of one
        return {"class": kind.__qualname__, "source_sha256": digest}
    if source is None:
        return {"class": f"{kind.__module__}:{kind.__qualname__}"}
    return {"class": kind.__qualname__, "source_sha256": files.sha256(source)}


def source_of(kind: type[Component]) -> Path | None:
    """Return the file that a class was imported from by its path; None of an installed one."""
    if (file := getattr(kind, "source_file", None)) is not None:  # of a function in a file
        return Path(file)
    if not kind.__module__.startswith(registry.LOCAL_MODULE):
        return None
    return Path(str(sys.modules[kind.__module__].__file__))


def all_in(chosen: Chosen[Any]) -> list[Chosen[Any]]:
    """Return a component and those that are named in its settings, at any depth."""
    return [chosen, *(one for inner in chosen_in(dict(chosen.config)) for one in all_in(inner))]


def chosen_in(value: Any) -> list[Chosen[Any]]:
    """Return the components that are named in a setting, at any depth; not those in their own settings."""
    if isinstance(value, Chosen):
        return [value]
    inside = dict(value) if isinstance(value, BaseModel) else value
    found = (
        inside.values() if isinstance(inside, Mapping) else inside if isinstance(inside, list | tuple) else ()
    )
    return [chosen for inner in found for chosen in chosen_in(inner)]


def content(value: str) -> Any:
    """Say what a setting that names a file, a folder or something published stands for."""
    path = Path(open_path(value))
    if path.exists():
        return {"sha256": files.sha256(path)}
    revision = hub_revision(value)
    return value if revision is None else {"hub": value, "revision": revision}


def hub_revision(name: str) -> str | None:
    """Return the commit of a hub id's main branch that lies in this machine's cache, or None."""
    try:
        folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"))
        revision = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # not in the cache, or no hub id
        return None
    return revision if _REVISION.fullmatch(revision) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Chosen):
        return identity(value)
    if isinstance(value, BaseModel):
        return {name: _plain(inner) for name, inner in value}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return to_jsonable_python(value)
