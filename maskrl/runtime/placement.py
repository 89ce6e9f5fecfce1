"""Where a run computes, through accelerate: the device, the precision, this process's place among others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed import DistError

from maskrl.errors import RecipeError, TrainingError
from maskrl.interfaces import MaskedGenerator, RewardModel
from maskrl.runtime.allocator import keep_freed_memory
from maskrl.shards import are_parts

T = TypeVar("T")
BUCKET = 2**26  # gradients that travel together
PATIENCE = timedelta(
    hours=6
)  # the others wait while the main process saves, to a slow disk too; dead ones are ended


class Placement:
    """This process, as :class:`maskrl.grpo.processes.Process` describes it, and its device.

    Attributes:
        device: where the networks and the tokens live.
        rank: in [0, ``world_size``).
        world_size: how many processes make an update together.
        is_main: whether this process is the one that writes and shows.
        leaving: set once no thread beside the main one is to wait for other processes any more.
    """

    def __init__(self, device: str) -> None:
        """Join the other processes.

        Args:
            device: "auto" (CUDA if there is any), "cpu" or "cuda".

        Raises:
            RecipeError: another is asked for, or "cuda" and there is none.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise RecipeError(f"there is no device {device!r}; choose auto, cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise RecipeError(
                "training.device = 'cuda', but PyTorch finds no CUDA device here; choose 'cpu' or 'auto'"
            )
        # without cpu=True every rank of a CPU launch would believe that it is the only one
        self.accelerator = Accelerator(
            cpu=device == "cpu" or not torch.cuda.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.device: torch.device = self.accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.rank, self.world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.is_main, self.leaving = self.rank == 0, Event()
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        assert self.world_size == launched, f"accelerate sees {self.world_size} of {launched} processes"

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate along dim 0 in rank order."""
        with self._together():
            return cast(Tensor, self.accelerator.gather(values))

    def sum(self, value: Tensor) -> Tensor:
        """Add up over the processes."""
        with self._together():
            return cast(Tensor, self.accelerator.reduce(value, reduction="sum"))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the processes' gradients, in place, ``BUCKET`` numbers at a time.

        A parameter that this process has not used counts as 0: all processes add the same parameters, in one order. The
        backward pass has added up those of a sharded network.
        """
        if self.world_size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if are_parts(parameters):
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(grads):
            summed = self.sum(torch.cat([grad.flatten() for grad in bucket]))
            for grad, part in zip(bucket, summed.split([grad.numel() for grad in bucket]), strict=True):
                grad.copy_(part.view_as(grad))

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is up on any process."""
        return bool(self.sum(torch.tensor(int(flag), device=self.device)))

    def gather_objects(self, values: Sequence[T]) -> list[T]:
        """Concatenate lists of plain objects in rank order."""
        with self._together():
            return list(gather_object(list(values)))

    def share(self, value: T) -> T:
        """Return the main process's value on every process."""
        with self._together():
            return cast(T, broadcast_object_list([value])[0])

    def wait(self) -> None:
        """Wait until every process is here."""
        with self._together():
            self.accelerator.wait_for_everyone()

    def leave(self) -> None:
        """Leave the other processes, after the last thing done together; all leave at one time."""
        self.wait()
        self.accelerator.end_training()

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Do something in which the processes meet now and then, as in the passes of a divided network.

        Raises:
            TrainingError: one is not there any more.
        """
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, DistError) and "gloo" not in str(error):
                raise
            with self._together():
                raise

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Do something that needs every process.

        Raises:
            TrainingError: one is not there any more.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1 or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = str(error).partition("\n")[0]
            raise TrainingError(
                f"process {self.rank} cannot go on: another one has ended, whose message says why ({reason})"
            ) from error

    def place(
        self,
        generator: MaskedGenerator,
        reward: RewardModel,
        offload: bool = False,
        is_sharded: bool = False,
    ) -> None:
        """Move every network to the device; only the generator's ``module`` keeps its gradients.

        With ``offload`` the others stay in main memory. With ``is_sharded`` the ``module`` does: it is moved as it is
        divided.
        """
        generator.module.to("cpu" if is_sharded else self.device).eval()
        self.place_frozen((*generator.frozen, *reward.modules), offload)

    def place_frozen(self, modules: Sequence[nn.Module], offload: bool = False) -> None:
        """Move networks that are never trained, a judge's say, to the device, or with ``offload`` to main memory."""
        for module in modules:
            module.to("cpu" if offload else self.device).eval().requires_grad_(False)


def _buckets(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for grad in grads:
        if bucket and sum(g.numel() for g in bucket) + grad.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket
