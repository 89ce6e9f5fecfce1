"""What a person sees of a run: a live panel on a terminal, plain lines elsewhere, a table at the end."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from maskrl.evals.comparison import Line, compare
from maskrl.evals.results import Report
from maskrl.evaluations.numbers import written
from maskrl.interfaces import Evaluation, Number
from maskrl.registry import short_name
from maskrl.training.best_guidance import Best
from maskrl.training.tables import print_table

LINE_EVERY = 10.0  # seconds between plain lines
REMEMBERED = 20  # updates over which the time left is estimated
BESIDE_SPARKS = 49  # columns of the frame, a long name and the reward
FEWEST_SPARKS = 8
HELD_OUT = "held_out_"  # the rewards that are not trained on
_ROUNDING = 1e-9  # differences that cancel may leave this much
HEADINGS = ("", "before", "after", "difference")  # of a table of two evaluations
SPARKS = "▁▂▃▄▅▆▇█"


class Display:
    """Shows a run: on a terminal a panel that is repainted, elsewhere a line every ``LINE_EVERY`` seconds.

    ``Console(quiet=True)`` shows nothing.
    """

    def __init__(self, console: Console, updates: int, done: int = 0) -> None:
        self._console, self._updates, self._done = console, updates, done
        self._metrics: Mapping[str, float] = {}
        self._rewards: deque[float] = deque(maxlen=40)
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)
        self._stage = ""
        self._evaluated: dict[str, str] = {}  # the latest, by what it is called
        self._held_out: dict[str, float] = {}  # the latest; not every update has them
        self._last_line, self._budget = -math.inf, math.inf
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def now(self, text: str) -> None:
        """Say what takes a while before it can show numbers of its own."""
        self._stage = text
        self._repaint()
        if self._live is None:
            self.say(text)

    def stage(self, text: str, done: int, total: int) -> None:
        """Show how far something other than the updates is (an evaluation, say)."""
        self._stage = f"{text}: {done} of {total}" if done < total else ""
        self._repaint()
        if self._live is None and self._is_time(False):
            self.say(f"{text}: {done} of {total}")

    def update(self, done: int, metrics: Mapping[str, float], budget: float = math.inf) -> None:
        """Show the metrics of the update that made it ``done``; ``budget``: seconds that updates may still take."""
        self._done, self._metrics, self._budget = done, metrics, budget
        self._held_out |= {key: value for key, value in metrics.items() if key.startswith(HELD_OUT)}
        self._stage = ""
        self._rewards.append(metrics["reward_mean"])
        self._seconds.append(metrics["seconds_total"])
        self._repaint()
        if self._live is None and self._is_time(done in (1, self._updates)):
            self.say(line(done, self._updates, metrics, self._left()))

    def evaluated(self, section: str, when: str, report: Report) -> None:
        """Show an evaluation's headline; ``section`` is what its section is called."""
        headline, title = written(report.headline), titled(section, report)
        self._evaluated[title] = f"{headline} ({when})"
        self.say(f"{title} {when}: {headline} ({report.result.images} images)")

    def finish(self) -> None:
        """Take the panel away."""
        self.__exit__()

    def changed(self, section: str, kind: type[Evaluation], before: Report, after: Report) -> Sequence[Line]:
        """Print the table of an evaluation before and after, name what has become worse, and return its lines."""
        lines = shown(compare(kind, before, after))
        images = before.result.images
        self.say(
            f"{titled(section, before)} before and after ({images} images each)"
        )  # a table cuts a long title
        print_table(result_table(lines), self._console)
        for line in worse(kind, lines):
            verb = "fell" if line.difference.mean < 0 else "rose"
            size = Number(abs(line.difference.mean), line.difference.se)
            self.say(f"{line.name} {verb} by {written(size)}")
        return lines

    def best(self, best: Best) -> None:
        """Say what base and trained model come to, each at its best guidance."""
        self.say(
            f"{best.label}: base at its best guidance ({best.guidance_before:g}): {written(best.before)}, trained at"
            f" its best ({best.guidance_after:g}): {written(best.after)},"
            f" difference {written(best.difference, sign=True)}"
        )

    def _is_time(self, always: bool) -> bool:
        """Tell whether a plain line is due."""
        now = monotonic()
        if not always and now - self._last_line < LINE_EVERY:
            return False
        self._last_line = now
        return True

    def _left(self) -> str:
        if not self._seconds:
            return ""
        needed = (self._updates - self._done) * sum(self._seconds) / len(self._seconds)
        return duration(max(0.0, min(needed, self._budget)))

    def _repaint(self) -> None:
        if self._live is not None:
            self._live.update(Panel(Group(self._bar(), self._table()), title="maskrl train"))

    def _bar(self) -> Progress:
        columns = (
            TextColumn("updates"),
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
        )
        progress = Progress(*columns, expand=True)
        progress.add_task(
            f"{self._left()} left" if self._seconds else "", total=self._updates, completed=self._done
        )
        return progress

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(no_wrap=True)  # names break, numbers do not
        if self._metrics:
            recent = list(self._rewards)[-max(FEWEST_SPARKS, self._console.width - BESIDE_SPARKS) :]
            table.add_row("reward", f"{self._metrics['reward_mean']:.4f}  {sparkline(recent)}")
            for name, value in readable(self._metrics).items():
                table.add_row(name, value)
        for key, latest in self._held_out.items():
            table.add_row(key.replace("_", " "), f"{latest:.4f}")
        for label, headline in self._evaluated.items():
            table.add_row(label, headline)
        if self._stage:
            table.add_row("now", self._stage)
        return table


def readable(metrics: Mapping[str, float]) -> dict[str, str]:
    """Pick the metrics a person watches, and round them; the reward is shown apart."""
    number = metrics.__getitem__
    return {
        "reward spread": f"{number('reward_std'):.4f} within groups",
        "diversity in groups": f"tokens {number('diversity_tokens'):.1%}, pixels {number('diversity_pixels'):.3f}",
        "entropy": f"{number('entropy'):.3f} nats",
        "clip fraction": f"{number('clip_fraction'):.2%}",
        "ratio": f"{number('ratio_min'):.3f} to {number('ratio_max'):.3f}",
        "groups": f"{number('kept_fraction'):.1%} kept{_skipped(metrics)}",
        "resample rate": f"{number('resample_rate'):.1%}",
        "floored fraction": f"{number('floored_fraction'):.2%}",
        "gradient norm": f"{number('grad_norm'):.3g}",
        "seconds": f"rollout {number('seconds_rollout'):.2f}, reward {number('seconds_reward'):.2f}, "
        f"update {number('seconds_update'):.2f}",
    }


def line(done: int, updates: int, metrics: Mapping[str, float], left: str) -> str:
    """Say in one line how an update went."""
    seconds = [metrics[f"seconds_{part}"] for part in ("rollout", "reward", "update")]
    return "  ".join(
        (
            f"update {done}/{updates}",
            f"reward {metrics['reward_mean']:.4f}",
            f"clipped {metrics['clip_fraction']:.1%}",
            f"ratio {metrics['ratio_min']:.3f}-{metrics['ratio_max']:.3f}",
            f"kept {metrics['kept_fraction']:.0%}{_skipped(metrics)}",
            f"resampled {metrics['resample_rate']:.0%}",
            f"floored {metrics['floored_fraction']:.1%}",
            "seconds " + " + ".join(f"{part:.2f}" for part in seconds),
            f"{left} left",
        )
    )


def _skipped(metrics: Mapping[str, float]) -> str:
    return " (skipped)" if metrics["skipped"] else ""


def shown(lines: Sequence[Line]) -> list[Line]:
    """Leave out what has no standard error, of which nobody can say whether it has changed; never the headline."""
    return [*lines[:1], *(line for line in lines[1:] if not math.isnan(line.first.se))]


def worse(kind: type[Evaluation], lines: Sequence[Line]) -> list[Line]:
    """Return the lines whose number has become worse, beyond what rounding leaves; of several, not the headline."""
    sign = -1 if kind.larger_is_better else 1
    return [line for line in lines[1:] or lines if sign * line.difference.mean > _ROUNDING]


def titled(section: str, report: Report) -> str:
    """Return what a result may be called, and its section where that is not called as the evaluation is."""
    is_own = section == short_name(report.result.evaluation)
    return report.result.label if is_own else f"{section}: {report.result.label}"


def result_table(lines: Sequence[Line]) -> Table:
    """Tabulate two evaluations: means ± standard errors, and the difference of each prompt with itself."""
    table = Table()
    table.add_column("")
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    headline, *others = lines
    for line in others:
        table.add_row(*cells(line))
    table.add_section()
    table.add_row(*cells(headline), style="bold")
    return table


def sparkline(values: list[float]) -> str:
    """Draw numbers as a row of blocks, from the smallest to the largest of them."""
    low, span = min(values), max(values) - min(values)
    return "".join(
        SPARKS[int((value - low) / span * (len(SPARKS) - 1))] if span else SPARKS[0] for value in values
    )


def duration(seconds: float) -> str:
    """Write a time as a person says it: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def cells(line: Line) -> tuple[str, ...]:
    """Write a line of a table of two evaluations: its name, before, after, difference."""
    return line.name, written(line.first), written(line.second), written(line.difference, sign=True)
