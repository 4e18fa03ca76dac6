"""Stored scores of any reward model or judge as predictions of ours.

A line has `item_id` and `scores`, one number per response as the data has them, higher is better. `order` says in which order the
responses were shown ([1, 0]: the second one first); without it, as the data has them. Several lines of one item are several passes. A
judge that only picks writes 1 and 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Benchmark, Item
from molmopoint.eval.passes import ScoredPass
from molmopoint.eval.runner.records import Prediction, read_pass


def from_scores(lines: Iterable[Mapping[str, Any]], items: Mapping[str, Item], benchmark: Benchmark) -> dict[str, Prediction]:
    """Predictions by item id, sorted.

    Args:
        lines: parsed.
        items: of the benchmark, by id.
        benchmark: name and version of the result.

    Raises:
        EvaluationError: a line without one finite score per response, or with an order that is none.
    """
    passes: dict[str, list[ScoredPass]] = {}
    for fields in lines:
        passes.setdefault(fields["item_id"], []).append(_pass(fields, items.get(fields["item_id"])))
    return {
        item_id: Prediction(
            item_id, benchmark.name, benchmark.version, items[item_id].prompt if item_id in items else "", passes=tuple(found)
        )
        for item_id, found in sorted(passes.items())
    }


def _pass(fields: Mapping[str, Any], item: Item | None) -> ScoredPass:
    scores = fields.get("scores")
    if not isinstance(scores, list) or (item is not None and len(scores) != len(item.responses)):
        expected = "" if item is None else f" {len(item.responses)}"
        raise EvaluationError(f"expected{expected} scores, one per response, for {fields['item_id']!r}, got {str(scores)[:120]}")
    try:
        return read_pass({"order": list(range(len(scores))), **{key: fields[key] for key in ("order", "scores") if key in fields}})
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"expected finite scores and an order of the responses for {fields['item_id']!r}, got {fields} ({error})"
        ) from error
