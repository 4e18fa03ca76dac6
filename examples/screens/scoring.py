"""Test pages, in the layout of `molmopoint data screens`, which `molmopoint eval screens --data FOLDER`
scores any model on.

Page i of a group is drawn from the seed [SEED, number of the group, i], so everyone scores the same pages and
questions; that asks for the same versions of kits, icons, fonts and browser.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from molmopoint.files import written_whole
from molmopoint.screens.questions import ScreenQuery
from screens import words
from screens.drawing import Drawer, pixels_of, png_of, query_fields, questions_about, sample_kit, sample_spec

SEED = 30_260
_PAGES_OF_A_KIT = 10
"""Pages that are drawn before the style sheets are changed."""


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

LARGE_GROUPS = (Group("2560x1440", "seen", (2560, 1440), 24),)
"""Pages that the crops of the model do not hold at native pixels."""

FIRST_LARGE = 100
"""Number of the first large group, for its seeds."""


def draw_tests(folder: Path, modules: Path, groups: Sequence[Group] = GROUPS, first: int = 0) -> Path:
    """Writes pictures and questions of all groups, unless they are there; returns the file of questions.

    Args:
        folder: to write to.
        modules: folder `node_modules` of the cache that `fetch.py` fills.
        groups: of pages.
        first: number of the first group, for its seeds.
    """
    path = folder / "targets.jsonl"
    if path.exists():
        return path
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    with Drawer(modules) as drawer:
        for number, group in enumerate(groups, start=first):
            for row in _draw_group(drawer, folder, number, group):
                lines.append(json.dumps({"row": len(lines) + 1, **row}) + "\n")
    with written_whole(path) as beside:
        beside.write_text("".join(lines), encoding="utf-8")
    return path


def _draw_group(drawer: Drawer, folder: Path, number: int, group: Group) -> Iterator[dict[str, Any]]:
    """Rows of one group; their pictures are written."""
    kit = None
    for i in range(group.pages):
        rng = np.random.default_rng([SEED, number, i])
        if i % _PAGES_OF_A_KIT == 0:
            kit = sample_kit(rng)
        screen = drawer.draw(rng, sample_spec(rng, group.part, kit), group.size)
        image = f"images/{group.name.replace(' ', '-')}-{i:04d}.png"
        (folder / image).write_bytes(png_of(pixels_of(screen)))
        for query in questions_about(rng, screen, group.questions, held_out=True):
            yield {"image": image, "group": group.name, "address": screen.address, **_fields(query)}


def _fields(query: ScreenQuery) -> dict[str, Any]:
    """A question; of one that calls something there by its name, whether such a name was trained."""
    fields = query_fields(query)
    names = [word for group, word in query.mentions if group == "name"]
    if names and query.targets:
        fields["names"] = "held out" if any(map(words.is_held_out, names)) else "trained"
    return fields
