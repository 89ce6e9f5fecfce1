"""The 80 names, by the digest of the official file."""

import hashlib

from maskrl.geneval.coco import CLASSES, COLORS


def test_the_names_are_those_of_the_official_file():
    lines = "".join(name + "\n" for name in CLASSES)
    digest = "608f6a0e5c8ca1c7a92b818430141fe268c85b7930b50f4160f1d65893b5bacd"
    assert hashlib.sha256(lines.encode()).hexdigest() == digest
    assert len(CLASSES) == len(set(CLASSES)) == 80
    assert [CLASSES.index(f"computer {name}") for name in ("mouse", "keyboard")] == [64, 66]


def test_the_colours_are_numbered_as_officially():
    assert COLORS.index("red") == 0
    assert COLORS.index("white") == len(COLORS) - 1 == 9
