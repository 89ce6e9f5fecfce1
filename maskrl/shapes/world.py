"""Scenes of coloured shapes on white: what there is, how a scene is laid out, and how it is painted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from maskrl.geneval.scoring import relative_position

IMAGE_SIZE = 48
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "heart", "ring")
COLORS = {
    "red": (215, 30, 40),
    "orange": (255, 140, 0),
    "yellow": (250, 215, 20),
    "green": (30, 150, 60),
    "blue": (40, 90, 220),
    "purple": (125, 45, 165),
    "pink": (250, 130, 185),
    "brown": (115, 65, 25),
}
BACKGROUND = (255, 255, 255)
PLACES = {"at the top": (0, -1), "at the bottom": (0, 1), "on the left": (-1, 0), "on the right": (1, 0)}

_SUPERSAMPLING = 4
RADIUS = 7.0  # pixels, half the side of a thing's bounding square
GRID = 8  # pixels, one token: centres lie on the corners, so a thing fills 2 x 2 tokens
LINES = tuple(range(1, IMAGE_SIZE // GRID))  # the grid's inner lines, on which centres lie
EVERY_OTHER_LINE = LINES[::2]  # things share no row or column of tokens in part: nine places


@dataclass(frozen=True)
class Thing:
    """One object: ``shape`` of SHAPES, ``color`` of COLORS, centre and radius in pixels."""

    shape: str
    color: str
    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2) in pixels."""
        return (self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


Scene = tuple[Thing, ...]


@lru_cache
def outline(shape: str) -> tuple[tuple[float, float], ...]:
    """Return a polygon filling [-1, 1] x [-1, 1], y down; a ring's is its outer circle."""
    turn = 2 * math.pi
    if shape in ("circle", "ring"):
        points = [(math.cos(turn * i / 48), math.sin(turn * i / 48)) for i in range(48)]
    elif shape == "square":
        points = [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    elif shape == "triangle":
        points = [(0.0, -1.0), (1.0, 0.9), (-1.0, 0.9)]
    elif shape == "diamond":
        points = [(0.0, -1.0), (0.85, 0.0), (0.0, 1.0), (-0.85, 0.0)]
    elif shape == "cross":
        a = 0.36
        points = [
            (-a, -1),
            (a, -1),
            (a, -a),
            (1, -a),
            (1, a),
            (a, a),
            (a, 1),
            (-a, 1),
            (-a, a),
            (-1, a),
            (-1, -a),
            (-a, -a),
        ]
    elif shape == "star":
        radii = (1.0, 0.42)
        points = [
            (radii[i % 2] * math.sin(turn * i / 10), -radii[i % 2] * math.cos(turn * i / 10))
            for i in range(10)
        ]
    elif shape == "heart":
        curve = [turn * i / 48 for i in range(48)]
        points = [
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 14.5
                - 0.1,
            )
            for t in curve
        ]
    else:
        raise ValueError(f"no shape is called {shape!r}; the world has {', '.join(SHAPES)}")
    return tuple((float(x), float(y)) for x, y in points)


def paint(scene: Sequence[Thing]) -> NDArray[np.uint8]:
    """Paint a scene: uint8 [48, 48, 3], anti-aliased."""
    s = _SUPERSAMPLING
    canvas = Image.new("RGB", (IMAGE_SIZE * s, IMAGE_SIZE * s), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for thing in scene:
        points = [
            (s * (thing.x + thing.radius * x), s * (thing.y + thing.radius * y))
            for x, y in outline(thing.shape)
        ]
        draw.polygon(points, fill=COLORS[thing.color])
        if thing.shape == "ring":
            hole = 0.5 * thing.radius
            box = [s * (thing.x - hole), s * (thing.y - hole), s * (thing.x + hole), s * (thing.y + hole)]
            draw.ellipse(box, fill=BACKGROUND)
    small = canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def lay_out(
    kinds: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    relation: str | None = None,
    place: str | None = None,
    lines: Sequence[int] = LINES,
) -> Scene:
    """Place (shape, color) objects on ``lines`` at random, two or more apart, so that they do not touch.

    With ``relation``, thing 0 stands in that relation to thing 1, by GenEval's own predicate; with ``place``, thing 0
    stands in that third of the picture.
    """
    while True:
        corners = _corners(len(kinds), rng, lines)
        things = tuple(
            Thing(shape, color, float(GRID * x), float(GRID * y), RADIUS)
            for (shape, color), (x, y) in zip(kinds, corners, strict=True)
        )
        if relation is not None and relation_between(things[0], things[1]) != {relation}:
            continue
        if place is not None and not is_at(things[0], place):
            continue
        return things


def add(scene: Scene, shape: str, color: str, rng: np.random.Generator) -> Scene:
    """Put one more object where it touches no other; return the scene itself where there is no such place."""
    free = [
        (GRID * x, GRID * y)
        for x in LINES
        for y in LINES
        if all(max(abs(GRID * x - thing.x), abs(GRID * y - thing.y)) >= 2 * GRID for thing in scene)
    ]
    if not free:
        return scene
    x, y = free[rng.integers(len(free))]
    return (*scene, Thing(shape, color, float(x), float(y), RADIUS))


def relation_between(subject: Thing, reference: Thing) -> set[str]:
    """Return the relations of GenEval that hold between two things' boxes."""
    return set(relative_position(subject.box, reference.box))


def _corners(count: int, rng: np.random.Generator, lines: Sequence[int]) -> NDArray[np.int64]:
    """Draw grid corners inside the picture, Long [count, 2], every two at least 2 apart along an axis."""
    while True:
        drawn = np.asarray(lines)[rng.integers(len(lines), size=(count, 2))]
        apart = np.abs(drawn[:, None] - drawn[None, :]).max(axis=2)
        if (apart[np.triu_indices(count, 1)] >= 2).all():
            return drawn


def is_at(thing: Thing, place: str) -> bool:
    """Say whether a thing stands in a third of the picture: ``place`` of PLACES."""
    dx, dy = PLACES[place]
    along = dx * (thing.x - IMAGE_SIZE / 2) + dy * (thing.y - IMAGE_SIZE / 2)
    return along >= GRID
