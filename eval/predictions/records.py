"""Predictions on disk: one JSON line per item, only ever appended to, so that a crash costs the line being
written.

Everything that scoring needs is in the line, so stored predictions can be scored again, by another rule,
without the model and without the pictures.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import ParsedAnswer, ScoredPass
from molmopoint.processing.text_point_stream import CoordsScanner

logger = logging.getLogger(__name__)

_SCORE_TOLERANCE = 1e-5
"""By which scores of one answer may differ between processes, relative or absolute."""

POINT_TOKEN = "<POINT_"
"""Beginning of a grounding token in raw text; such an answer has no coordinates as text."""

NO_ID = -1
"""Object id of a point to which the model gave none."""


@dataclass(frozen=True)
class PredictedPoint:
    """A point of an answer.

    Attributes:
        id: object id, or None.
        group: number of the picture from 0, or seconds of the clip.
        x: pixels of the displayed original.
        y: pixels of the displayed original.
        score: 0..1, or None where the model gives none.
    """

    id: int | None
    group: float
    x: float
    y: float
    score: float | None = None

    @property
    def is_place(self) -> bool:
        """Whether the point names a place in some picture or moment."""
        return math.isfinite(self.x) and math.isfinite(self.y) and math.isfinite(self.group)


@dataclass(frozen=True)
class Prediction:
    """What a model said about one item.

    Attributes:
        item_id: of the item.
        task: name of the benchmark.
        task_version: of its file.
        prompt: as it was sent.
        raw_text: as generated.
        text: in words.
        points: in order.
        image_sizes: (width, height) that the pixels belong to.
        timestamps: seconds of the frames the model saw; None for pictures.
        num_new_tokens: of the answer.
        finish_reason: "stop", "length", or "error".
        invalid: points that name no place.
        latency: seconds of the model for the batch, divided by its items.
        error: message, where media or model failed; such items are asked again.
        rank: of the process.
        passes: of a reward model: the scores of the item's responses, in each order they were shown in.
        looks: how often the model looked at the picture.
    """

    item_id: str
    task: str
    task_version: int
    prompt: str
    raw_text: str = ""
    text: str = ""
    points: tuple[PredictedPoint, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] = ()
    timestamps: tuple[float, ...] | None = None
    num_new_tokens: int | None = None
    finish_reason: Literal["stop", "length", "error"] = "stop"
    invalid: int = 0
    latency: float | None = None
    error: str | None = None
    rank: int = 0
    schema_version: int = field(default=1)
    passes: tuple[ScoredPass, ...] = ()
    looks: int = 1

    def answer(self) -> ParsedAnswer:
        """What is scored: points that are places, others counted."""
        good = [point for point in self.points if point.is_place]
        ids = [NO_ID if point.id is None else point.id for point in good]
        return ParsedAnswer(
            xy=np.array([(point.x, point.y) for point in good], dtype=np.float64).reshape(-1, 2),
            group=np.array([point.group for point in good], dtype=np.float64),
            object_id=np.array(ids, dtype=np.int64),
            text=self.text,
            truncated=self.finish_reason == "length",
            invalid=self.invalid + len(self.points) - len(good),
            image_sizes=self.image_sizes,
            passes=self.passes,
            closed=_points_of_closed_lists(self.raw_text),
        )


def _points_of_closed_lists(raw_text: str) -> int | None:
    """Points before a list of coordinates that has no end; None if there is no such list."""
    if 'coords="' not in raw_text or POINT_TOKEN in raw_text:
        return None
    scanner = CoordsScanner()
    lists = [written.list_number for written in scanner.push(raw_text)]
    if not scanner.inside:
        return None
    return sum(number < scanner.lists - 1 for number in lists)


def to_line(prediction: Prediction) -> str:
    """One line of JSON; numbers that are none become null."""
    fields = asdict(prediction)
    if not prediction.passes:
        del fields["passes"]  # of models that point
    if prediction.looks == 1:
        del fields["looks"]
    return json.dumps(_finite(fields), ensure_ascii=False, separators=(",", ":")) + "\n"


def from_fields(fields: Mapping[str, Any]) -> Prediction:
    """The prediction of a parsed line; points without a place keep NaN and are counted as invalid.

    Raises:
        EvaluationError: it is not a line of ours.
    """
    try:
        times = fields.get("timestamps")
        parsed: dict[str, Any] = {
            "points": tuple(_point(point) for point in fields["points"]),
            "image_sizes": tuple(
                (int(width), int(height)) for width, height in fields.get("image_sizes", ())
            ),
            "timestamps": None if times is None else tuple(times),
            "passes": tuple(read_pass(each) for each in fields.get("passes", ())),
        }
        return Prediction(**{**fields, **parsed})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EvaluationError(
            f"expected a stored prediction with item_id, task, task_version, prompt and points, got "
            f"{str(dict(fields))[:200]} ({type(error).__name__}: {error}); other models' answers need "
            "`molmopoint score "
            "--form`"
        ) from error


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Every complete line of a file; a last line that was cut is left out and said so."""
    for number, line in enumerate(complete_lines(path), 1):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(
                f"expected JSON in line {number} of {path}, got {line[:80]!r} ({error}); delete the line, "
                "its item is asked again"
            ) from error
        yield from_fields(fields)


def read_folder(folder: Path) -> dict[str, Prediction]:
    """All answers in a folder of a run, of whatever process, by item id, sorted."""
    predictions: list[Prediction] = []
    for file in sorted(folder.glob("predictions*.jsonl")):
        predictions += read_predictions(file)
    return merge(predictions)


def complete_lines(path: Path) -> Iterator[str]:
    """Lines that end; of a file that was being written when the power went."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                logger.warning("%s: the last line is cut and left out", path)
                return
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise EvaluationError(
                    f"expected UTF-8 in line {number} of {path}, got {line[:80]!r} ({error}); save it so"
                ) from error


class PredictionWriter:
    """Appends predictions of one process; every call of `write` is on the disk when it returns.

    Args:
        path: new, or a file of an earlier run, whose cut last line is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _cut_broken_end(path)
        self._file: BinaryIO = path.open("ab")

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Appends whole lines."""
        self._file.write("".join(map(to_line, predictions)).encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Nothing can be written after it."""
        self._file.close()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def merge(predictions: Iterable[Prediction]) -> dict[str, Prediction]:
    """Predictions of all processes by item id, sorted; an answer replaces an earlier failure of its item.

    Raises:
        EvaluationError: an item has two different answers.
    """
    merged: dict[str, Prediction] = {}
    for prediction in predictions:
        before = merged.get(prediction.item_id)
        if before is None or before.error is not None:
            merged[prediction.item_id] = prediction
        elif prediction.error is None and not _same(prediction, before):
            raise EvaluationError(
                f"expected one answer per item, got two different ones for {prediction.item_id!r}; "
                "the files of two runs lie in one folder, choose another --out"
            )
    return dict(sorted(merged.items()))


def read_pass(fields: Mapping[str, Any]) -> ScoredPass:
    """The pass of a parsed line.

    Raises:
        ValueError: no order of the responses, or no finite score for each.
    """
    order = tuple(int(i) for i in fields["order"])
    scores = tuple(float(score) for score in fields["scores"])
    is_order = sorted(order) == list(range(len(scores)))
    if not is_order or not all(map(math.isfinite, scores)):
        raise ValueError(
            f"a pass has an order of its responses and a finite score for each, not {dict(fields)}"
        )
    return ScoredPass(order, scores)


def _same(first: Prediction, second: Prediction) -> bool:
    """Whether two answers are one. Scores depend on what else was in the batch in their last digits; nothing
    else does.
    """
    if first.raw_text != second.raw_text:
        return False
    if len(first.points) != len(second.points) or len(first.passes) != len(second.passes):
        return False
    same_points = all(map(_same_point, first.points, second.points))
    return same_points and all(map(_same_pass, first.passes, second.passes))


def _same_point(first: PredictedPoint, second: PredictedPoint) -> bool:
    for a, b in ((first.group, second.group), (first.x, second.x), (first.y, second.y)):
        both_are_nan = math.isnan(a) and math.isnan(b)
        if a != b and not both_are_nan:
            return False
    return first.id == second.id and _close(first.score, second.score)


def _same_pass(first: ScoredPass, second: ScoredPass) -> bool:
    are_alike = first.order == second.order and len(first.scores) == len(second.scores)
    return are_alike and all(map(_close, first.scores, second.scores))


def _close(first: float | None, second: float | None) -> bool:
    if not (isinstance(first, int | float) and isinstance(second, int | float)):
        return first == second
    return math.isclose(first, second, rel_tol=_SCORE_TOLERANCE, abs_tol=_SCORE_TOLERANCE)


def _cut_broken_end(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            logger.warning("%s: the last line was cut, its item is asked again", path)
            file.truncate(whole)


def _point(fields: Mapping[str, Any]) -> PredictedPoint:
    object_id = fields.get("id")
    if object_id is not None and not _is_int64(object_id):
        raise ValueError(f"a point has a whole number as its id, not {str(object_id)[:40]}")
    place = {name: math.nan if fields[name] is None else float(fields[name]) for name in ("group", "x", "y")}
    return PredictedPoint(object_id, **place, score=fields.get("score"))


def _is_int64(value: Any) -> bool:
    return isinstance(value, int) and -(1 << 63) <= value < 1 << 63


def _finite(value: Any) -> Any:
    """The same value with None for numbers that JSON cannot write."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
