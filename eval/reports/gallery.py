"""A page to look at a run: every answer drawn on its picture beside the right one, to be filtered and sorted.

One HTML file without anything external, so it can be mailed, and opened years later without a network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from molmopoint.eval.benchmark import Benchmark, Item, Items
from molmopoint.eval.predictions.records import Prediction
from molmopoint.eval.reports.cards import SIDE, SMALL_SIDE, VERDICTS, Card, Thumbnails, card_of
from molmopoint.eval.reports.faults import FAULTS, REWARD_FAULTS
from molmopoint.eval.reports.summary import Summary
from molmopoint.eval.reports.tables import percent, with_interval
from molmopoint.eval.runner.data import chance_of
from molmopoint.files import write_text_whole

LIMIT = 500
"""Items of a page."""
_SHARE_OF_WORST = 0.8
"""Of a page that has no room for all items; the rest is a sample of the others."""
_FEW = 150
"""Items whose pictures may be larger."""
_MOST_MISSING = 500
"""Missing items that are listed one by one."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class _Choice:
    """Items of the page, in the order of the data, and a sentence about the others."""

    items: Sequence[Item]
    note: str


def write_gallery(
    path: Path,
    benchmark: Benchmark,
    items: Items,
    scores: Mapping[str, Mapping[str, float]],
    predictions: Mapping[str, Prediction],
    summary: Summary,
    *,
    limit: int = LIMIT,
) -> None:
    """Writes the page of a scored run, beside and renamed.

    Args:
        path: of the HTML file.
        benchmark: whose run it is.
        items: of the data; missing ones are listed.
        scores: numbers by metric, by item id, of the scored items.
        predictions: by item id.
        summary: of the run.
        limit: items at most: four fifths are the worst ones, the others a fixed sample of the rest.
    """
    metric = summary.headline.metric
    values = {item_id: numbers.get(metric, 0.0) for item_id, numbers in scores.items()}
    scored = [item for item in items.found if item.item_id in scores]
    choice = _choose(scored, values, limit)
    thumbnails = Thumbnails(SIDE if len(choice.items) <= _FEW else SMALL_SIDE)
    cards = []
    for item in choice.items:
        value = values[item.item_id]
        prediction = predictions.get(item.item_id)
        cards.append(card_of(benchmark, item, scores[item.item_id], value, prediction, thumbnails))
    notes = [choice.note] if choice.note else []
    if thumbnails.without_room:
        notes.append(f"{thumbnails.without_room} pictures are left out to keep the page small.")
    page = _environment().get_template("gallery.html.jinja")
    points = benchmark.needs == "points"
    facts = _facts(summary, items, cards, notes)
    facts["points"] = points
    facts["faults"] = FAULTS if points else REWARD_FAULTS
    write_text_whole(path, page.render(**facts, pictures=thumbnails.data, metric=metric))


def _facts(summary: Summary, items: Items, cards: Sequence[Card], notes: Sequence[str]) -> dict[str, Any]:
    """What the template needs, beside the pictures."""
    keys: dict[str, None] = {}
    for card in cards:
        keys |= dict.fromkeys(card.categories)
    return {
        "summary": summary,
        "headline": with_interval(summary.headline),
        "cards": cards,
        "notes": notes,
        "verdicts": VERDICTS,
        "groups": {key: _counted(cards, key) for key in keys},
        "missing": items.missing[:_MOST_MISSING],
        "num_missing": len(items.missing),
    }


def _counted(cards: Sequence[Card], key: str) -> dict[str, int]:
    """Values of one way of grouping, and on how many cards each is."""
    counted: Counter[str] = Counter()
    for card in cards:
        counted.update(card.categories.get(key, ()))
    return {value: counted[value] for value in sorted(counted, key=_natural)}


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key by which 10 comes after 9."""
    parts = []
    for part in re.findall(r"\d+|\D+", name):
        is_number = part.isdecimal()
        parts.append((not is_number, int(part) if is_number else 0, part))
    return parts


def _choose(items: Sequence[Item], values: Mapping[str, float], limit: int) -> _Choice:
    """The worst items and a sample of the others; both do not depend on the order of the data."""
    if len(items) <= limit:
        return _Choice(items, "")
    by_chance = sorted(items, key=chance_of)
    wrong = [item for item in by_chance if values[item.item_id] < 1]
    worst = sorted(wrong, key=lambda item: values[item.item_id])[: round(limit * _SHARE_OF_WORST)]
    chosen = {item.item_id for item in worst}
    others = [item for item in by_chance if item.item_id not in chosen]
    chosen |= {item.item_id for item in others[: limit - len(worst)]}
    note = f"The page shows {len(chosen)} of {len(items)} scored items: the {len(worst)} worst ones, and a sample of the others."
    return _Choice([item for item in items if item.item_id in chosen], note)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    return environment
