"""A handful of made pictures with labelled points, as a user brings them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from toy_processor import picture

LABELS = ("cups", "keys", "lids")


def rows_of(folder: Path, count: int = 12) -> list[dict]:
    """Writes `count` pictures into `folder`, and returns a row for each and for a question about every third."""
    rng = np.random.default_rng(5)
    rows: list[dict] = []
    for index in range(count):
        width, height = (int(side) for side in rng.integers(60, 100, size=2))
        name = f"{index:02}.png"
        picture(height, width, seed=index).save(folder / name)
        points = [
            {"x": float(rng.integers(width)), "y": float(rng.integers(height))} for _ in range(1 + index % 3)
        ]
        rows.append({"image": name, "label": LABELS[index % 3], "points": points, "coords": "pixel"})
        if index % 3 == 0:
            rows.append({"image": name, "label": "forks", "no_points": True})
    return rows


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
