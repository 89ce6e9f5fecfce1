"""What paints: a recipe's generator, a run's newest checkpoint, weights in a folder; the shapes world by default."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrl import recipe_file, registry
from maskrl.errors import PluginError, RecipeError, TrainingError

if TYPE_CHECKING:
    from maskrl.component import Needs
    from maskrl.grpo.config import Sampling
    from maskrl.interfaces import MaskedGenerator
    from maskrl.recipe import Recipe
    from maskrl.runtime.placement import Placement

DEFAULT_RECIPE = "shapes_clip"


def written(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as overrides of a recipe: None restores a default."""
    return [
        f"{key}={'' if value is None else recipe_file.toml_value(value)}" for key, value in settings.items()
    ]


def sample_steps(recipe: Recipe) -> int | None:
    """Return the steps of the recipe's first evaluation, which are those of its pictures; None: as in training."""
    return next((section.config.num_steps for section in recipe.eval.values()), None)


def override(key: str, value: Any) -> list[str]:
    """Write an option as an override of the recipe; None is none."""
    return [] if value is None else [f"{key}={json.dumps(value, ensure_ascii=False)}"]


def resolve_recipe(
    recipe: str | None,
    run: Path | None,
    checkpoint: Path | None,
    overrides: Sequence[str],
    kinds: Collection[str],
) -> Recipe:
    """Read the recipe that the options mean, its generator set to the weights that they mean.

    Of components in a file only those of ``kinds`` are imported, whatever else a recipe names. Of a run nothing else is
    even looked for: it can be painted where its reward and its prompts are not.

    Raises:
        RecipeError: the options contradict each other, or name nothing.
        TrainingError: the checkpoint is damaged; the message names one that is not.
    """
    from maskrl.component import Needs

    if run is not None:
        if recipe is not None:
            raise RecipeError("--run DIR brings its own recipe; leave out --recipe")
        if not (run / "recipe.toml").is_file():
            raise RecipeError(f"there is no run in {str(run)!r}: it holds no recipe.toml")
        return _read_run(
            str(run / "recipe.toml"), overrides, weights_of(run, checkpoint), Needs(kinds, kinds)
        )
    weights = None if checkpoint is None else _weights(checkpoint)
    return _read(recipe or DEFAULT_RECIPE, overrides, weights, Needs(files=kinds))


def _read_run(recipe: str, overrides: Sequence[str], weights: Path, needs: Needs) -> Recipe:
    """Read a run's recipe, its generator set to what was trained; adapters stay apart, as rounded sums are others."""
    from maskrl.component import Needs
    from maskrl.recipe import read_recipe
    from maskrl.runtime.checkpoint import listed

    is_adapted = read_recipe(recipe, overrides, Needs((), ())).lora is not None
    if not is_adapted or weights.parent not in listed(weights.parent.parent):
        return _read(recipe, overrides, weights, needs)
    return read_recipe(recipe, overrides, needs).with_adapters(weights.parent.resolve())


def _read(recipe: str, overrides: Sequence[str], weights: Path | None, needs: Needs) -> Recipe:
    """Read a recipe, its generator set to the weights in a folder, or to the adapters that stand beside its own."""
    from maskrl.component import Needs
    from maskrl.recipe import read_recipe

    if weights is None:
        return read_recipe(recipe, overrides, needs)
    if not weights.is_dir():
        raise RecipeError(f"there is no checkpoint folder {str(weights)!r}")
    from maskrl.runtime.adapter_files import holds_adapters

    if holds_adapters(weights):
        return read_recipe(recipe, overrides, needs).with_adapters(weights.resolve())
    name = read_recipe(recipe, overrides, Needs((), ())).generator.name
    return read_recipe(recipe, [*_saved_settings(name, weights.resolve()), *overrides], needs)


def _saved_settings(generator: str, folder: Path) -> list[str]:
    """Write the settings that load a generator's saved weights, as overrides of the recipe.

    Raises:
        PluginError: it does not say which.
    """
    settings = saved_settings(generator, str(folder))
    return [
        line
        for key, value in settings.items()
        for line in ([f"generator.{key}="] if value is None else override(f"generator.{key}", value))
    ]


def saved_settings(generator: str, folder: str) -> Mapping[str, str | None]:
    """Return the settings that load what a generator saved in a folder; None: the default.

    Raises:
        PluginError: it names one that it has not.
    """
    component: type[MaskedGenerator] = registry.load("generators", generator)
    settings = component.saved_settings(folder)
    if unknown := sorted(settings.keys() - component.Config.model_fields.keys()):
        raise PluginError(
            f"generator {generator!r} has no setting {unknown[0]!r}, under which what it saved would be loaded;"
            " its saved_settings() names the one it has"
        )
    return settings


def weights_of(run: Path, checkpoint: Path | None) -> Path:
    """Return the weights that are named, by a checkpoint's name or as any folder; a run's newest if none are."""
    from maskrl.runtime.checkpoint import listed

    known = {path.name: path for path in listed(run / "checkpoints")}
    if checkpoint is not None:
        named = known.get(str(checkpoint))
        if named is None and not checkpoint.is_dir():
            there = f"it has {', '.join(known)}" if known else "it has none yet"
            raise RecipeError(f"the run in {str(run)!r} has no checkpoint {str(checkpoint)!r}; {there}")
        return _weights(checkpoint) if named is None else _verified(named)
    if not known:
        raise RecipeError(f"the run in {str(run)!r} has no checkpoint yet")
    return _verified(list(known.values())[-1])


def _weights(folder: Path) -> Path:
    """Return the folder of weights in a run's checkpoint; any other folder is one itself."""
    from maskrl.runtime.checkpoint import GENERATOR, listed

    is_checkpoint = (folder / GENERATOR).is_dir() and folder in listed(folder.parent)
    return _verified(folder) if is_checkpoint else folder


def _verified(checkpoint: Path) -> Path:
    from maskrl.runtime.checkpoint import GENERATOR, damaged, intact_before

    if damage := damaged(checkpoint):
        intact = intact_before(checkpoint)
        instead = f"--checkpoint {intact} is intact" if intact else "no older one is intact: restore it"
        raise TrainingError(f"checkpoint {str(checkpoint)!r} is damaged: {damage}; {instead}")
    return checkpoint / GENERATOR


@dataclass(frozen=True)
class Sampler:
    """A generator on its device, and how the recipe samples from it."""

    placement: Placement
    generator: MaskedGenerator
    sampling: Sampling
    num_steps: int


def build_sampler(recipe: Recipe, num_steps: int | None = None) -> Sampler:
    """Build the recipe's generator, and fill in the sampler's defaults.

    Args:
        recipe: what paints.
        num_steps: T; None: as in training.

    Raises:
        RecipeError: its settings are wrong.
    """
    from maskrl.grpo.config import resolve
    from maskrl.runtime.adapter_files import adapt_as_published, holds_adapters
    from maskrl.runtime.autocast import Autocast
    from maskrl.runtime.checkpoint import EMA, PARAMETER
    from maskrl.runtime.lora import adapt_as_trained
    from maskrl.runtime.placement import Placement

    placement = Placement(recipe.training.device)
    generator = recipe.generator.build()
    if recipe.adapters is not None and holds_adapters(recipe.adapters):
        adapt_as_published(generator, recipe.adapters, recipe.lora)
    elif recipe.lora is not None and recipe.adapters is not None:
        is_averaged = recipe.ema is not None and recipe.ema.evaluate
        whose = EMA if is_averaged else PARAMETER
        adapt_as_trained(generator, recipe.lora, recipe.seed, recipe.adapters, whose)
    for module in (generator.module, *generator.frozen):
        module.to(placement.device).eval()
    num_steps = num_steps or recipe.grpo.steps(generator.spec)
    if recipe.training.dtype == "bf16":
        generator = Autocast(generator)
    return Sampler(placement, generator, resolve(recipe.sampling, generator.spec, generator), num_steps)
