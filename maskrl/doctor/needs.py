"""What a recipe needs that is not here: extras, files, weights, memory, disk, a GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrl.doctor.finding import Finding
from maskrl.doctor.machine import free_memory, size, unmet

if TYPE_CHECKING:
    from maskrl.component import Chosen
    from maskrl.recipe import Recipe
    from maskrl.training.plan import Plan

EXTRAS = {"amused": "amused", "mask2former": "geneval", "fid": "fid"}  # by the names of components
TEXT_TOKENS = 20  # of a prompt, as `maskrl plan` takes it
CPU_RATE = 1e12  # FLOP/s, of a good one
PATIENCE = 48 * 3600  # seconds: what takes longer without a GPU needs one


def recipe_needs(name: str, overrides: list[str]) -> Iterator[Finding]:
    """Look for all that a recipe names, and compare what it needs with what there is."""
    from maskrl.errors import MaskRLError
    from maskrl.recipe import read_recipe

    try:
        recipe = read_recipe(name, overrides)
    except MaskRLError as error:
        for line in str(error).splitlines():
            yield Finding("recipe", "missing", line, f"maskrl recipe check {name}")
        return
    yield Finding("recipe", "fine", f"{name}: read, every component imports")
    yield from needs(recipe)


def needs(recipe: Recipe) -> Iterator[Finding]:
    """Compare what a recipe needs with what there is."""
    yield from _extras(recipe)
    yield from _files(recipe)
    yield from _sizes(recipe)


def _chosen(recipe: Recipe) -> list[Chosen[Any]]:
    """Return all components that a recipe names, those in settings of others too."""
    from maskrl.identity import chosen_in
    from maskrl.recipe import SECTIONS

    evaluations = [section.evaluation for section in recipe.eval.values()]
    top = [*(getattr(recipe, key) for key in SECTIONS), *recipe.watch.rewards.values(), *evaluations]
    found = []
    while top:
        one = top.pop(0)
        found.append(one)
        top += chosen_in(dict(one.config))
    return found


def _extras(recipe: Recipe) -> Iterator[Finding]:
    from maskrl.sections import is_dataset

    by_name = {EXTRAS[one.name]: f"{one.name!r}" for one in _chosen(recipe) if one.name in EXTRAS}
    of_settings = {
        "lora": ("[lora]", recipe.lora is not None),
        "8bit": ("training.optimizer = 'adamw_8bit'", recipe.training.optimizer == "adamw_8bit"),
        "datasets": (f"the dataset {recipe.prompts.train!r}", is_dataset(recipe.prompts.train)),
    }
    wanted = by_name | {extra: why for extra, (why, is_so) in of_settings.items() if is_so}
    for extra, why in wanted.items():
        if lacking := [package for package, _ in unmet(extra)]:
            text = f"{why} needs {', '.join(lacking)}"
            yield Finding("recipe", "missing", text, f"pip install 'maskrl[{extra}]'")
        else:
            yield Finding("recipe", "fine", f"{why}: the extra {extra!r} is here")


def _files(recipe: Recipe) -> Iterator[Finding]:
    """Look for the files and repositories that components read."""
    from maskrl.sections import is_dataset

    seen = set()
    for one in _chosen(recipe):
        settings = dict(one.config)
        for key in one.component.paths:
            source = _source(settings, key)
            if source and source not in seen:
                seen.add(source)
                yield _at_hand(source, f"{one.name}: {key} = {settings[key]!r}", "model")
    if is_dataset(recipe.prompts.train):
        train = recipe.prompts.train
        yield _at_hand(train, f"prompts.train = {train!r}", "dataset")


def _source(settings: dict[str, Any], key: str) -> str | None:
    """Return the path or the repository that a setting means; None where it names nothing to be read."""
    from maskrl.clip import hub_id, is_architecture

    value = settings.get(key)
    if not isinstance(value, str) or is_architecture(value):
        return None
    if not key.endswith("pretrained"):
        return value
    model = str(settings.get(key.replace("pretrained", "model")))
    return hub_id(model, value) or value if is_architecture(model) else None  # a folder has its own weights


def _at_hand(value: str, what: str, kind: str) -> Finding:
    """Say whether a path, or a repository of the hub, is here."""
    from maskrl.component import open_path
    from maskrl.errors import RecipeError
    from maskrl.weights import is_hub_id

    try:
        is_here = Path(open_path(value)).exists()
    except RecipeError as error:
        return Finding("recipe", "missing", f"{what}: {error}", "name a folder that is there")
    if is_here or _is_cached(value, kind):
        return Finding("recipe", "fine", f"{what}: here")
    if not is_hub_id(value):
        return Finding("recipe", "missing", f"{what}: there is no such file or folder", "correct the path")
    repository = f"{value} --repo-type dataset" if kind == "dataset" else value
    advice = f"hf download {repository} (or let the run fetch it, where the hub is reached)"
    if kind == "dataset":  # it is streamed
        return Finding("recipe", "note", f"{what}: read from the hub while the run begins", advice)
    return Finding("recipe", "missing", f"{what}: not in the hub's cache", advice)


def _is_cached(repository: str, kind: str) -> bool:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type=kind), "snapshots")
    return folder.is_dir() and any(folder.iterdir())


def _sizes(recipe: Recipe) -> Iterator[Finding]:
    """Compare memory, disk and time with what there is, by the numbers of ``maskrl plan``."""
    import torch

    from maskrl.errors import MaskRLError
    from maskrl.training.plan import plan

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        made = plan(recipe, TEXT_TOKENS, processes)
    except MaskRLError as error:
        yield Finding("recipe", "note", f"what it needs is not known: {error}")
        return
    has_gpu = torch.cuda.is_available() and recipe.training.device != "cpu"
    where = "a GPU" if has_gpu else "memory"
    free = torch.cuda.mem_get_info()[0] if has_gpu else free_memory()
    text = f"{where}: {size(made.peak)} at least, {size(free)} free"
    if made.peak > free:
        yield Finding("recipe", "missing", text, "maskrl plan says what saves memory; or a larger device")
    else:
        yield Finding("recipe", "fine", text)
    yield _disk(recipe, made)
    seconds = made.run() / CPU_RATE
    if not has_gpu and seconds > PATIENCE:
        text = f"no GPU: {seconds / 3600:.0f} hours of updates at {CPU_RATE / 1e12:g} TFLOP/s"
        yield Finding("recipe", "missing", text, "run it where torch sees a GPU")


def _disk(recipe: Recipe, made: Plan) -> Finding:
    kept = recipe.checkpoint.keep + 1  # one more while the oldest is not yet gone
    one = made.memory["weights"] + made.memory["optimizer"] + made.memory.get("average", 0.0)
    free = shutil.disk_usage(Path.cwd()).free
    text = f"disk: about {size(kept * one)} of checkpoints, {size(free)} free here"
    if kept * one > free:
        return Finding("recipe", "missing", text, "--run elsewhere, or --set checkpoint.keep=1")
    return Finding("recipe", "fine", text)
