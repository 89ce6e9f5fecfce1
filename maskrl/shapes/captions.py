"""What is said about a scene: captions in GenEval's six tasks, and whether they are true of a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrl.geneval.wording import counted, with_article
from maskrl.shapes.world import LINES, Scene, Thing, is_at, lay_out, relation_between

EVALUATION_PREFIX = "a photo of"
TRAINING_PREFIXES = ("a picture of", "an image of", "a drawing of", "")


@dataclass(frozen=True)
class Clause:
    """What a caption asks of one kind of object; ``color`` None leaves it open."""

    shape: str
    color: str | None = None
    count: int = 1

    def words(self) -> str:
        """Return the noun phrase: "a red circle", "three crosses"."""
        noun = self.shape if self.color is None else f"{self.color} {self.shape}"
        return with_article(noun) if self.count == 1 else counted(self.count, noun)


@dataclass(frozen=True)
class Caption:
    """One prompt of one task. With ``relation``, clause 0 stands in that relation to clause 1."""

    task: str
    clauses: tuple[Clause, ...]
    relation: str | None = None
    place: str | None = None

    def text(self, prefix: str) -> str:
        """Say it: prefix "a photo of" gives GenEval's own wording."""
        joint = f" {self.relation} " if self.relation else " and "
        words = joint.join(clause.words() for clause in self.clauses)
        return " ".join(part for part in (prefix, words, self.place) if part)

    def metadata(self) -> dict[str, Any]:
        """Return GenEval's metadata; the reference of a relation comes first, as in the official file."""
        order = self.clauses[::-1] if self.relation else self.clauses
        include: list[dict[str, Any]] = []
        for clause in order:
            entry: dict[str, Any] = {"class": clause.shape, "count": clause.count}
            if clause.color is not None:
                entry["color"] = clause.color
            include.append(entry)
        if self.relation:
            include[1]["position"] = [self.relation, 0]
        found: dict[str, Any] = {"tag": self.task, "include": include}
        if self.task == "counting":
            found["exclude"] = [{"class": self.clauses[0].shape, "count": self.clauses[0].count + 1}]
        return found

    def scene(self, rng: np.random.Generator, colors: Sequence[str], lines: Sequence[int] = LINES) -> Scene:
        """Lay out a scene of which this caption is true, and which holds nothing else."""
        kinds = [
            (clause.shape, clause.color or str(rng.choice(colors)))
            for clause in self.clauses
            for _ in range(clause.count)
        ]
        return lay_out(kinds, rng, self.relation, self.place, lines)

    def holds(self, scene: Scene) -> bool:
        """Say whether the caption is true of a scene: every clause found, a number met exactly."""
        found = [[t for t in scene if _matches(t, clause)] for clause in self.clauses]
        if self.task == "counting":
            same_shape = sum(t.shape == self.clauses[0].shape for t in scene)
            return len(found[0]) == same_shape == self.clauses[0].count
        if not all(found):
            return False
        if self.place is not None:
            return any(is_at(thing, self.place) for thing in found[0])
        if self.relation is None:
            return True
        return any(self.relation in relation_between(a, b) for a in found[0] for b in found[1] if a is not b)


def _matches(thing: Thing, clause: Clause) -> bool:
    return thing.shape == clause.shape and clause.color in (None, thing.color)
