"""The command of one evaluation, ``maskrl eval NAME``: the options of all, and one for each setting of its own."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from maskrl import registry
from maskrl.cli.eval_images import (
    painted,
    print_report,
    refuse_ignored,
    results_folder,
    show_progress,
    there,
)
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption
from maskrl.errors import PluginError, RecipeError
from maskrl.library.sources import override, resolve_recipe

if TYPE_CHECKING:
    from maskrl.eval_section import EvalSection
    from maskrl.interfaces import Evaluation
    from maskrl.recipe import Recipe


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


GuidanceOption = Annotated[
    float | None, typer.Option(help="w in (1 + w) * cond - w * uncond.", callback=_finite)
]
PromptsOption = Annotated[str | None, typer.Option(help="A prompt set's name, or a file.")]
ImagesPerPromptOption = Annotated[int | None, typer.Option(min=1, help="How many of each prompt.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Unmasking steps.")]
OutOption = Annotated[
    Path | None,
    typer.Option(help="A folder for images and results; the same again goes on where it was killed."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", help="Judge the images of this folder; nothing is painted, no recipe is needed."
    ),
]
DeviceOption = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]

_OLD = {
    (
        "image_reward",
        "--reward",
    ): "--reward weights=X: the settings of this evaluation are options: write --weights X",
}


@dataclass(frozen=True)
class Options:
    """What every evaluation's command takes."""

    recipe: RecipeOption = None
    run: RunOption = None
    checkpoint: CheckpointOption = None
    overrides: SetOption = None
    prompts: PromptsOption = None
    images_per_prompt: ImagesPerPromptOption = None
    steps: StepsOption = None
    guidance: GuidanceOption = None
    images: ImagesOption = None
    out: OutOption = None
    device: DeviceOption = None

    def painting(self, label: str) -> list[str]:
        """Write those that say what is painted, and where, as overrides of the recipe."""
        prompts = self.prompts
        if prompts is not None and Path(prompts).exists():
            prompts = str(Path(prompts).resolve())
        return [
            *override(f"eval.{label}.prompts", prompts),
            *override(f"eval.{label}.images_per_prompt", self.images_per_prompt),
            *override(f"eval.{label}.num_steps", self.steps),
            *override("sampling.guidance_eval", self.guidance),
            *override("training.device", self.device),
        ]


def command_of(name: str) -> Callable[..., None]:
    """Make the function of a command: its signature has the options, its docstring is the evaluation's.

    Raises:
        RecipeError: no such evaluation.
        PluginError: it does not import, or has a setting that is called like an option of every command.
    """
    component: type[Evaluation] = registry.load("evaluations", name)
    fields = component.Config.model_fields
    common = list(inspect.signature(Options, eval_str=True).parameters.values())
    taken = {parameter.name for parameter in common} | {"set"}
    if both := sorted(fields.keys() & taken):
        raise PluginError(
            f"the evaluation {name!r} has a setting {both[0]!r}, which every evaluation's command has"
        )

    def command(**given: Any) -> None:
        own = {key: given.pop(key) for key in fields}
        _evaluate(component, name, _settings(component, label_of(name), own), Options(**given))

    own = [_parameter(component, key) for key in fields]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *common)]
    command.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__doc__ = inspect.getdoc(component)
    return command


def refuse_old(name: str, arguments: Sequence[str]) -> None:
    """Refuse an option that was once written otherwise, and say how it is written now.

    Raises:
        RecipeError: there is one.
    """
    for argument in arguments:
        if said := _OLD.get((name, argument.partition("=")[0])):
            raise RecipeError(said)


def label_of(name: str) -> str:
    """Return what an evaluation's section in a recipe is called, if nobody calls it otherwise."""
    return name.rpartition(":" if registry.is_local(name) else "/")[2]


def _parameter(component: type[Evaluation], key: str) -> inspect.Parameter:
    """Make the option of a setting: what it names is named, or set by K=V; any other value is written as in TOML."""
    field = component.Config.model_fields[key]
    flag = f"--{key.replace('_', '-')}"
    default = "" if field.is_required() or field.default is None else f" Default: {_shown(field.default)}."
    text = f"{field.description or _sentence(component.Config.__doc__ or '', key)}{default}"
    if _names_component(field.annotation):
        option = typer.Option(flag, metavar="NAME|K=V", help=f"{text} Its settings: {flag} K=V.")
        annotation: Any = Annotated[list[str] | None, option]
    else:
        annotation = Annotated[str | None, typer.Option(flag, metavar="VALUE", help=text)]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sentence(docstring: str, key: str) -> str:
    """Return the sentence of a docstring that tells of a setting."""
    sentences = re.split(r"(?<=\.)\s+", " ".join(docstring.split()))
    return next((s.replace("``", "") for s in sentences if f"``{key}``" in s), f"The setting {key}.")


def _names_component(annotation: Any) -> bool:
    from maskrl.component import Chosen

    return get_origin(annotation) is Chosen or any(map(_names_component, get_args(annotation)))


def _settings(component: type[Evaluation], label: str, own: dict[str, Any]) -> list[str]:
    """Write an evaluation's own options as overrides of its section."""
    written = []
    for key, value in own.items():
        place, annotation = f"eval.{label}.{key}", component.Config.model_fields[key].annotation
        if isinstance(value, list):
            for one in value:
                setting, equals, text = one.partition("=")
                written += [f"{place}.{setting}={text}"] if equals else override(f"{place}.name", one)
        elif value is not None:
            takes_text = str in (annotation, *get_args(annotation))
            written += override(place, value) if takes_text else [f"{place}={value}"]
    return sorted(written, key=lambda line: not line.partition("=")[0].endswith(".name"))


def _evaluate(component: type[Evaluation], name: str, own: list[str], options: Options) -> None:
    from maskrl.evals.engine import evaluate_folder

    label = label_of(name)
    place = results_folder(options.out, options.run, options.images)
    settings = [*own, *(options.overrides or ())]
    if options.images is None:
        recipe, section = _of_recipe(name, settings, options)
        evaluation = section.build({"reward": recipe.reward, "seed": recipe.seed})
        opened = painted(evaluation, section, recipe, place, label)
    else:
        section, taken = _of_folder(component, name, settings, options)
        evaluation = section.build(taken)
        device = options.device or "auto"
        opened = there(evaluation, options.images, options.prompts, device, place, label)
    with opened as found:
        with show_progress(found.placement, "judging") as show:
            report = evaluate_folder(
                evaluation,
                found.images,
                found.out,
                found.provenance,
                batch=section.config.batch,
                process=found.placement,
                progress=show,
            )
        if found.placement.is_main:
            print_report(evaluation, report, found.out)


def _of_recipe(name: str, settings: list[str], options: Options) -> tuple[Recipe, EvalSection]:
    """Read the recipe that paints, and the evaluation's section in it, which it may not have."""
    from maskrl.training.evaluating import as_others

    label = label_of(name)
    settings = [_named(label, name), *settings, *options.painting(label)]
    recipe = resolve_recipe(options.recipe, options.run, options.checkpoint, settings, ("generators",))
    return recipe, as_others(recipe.eval[label], recipe)


def _named(label: str, name: str) -> str:
    return f"eval.{label}.name={json.dumps(name, ensure_ascii=False)}"


def _of_folder(
    component: type[Evaluation], name: str, settings: list[str], options: Options
) -> tuple[EvalSection, dict[str, Any]]:
    """Read the section of an evaluation of images that are there, and what it takes from a recipe if one is given."""
    from maskrl.component import Needs
    from maskrl.recipe import read_evaluation, read_recipe

    assert options.images is not None
    refuse_ignored(
        options.images,
        run=options.run,
        checkpoint=options.checkpoint,
        prompts=options.prompts if component.needs_prompts else None,
        images_per_prompt=options.images_per_prompt,
        steps=options.steps,
        guidance=options.guidance,
    )
    label = label_of(name)
    settings = [_named(label, name), *settings]
    if options.recipe is None:
        return read_evaluation(label, settings), {}
    if not component.takes and label not in read_recipe(options.recipe, needs=Needs((), ())).eval:
        refuse_ignored(options.images, recipe=options.recipe)
    recipe = read_recipe(options.recipe, settings, Needs((), ()))
    return recipe.eval[label], {"reward": recipe.reward, "seed": recipe.seed}
