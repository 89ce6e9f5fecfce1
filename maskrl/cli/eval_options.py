"""The options that every evaluation's command has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from maskrl.cli.output import JsonOption
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption
from maskrl.library.sources import override


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
    as_json: JsonOption = False

    def painting(self, label: str) -> list[str]:
        """Write those that say what is painted, and where, as overrides of the recipe."""
        prompts = self.prompts
        if prompts is not None and Path(prompts).exists():
            prompts = str(Path(prompts).resolve())
        return [
            *override(f"eval.{label}.prompts", prompts),
            *override(f"eval.{label}.images_per_prompt", self.images_per_prompt),
            *override(f"eval.{label}.num_steps", self.steps),
            *override(f"eval.{label}.guidance", self.guidance),
            *override("training.device", self.device),
        ]
