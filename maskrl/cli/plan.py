"""``maskrl plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import RecipeOption, SetOption
from maskrl.library.sources import resolve_recipe

if TYPE_CHECKING:
    from rich.table import Table

    from maskrl.recipe import Recipe
    from maskrl.training.plan import Plan

GIB = 2**30


def plan(
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes, one per GPU, that share an update.")] = 1,
    text_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt, on average.")] = 20,
    memory: Annotated[
        float | None, typer.Option(min=0, help="GiB of the device; by default those of the one here.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=1e-3, help="TFLOP/s of a large matrix product there; by default measured here."),
    ] = None,
    efficiency: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Share of the matrix product's rate that is reached.")
    ] = 0.4,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe needs, in memory and time, without loading weights."""
    import torch

    from maskrl.training.plan import check_processes
    from maskrl.training.plan import plan as make_plan
    from maskrl.training.rate import device_memory, matmul_rate
    from maskrl.training.tables import print_table

    chosen = resolve_recipe(recipe, None, None, overrides or (), ("generators", "rewards", "reducers"))
    check_processes(chosen, processes)
    made = make_plan(chosen, text_tokens, processes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if rate is None:
        dtype = torch.bfloat16 if chosen.training.dtype == "bf16" else torch.float32
        flops, where = matmul_rate(device, dtype), f"measured on this {device}"
    else:
        flops, where = rate * 1e12, "as given"
    limit = memory * GIB if memory is not None else device_memory(device)
    if as_json:
        print_json(_told(made, flops * efficiency, limit))
        return
    typer.echo(f"{made.cost.parameters / 1e6:.2f} M parameters, {made.trained / 1e6:.2f} M trained")
    print_table(_memory_table(made))
    for name in made.uncounted:
        typer.echo(f"not counted: {name}, which does not say what it costs (it has no cost())")
    typer.echo(f"{flops / 1e12:.3g} TFLOP/s {where}; {efficiency:.0%} of that are assumed")
    print_table(_time_table(made, flops * efficiency, processes))
    typer.echo(_whole_run(made, flops * efficiency, processes))
    if limit is not None and made.peak > limit:
        typer.echo(_advice(chosen, made, processes, limit))


def _told(made: Plan, rate: float, limit: float | None) -> dict[str, Any]:
    """Say the same to a script: bytes, FLOPs of one process, seconds at the assumed rate."""
    return {
        "parameters": made.cost.parameters,
        "trained": made.trained,
        "memory_bytes": {**made.memory, **{f"during {stage}": n for stage, n in made.transient.items()}},
        "peak_bytes": made.peak,
        "fits": None if limit is None else made.peak <= limit,
        "update_flops": made.stages(),
        "update_seconds": sum(made.stages().values()) / rate,
        "updates": made.updates,
        "run_seconds": made.run() / rate,
        "evaluated_images": made.evaluated,
        "uncounted": list(made.uncounted),
    }


def _whole_run(made: Plan, rate: float, processes: int) -> str:
    """Say how long a run takes; resampled groups and what judges in an evaluation are not counted."""
    hours = made.run() / rate / 3600
    lines = [f"{made.updates} updates: {hours:.3g} hours"]
    if processes > 1:
        lines[0] += f" on {processes} devices, {hours * processes:.3g} of one"
    if made.evaluated:
        more = made.evaluation_flops / rate / 3600 / processes
        lines.append(f"evaluations: {made.evaluated} images, {more:.3g} hours more, the judge aside")
    return "\n".join(lines)


def _advice(recipe: Recipe, made: Plan, processes: int, limit: float) -> str:
    """Find the first of the savings that brings a recipe below the limit."""
    from maskrl.training.plan import plan_of
    from maskrl.training.savings import cheaper

    for changes, less in cheaper(recipe):
        if (peak := plan_of(less, made.cost, made.judging, processes).peak) <= limit:
            sets = " ".join(f"--set {change}" for change in changes)
            return f"more than {limit / GIB:.3g} GiB; {_size(peak)} with {sets}"
    return f"more than {limit / GIB:.3g} GiB, whatever is saved: take a larger device"


def _memory_table(made: Plan) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("memory")
    table.add_column("", justify="right")
    for name, size in made.memory.items():
        table.add_row("gradients, while it learns" if name == "gradients" else name, _size(size))
    table.add_section()
    for name, size in made.transient.items():
        table.add_row(f"during {name}", _size(size))
    table.add_section()
    table.add_row("peak, at least", _size(made.peak), style="bold")
    return table


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size > GIB / 10 else f"{size / 2**20:.1f} MiB"


def _time_table(made: Plan, rate: float, processes: int) -> Table:
    from rich.table import Table

    table = Table()
    for heading in ("time", "TFLOP", "seconds", "per second"):
        table.add_column(heading, justify="left" if heading == "time" else "right")
    counts = {"rollout": (made.images, "images"), "update": (made.pairs, "transitions")}
    total = 0.0
    for stage, done in made.stages().items():
        seconds = done / rate
        total += seconds
        number, what = counts.get(stage, (0, ""))
        speed = f"{number / seconds:.3g} {what}" if number else ""
        table.add_row(stage, f"{done / 1e12:.4g}", f"{seconds:.3g}", speed)
    table.add_section()
    images = made.images * processes
    table.add_row("update, all in all", "", f"{total:.3g}", f"{images / total:.3g} images", style="bold")
    return table
