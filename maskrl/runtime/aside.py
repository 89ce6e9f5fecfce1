"""What the processes do together beside their main threads, on lines of its own: neither waits for the other."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from time import sleep
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from maskrl.errors import TrainingError
from maskrl.runtime.placement import PATIENCE, Placement

T = TypeVar("T")
GLANCE = 0.001  # seconds between two looks whether the others have come


class Cancelled(BaseException):
    """Somebody has given up what is under way; nobody waits for it any more."""


class Aside:
    """This process among the others, as :class:`maskrl.grpo.processes.Peers` describes it, for one thread of each.

    They meet on the CPU, through gloo. All make their asides in one order, as they make all process groups. Once the
    placement is ``leaving``, nobody is waited for.

    Attributes:
        rank: in [0, ``world_size``).
        world_size: how many meet.
    """

    def __init__(self, placement: Placement) -> None:
        self.rank, self.world_size, self._leaving = placement.rank, placement.world_size, placement.leaving
        is_alone = self.world_size == 1
        self._group = None if is_alone else distributed.new_group(backend="gloo", timeout=PATIENCE)

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate along dim 0 in rank order.

        Raises:
            TrainingError: another process has ended.
            Cancelled: nobody wants it any more.
        """
        if self._group is None:
            return values
        mine = values.detach().cpu().contiguous()
        found = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._meet(distributed.all_gather, found, mine)
        return torch.cat(found).to(values.device)

    def sum(self, value: Tensor) -> Tensor:
        """Add up over the processes; errors as in :meth:`gather`."""
        if self._group is None:
            return value
        total = value.detach().cpu().clone()
        self._meet(distributed.all_reduce, total)
        return total.to(value.device)

    def gather_objects(self, values: Sequence[T]) -> list[T]:
        """Concatenate lists of plain objects in rank order; errors as in :meth:`gather`."""
        mine = torch.frombuffer(bytearray(pickle.dumps(list(values))), dtype=torch.uint8)
        sizes = self.gather(torch.tensor([len(mine)])).tolist()
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(mine)] = mine
        parts = self.gather(padded).split(max(sizes))
        return [
            one for part, size in zip(parts, sizes, strict=True) for one in pickle.loads(part[:size].numpy())
        ]

    def deal(self, values: Tensor, to: Sequence[int]) -> dict[int, Tensor]:
        """Send a tensor, of one shape on all processes, to process ``to[rank]``; errors as in :meth:`gather`.

        Returns:
            What has come here, by the rank that sent it.
        """
        mine = values.detach().cpu().contiguous()
        sources = [source for source in range(self.world_size) if to[source] == self.rank]
        sent = [len(mine) * (to[self.rank] == rank) for rank in range(self.world_size)]
        came = [len(mine) * (source in sources) for source in range(self.world_size)]
        found = mine.new_empty(sum(came), *mine.shape[1:])
        self._meet(distributed.all_to_all_single, found, mine, came, sent)
        return dict(zip(sources, found.to(values.device).split(len(mine)), strict=True)) if sources else {}

    def _meet(self, act: Any, *tensors: Any) -> None:
        try:
            work = act(*tensors, group=self._group, async_op=True)
        except RuntimeError as error:
            raise self._alone(error) from error
        self._finish(work)

    def _finish(self, work: Any) -> None:
        while not work.is_completed():
            if self._leaving.is_set():
                raise Cancelled
            sleep(GLANCE)
        try:
            work.wait()
        except RuntimeError as error:
            raise self._alone(error) from error

    def _alone(self, error: RuntimeError) -> TrainingError:
        reason = str(error).partition("\n")[0]
        return TrainingError(
            f"process {self.rank} cannot go on: another one has ended, whose message says why ({reason})"
        )
