"""Judge images in portions, after they are painted or while the next ones are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from maskrl.errors import TrainingError
from maskrl.grpo import answers
from maskrl.grpo.terms import join_terms
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt

Scored = tuple[Tensor, dict[str, Tensor]]


def check_finite(name: str, scores: Tensor, prompts: Sequence[Prompt], when: str) -> None:
    """Refuse scores, Float [B], of which one is not finite.

    Raises:
        TrainingError: it names the reward, the first such score and its prompt.
    """
    if scores.isfinite().all():
        return
    wrong = int((~scores.isfinite()).nonzero()[0])
    raise TrainingError(
        f"{when}: the reward {name!r} gave {float(scores[wrong])} for an image of {prompts[wrong].text!r};"
        " rewards must be finite"
    )


class RewardScorer:
    """Scored the images of B prompts, ``size`` at a time, in the order in which they come.

    With ``overlap`` a portion is scored as soon as it is there, by a thread of its own (on CUDA in a stream of its
    own); otherwise all are when the scores are asked for. The portions are the same, and so are the scores.
    """

    def __init__(self, reward: RewardModel, prompts: Sequence[Prompt], size: int, overlap: bool) -> None:
        self._reward, self._prompts, self._size = reward, prompts, size
        self._waiting: list[Tensor] = []
        self._scored = 0
        self._scores: list[Future[Scored] | Scored] = []
        self._thread: ThreadPoolExecutor | None = None
        if overlap:  # as many threads as here: another number would add up in another order
            threads = (torch.get_num_threads(),)
            self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=threads)

    def add(self, images: Tensor) -> None:
        """Hand in the next images: Float [K, 3, H, W] in [0, 1]."""
        self._waiting.append(images)
        if self._thread is not None:
            self._judge_whole_portions()

    def scores(self) -> Scored:
        """Return Float [B], and Float [B] of every term, once all B images are in.

        Raises:
            PluginError: the reward raised something, or its answer is none.
        """
        self._judge_whole_portions()
        if self._thread is not None:
            self._thread.shutdown()
        scores = [score.result() if isinstance(score, Future) else score for score in self._scores]
        terms = join_terms(self._reward, [terms for _, terms in scores])
        return torch.cat([total for total, _ in scores]), terms

    def _judge_whole_portions(self) -> None:
        images = torch.cat(self._waiting)
        left = len(self._prompts) - self._scored
        while len(images) >= min(self._size, left) > 0:
            portion, images = images[: self._size], images[self._size :]
            prompts = self._prompts[self._scored : self._scored + len(portion)]
            if self._thread is None:
                self._scores.append(answers.score_terms(self._reward, portion, prompts))
            else:
                self._scores.append(
                    self._thread.submit(_score_beside, self._reward, portion, prompts, _painted(portion))
                )
            self._scored += len(portion)
            left -= len(portion)
        self._waiting = [images]


def _painted(images: Tensor) -> torch.cuda.Event | None:
    """Mark where on a CUDA device the images are there."""
    if not images.is_cuda:
        return None
    event = torch.cuda.Event()
    event.record()
    return event


@torch.no_grad()
def _score_beside(
    reward: RewardModel, images: Tensor, prompts: Sequence[Prompt], painted: torch.cuda.Event | None
) -> Scored:
    """Score in this thread, which has settings of its own: gradients, device and stream."""
    if painted is None:
        return answers.score_terms(reward, images, prompts)
    with torch.cuda.device(images.device), _own_stream(images, painted):
        return answers.score_terms(reward, images, prompts)


@contextmanager
def _own_stream(images: Tensor, painted: torch.cuda.Event) -> Iterator[None]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        stream.wait_event(painted)
        images.record_stream(stream)
        yield
    stream.synchronize()
