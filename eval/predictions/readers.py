"""Readers of stored predictions: answers of any model as predictions of ours, so that one program scores them
all.

A line of another model's file is a JSON object with `item_id` and `text`; `image_sizes` ([[width, height],
...]) where the benchmark does not know them; `truncated` where known. Our own lines hold points or scores and
need nothing.

A line of a reward model, or of any judge, has `item_id` and `scores`, one number per response as the data has
them, higher is better. `order` says in which order the responses were shown ([1, 0]: the second one first);
without it, as the data has them. Several lines of one item are several passes. A judge that only picks writes
1 and 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Benchmark, Item, ScoredPass
from molmopoint.eval.datasets.rows import displayed_size, stated_size, whole_text
from molmopoint.eval.predictions.plain_text import Space, check_space, to_pixels
from molmopoint.eval.predictions.records import (
    PredictedPoint,
    Prediction,
    complete_lines,
    merge,
    read_folder,
    read_pass,
    read_predictions,
)
from molmopoint.processing.coordinate_forms import (
    florence_points,
    json_points,
    moondream_points,
    paligemma_points,
    plain_points,
)
from molmopoint.processing.text_points import read_text_answer


def sizes_of(item: Item) -> tuple[tuple[int, int], ...]:
    """(width, height) of each displayed picture, or of the clip.

    Raises:
        EvaluationError: a picture cannot be read, or the size of a clip is not known.
    """
    if item.image_sizes:
        return item.image_sizes
    if item.clip is not None:
        raise EvaluationError(
            f'expected "image_sizes" in the stored answer to {item.item_id!r}: the benchmark does not tell the size of its clip'
        )
    sizes = []
    for path in item.images:
        size = displayed_size(path)
        if size is None:
            raise EvaluationError(
                f'expected a picture at {path}, got none that can be read; write "image_sizes" into the stored answers to do without'
            )
        sizes.append(size)
    return tuple(sizes)


FORMS = ("ours", "molmo", "molmo2", "qwen", "plain", "moondream", "florence-2", "paligemma", "scores")
"""`molmo` and `molmo2` are read by one grammar, whose forms tell their own space; `qwen` and `plain` need
--coords; numbers of `moondream`, `florence-2` and `paligemma` have one meaning; `scores` is for reward
benchmarks."""

_BARE: dict[str, Callable[[str], list[tuple[float, float]]]] = {"qwen": json_points, "plain": plain_points}
_FRACTIONS: dict[str, Callable[[str], list[tuple[float, float]]]] = {
    "moondream": moondream_points,
    "florence-2": florence_points,
    "paligemma": paligemma_points,
}


def check_stored(path: Path, benchmark: Benchmark, form: str) -> None:
    """Refuses what can be seen before the benchmark is read, which may take long.

    Raises:
        EvaluationError: no such file, or a form that is not known or not for this benchmark.
    """
    if form not in FORMS:
        raise EvaluationError(f"expected --form to be one of {', '.join(FORMS)}, got {form!r}")
    if (form == "scores") != (benchmark.needs == "scores") and form != "ours":
        raise EvaluationError(
            f"expected --form ours or {_other_form(benchmark)} for {benchmark.name}, which wants "
            f"{benchmark.needs}, got {form}"
        )
    if not path.exists():
        raise EvaluationError(f"expected stored answers at {path}, found nothing; check the path")


def read_stored(
    path: Path,
    items: Sequence[Item],
    benchmark: Benchmark,
    *,
    form: str = "ours",
    coords: str | None = None,
    missing: Collection[str] = (),
) -> dict[str, Prediction]:
    """Stored answers to a benchmark, by item id.

    Args:
        path: a file, or for our own answers also a folder of a run.
        items: of the benchmark.
        benchmark: name and version of the result.
        form: of the answers, one of `FORMS`.
        coords: space of the numbers in `qwen` and `plain`.
        missing: ids of items that cannot be scored; answers to them are left out.

    Raises:
        EvaluationError: no such file, a form or space that is not known, a line that cannot be read, ids that
            no item has.
    """
    check_stored(path, benchmark, form)
    by_id = {item.item_id: item for item in items}
    left_out = set(missing) - by_id.keys()
    if form == "ours":
        found = read_folder(path) if path.is_dir() else merge(read_predictions(path))
        _check_task(found, benchmark, path)
        _check_passes(found, items, path)
    elif form == "scores":
        found = from_scores(_lines(path, "scores", list), by_id, benchmark)
    else:
        space = check_space(coords) if form in _BARE else None
        if form in _FRACTIONS:
            space = "norm1"
        lines = [fields for fields in _lines(path, "text", str) if fields["item_id"] not in left_out]
        found = merge(_from_text(fields, by_id, benchmark, form, space) for fields in lines)
    found = {item_id: prediction for item_id, prediction in found.items() if item_id not in left_out}
    strangers = sorted(found.keys() - by_id.keys())
    if strangers:
        example = items[0].item_id if items else "nothing"
        raise EvaluationError(
            f"expected ids of items of {benchmark.name}, got {len(strangers)} others, such as "
            f"{strangers[0]!r}; ids look like {example!r}"
        )
    if not found:
        raise EvaluationError(f"expected stored answers in {path}, got none")
    return found


def _other_form(benchmark: Benchmark) -> str:
    return (
        "scores"
        if benchmark.needs == "scores"
        else "one of molmo, molmo2, qwen, plain, moondream, florence-2, paligemma"
    )


def _lines(path: Path, column: str, kind: type) -> list[dict[str, Any]]:
    lines = []
    for number, line in enumerate(complete_lines(path), 1):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(
                f"expected JSON in line {number} of {path}, got {line[:80]!r} ({error})"
            ) from error
        is_object = isinstance(fields, dict)
        if (
            not is_object
            or not isinstance(fields.get(column), kind)
            or not isinstance(fields.get("item_id"), str)
        ):
            raise EvaluationError(
                f'expected {{"item_id": ..., "{column}": ...}} in line {number} of {path}, got {line[:120]!r}'
            )
        for name, value in fields.items():
            if isinstance(value, str):
                fields[name] = whole_text(value)
        lines.append(fields)
    return lines


def _from_text(
    fields: Mapping[str, Any], items: Mapping[str, Item], benchmark: Benchmark, form: str, space: Space | None
) -> Prediction:
    item = items.get(fields["item_id"])
    sizes = _stated_sizes(fields)
    if not sizes:
        # An id of no item is reported with all others of its kind, by the caller.
        sizes = sizes_of(item) if item is not None else ((1, 1),)
    is_video = item is not None and item.clip is not None
    points, invalid, cut = _points(fields["text"], sizes, form, space, is_video)
    return Prediction(
        item_id=fields["item_id"],
        task=benchmark.name,
        task_version=benchmark.version,
        prompt=item.prompt if item is not None else "",
        raw_text=fields["text"],
        text=fields["text"],
        points=points,
        image_sizes=sizes,
        invalid=invalid,
        finish_reason="length" if cut or fields.get("truncated") else "stop",
    )


def _stated_sizes(fields: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The sizes that a line states; none where it states none.

    Raises:
        EvaluationError: they are no sizes.
    """
    stated = fields.get("image_sizes") or ()
    sizes = [stated_size(size) for size in stated] if isinstance(stated, list | tuple) else [None]
    if None in sizes:
        raise EvaluationError(
            f"expected image_sizes as [[width, height], ...] for {fields['item_id']!r}, got "
            f"{str(stated)[:80]}"
        )
    return tuple(size for size in sizes if size is not None)


def _points(
    text: str, sizes: tuple[tuple[int, int], ...], form: str, space: Space | None, is_video: bool
) -> tuple[tuple[PredictedPoint, ...], int, bool]:
    """Points in pixels, how many name no place, and whether the text ends inside one."""
    if space is None:
        answer = read_text_answer(text, sizes, is_video=is_video)
        points = []
        for point in answer.points:
            place = PredictedPoint(int(point.object_id), float(point.group), float(point.x), float(point.y))
            points.append(place)
        return tuple(points), answer.invalid, answer.truncated_triple
    places = {**_BARE, **_FRACTIONS}[form](text)
    if len(sizes) != 1 or is_video:
        # These forms do not say which picture or what time they mean.
        return (), len(places), False
    pixels = [to_pixels(xy, space, sizes[0]) for xy in places]
    return tuple(PredictedPoint(None, 0, x, y) for x, y in pixels), 0, False


def _check_task(found: Mapping[str, Prediction], benchmark: Benchmark, path: Path) -> None:
    others = {prediction.task for prediction in found.values()} - {benchmark.name}
    if others:
        raise EvaluationError(
            f"expected answers to {benchmark.name} in {path}, got some to {', '.join(sorted(others))}"
        )


def _check_passes(found: Mapping[str, Prediction], items: Sequence[Item], path: Path) -> None:
    """Refuses scores of another number of responses than the items have: of another version of the data."""
    for item in items:
        if item.item_id not in found:
            continue
        for each in found[item.item_id].passes:
            if len(each.scores) != len(item.responses):
                raise EvaluationError(
                    f"expected {len(item.responses)} scores for {item.item_id!r} in {path}, got "
                    f"{len(each.scores)}; "
                    "were they made on another version of the data?"
                )


def from_scores(
    lines: Iterable[Mapping[str, Any]], items: Mapping[str, Item], benchmark: Benchmark
) -> dict[str, Prediction]:
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
    predictions = {}
    for item_id, found in sorted(passes.items()):
        prompt = items[item_id].prompt if item_id in items else ""
        predictions[item_id] = Prediction(
            item_id, benchmark.name, benchmark.version, prompt, passes=tuple(found)
        )
    return predictions


def _pass(fields: Mapping[str, Any], item: Item | None) -> ScoredPass:
    scores = fields.get("scores")
    if not isinstance(scores, list) or (item is not None and len(scores) != len(item.responses)):
        expected = "" if item is None else f" {len(item.responses)}"
        raise EvaluationError(
            f"expected{expected} scores, one per response, for {fields['item_id']!r}, got {str(scores)[:120]}"
        )
    order = fields.get("order", list(range(len(scores))))
    try:
        return read_pass({"order": order, "scores": scores})
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"expected finite scores and an order of the responses for {fields['item_id']!r}, got {fields} "
            f"({error})"
        ) from error
