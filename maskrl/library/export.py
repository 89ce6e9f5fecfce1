"""A trained generator to send to somebody: its weights in the published layout, and a card that says what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from maskrl import files
from maskrl.component import Needs
from maskrl.errors import RecipeError
from maskrl.evals.comparison import compare_files
from maskrl.evals.results import RESULT, read_result
from maskrl.library.sources import saved_settings, weights_of
from maskrl.recipe import read_recipe
from maskrl.recipe_file import read_toml
from maskrl.runtime.adapter_files import write_adapters
from maskrl.runtime.checkpoint import STATE
from maskrl.runtime.record_file import read_record
from maskrl.sections import LoraConfig
from maskrl.training.opening import results_folder

CARD, FOLDER = "README.md", "PATH/OF/THIS/FOLDER"
Adapters = Literal["merged", "apart"]
SECTIONS = ("transition", "reward", "filter", "reducer", "grpo", "sampling", "training", "lora", "ema")


def export(run: Path, to: Path, checkpoint: Path | None = None, adapters: Adapters = "merged") -> Path:
    """Write the weights of a run's checkpoint into a new folder, with a card.

    Args:
        run: its folder.
        to: a folder that is not there yet, or empty. It is whole or absent, whatever happens on the way.
        checkpoint: the checkpoint's name or folder; None: the newest.
        adapters: of a run with ``[lora]``: merged into the weights, in fp32, in the generator's published layout; or
            apart, without the weights, in peft's.

    Returns:
        The folder.

    Raises:
        RecipeError: there is no run or checkpoint, or the folder is taken; or no adapters were trained.
        TrainingError: the checkpoint is damaged, or the folder cannot be written.
    """
    if not (run / "recipe.toml").is_file():
        raise RecipeError(f"there is no run in {str(run)!r}: it holds no recipe.toml")
    weights = weights_of(run, checkpoint)
    if not (weights.parent / STATE).is_file():
        raise RecipeError(
            f"--checkpoint {str(checkpoint)!r} is no checkpoint of a run: nothing says after how many updates it is"
        )
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise RecipeError(f"--to {str(to)!r} is there already: name a new folder, so that nothing is lost")
    apart = _trained_adapters(run) if adapters == "apart" else None
    card = "\n".join(_card(run, weights, apart is not None)) + "\n"
    with files.whole_folder(to) as unfinished:
        if apart is None:
            shutil.copytree(weights, unfinished, dirs_exist_ok=True)
        else:
            write_adapters(weights.parent, *apart, unfinished)
        files.write_text(unfinished / CARD, card)
    return to


def _trained_adapters(run: Path) -> tuple[LoraConfig, bool]:
    """Return the adapters that a run trains, and whether their average is what it has trained.

    Raises:
        RecipeError: it trains none.
    """
    recipe = read_recipe(run / "recipe.toml", needs=Needs((), ()))
    if recipe.lora is None:
        raise RecipeError(
            f"the run in {str(run)!r} has trained no adapters but the weights themselves: leave out --adapters apart"
        )
    return recipe.lora, recipe.ema is not None and recipe.ema.evaluate


def _card(run: Path, weights: Path, is_apart: bool) -> Iterator[str]:
    recipe = read_toml(run / "recipe.toml")
    record, state = (
        read_record(run),
        json.loads((weights.parent / STATE).read_text(encoding="utf-8")),
    )
    contents, start = record["contents"] or {}, (record["starts"] or [{}])[-1]
    update = int(state["update"])
    generator = recipe["generator"]
    yield from ("---", "library_name: maskrl", "pipeline_tag: text-to-image")
    tags = ["masked-generation", "reinforcement-learning", "grpo", *(["peft", "lora"] if is_apart else [])]
    yield from (f"tags: [{', '.join(tags)}]", "---", "")
    name = generator["name"].rsplit(":", 1)[-1]
    yield from (f"# {name}, after {update} updates of reinforcement learning", "")
    what = "Adapters for a generator" if is_apart else "A generator"
    yield f"{what} that paints by unmasking tokens, trained with [maskrl](https://pypi.org/project/maskrl/)."
    yield "Its licence is that of the base it was trained from."
    base = contents.get("generator", {})
    yield from _use(recipe, base, is_apart)
    yield from ("## Base", "", "| | |", "|---|---|")
    for key, value in generator.items():
        yield f"| {key} | {_said(_public(value, base.get(key)), base.get(key))} |"
    yield from (
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        f"| updates | {update} |",
        f"| seed | {recipe['seed']} |",
    )
    prompts = contents.get("prompts", {})
    yield f"| prompts | {prompts.get('number', 'unknown')}, sha256 {_short(prompts)} |"
    for section in SECTIONS:
        told = recipe.get(section)
        if isinstance(told, Mapping):
            known = contents.get(section, {})
            parts = [f"{k} = {_said(_public(v, known.get(k)), known.get(k))}" for k, v in told.items()]
            yield f"| {section} | {', '.join(parts)} |"
    versions = ", ".join(f"{name} {version}" for name, version in start.get("versions", {}).items())
    yield f"| versions | {versions or 'unknown'}, commit {start.get('commit') or 'unknown'} |"
    where = [start.get("processor"), *start.get("devices", [])]
    yield f"| machine | {', '.join(str(one) for one in where if one) or 'unknown'} |"
    yield from _results(run, recipe, update)


def _use(recipe: Mapping[str, Any], base: Mapping[str, Any], is_apart: bool) -> Iterator[str]:
    """Say how to paint with what is in the folder."""
    generator = recipe["generator"]
    settings = dict(generator) if is_apart else {**generator, **saved_settings(generator["name"], FOLDER)}
    with_path = "with the base" if is_apart else "with the path of this folder"
    yield from ("", "## Use", "", f"In a recipe, {with_path}:", "", "```toml", "[generator]")
    for key, value in settings.items():
        if value is not None:
            shown = value if value == FOLDER else _public(value, base.get(key))
            yield f"{key} = {json.dumps(shown, ensure_ascii=False)}"
    if is_apart:
        dtype = recipe["lora"].get("base_dtype", "fp32")
        yield from ("", "[lora]", f'base_dtype = "{dtype}"  # what the base was kept in')
    yield from ("```", "")
    if is_apart:
        yield f"Then `maskrl sample PROMPT --recipe RECIPE --checkpoint {FOLDER}`, or `maskrl eval` likewise."
        yield "The layout is that of [peft](https://huggingface.co/docs/peft); layers are called as in the base."
        yield ""


def _results(run: Path, recipe: Mapping[str, Any], update: int) -> Iterator[str]:
    """Compare base and trained model by what the run itself has measured of these very weights."""
    yield from ("", "## Results", "")
    is_empty = True
    for label in recipe.get("eval", {}):
        before, after = (results_folder(run, label, when) / RESULT for when in ("before", "after"))
        if not (before.is_file() and after.is_file()):
            continue
        if (measured := read_result(after).provenance.get("update")) != update:
            yield f"`{label}` was measured after update {measured}, not of these weights.\n"
            continue
        compared = compare_files(before.parent, after.parent)
        is_empty = False
        said = f"{compared.second.label}, guidance {compared.second.settings.get('guidance', 'unknown')}"
        yield f"{said}, {compared.second.images} images, same prompts and noise on both sides; ± one standard error."
        yield from ("", f"| {label} | base | trained | difference |", "|---|---|---|---|")
        for line in compared.lines:
            cells = (
                f"{n.mean:.3f} ± {n.se:.3f}" if n.se == n.se else f"{n.mean:.3f}"
                for n in (line.first, line.second)
            )
            gain = line.difference
            error = f" ± {gain.se:.3f}" if gain.se == gain.se else ""
            yield f"| {line.name} | {' | '.join(cells)} | {gain.mean:+.3f}{error} |"
        yield ""
    if is_empty:
        yield "The run has measured nothing of these weights."


def _public(value: Any, known: Any) -> Any:
    """Name a place by contents where it is one of the trainer's own disk, which means nothing to others."""
    is_own = isinstance(value, str) and (Path(value).is_absolute() or value.startswith((".", "~")))
    if is_own:
        return f"a file of the trainer's, sha256 {_short(known)}"
    if isinstance(value, Mapping):
        return {k: _public(v, known.get(k) if isinstance(known, Mapping) else None) for k, v in value.items()}
    return value


def _said(value: Any, known: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    is_named = isinstance(known, Mapping) and "sha256" in known and "sha256" not in text
    return f"`{text}` (sha256 {_short(known)})" if is_named else f"`{text}`"


def _short(known: Any) -> str:
    return str(known["sha256"])[:12] if isinstance(known, Mapping) and "sha256" in known else "unknown"
