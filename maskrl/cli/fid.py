"""``maskrl eval fid`` and ``maskrl eval fid_statistics``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrl import files
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption, open_source
from maskrl.cli.subject import (
    GuidanceOption,
    OutOption,
    Place,
    PromptsOption,
    StepsOption,
    open_subject,
    own,
    painting,
    print_result,
    refuse_ignored,
    results_folder,
    show_progress,
)

if TYPE_CHECKING:
    from maskrl.evals.fid import Measure
    from maskrl.evals.pictures import Pictures
    from maskrl.recipe import Recipe
    from maskrl.runtime.placement import Placement
    from maskrl.types import Prompt

ProtocolOption = Annotated[
    str, typer.Option(help="How images are resized: t2ibenchmark (Show-o is measured so) or gigagan (Janus).")
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Inception's weights, pytorch-fid's file; fetched if not given.")
]


def fid(
    reference: Annotated[
        Path,
        typer.Option(help="Statistics of true images: a .npz with mu and sigma, as pytorch-fid writes them."),
    ],
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    protocol: ProtocolOption = "t2ibenchmark",
    reduce_to: Annotated[
        int | None, typer.Option(min=1, help="Reduce images to this side first, bicubic: Janus to 256.")
    ] = None,
    weights: WeightsOption = None,
    prompts: PromptsOption = None,
    images_per_prompt: Annotated[int | None, typer.Option(min=1, help="Officially 1.")] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    out: OutOption = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Judge the PNG and JPEG files of this folder, or one in GenEval's layout; nothing is painted.",
        ),
    ] = None,
) -> None:
    """Measure how far images are from true ones; papers paint 30,000 captions of MS-COCO, an image each."""
    from maskrl.evals.fid import CAUTION, ENOUGH, evaluate, open_reference
    from maskrl.evals.frechet import check_reference

    refuse_ignored(
        images,
        run=run,
        checkpoint=checkpoint,
        images_per_prompt=images_per_prompt,
        steps=steps,
        guidance=guidance,
        recipe=recipe,
    )
    check_reference(reference)  # before weights are fetched
    settings = painting(prompts, images_per_prompt or 1, steps, guidance, overrides)
    chosen = open_source(recipe, run, checkpoint, settings, ("generators",))
    measure = _measure(protocol, reduce_to, weights)
    known = open_reference(reference, measure)  # before hours of painting
    folder = results_folder(out, run, images)
    with _pictures(chosen, folder, images, prompts) as (placement, pictures, place, provenance):
        measure.extractor.to(placement.device)
        with show_progress(placement, "judging") as show:
            result = evaluate(pictures, measure, known, place, provenance, process=placement, progress=show)
        if placement.is_main:
            print_result(result, place)
            if result.images < ENOUGH:
                typer.echo(f"N = {result.images:,}: {CAUTION}", err=True)


def fid_statistics(
    images: Annotated[Path, typer.Argument(help="A folder of true images, PNG or JPEG.")],
    out: Annotated[Path, typer.Option(help="The .npz to write, which --reference reads.")],
    protocol: ProtocolOption = "t2ibenchmark",
    weights: WeightsOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Make a reference for FID from a folder of images; the same again goes on where it was killed."""
    from maskrl.errors import RecipeError
    from maskrl.evals.fid import make_reference
    from maskrl.evals.pictures import open_pictures
    from maskrl.runtime.placement import Placement

    if out.suffix != ".npz":
        raise RecipeError(f"--out {str(out)!r}: statistics are a .npz file")
    if out.exists():
        raise RecipeError(f"--out {str(out)!r} is there already; delete it, or choose another")
    pictures, measure, placement = (
        open_pictures(images, None),
        _measure(protocol, None, weights),
        Placement(device),
    )
    measure.extractor.to(placement.device)
    with show_progress(placement, "judging") as show:
        make_reference(pictures, measure, out, process=placement, progress=show)
    if placement.is_main:
        typer.echo(f"statistics of {len(pictures.names):,} images, {protocol}: {out}")
    placement.leave()


def _measure(protocol: str, reduce_to: int | None, weights: Path | None) -> Measure:
    from maskrl.evals.fid import Measure, check_protocol
    from maskrl.evals.inception import Inception, find_weights

    check_protocol(protocol)
    found = find_weights(weights)
    return Measure(protocol, reduce_to, Inception(found), files.sha256(found))


@contextmanager
def _pictures(
    recipe: Recipe, out: Place, images: Path | None, prompts: str | None
) -> Iterator[tuple[Placement, Pictures, Path, dict[str, str]]]:
    """Paint what a recipe asks for, or open the images that are there; leave the other processes at the end."""
    from maskrl.evals.pictures import check_number, of_prompts, open_pictures
    from maskrl.runtime.placement import Placement
    from maskrl.runtime.prompts import load_prompts

    if images is None:

        def ready(placement: Placement, asked: Sequence[Prompt]) -> None:
            check_number(len(asked) * recipe.eval.images_per_prompt)

        with open_subject(recipe, out, None, "fid", ready=ready) as subject:
            yield subject.placement, of_prompts(subject.images), subject.out, subject.provenance
        return
    pictures = open_pictures(images, None if prompts is None else load_prompts(prompts))
    placement = Placement(recipe.training.device)
    with ExitStack() as stack:
        folder = own(out, placement, stack)
        yield placement, pictures, folder / "fid", {"images": str(images.resolve())}
        placement.leave()
