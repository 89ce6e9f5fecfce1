"""Pictures of a base and a trained model, the same prompts and noise: the first prompts of every task, none chosen.

maskrl eval geneval --guidance 2 --images-per-prompt 1 --out results/base    # and --run RUN --out results/trained
maskrl eval cleanliness --images results/base/images --out results/base      # and the other
python benchmarks/gallery.py results/base results/trained --out docs/gallery.png
Green: exactly what was asked for, and nothing but whole shapes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maskrl.training.sheet import draw_sheet

COLUMNS = 6  # of pictures; each pair is one above the other


def chosen(results: Path, of_each: int) -> list[dict[str, Any]]:
    """Return the rows of the first prompts of every task."""
    lines = (results / "cleanliness" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in map(json.loads, lines):
        rows.setdefault(row["tag"], []).append(row)
    return [row for of_task in rows.values() for row in of_task[:of_each]]


def picture(results: Path, row: dict[str, Any]) -> Tensor:
    """Float [3, H, W] in [0, 1]."""
    image = np.asarray(Image.open(results / "images" / row["filename"]).convert("RGB"))
    return torch.from_numpy(image.copy()).permute(2, 0, 1) / 255


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path)
    parser.add_argument("trained", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=2, help="of each task")
    args = parser.parse_args()
    sides = [(path, chosen(path, args.prompts)) for path in (args.base, args.trained)]
    before, after = (rows for _, rows in sides)
    if [row["filename"] for row in before] != [row["filename"] for row in after]:
        raise SystemExit("the two are not of the same prompts")
    captions = [row["prompt"] for row in before]
    sheets = []
    for start in range(0, len(captions), COLUMNS):
        part = slice(start, start + COLUMNS)
        images = [torch.stack([picture(path, row) for row in rows[part]]) for path, rows in sides]
        marks = [[row["clean"] and row["strict"] for row in rows[part]] for _, rows in sides]
        sheets.append(draw_sheet(captions[part], images, ["base", "trained"], marks))
    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), "white")
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    whole.save(args.out, optimize=True)
    for name, (_, rows) in zip(("base", "trained"), sides, strict=True):
        print(f"{name}: {sum(row['clean'] and row['strict'] for row in rows)} of {len(rows)}")


if __name__ == "__main__":
    main()
