"""Where the batches of a run come from: each is painted when it is wanted, or one ahead."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from maskrl.grpo.actor import Actor
from maskrl.grpo.batch import Batch
from maskrl.grpo.update import collect
from maskrl.runtime.aside import Aside
from maskrl.runtime.placement import Placement
from maskrl.sections import TrainingConfig
from maskrl.training.ahead import Ahead
from maskrl.training.networks import painting_copy
from maskrl.training.schedule import prompts_of
from maskrl.training.state import HasState, History
from maskrl.training.worker import Interruptible, Worker
from maskrl.types import Prompt

Prompts = Callable[[int], Sequence[Prompt]]  # of this process, of an update


class Rollouts(Protocol):
    """The batches of a run, one for each update, taken in order."""

    @property
    def state(self) -> Mapping[str, HasState]:
        """What a checkpoint holds of it, by its names there."""

    def take(self, update: int) -> Batch:
        """Return the batch of an update; errors as in :func:`maskrl.grpo.collect.collect`."""

    def begin(self, update: int) -> None:
        """Paint that of the next update from now on, by the weights as they are, if it may be painted ahead."""

    def mark(self) -> Callable[[], bool]:
        """Remember where it stands; what is returned goes back there, and tells whether it could."""

    def close(self) -> None:
        """Give up what is under way."""


@dataclass(frozen=True)
class OnPolicy:
    """Each batch is painted when it is taken, by the weights that will learn from it."""

    actor: Actor
    prompts: Prompts

    @property
    def state(self) -> Mapping[str, HasState]:
        """What the filter has seen."""
        return {"filter": History(self.actor.filter)}

    def take(self, update: int) -> Batch:
        """Paint it."""
        return collect(self.actor, self.prompts(update), update)

    def begin(self, update: int) -> None:
        """Wait until it is taken."""

    def mark(self) -> Callable[[], bool]:
        """Remember what the filter has seen."""
        history = History(self.actor.filter)
        before = copy.deepcopy(history.state_dict())

        def back() -> bool:
            history.load_state_dict(before)
            return True

        return back

    def close(self) -> None:
        """Nothing is under way."""


def build_rollouts(
    actor: Actor, placement: Placement, prompts: Sequence[Prompt], share: int, training: TrainingConfig
) -> Rollouts:
    """Choose where batches come from; what is painted ahead has weights, and lines to the others, of its own.

    Args:
        actor: paints with the weights of the policy.
        placement: this process.
        prompts: of the run.
        share: how many prompts of an update are this process's.
        training: whether to paint ahead, until when, in what portions.
    """
    first, count = placement.rank * share, placement.world_size * share

    def mine(update: int) -> Sequence[Prompt]:
        return prompts_of(update, prompts, count, actor.stream)[first : first + share]

    if not training.max_staleness:
        return OnPolicy(actor, mine)
    painter = replace(
        actor,
        generator=Interruptible(painting_copy(actor.generator), placement.leaving),
        process=Aside(placement),
        portions=replace(actor.portions, record_batch=training.micro_batch),
        record_logp=True,
    )
    worker = Worker(
        lambda update: collect(painter, mine(update), update), placement.device, placement.leaving
    )
    return Ahead(painter, actor.generator, worker, training.updates)
