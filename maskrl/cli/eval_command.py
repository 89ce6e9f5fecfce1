"""The command of one evaluation, ``maskrl eval NAME``: the options of all, and one for each setting of its own."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

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
from maskrl.cli.eval_options import Options
from maskrl.cli.output import print_json
from maskrl.errors import PluginError, RecipeError
from maskrl.library.sources import DEFAULT_RECIPE, override, resolve_recipe

if TYPE_CHECKING:
    from maskrl.eval_section import EvalSection
    from maskrl.interfaces import Evaluation
    from maskrl.recipe import Recipe


_PAINTING = (
    "prompts",
    "images_per_prompt",
    "num_steps",
    "guidance",
    "every",
    "subset",
)  # keys that say what is painted, and when
_OLD = {
    (
        "image_reward",
        "--reward",
    ): "--reward weights=X: the settings of this evaluation are options: write --weights X",
}


def command_of(name: str) -> Callable[..., None]:
    """Make the function of a command: its signature has the options, its docstring is the evaluation's.

    Raises:
        RecipeError: no such evaluation.
        PluginError: it does not import, or has a setting that is called like an option of every command.
    """
    component: type[Evaluation] = registry.load("evaluations", name)
    fields = component.Config.model_fields
    common = list(inspect.signature(Options, eval_str=True).parameters.values())
    taken = {parameter.name for parameter in common} | {"set", "json"}
    if both := sorted(fields.keys() & taken):
        raise PluginError(
            f"the evaluation {name!r} has a setting {both[0]!r}, which every evaluation's command has"
        )

    def command(**given: Any) -> None:
        own = {key: given.pop(key) for key in fields}
        _evaluate(component, name, own, Options(**given))

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


def _parameter(component: type[Evaluation], key: str) -> inspect.Parameter:
    """Make the option of a setting: what it names is named, or set by K=V; any other value is written as in TOML."""
    field = component.Config.model_fields[key]
    flag = f"--{key.replace('_', '-')}"
    shown = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    default = "" if field.is_required() or field.default is None else f" Default: {shown}."
    text = f"{field.description or _sentence(component.Config.__doc__ or '', key)}{default}"
    if _names_component(field.annotation):
        option = typer.Option(flag, metavar="NAME|K=V", help=f"{text} Its settings: {flag} K=V.")
        annotation: Any = Annotated[list[str] | None, option]
    else:
        annotation = Annotated[str | None, typer.Option(flag, metavar="VALUE", help=text)]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _sentence(docstring: str, key: str) -> str:
    """Return the sentence of a docstring that tells of a setting."""
    sentences = re.split(r"(?<=\.)\s+", " ".join(docstring.split()))
    return next((s.replace("``", "") for s in sentences if f"``{key}``" in s), f"The setting {key}.")


def _names_component(annotation: Any) -> bool:
    from maskrl.component import Chosen

    return get_origin(annotation) is Chosen or any(map(_names_component, get_args(annotation)))


def _settings(component: type[Evaluation], label: str, name: str, own: dict[str, Any]) -> list[str]:
    """Write an evaluation's name and its own options as overrides of its section."""
    written = []
    for key, value in own.items():
        place, annotation = f"eval.{label}.{key}", component.Config.model_fields[key].annotation
        if isinstance(value, list):
            for one in value:
                setting, equals, text = one.partition("=")
                written += [f"{place}.{setting}={text}"] if equals else override(f"{place}.name", one)
        elif value is not None:
            is_union = get_origin(annotation) in (Union, UnionType)
            takes_text = annotation is str or (is_union and str in get_args(annotation))
            written += override(place, value) if takes_text else [f"{place}={value}"]
    written.sort(key=lambda line: not line.partition("=")[0].endswith(".name"))
    return [f"eval.{label}.name={json.dumps(name, ensure_ascii=False)}", *written]


def _evaluate(component: type[Evaluation], name: str, own: dict[str, Any], options: Options) -> None:
    from maskrl.evals.folder import evaluate_folder
    from maskrl.training.evaluating import taken_of

    place, short = results_folder(options.out, options.run, options.images), registry.short_name(name)
    if options.images is None:
        recipe, section = _of_recipe(component, name, own, options)
        evaluation = section.build(taken_of(recipe))
        opened = painted(evaluation, section, recipe, place, short)
    else:
        section, taken, device = _of_folder(component, name, own, options)
        evaluation = section.build(taken)
        opened = there(evaluation, options.images, options.prompts, options.device or device, place, short)
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
            if options.as_json:
                print_json({"folder": str(found.out), **asdict(report.result)})
            else:
                print_report(evaluation, report, found.out)


def _of_recipe(
    component: type[Evaluation], name: str, own: dict[str, Any], options: Options
) -> tuple[Recipe, EvalSection]:
    """Read the recipe that paints, and the evaluation's section in it, which it may not have."""
    from maskrl.training.evaluating import as_others

    source = options.run / "recipe.toml" if options.run else options.recipe or DEFAULT_RECIPE
    label, is_own = _section_of(source, name)
    written = _settings(component, label, name, own)
    settings = [*written, *(options.overrides or ()), *options.painting(label)]
    recipe = resolve_recipe(options.recipe, options.run, options.checkpoint, settings, ("generators",))
    section = recipe.eval.get(label)
    if section is None:
        raise RecipeError(f"--set eval.{label}= leaves out what this command makes; leave it out itself")
    return recipe, section if is_own else as_others(section, recipe)


def _section_of(source: str | Path, name: str) -> tuple[str, bool]:
    """Return what the evaluation's section in a recipe is called, and whether there is one: the first that names it.

    Raises:
        RecipeError: its name is taken by a section of another evaluation.
    """
    from maskrl.component import Needs
    from maskrl.recipe import read_recipe

    known = read_recipe(source, needs=Needs((), ())).eval
    short, resolved = registry.short_name(name), registry.resolve_local(name, Path.cwd())
    labels = [label for label, section in known.items() if section.evaluation.name in (name, resolved)]
    if not labels and short in known:
        raise RecipeError(
            f"{str(source)!r} calls another evaluation {short!r} ({known[short].evaluation.name!r}); rename its section"
        )
    return (short if short in labels or not labels else labels[0]), bool(labels)


def _of_folder(
    component: type[Evaluation], name: str, own: dict[str, Any], options: Options
) -> tuple[EvalSection, dict[str, Any], str]:
    """Read the section of an evaluation of images that are there, and what it takes from a recipe if one is given.

    Returns:
        The section, the recipe's by name, and the device.
    """
    from maskrl.component import Needs
    from maskrl.recipe import read_evaluation, read_recipe
    from maskrl.training.evaluating import taken_of

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
    label, is_own = registry.short_name(name), False
    if options.recipe is not None:
        label, is_own = _section_of(options.recipe, name)
    _refuse_painting(options.images, label, component, options.overrides or ())
    settings = [*_settings(component, label, name, own), *(options.overrides or ())]
    if options.recipe is None:
        return read_evaluation(label, settings), {}, "auto"
    if not component.takes and not is_own:
        refuse_ignored(options.images, recipe=options.recipe)
    recipe = read_recipe(options.recipe, settings, Needs((), ()))
    return recipe.eval[label], taken_of(recipe), recipe.training.device


def _refuse_painting(images: Path, label: str, component: type[Evaluation], overrides: Sequence[str]) -> None:
    """Refuse what is set beside images that are there and is none of the evaluation's own."""
    for line in overrides:
        key = line.partition("=")[0].strip()
        is_painting = key in {f"eval.{label}.{one}" for one in _PAINTING}
        is_own = (
            key.startswith((f"eval.{label}.", *(f"{taken}." for taken in component.takes)))
            or key in component.takes
        )
        is_old = key.startswith("eval.") and key.count(".") == 1
        if (is_painting or not is_own) and not is_old:
            raise RecipeError(
                f"--set {line!r}: nothing is painted, so it would be ignored; what can be set beside --images"
                f" {str(images)!r} is eval.{label}.KEY"
            )
