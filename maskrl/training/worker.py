"""A thread that paints batches while the main one learns."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import torch
from torch import Tensor

from maskrl.grpo.batch import Batch
from maskrl.grpo.casts import casting_once
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.runtime.aside import Cancelled
from maskrl.runtime.wrapper import Wrapper
from maskrl.types import StepIndex

PATIENCE = 60.0  # seconds: how long a thread that is to end may take for the pass or the judge that it is in

Job = tuple[int, torch.cuda.Event | None, Future[Batch]]


class Worker:
    """One thread for a whole run; it ends with :meth:`close`, at the latest with Python."""

    def __init__(
        self, paint: Callable[[int], Batch], device: torch.device, cancelled: threading.Event
    ) -> None:
        """Start it.

        Args:
            paint: makes the batch of an update.
            device: where it paints; on CUDA in a stream of its own.
            cancelled: set by :meth:`close`; ``paint`` heeds it.
        """
        self._device = device
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # as many threads as here: another number would add up in another order
        work = (self._jobs, paint, device, torch.get_num_threads())
        thread = threading.Thread(target=_work, args=work, name="painter", daemon=True)
        thread.start()
        self.close = weakref.finalize(self, _end, self._jobs, thread, cancelled)

    def submit(self, update: int) -> Future[Batch]:
        """Ask for the batch of an update, by the weights as they are on the device now."""
        ready = torch.cuda.Event() if self._device.type == "cuda" else None
        if ready is not None:
            ready.record()
        future: Future[Batch] = Future()
        self._jobs.put((update, ready, future))
        return future


def _work(
    jobs: queue.SimpleQueue[Job | None], paint: Callable[[int], Batch], device: torch.device, threads: int
) -> None:
    """Paint until there is None to paint.

    One block of casts around everything: where a block ends autocast forgets the copies of all threads, and a pass of
    the loss that loses its own in its middle rounds otherwise.
    """
    torch.set_num_threads(threads)
    with casting_once(device):
        while (job := jobs.get()) is not None:
            update, ready, future = job
            try:
                with _own_stream(device, ready):
                    batch = paint(update)
                future.set_result(batch)
                del batch
            except BaseException as error:  # it is raised again where the batch is taken
                future.set_exception(error)
            del job, future  # or what was painted would lie there until the next is


@contextmanager
def _own_stream(device: torch.device, ready: torch.cuda.Event | None) -> Iterator[None]:
    if ready is None:
        yield
        return
    stream = torch.cuda.Stream(device)
    with torch.cuda.device(device), torch.cuda.stream(stream):
        stream.wait_event(ready)
        yield
    stream.synchronize()


def _end(jobs: queue.SimpleQueue[Job | None], thread: threading.Thread, cancelled: threading.Event) -> None:
    cancelled.set()
    jobs.put(None)
    thread.join(PATIENCE)


class Interruptible(Wrapper):
    """A generator that stops between two passes of its network."""

    def __init__(self, inner: MaskedGenerator, cancelled: threading.Event) -> None:
        super().__init__(inner)
        self._cancelled = cancelled

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As the inner generator.

        Raises:
            Cancelled: nobody wants the batch any more.
        """
        if self._cancelled.is_set():
            raise Cancelled
        return self.inner.logits(tokens, condition, step, guidance, positions)
