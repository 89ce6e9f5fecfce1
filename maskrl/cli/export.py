"""``maskrl export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from maskrl.cli.output import JsonOption, print_json


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to make.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="A checkpoint's name or folder; by default the newest."),
    ] = None,
    adapters: Annotated[
        Literal["merged", "apart"],
        typer.Option(help="Of a run with [lora]: merged into the weights, or apart, in peft's layout."),
    ] = "merged",
    as_json: JsonOption = False,
) -> None:
    """Write trained weights in their published layout, with a card, to send to somebody."""
    from maskrl.library.export import CARD, export

    folder = export(run, to, checkpoint, adapters)
    if as_json:
        print_json({"folder": str(folder), "card": CARD})
    else:
        what = "the adapters" if adapters == "apart" else "the weights"
        typer.echo(f"{folder}: {what}, and {CARD}, which says what they are")
