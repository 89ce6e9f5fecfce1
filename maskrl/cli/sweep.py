"""``maskrl sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.errors import TrainingError

if TYPE_CHECKING:
    from maskrl.sweeps.cells import Row
    from maskrl.sweeps.file import Sweep


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep's TOML file: a recipe, seeds, variants.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to write; by default sweeps/NAME of the file's name.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time; by default one a core, and one alone on a GPU."),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the table of what there is, and run nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train variants x seeds of a recipe side by side, and compare them; the same command goes on where it ended."""
    from maskrl.sweeps.file import read_sweep
    from maskrl.sweeps.running import rows_of, run_sweep

    found = read_sweep(file)
    folder = (out or Path("sweeps") / file.stem).absolute()
    if show:
        rows = rows_of(found, folder)
    else:
        rows = run_sweep(found, folder, jobs, lambda line: typer.echo(line, err=as_json))
    _print(found, rows, as_json)
    failed = [row for row in rows if row["status"] == "failed"]
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(rows)} runs have failed; the same command runs them again"
        )


def _print(found: Sweep, rows: list[Row], as_json: bool) -> None:
    from dataclasses import asdict

    from maskrl.sweeps.table import lines, table
    from maskrl.training.tables import print_table

    if as_json:
        numbers = [asdict(line) for line in lines(rows, found.baseline)]
        print_json({"baseline": found.baseline, "cells": rows, "table": numbers})
        return
    print_table(table(rows, found.baseline))
    commits = sorted({str(row["commit"]) for row in rows if "commit" in row})
    if len(commits) > 1:
        typer.echo(f"these runs are of several commits of maskrl: {', '.join(commits)}")
    for row in rows:
        if "error" in row:
            typer.echo(f"failed: {row['variant']}, seed {row['seed']}: {row['error']}; log: {row['log']}")
