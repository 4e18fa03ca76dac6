"""Test pages, and how answers about them are scored.

Page i of a group is drawn from the seed [SEED, number of the group, i], so everyone scores the same pages and questions; that asks for
the same versions of kits, icons, fonts and browser. A point is right in a box of a target of its own; a question without targets counts 1
for an empty answer, else 0. A click is right if the first point lies in the box; it is counted of questions with one target.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.files import open_picture
from molmopoint.metrics import match_points
from screens import words
from screens.drawing import Drawer, pixels_of, png_of, query_fields, questions_about, sample_kit, sample_spec

SEED = 30_260


@dataclass(frozen=True)
class Group:
    """Test pages of one kind.

    Attributes:
        name: for the table.
        part: one of `drawing.PARTS`.
        size: width and height in pixels.
        pages: how many.
        questions: of each page.
    """

    name: str
    part: str
    size: tuple[int, int]
    pages: int
    questions: int = 5


GROUPS = (
    Group("seen kits", "seen", (336, 336), 300),
    Group("held-out kit", "kit", (336, 336), 60),
    Group("held-out icons", "icons", (336, 336), 60),
    Group("held-out style", "style", (336, 336), 60),
    Group("held-out page", "page", (336, 336), 60),
    Group("672x672", "seen", (672, 672), 40),
    Group("390x844", "seen", (390, 844), 40),
    Group("1280x800", "seen", (1280, 800), 40),
)
"""What is scored."""


def draw_group(folder: Path, group: Group, modules: Path) -> list[dict[str, Any]]:
    """Pictures and questions of a group, drawn unless they are there."""
    place = folder / group.name.replace(" ", "_")
    listed = place / "pages.json"
    if not listed.exists():
        place.mkdir(parents=True, exist_ok=True)
        number, rows, kit = [other.name for other in GROUPS].index(group.name), [], None
        with Drawer(modules) as drawer:
            for i in range(group.pages):
                rng = np.random.default_rng([SEED, number, i])
                kit = kit if i % 10 else sample_kit(rng)
                screen = drawer.draw(rng, sample_spec(rng, group.part, kit), group.size)
                queries = questions_about(rng, screen, group.questions, held_out=True)
                (place / f"{i:04d}.png").write_bytes(png_of(pixels_of(screen)))
                rows.append({"image": f"{i:04d}.png", "address": screen.address, "queries": list(map(query_fields, queries))})
        listed.write_text(json.dumps(rows))
    return [{**row, "image": str(place / row["image"])} for row in json.loads(listed.read_text())]


def score(pointer: Any, pages: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
    """Asks every question of every page; per question its kind, whether names are held out, and the scores."""
    asked = [(page, query) for page in pages for query in page["queries"]]
    pictures = {page["image"]: open_picture(page["image"]).convert("RGB") for page in pages}
    results = pointer.point_batch(
        [pictures[page["image"]] for page, _ in asked], [query["prompt"] for _, query in asked], batch_size=batch_size
    )
    scored = []
    for (page, query), result in zip(asked, results, strict=True):
        size = pictures[page["image"]].size
        match = match_points(result.points.xy, [mask_of(boxes, size) for boxes in query["boxes"]])
        names = [word for group, word in query["mentions"] if group == "name"]
        row = {"kind": query["kind"], "absent": not query["boxes"], "held_out": any(map(words.is_held_out, names)), "named": bool(names),
               "f1": match.f1, "exact_count": match.exact_count, "prompt": query["prompt"], "image": page["image"]}  # fmt: skip
        if len(query["boxes"]) == 1:
            row["click"] = bool(len(result.points.xy)) and mask_of(query["boxes"][0], size)[_pixel(result.points.xy[0], size)]
        scored.append(row)
    return scored


def mask_of(boxes: Iterable[Iterable[float]], size: tuple[int, int]) -> np.ndarray:
    """(height, width) bool: pixels in any of some boxes."""
    mask = np.zeros((size[1], size[0]), dtype=bool)
    for box in boxes:
        left, top, right, bottom = (round(value) for value in box)
        mask[max(0, top) : max(bottom, top + 1), max(0, left) : max(right, left + 1)] = True
    return mask


def table_of(scored: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """F1, exact count and clicks by kind of question."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in scored:
        names = ["all", "absent" if row["absent"] else row["kind"]]
        if row["named"] and not row["absent"]:
            names.append("held-out names" if row["held_out"] else "trained names")
        for name in names:
            groups[name].append(row)
    return {name: _means(groups[name]) for name in sorted(groups, key=lambda name: (name != "all", name))}


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    clicks = [row["click"] for row in rows if "click" in row]
    means = {"questions": len(rows), "f1": float(np.mean([row["f1"] for row in rows]))}
    means["exact_count"] = float(np.mean([row["exact_count"] for row in rows]))
    return means | ({"click": float(np.mean(clicks))} if clicks else {})


def _pixel(xy: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of a point."""
    return min(int(xy[1]), size[1] - 1), min(int(xy[0]), size[0] - 1)
