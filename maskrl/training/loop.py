"""The whole job: evaluations before, updates with checkpoints, evaluations after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter

from maskrl import files
from maskrl.errors import TrainingError
from maskrl.evals.ranks import check_same, run_on_main
from maskrl.evals.results import RESULT, Report
from maskrl.recipe import Recipe
from maskrl.runtime import checkpoint as checkpoints
from maskrl.runtime.folder import begin, check_folder, check_updates, default_folder, note_saved, settings
from maskrl.runtime.metrics import MetricsLog, last_update
from maskrl.training.best_guidance import best_of
from maskrl.training.display import Display
from maskrl.training.evaluating import RunEvaluation, alike, row_of, run_together
from maskrl.training.failing import memory, remembering, rescuing
from maskrl.training.lessons import Lessons
from maskrl.training.opening import (
    about,
    contents,
    newest,
    open_log,
    read_before,
    results_folder,
    write_results,
)
from maskrl.training.pictures import Samples, save_before_after, save_samples
from maskrl.training.result import TrainResult
from maskrl.training.saving import save, try_saving
from maskrl.training.setup import Setup, set_up
from maskrl.training.signals import Stop
from maskrl.training.state import Progress, read_progress, restore
from maskrl.training.tables import plain_console
from maskrl.training.tracked import show_picture, show_table
from maskrl.training.updating import make_update


def train(recipe: Recipe, run: Path | None, resume: bool, display: bool, name: str = "run") -> TrainResult:
    """Train as the recipe says, and leave everything in the run's folder.

    Args:
        recipe: what to do.
        run: the folder; new, or with ``resume`` the one of an earlier run of this recipe. None: a new one below
            ``runs``, called after ``name`` and the time.
        resume: continue from the newest checkpoint, or from the beginning if there is none.
        display: whether to show anything.
        name: of a run without a folder.

    Raises:
        RecipeError: something in the recipe is wrong, the folder belongs to another run, or what this one reads has
            changed since it began.
        TrainingError: the folder cannot be written, or another process writes it; a checkpoint or the metrics are
            damaged or gone; or a number is not finite.
        KeyboardInterrupt: SIGINT arrived; the updates made so far are saved.
        SystemExit: the same for SIGTERM, with 143.
    """
    if run is not None:
        run = run.absolute()  # before components are built, which may look elsewhere
        check_folder(run, resume)
    with memory(Progress()):
        setup = set_up(recipe)
    placement = setup.placement
    read = contents(recipe, setup)
    check_same(placement, {**settings(recipe), **read})
    with ExitStack() as stack:
        stack.callback(setup.rollouts.close)
        said: list[str] = []

        def open_run() -> None:
            folder = run or files.make_new(default_folder(name, datetime.now()))
            folder = folder.absolute()  # a component may change the current folder
            stack.enter_context(files.owned(folder))
            check_folder(folder, resume)
            check_updates(folder, recipe.training.updates, last_update(folder) if resume else 0)
            said.extend(begin(folder, recipe, read, about(recipe, setup)))
            opened.append(folder)

        opened: list[Path] = []
        run_on_main(placement, open_run)
        folder = placement.share(opened[0] if opened else None)
        assert folder is not None
        checkpoint = newest(folder, recipe) if resume else None
        progress = read_progress(checkpoint) if checkpoint else Progress()
        console = plain_console(quiet=not (display and placement.is_main))
        log = stack.enter_context(open_log(recipe, folder, progress, placement))
        screen = stack.enter_context(Display(console, recipe.training.updates, progress.update))
        stop = stack.enter_context(Stop(is_silent=not placement.is_main))
        for line in said:
            screen.say(line)
        with remembering(folder, placement.is_main), memory(progress), placement.meeting():
            result = _Run(recipe, folder, setup, progress, log, screen, stop).go(checkpoint)
    placement.leave()
    return result


class _Run:
    """One run, opened. After an update come its row, its checkpoint, then evaluation and pictures.

    Every process updates and evaluates; the main one alone writes and paints.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        setup: Setup,
        progress: Progress,
        log: MetricsLog | None,
        screen: Display,
        stop: Stop,
    ) -> None:
        self.recipe, self.folder, self.setup, self.progress = recipe, folder, setup, progress
        self.log, self.screen, self.stop, self.placement = log, screen, stop, setup.placement
        self.saved_at = progress.update
        self.lessons = Lessons(recipe.filter.name, recipe.training.max_skipped)

    def go(self, checkpoint: checkpoints.Checkpoint | None) -> TrainResult:
        """Measure and paint the base, put the checkpoint's weights in its place, and train on."""
        is_new = checkpoint is None
        before = self._before(is_new)
        self.screen.now("painting the sample prompts")
        painted = self._paint("before")
        if checkpoint is not None:
            restore(checkpoint, self.setup.state, self.setup.learning_rate)
            self.screen.say(f"continuing from {checkpoint.folder}")
        if checkpoint is None and self.setup.takes_part and not self._is_over():
            try_saving(self.setup, self.folder / "checkpoints")
        if not self._is_over():
            self.screen.now(
                f"update {self.progress.update + 1} of {self.recipe.training.updates} is under way"
            )
        while not self._is_over():
            # as it is now: the row of an evaluation that fails later is written again when the run is resumed
            with rescuing(self.setup, partial(self._rescue, replace(self.progress))):
                self._evaluate_if_due()
            self._update()
            if self._due(self.recipe.checkpoint.every) or self._is_over():
                self._save()
            self._leave_if_asked()
        after = self._after()
        picture = self._before_after(painted)
        self.screen.finish()
        for one in self.setup.evaluations:
            lines = self.screen.changed(one.label, type(one.evaluation), before[one.label], after[one.label])
            show_table(self.log, one.label, lines, self.progress.update)
        for best in best_of(self.setup.kinds, before, after):
            self.screen.best(best)
        if self.setup.early_stop is not None:
            self.screen.say(self.setup.early_stop.verdict(self.folder / "best"))
        if picture is not None:
            self.screen.say(f"before and after: {picture}")
        return TrainResult(before, after, picture, self.folder, self.progress.update, self.placement.is_main)

    def _is_over(self) -> bool:
        stop = self.setup.early_stop
        is_done = self.progress.update >= self.recipe.training.updates or self._budget() <= 0
        return is_done or (stop is not None and stop.is_over)

    def _budget(self) -> float:
        """Seconds that updates may still take."""
        limit = self.recipe.training.max_seconds
        return math.inf if limit is None else limit - self.progress.seconds

    def _due(self, every: int) -> bool:
        return every > 0 and self.progress.update > 0 and self.progress.update % every == 0

    def _update(self) -> None:
        start = perf_counter()
        with rescuing(self.setup, partial(self._rescue, self.progress)):
            metrics = make_update(self.setup, self.progress.update, self.folder)
        metrics["seconds_total"] = self.placement.share(perf_counter() - start)  # the budget is one for all
        self.progress.update += 1
        self.progress.seconds += metrics["seconds_total"]
        self._row("update", metrics)
        self.screen.update(self.progress.update, metrics, self._budget())
        self._heed(metrics)
        stop = self.setup.early_stop
        if stop is not None and stop.note(self.progress.update, metrics) and self.setup.takes_part:
            save(self.setup, self.progress, self.folder / "best", keep=1)

    def _heed(self, metrics: Mapping[str, float]) -> None:
        """Say so where updates teach nothing, and end the run if the recipe wants that."""
        if said := self.lessons.note(metrics):
            self.screen.say(said)
        if self.lessons.are_over:
            self._save()
            raise TrainingError(
                f"update {self.progress.update}: {self.lessons.verdict} (training.max_skipped)"
            )

    def _rescue(self, sound: Progress) -> None:
        """Save the updates made before one that has failed, unless the others would have to come and gather them."""
        self.progress = sound
        if self.progress.update > self.saved_at and not self.setup.is_sharded:
            self._save()
            self.screen.say(f"the {self.progress.update} updates before are saved")

    def _row(self, kind: str, values: Mapping[str, str | float]) -> None:
        if self.log is not None:
            self.log.write({"kind": kind, "update": self.progress.update, **values})
            self.progress.rows, self.progress.rows_sha256 = self.log.rows, self.log.sha256

    def _save(self) -> None:
        if self.setup.takes_part:
            save(self.setup, self.progress, self.folder / "checkpoints", self.recipe.checkpoint.keep)
        if self.placement.is_main:
            note_saved(self.folder, self.progress.update)
        self.saved_at = self.progress.update

    def _leave_if_asked(self) -> None:
        """Save and leave if a signal has come to any process."""
        if not self.placement.any(self.stop.received is not None):
            return
        if self.progress.update > self.saved_at:
            self._save()
        self.screen.say(f"stopped after update {self.progress.update}; --resume goes on from {self.folder}")
        self.placement.wait()
        self.stop.leave()

    def _evaluate_if_due(self) -> None:
        """Evaluate and paint between updates, where it is time to."""
        due = [one.brief() for one in self.setup.evaluations if self._due(one.section.config.every)]
        for label, report in self._measure(due, "during"):
            self._row("eval", row_of(label, "during", report))
        if self._due(self.recipe.tracking.samples_every):
            self._paint(checkpoints.name(self.progress.update))

    def _before(self, is_new: bool) -> dict[str, Report]:
        """Evaluate the base, or read what an earlier start of this run has measured."""
        known = {}
        for one in self.setup.evaluations:
            if self.placement.share((results_folder(self.folder, one.label, "before") / RESULT).exists()):
                known[one.label] = read_before(self.folder, one.label)
                self.screen.evaluated(one.label, "before", known[one.label])
        left = [one for one in self.setup.evaluations if one.label not in known]
        for label, report in self._measure(left, "before"):
            self._write_report(report, label, "before")
            known[label] = report
        reports = {one.label: known[one.label] for one in self.setup.evaluations}
        for label, report in reports.items() if is_new else ():
            self._row("eval", row_of(label, "before", report))
        return reports

    def _after(self) -> dict[str, Report]:
        reports = {}
        for label, report in self._measure(self.setup.evaluations, "after"):
            self._row("eval", row_of(label, "after", report))
            self._write_report(report, label, "after")
            reports[label] = report
        return reports

    def _measure(self, evaluations: Sequence[RunEvaluation], when: str) -> Iterator[tuple[str, Report]]:
        """Evaluate what is trained; yield labels and reports group by group of those that see the same images."""

        def show(done: int, total: int) -> None:
            self.screen.stage(f"evaluation {when}", done, total)
            self._leave_if_asked()

        for group in alike(evaluations, lambda one: one.sees):
            self.screen.now("evaluating the base model" if when == "before" else "evaluating")
            with self.setup.shown():
                reports = run_together(group, self.setup.learner.generator, show)
            for one, report in zip(group, reports, strict=True):
                self.screen.evaluated(one.label, when, report)
                yield one.label, report

    def _write_report(self, report: Report, label: str, when: str) -> None:
        if self.placement.is_main:
            update = 0 if when == "before" else self.progress.update
            write_results(self.folder, label, when, report, recipe=self.recipe.digest(), update=update)

    def _paint(self, name: str) -> Samples | None:
        """Write ``samples/NAME.png`` and return what it shows; None where nothing is painted."""
        sheets = self.setup.sheets
        if not sheets.prompts or not self.setup.takes_part:
            return None
        with self.setup.shown():
            samples = sheets.paint(self.setup.learner.generator)
        if self.placement.is_main:
            save_samples(path := self.folder / "samples" / f"{name}.png", samples)
            show_picture(self.log, "samples", path, self.progress.update)
        return samples

    def _before_after(self, before: Samples | None) -> Path | None:
        after = self._paint("after")
        if before is None or after is None or not self.placement.is_main:
            return None
        save_before_after(picture := self.folder / "samples" / "before_after.png", before, after)
        show_picture(self.log, "before_after", picture, self.progress.update)
        return picture
