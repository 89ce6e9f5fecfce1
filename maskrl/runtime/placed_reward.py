"""A reward that only some of the processes hold: images travel to them, and scores travel back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from maskrl.component import Chosen, Component
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.interfaces import RewardModel
from maskrl.runtime.aside import Aside
from maskrl.runtime.placement import Placement
from maskrl.types import Prompt


def check_ranks(ranks: Sequence[int], world_size: int) -> None:
    """Refuse processes that there are not.

    Raises:
        RecipeError: there is no process of one of these ranks.
    """
    if missing := [rank for rank in ranks if rank >= world_size]:
        there = (
            "there is one process, of rank 0" if world_size == 1 else f"ranks are 0 to {world_size - 1} here"
        )
        raise RecipeError(f"parallel.reward_ranks: there is no process of rank {missing[0]}; {there}")


def build_reward(
    chosen: Chosen[RewardModel], ranks: Sequence[int] | None, placement: Placement
) -> RewardModel:
    """Build a reward on every process (None), or on those of some ranks; all processes call it, in one order.

    Raises:
        RecipeError: its settings are wrong.
    """
    if ranks is None or placement.world_size == 1:
        return chosen.build()
    return PlacedReward(chosen, ranks, Aside(placement))


class PlacedReward(RewardModel):
    """A reward on chosen processes; all ask it as often, at the same time, for as many images of one size.

    What a process has painted is judged by itself, in one call, wherever that is: scores are those of a reward that
    every process holds.
    """

    def __init__(self, chosen: Chosen[RewardModel], ranks: Sequence[int], aside: Aside) -> None:
        """Stand for a reward.

        Args:
            chosen: which; built on some processes alone.
            ranks: theirs.
            aside: this process, for this reward alone.

        Raises:
            RecipeError: its settings are wrong.
        """
        super().__init__(chosen.config)
        self.inner = chosen.build() if aside.rank in ranks else None
        self.modules = () if self.inner is None else self.inner.modules
        self._component, self._aside = chosen.component, aside
        # of each process: who judges what it has painted; itself, if it can
        self._judges = [s if s in ranks else ranks[s % len(ranks)] for s in range(aside.world_size)]

    def unwrapped(self) -> Component:
        """Return the inner reward; where it is elsewhere, an empty one of its class, for its name."""
        return self._component.__new__(self._component) if self.inner is None else self.inner.unwrapped()

    def check(self, prompts: Sequence[Prompt]) -> None:
        """As the inner reward, where it is."""
        if self.inner is not None:
            self.inner.check(prompts)

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """As the inner reward."""
        return self.score_terms(images, prompts)[0]

    def score_terms(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
        """As the inner reward."""
        asked = self._aside.gather_objects([list(prompts)])
        judged = {}
        for source, given in self._aside.deal(images.float(), self._judges).items():
            assert self.inner is not None, "images come to those alone that hold the reward"
            total, terms = answers.score_terms(self.inner, given, asked[source])
            judged[source] = total.cpu(), {name: values.cpu() for name, values in terms.items()}
        told = {s: found for one in self._aside.gather_objects([judged]) for s, found in one.items()}
        total, terms = told[self._aside.rank]
        return total.to(images.device), {name: values.to(images.device) for name, values in terms.items()}

    def term_weights(self) -> Mapping[str, float] | None:
        """As the inner reward."""
        mine = [] if self.inner is None else [self.inner.term_weights()]
        return self._aside.gather_objects(mine)[0]
