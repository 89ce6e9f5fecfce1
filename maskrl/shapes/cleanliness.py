"""Says whether a picture is clean: what the world could have painted, to a tolerance. It judges and never trains.

A picture is explained first: the things that are unmistakable, on the corners of the token grid, where the world puts
them. They are painted, and the painting is held against the picture. How the three limits were found, what they let
pass and what they do not see: docs/evaluation.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from maskrl.shapes.world import COLORS, GRID, IMAGE_SIZE, RADIUS, SHAPES, Scene, Thing, paint

Levels = NDArray[np.float64]  # colours of 0 to 255

LIKENESS = 0.5  # a thing is as near as this to its kind, measured by how near it is to the second nearest
IN_THINGS = 32.0  # levels between picture and painting in a thing's square; the tokenizer's own reach 34
ELSEWHERE = 14.0  # levels between picture and white elsewhere; the tokenizer's own reach 12
AVERAGED = 3  # pixels: differences are means over squares of this side, as an edge is never exact


@dataclass(frozen=True)
class Look:
    """What a picture shows: its unmistakable things, and why it is not clean; an empty text if it is."""

    things: Scene
    fault: str


def look(picture: NDArray[np.uint8]) -> Look:
    """Judge a picture, uint8 [48, 48, 3]. One without a thing is not clean."""
    things = _explain(picture)
    if not things:
        return Look(things, "no shape of the world is unmistakable")
    off = _differences(picture, things)
    faults = [_fault_of(thing, off) for thing in things]
    for thing in things:
        off[_square(thing.x, thing.y)] = 0
    return Look(things, "; ".join(fault for fault in (*faults, _fault_elsewhere(off)) if fault))


def _explain(picture: NDArray[np.uint8]) -> Scene:
    """Find the things that are at least twice as near to their kind as to any other, or to nothing; nearest first."""
    lines = range(GRID, IMAGE_SIZE, GRID)
    corners = [(x, y) for y in lines for x in lines]
    squares = np.stack([picture[_square(x, y)].ravel() for x, y in corners]).astype(np.float64)
    kinds, painted = _kinds()
    apart = _distances(squares, painted)
    best, (nearest, second) = apart.argmin(axis=1), np.sort(apart, axis=1)[:, :2].T
    things: Scene = ()
    for i in np.argsort(nearest, kind="stable"):
        kind, (x, y) = kinds[best[i]], corners[i]
        is_free = all(max(abs(x - thing.x), abs(y - thing.y)) >= 2 * GRID for thing in things)
        if kind is not None and nearest[i] <= LIKENESS * second[i] and is_free:
            things = (*things, Thing(kind[0], kind[1], float(x), float(y), RADIUS))
    return things


def _distances(squares: Levels, painted: Levels) -> Levels:
    """Float [N, D] and [K, D], whole numbers, so that nothing is lost -> root mean square differences, [N, K]."""
    products = squares @ painted.T
    squared = (squares**2).sum(axis=1)[:, None] - 2 * products + (painted**2).sum(axis=1)
    return np.asarray(np.sqrt(squared / squares.shape[1]))


@lru_cache
def _kinds() -> tuple[list[tuple[str, str] | None], Levels]:
    """Every (shape, color), and nothing; and the square of each, painted: Float [kinds, 2 GRID * 2 GRID * 3]."""
    middle = IMAGE_SIZE / 2
    kinds = [(shape, color) for shape in SHAPES for color in COLORS]
    scenes: list[Scene] = [(Thing(*kind, middle, middle, RADIUS),) for kind in kinds]
    painted = [paint(scene)[_square(middle, middle)].ravel() for scene in (*scenes, ())]
    return [*kinds, None], np.stack(painted).astype(np.float64)


def _square(x: float, y: float) -> tuple[slice, slice]:
    """Rows and columns of the 2 x 2 tokens around a corner."""
    return slice(int(y) - GRID, int(y) + GRID), slice(int(x) - GRID, int(x) + GRID)


def _differences(picture: NDArray[np.uint8], things: Scene) -> Levels:
    """Mean difference to the painting around each pixel, of the channel where it is largest: Float [48, 48]."""
    apart = picture.astype(np.float64) - paint(things)
    edge = AVERAGED // 2
    wider = np.pad(apart, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
    means = sliding_window_view(wider, (AVERAGED, AVERAGED), axis=(0, 1)).mean(axis=(-2, -1))
    return np.asarray(np.abs(means).max(axis=2))


def _fault_of(thing: Thing, off: Levels) -> str:
    worst = off[_square(thing.x, thing.y)].max()
    if worst <= IN_THINGS:
        return ""
    where = f"the {thing.color} {thing.shape} at ({thing.x:.0f}, {thing.y:.0f})"
    return f"{where} is {worst:.0f} levels off, and {IN_THINGS:.0f} are allowed"


def _fault_elsewhere(off: Levels) -> str:
    y, x = np.unravel_index(off.argmax(), off.shape)
    if off[y, x] <= ELSEWHERE:
        return ""
    return f"something else at ({x}, {y}): {off[y, x]:.0f} levels from white, and {ELSEWHERE:.0f} are allowed"
