"""Batches that are painted while the one before is learnt from (docs/decisions/020-ahead.md)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import torch

from maskrl.grpo import answers
from maskrl.grpo.actor import Actor
from maskrl.grpo.batch import Batch
from maskrl.interfaces import GroupFilter, MaskedGenerator
from maskrl.runtime.checkpoint import PAINTER
from maskrl.training.state import HasState, History, Weights, trained_parameters
from maskrl.training.worker import Worker


class Ahead:
    """The batch of the next update is painted by a thread, with weights of its own, while this one is learnt from.

    What comes out depends on no clock: the weights are handed over by :meth:`begin` alone, and the filter sees the
    batches in order. A checkpoint has the weights that paint, and what the filter had seen before the batch under way:
    a resumed run paints that one again.
    """

    def __init__(self, actor: Actor, policy: MaskedGenerator, worker: Worker, last: int) -> None:
        """Begin with the weights of the policy.

        Args:
            actor: its generator is a copy of the policy, and it records log-probabilities.
            policy: what learns.
            worker: calls ``collect`` with the actor.
            last: no batch from this update on is painted ahead.
        """
        self._policy, self._worker, self._last = trained_parameters(policy), worker, last
        self._painter = trained_parameters(actor.generator)
        self._history = _HistoryBefore(actor.filter)
        self._under_way: tuple[int, Future[Batch]] | None = None
        self._begun = 0
        self.state: Mapping[str, HasState] = {"filter": self._history, PAINTER: Weights(actor.generator)}

    def take(self, update: int) -> Batch:
        """Wait for it; where it is not under way, at the beginning and after a resume, have it painted.

        Its metrics have ``staleness``: the updates between the weights that painted it and those that learn from it.
        """
        if self._under_way is None or self._under_way[0] != update:
            self._under_way = (update, self._worker.submit(update))
        batch = self._under_way[1].result()
        self._under_way = None
        return replace(batch, metrics={**batch.metrics, "staleness": float(update > 0)})

    @torch.no_grad()
    def begin(self, update: int) -> None:
        """Hand the policy's weights to the painter, and have it paint."""
        for name, parameter in self._painter.items():
            parameter.copy_(self._policy[name])
        torch.clear_autocast_cache()  # the painter's copies in bf16 are of weights that are gone
        self._history.note()
        self._begun = update
        if update < self._last:
            self._under_way = (update, self._worker.submit(update))

    def mark(self) -> Callable[[], bool]:
        """Remember which batch was begun last; once the next one is, the weights that painted this one are gone."""
        begun = self._begun
        return lambda: self._begun == begun

    def close(self) -> None:
        """Stop painting, after the pass that is under way."""
        self._worker.close()


class _HistoryBefore(History):
    """What a filter had seen before the batch that is painted now."""

    def __init__(self, group_filter: GroupFilter) -> None:
        super().__init__(group_filter)
        self.note()

    def note(self) -> None:
        """Remember what it has seen up to now."""
        self._before = copy.deepcopy(answers.filter_state(self._filter))

    def state_dict(self) -> dict[str, Any]:
        """Return what it had seen."""
        return self._before

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand it to the filter."""
        super().load_state_dict(state)
        self.note()
