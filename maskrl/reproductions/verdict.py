"""Whether a result is what a card says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskrl.reproductions.card import Card
from maskrl.sweeps.cells import Row
from maskrl.sweeps.table import lines


@dataclass(frozen=True)
class Verdict:
    """One number: what it gained, what the card says, and how far from that another run may be.

    ``gain`` is None where the runs do not have the number; ``band`` None where the card has no interval.
    """

    number: str
    gain: float | None
    seeds: int
    expected: float
    band: float | None

    @property
    def is_within(self) -> bool | None:
        """Whether the gain lies in the band; None if nobody can say."""
        if self.gain is None or self.band is None:
            return None
        return abs(self.gain - self.expected) <= self.band

    def __str__(self) -> str:
        found = "not measured" if self.gain is None else f"{self.gain:+.3f}"
        band = "" if self.band is None else f" ± {self.band:.3f}"
        said = {True: "within the band", False: "outside the band", None: "no verdict"}[self.is_within]
        return (
            f"{self.number}: {found} ({self.seeds} seeds), the card says {self.expected:+.3f}{band}: {said}"
        )


def verdicts(card: Card, rows: Sequence[Row]) -> Iterator[Verdict]:
    """Compare the gains of finished runs with the card's.

    The band is where the mean of k further seeds lies with 95 %, seen from the card's n: its interval, that of a mean
    of n, times sqrt(1 + n / k).
    """
    gains = {line.number: (line.gain.mean, len(line.seeds)) for line in lines(rows, None)}
    for number, expected in card.file.expected.items():
        gain, seeds = gains.get(number, (None, 0))
        band = None
        if expected.interval is not None and seeds:
            band = expected.interval * math.sqrt(1 + len(card.file.seeds) / seeds)
        yield Verdict(number, gain, seeds, expected.gain, band)
