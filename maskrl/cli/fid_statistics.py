"""``maskrl eval fid_statistics``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ProtocolOption = Annotated[
    str, typer.Option(help="How images are resized: t2ibenchmark (Show-o is measured so) or gigagan (Janus).")
]
WeightsOption = Annotated[
    str | None, typer.Option(help="Inception's weights, pytorch-fid's file; fetched if not given.")
]


def fid_statistics(
    images: Annotated[Path, typer.Argument(help="A folder of true images, PNG or JPEG.")],
    out: Annotated[Path, typer.Option(help="The .npz to write, which --reference reads.")],
    protocol: ProtocolOption = "t2ibenchmark",
    weights: WeightsOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Make a reference for FID from a folder of images; the same again goes on where it was killed."""
    from maskrl.cli.eval_images import show_progress
    from maskrl.errors import RecipeError
    from maskrl.evals.flat import check_number, open_any
    from maskrl.evals.reference import make_reference
    from maskrl.evaluations.fid import Measure, known_protocol
    from maskrl.runtime.placement import Placement

    if out.suffix != ".npz":
        raise RecipeError(f"--out {str(out)!r}: statistics are a .npz file")
    if out.exists():
        raise RecipeError(f"--out {str(out)!r} is there already; delete it, or choose another")
    found = open_any(images, None)
    check_number(len(found.pairs()), f"{str(images)!r} holds")
    measure = Measure.build(known_protocol(protocol), None, weights)
    placement = Placement(device)
    for network in measure.extractor.modules:
        network.to(placement.device)
    with show_progress(placement, "judging") as show:
        make_reference(found, measure, out, process=placement, progress=show)
    if placement.is_main:
        typer.echo(f"statistics of {len(found.pairs()):,} images, {protocol}: {out}")
    placement.leave()
