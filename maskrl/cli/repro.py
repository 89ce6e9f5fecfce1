"""``maskrl repro``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.errors import TrainingError

if TYPE_CHECKING:
    from maskrl.reproductions.card import Card
    from maskrl.reproductions.verdict import Verdict

app = typer.Typer(no_args_is_help=True, help="Run again what a result says, and compare.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A card; 'maskrl repro list' has them.")]
SMOKE = "a smoke run: it shows that the run starts, learns and ends; its numbers mean nothing"


@app.command("list")
def list_cards(as_json: JsonOption = False) -> None:
    """List the cards: what may be run again, on what, for how long."""
    from maskrl.reproductions.card import cards, read_card

    found = [read_card(name) for name in cards()]
    if as_json:
        print_json([_about(card) for card in found])
        return
    width = max(len(card.name) for card in found)
    for card in found:
        typer.echo(f"{card.name.ljust(width)}  {card.file.title} ({card.file.hardware}, {_hours(card)})")


@app.command()
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Print a card."""
    from maskrl.reproductions.card import read_card

    card = read_card(name)
    if as_json:
        print_json(_about(card))
        return
    file = card.file
    of = f"recipe {file.recipe}" if file.recipe else f"study {file.study}, variant {file.variant}"
    typer.echo(
        f"{file.title}\n{of}; seeds {', '.join(map(str, file.seeds))}; {file.hardware}; {_hours(card)}"
    )
    for number, expected in file.expected.items():
        half = "" if expected.interval is None else f" ± {expected.interval:.3f}, a 95 % interval over seeds"
        typer.echo(f"{number}: {expected.gain:+.3f}{half}")
    typer.echo(f"source: {file.source}")


@app.command()
def run(
    name: NameArgument,
    smoke: Annotated[bool, typer.Option("--smoke", help="About a minute of it, without a verdict.")] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many of the card's seeds; by default all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write; by default reproductions/NAME.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time; by default one a core, and one alone on a GPU.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate what a card says, and say whether the result lies in its band; the same command goes on."""
    from maskrl.reproductions.card import read_card
    from maskrl.reproductions.running import run_card
    from maskrl.reproductions.verdict import verdicts

    card = read_card(name)
    folder = (out or Path("reproductions") / (f"{name}-smoke" if smoke else name)).absolute()
    count = 1 if smoke else seeds or len(card.file.seeds)
    if smoke:
        typer.echo(SMOKE, err=as_json)
    rows = run_card(card, folder, count, smoke, jobs, lambda line: typer.echo(line, err=as_json))
    judged = [] if smoke else list(verdicts(card, rows))
    if as_json:
        print_json({"card": name, "smoke": smoke, "rows": rows, "verdicts": [_told(v) for v in judged]})
    for verdict in () if as_json else judged:
        typer.echo(str(verdict))
    if failed := [row for row in rows if row["status"] == "failed"]:
        raise TrainingError(
            f"{len(failed)} of {len(rows)} runs have failed: {failed[0]['error']}; the same command goes on"
        )
    if outside := [v.number for v in judged if v.is_within is False]:
        raise TrainingError(f"outside the card's band: {', '.join(outside)}")


def _hours(card: Card) -> str:
    hours = card.file.hours
    return f"{hours:g} hours" if hours >= 1 else f"{hours * 60:.0f} minutes"


def _about(card: Card) -> dict[str, Any]:
    return {"name": card.name, **card.file.model_dump(mode="json", exclude={"smoke"})}


def _told(verdict: Verdict) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(verdict), "within": verdict.is_within}
