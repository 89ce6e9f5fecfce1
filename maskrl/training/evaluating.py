"""The evaluations of a run: built before it begins, made on the same prompts from the same noise ever after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.eval_section import EvalConfig, EvalSection
from maskrl.evals.live import Asked, check, evaluate_together
from maskrl.evals.results import Report
from maskrl.evaluations import answers
from maskrl.grpo.config import Sampling
from maskrl.interfaces import Evaluation, ImageEvaluation, MaskedGenerator
from maskrl.pixels import rounded
from maskrl.recipe import Recipe
from maskrl.runtime.placement import Placement
from maskrl.runtime.prompts import load_prompts, prompts_digest
from maskrl.types import Prompt, Stream

Show = Callable[[int, int], None]
Item = TypeVar("Item")


@dataclass(frozen=True)
class RunEvaluation:
    """One of a run's evaluations; ``label`` is what its section is called, and its numbers in the metrics."""

    label: str
    evaluation: Evaluation
    section: EvalSection
    prompts: Sequence[Prompt]
    num_steps: int
    sampling: Sampling
    stream: Stream
    process: Placement

    @property
    def asked(self) -> Asked:
        """What is measured, by how many images."""
        return Asked(self.evaluation, self.section.images_per_prompt)

    def brief(self) -> RunEvaluation:
        """Return the same on the first ``subset`` prompts of each task."""
        return replace(self, prompts=first_of_each(self.evaluation, self.prompts, self.section.config.subset))

    @property
    def sees(self) -> tuple[Any, ...]:
        """What its images depend on. Two evaluations of a run that see the same differ at most in how many."""
        return self.num_steps, self.sampling, list(self.prompts)

    def is_right(self, image: Tensor, prompt: Prompt) -> bool | None:
        """Judge one image, Float [3, H, W] in [0, 1]; None of a prompt that is none of the evaluation's."""
        if not isinstance(self.evaluation, ImageEvaluation) or prompt not in self.prompts:
            return None
        (row,) = answers.judge(self.evaluation, [rounded(image)], [prompt])
        return self.evaluation.is_right(row)

    def contents(self) -> dict[str, Any]:
        """Say what it reads, by contents."""
        return contents_of(self.evaluation, self.prompts)


def alike(items: Iterable[Item], sees: Callable[[Item], Any]) -> list[list[Item]]:
    """Put together what sees the same images, which are then painted once."""
    groups: list[list[Item]] = []
    for item in items:
        for group in groups:
            if sees(item) == sees(group[0]):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def run_together(group: Sequence[RunEvaluation], generator: MaskedGenerator, progress: Show) -> list[Report]:
    """Evaluate by the same images; the reports are in the order of the evaluations."""
    first = group[0]
    return evaluate_together(
        [one.asked for one in group],
        generator,
        first.prompts,
        sampling=first.sampling,
        num_steps=first.num_steps,
        stream=first.stream,
        batch=min(one.section.config.batch for one in group),
        process=first.process,
        progress=progress,
    )


def build_evaluations(
    recipe: Recipe, num_steps: int, sampling: Sampling, placement: Placement
) -> list[RunEvaluation]:
    """Build every evaluation that a recipe names, and see that it can be made.

    Args:
        recipe: of the run.
        num_steps: T, where a section does not say.
        sampling: schedule, temperatures, guidance.
        placement: where networks are, and this process among others.

    Raises:
        RecipeError: an evaluation has no prompts, or cannot judge them.
        TrainingError: one does not work here and now.
        PluginError: one does not import, or answers wrongly.
    """
    found = []
    for label, section in recipe.eval.items():
        one = build_evaluation(label, section, recipe, num_steps, sampling, placement)
        check(one.evaluation, one.prompts, section.images_per_prompt)
        if section.config.every:
            brief = first_of_each(one.evaluation, one.prompts, section.config.subset)
            answers.require_images(
                one.evaluation, len(brief) * section.images_per_prompt, f"eval.{label}.subset"
            )
        found.append(one)
    return found


def build_evaluation(
    label: str,
    section: EvalSection,
    recipe: Recipe,
    num_steps: int,
    sampling: Sampling,
    placement: Placement,
    prompts: Sequence[Prompt] | None = None,
) -> RunEvaluation:
    """Build an evaluation, and place it.

    Args:
        label: what its section is called.
        section: its settings.
        recipe: what it takes where the section does not say; the seed of its noise.
        num_steps: T, where the section does not say.
        sampling: schedule, temperatures, guidance.
        placement: where networks are, and this process among others.
        prompts: in place of those that the section names.

    Raises:
        RecipeError: it has no prompts, or its settings are wrong.
        PluginError: it does not import.
    """
    evaluation = section.build(taken_of(recipe))
    placement.place_frozen(evaluation.modules)
    asked = prompts_of(label, section) if prompts is None else prompts
    steps = section.config.num_steps or num_steps
    drawn = section.painted_as(sampling)
    return RunEvaluation(label, evaluation, section, asked, steps, drawn, noise_of(recipe), placement)


def contents_of(evaluation: Evaluation, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Say what an evaluation of these prompts reads, by contents."""
    asked = {"sha256": prompts_digest(prompts), "number": len(prompts)}
    return {"prompts": asked, "settings": answers.settings(evaluation)}


def taken_of(recipe: Recipe) -> dict[str, Any]:
    """Return what an evaluation may take from a recipe, where its own section leaves it out."""
    return {"reward": recipe.reward, "seed": recipe.seed}


def noise_of(recipe: Recipe) -> Stream:
    """Return the randomness of every evaluation of a recipe, in a run and by a command; its name is historical."""
    return Stream(recipe.seed).child("geneval")


def prompts_of(label: str, section: EvalSection) -> list[Prompt]:
    """Return the prompts of an evaluation: those that its section names, else its own.

    Raises:
        RecipeError: there are none, or none that it is about.
    """
    kind, named = section.evaluation.component, section.config.prompts
    prompts = answers.prompts(kind) if named is None else load_prompts(named)
    if not prompts:
        raise RecipeError(
            f"eval.{label}: say what to paint: prompts = a prompt set or a file (--prompts SET)"
        )
    wanted = answers.wanted(kind, prompts)
    if not wanted:
        raise RecipeError(f"eval.{label}: no prompt of {named!r} is one that this evaluation can use")
    return wanted


def as_others(section: EvalSection, recipe: Recipe) -> EvalSection:
    """Let a section that says nothing of prompts, images, steps or batch say what the recipe's first other one says."""
    others = [other for other in recipe.eval.values() if other is not section]
    if not others:
        return section
    component = section.evaluation.component
    unsaid = EvalConfig.model_fields.keys() - section.config.model_fields_set - {"every", "subset"}
    if component.images_per_prompt is not None:
        unsaid -= {"images_per_prompt"}
    if answers.prompts(component):
        unsaid -= {"prompts"}
    said = {key: getattr(others[0].config, key) for key in unsaid}
    if "images_per_prompt" in said:
        # what its class has, where its section says nothing
        said["images_per_prompt"] = others[0].images_per_prompt
    return replace(section, config=section.config.model_copy(update=said))


def first_of_each(
    evaluation: Evaluation | type[Evaluation], prompts: Sequence[Prompt], number: int
) -> list[Prompt]:
    """Return the first ``number`` prompts of each of an evaluation's tasks, task by task."""
    by_task: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        by_task[evaluation.task(prompt)].append(prompt)
    return [prompt for task in by_task.values() for prompt in task[:number]]


def row_of(label: str, when: str, report: Report) -> dict[str, str | float]:
    """Return what ``metrics.jsonl`` says of an evaluation: its headline, and what else has a standard error."""
    (_, headline), *others = report.numbers.items()
    row: dict[str, str | float] = {"when": when, label: headline.mean}
    if headline.se == headline.se:  # NaN: it has none
        row[f"{label}_se"] = headline.se
    return row | {f"{label}_{name}": number.mean for name, number in others if number.se == number.se}
