"""Pictures of the shapes world that are not clean, each in one way: what a judge of cleanliness must refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from maskrl.shapes.faults import PARTNER
from maskrl.shapes.world import BACKGROUND, COLORS, GRID, IMAGE_SIZE, SHAPES, Scene, Thing, add, paint

Picture = NDArray[np.float64]  # [48, 48, 3], levels of 0 to 255
Rng = np.random.Generator
Plant = Callable[[Scene, Rng], Picture]


def half_shape(scene: Scene, rng: Rng) -> Picture:
    """Put half of one more shape somewhere."""
    more = add(scene, str(rng.choice(SHAPES)), _color(rng), rng)
    return _joined(painted(scene), painted(more), more[-1], rng)


def cut_in_half(scene: Scene, rng: Rng) -> Picture:
    """Take half of a shape away."""
    thing, others = _pick(scene, rng)
    return _joined(painted(scene), painted(others), thing, rng)


def two_colors(scene: Scene, rng: Rng) -> Picture:
    """Paint half of a shape in the colour that is its own's partner."""
    thing, others = _pick(scene, rng)
    return _joined(painted(scene), painted((*others, _other_color(thing))), thing, rng)


def color_between(scene: Scene, rng: Rng, share: float = 0.5) -> Picture:
    """Paint a shape in a colour halfway between its own and the partner."""
    thing, others = _pick(scene, rng)
    return _mixed(painted(scene), painted((*others, _other_color(thing))), share)


def shape_between(scene: Scene, rng: Rng, share: float = 0.5) -> Picture:
    """Paint a shape halfway between what it is and the partner."""
    thing, others = _pick(scene, rng)
    return _mixed(painted(scene), painted((*others, replace(thing, shape=PARTNER[thing.shape]))), share)


def merged(scene: Scene, rng: Rng) -> Picture:
    """Put one more shape where it overlaps another."""
    thing, _ = _pick(scene, rng)
    step = GRID if thing.x < IMAGE_SIZE / 2 else -GRID
    over = Thing(str(rng.choice(SHAPES)), _color(rng), thing.x + step, thing.y, thing.radius)
    return painted((*scene, over))


def smeared(scene: Scene, rng: Rng, width: int = 5) -> Picture:
    """Smear a shape: every pixel of its square becomes the mean of the ``width`` pixels to its left and right."""
    thing, _ = _pick(scene, rng)
    whole = painted(scene)
    moved = [np.roll(whole, shift, axis=1) for shift in range(-(width // 2), width // 2 + 1)]
    return _with(whole, np.mean(moved, axis=0), *_square(thing))


def speck(scene: Scene, rng: Rng, side: int = 2) -> Picture:
    """Put a spot of a colour of the palette where nothing is."""
    return _patch(scene, rng, side, 1.0)


def faint_smear(scene: Scene, rng: Rng, share: float = 0.2) -> Picture:
    """Put a patch of a fifth of a colour where nothing is."""
    return _patch(scene, rng, 6, share)


def tinted_background(scene: Scene, rng: Rng, share: float = 0.2) -> Picture:
    """Paint all that is white in a fifth of a colour."""
    whole = painted(scene)
    return np.where((whole == 255).all(axis=2, keepdims=True), _tint(_color(rng), share), whole)


def blank(scene: Scene, rng: Rng) -> Picture:
    """Paint nothing."""
    return painted(())


FAULTS: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        half_shape,
        cut_in_half,
        two_colors,
        color_between,
        shape_between,
        merged,
        smeared,
        speck,
        faint_smear,
        tinted_background,
        blank,
    )
}


def painted(scene: Scene) -> Picture:
    """Paint a scene in numbers that can be mixed."""
    return paint(scene).astype(np.float64)


def _color(rng: Rng) -> str:
    return str(rng.choice(list(COLORS)))


def _other_color(thing: Thing) -> Thing:
    return replace(thing, color=PARTNER[thing.color])


def _pick(scene: Scene, rng: Rng) -> tuple[Thing, Scene]:
    index = int(rng.integers(len(scene)))
    return scene[index], scene[:index] + scene[index + 1 :]


def _square(thing: Thing) -> tuple[slice, slice]:
    x, y = int(thing.x), int(thing.y)
    return slice(y - GRID, y + GRID), slice(x - GRID, x + GRID)


def _with(whole: Picture, other: Picture, rows: slice, columns: slice) -> Picture:
    """Return a picture, but for a part that is another's."""
    found = whole.copy()
    found[rows, columns] = other[rows, columns]
    return found


def _joined(whole: Picture, other: Picture, thing: Thing, rng: Rng) -> Picture:
    """Return a picture, but for a half of a thing's square: left or upper."""
    rows, columns = _square(thing)
    if rng.random() < 0.5:
        return _with(whole, other, rows, slice(columns.start, columns.start + GRID))
    return _with(whole, other, slice(rows.start, rows.start + GRID), columns)


def _mixed(one: Picture, other: Picture, share: float) -> Picture:
    return (1 - share) * one + share * other


def _tint(color: str, share: float) -> Picture:
    return _mixed(np.asarray(BACKGROUND, dtype=float), np.asarray(COLORS[color], dtype=float), share)


def _patch(scene: Scene, rng: Rng, side: int, share: float) -> Picture:
    """Put a square of a colour where a white margin of a pixel is around it."""
    whole = painted(scene)
    while True:
        y, x = rng.integers(1, IMAGE_SIZE - side, size=2)
        if (whole[y - 1 : y + side + 1, x - 1 : x + side + 1] == 255).all():
            whole[y : y + side, x : x + side] = _tint(_color(rng), share)
            return whole
