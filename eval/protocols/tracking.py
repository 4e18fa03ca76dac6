"""Tracking: questions about objects that move, and how answers are scored.

A model is asked to point once per second, at whole seconds from the start of the clip. Each of these moments
is scored like a picture, with the objects that are there at that moment; where the data lists a moment
without objects, no point is right. The score of a question is the mean over moments, and that of the
benchmark the mean over questions.

- `grid`, the default: points between the moments asked for are left out, because a model may answer more
  often.
- `strict`: every frame with points counts, and one that was not asked for scores 0.

Known flaws of the reference, repeated by `ref_compat` whatever the rule: as `strict` (T17); recall divides by
all objects of the question, also those that are not there, and objects in the order listed in the frame are
paired with masks in the order of the question (T18); for HOTA the objects of a frame are in the order of the
question, and paired with masks in the same way (T19); where a clip has no whole number of frames a second,
its moments drift from the seconds (0, 29, 58, 87 and 116 at 29.97).

Of a list of coordinates as text that was cut before its closing quote the reference reads nothing, which
`ref_compat` repeats; we count the whole points of a cut answer.

The model sees frames at the highest rate up to 10 a second that divides that of the video, without its last
moment, as in training. A mask of another size than its video is brought to the video's size, and points are
rounded in pixels of the video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from molmopoint.eval.benchmark import (
    CUT_LIST,
    Benchmark,
    GenerationSettings,
    Item,
    ItemScores,
    Metric,
    ParsedAnswer,
    VideoSegment,
)
from molmopoint.eval.datasets.masks import index_masks
from molmopoint.eval.datasets.rows import ItemCollector, in_size
from molmopoint.eval.datasets.track_masks import MaskSource
from molmopoint.metrics.run_lengths import MaskIndex
from molmopoint.metrics.tracking import NO_ID, TrueFrame, TrueTracks, at_frames, on_grid, track_scores

RATE = 1.0
"""Answers per second that every benchmark asks for."""
UNREADABLE = "unreadable mask, never hit"
NO_MASK = "place of an object without a mask, never hit"
OTHER_SIZE = "mask of another size than its video"

Place = tuple[float, float]
"""x and y in pixels of the video."""


@dataclass(frozen=True)
class TrackQuestion:
    """A row of a tracking benchmark.

    Attributes:
        item_id: of the item.
        expression: says which objects are meant.
        video: name.
        clip: to look at.
        size: (width, height) of the video.
        fps: frames per second.
        objects: ids, in the stored order of their masks.
        places: pixels, by object in the order listed, by frame of the clip; a frame may be listed without
            objects.
        asked: frames that are scored.
        reference: frames that the reference scores.
        cluster: of the item.
        categories: of the item.
        numbered: ids of the objects in the order that numbers them; empty if it is that of their masks.
    """

    item_id: str
    expression: str
    video: str
    clip: VideoSegment
    size: tuple[int, int]
    fps: float
    objects: tuple[str, ...]
    places: Mapping[int, Mapping[str, Place]]
    asked: tuple[int, ...]
    reference: tuple[int, ...]
    cluster: str
    categories: Mapping[str, str] = field(default_factory=dict)
    numbered: tuple[str, ...] = ()

    @property
    def scored(self) -> list[int]:
        """Frames that are scored by anyone."""
        return sorted({*self.asked, *self.reference})

    def mask_key(self, object_id: str, frame: int) -> str:
        """Name of a mask among those of all questions."""
        return f"{self.item_id}/{object_id}/{frame}"


class TrackBenchmark(Benchmark):
    """See the module for the rules; `Item.truth` is a `TrueTracks`."""

    version: ClassVar[int] = 2
    generation: ClassVar[GenerationSettings] = GenerationSettings(
        4096, fps=RATE, max_frames=384, sample_mode="fps"
    )
    rules = ("grid", "strict")
    headline = ("f1", None)
    metrics = (
        Metric("f1", "mean"),
        Metric("precision", "mean"),
        Metric("recall", "mean"),
        Metric("hota", "mean", title="HOTA"),
        Metric("deta", "mean", title="DetA"),
        Metric("assa", "mean", title="AssA"),
        Metric("max_hit_f1", "mean", title="F1, matched by masks"),
        Metric("without_ids", "binary", title="points without ids"),
    )
    flaws = (
        "T17: points between the moments asked for count",
        "T18: recall by all objects of the question, and masks by place for objects as listed in the frame",
        "T19: HOTA takes masks by place for objects in the order of the question",
        "moments by whole frames instead of seconds",
        CUT_LIST,
    )

    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Point scores and HOTA."""
        truth: TrueTracks = item.truth
        if ref_compat:
            answer = answer.as_reference_reads()
        xy, _ = in_size(answer, truth.size)
        if rule == "strict" or ref_compat:
            predicted = at_frames(xy, answer.group, answer.object_id, truth.fps)
        else:
            predicted = on_grid(xy, answer.group, answer.object_id, truth)
        scores = track_scores(truth, predicted, ref_compat=ref_compat)
        return {
            **scores.points._asdict(),
            "hota": scores.hota.score,
            "deta": scores.hota.detection,
            "assa": scores.hota.association,
            "max_hit_f1": scores.max_hit.f1,
            "without_ids": float((answer.object_id == NO_ID).any()),
        }


def prompt_of(expression: str) -> str:
    """The request to follow what an expression names."""
    return f"Track {expression.rstrip('. ')} in {RATE:g} FPS."


def add_questions(
    collected: ItemCollector, folder: Path, name: str, questions: Sequence[TrackQuestion], masks: MaskSource
) -> None:
    """Indexes the masks of all questions and adds their items.

    A question none of whose masks can be read is missing; single faults are counted as warnings, and their
    masks never hit.

    Args:
        collected: gets items and warnings.
        folder: of the data.
        name: of the benchmark.
        questions: in a fixed order.
        masks: of their objects.
    """
    there = list(_stored_masks(questions, masks))
    keys = [question.mask_key(each, frame) for question, each, frame in there]

    def read(i: int) -> np.ndarray | None:
        question, each, frame = there[i]
        return masks.read(question.item_id, each, frame)

    indexed = index_masks(folder, name, keys, read, masks.fingerprint())
    numbers = dict(zip(keys, indexed.numbers, strict=True))
    for question in questions:
        frames = {frame: _true_frame(question, frame, numbers) for frame in question.scored}
        reason = _reason_to_leave_out(question, frames, numbers)
        if reason:
            collected.miss(question.item_id, reason, ", ".join(question.objects))
            continue
        _count_faults(collected, question, frames, numbers, indexed.index)
        truth = TrueTracks(
            index=indexed.index,
            size=question.size,
            fps=question.fps,
            rate=RATE,
            frames={frame: frames[frame] for frame in question.asked},
            num_frames=masks.num_frames(question.item_id),
            reference_frames={frame: frames[frame] for frame in question.reference},
            objects=question.numbered,
        )
        collected.add(
            Item(
                question.item_id,
                prompt_of(question.expression),
                clip=question.clip,
                truth=truth,
                categories=question.categories,
                cluster=question.cluster,
                image_sizes=(question.size,),
            )
        )


def sound_place(value: Any) -> Place | None:
    """A pair of finite numbers, as [x, y] or {"x": x, "y": y}, or None."""
    pair: Any = (value.get("x"), value.get("y")) if isinstance(value, Mapping) else value
    try:
        x, y = (float(number) for number in pair)
    except (TypeError, ValueError):
        return None
    return (x, y) if np.isfinite((x, y)).all() else None


def _stored_masks(
    questions: Sequence[TrackQuestion], masks: MaskSource
) -> Iterator[tuple[TrackQuestion, str, int]]:
    """Question, object and frame of every mask that is scored and there."""
    for question in questions:
        for frame in question.scored:
            for each in question.objects:
                if masks.has(question.item_id, each, frame):
                    yield question, each, frame


def _true_frame(question: TrackQuestion, frame: int, numbers: Mapping[str, int]) -> TrueFrame:
    places = question.places[frame]
    ids = tuple(each for each in places if each in question.objects)
    masks = {each: numbers.get(question.mask_key(each, frame), -1) for each in question.objects}
    xy = np.array([places[each] for each in ids], dtype=np.float64).reshape(-1, 2)
    return TrueFrame(ids, xy, masks)


def _reason_to_leave_out(
    question: TrackQuestion, frames: Mapping[int, TrueFrame], numbers: Mapping[str, int]
) -> str | None:
    """Why a question cannot be scored: it has objects, but no mask that can be read."""
    has_objects = any(frame.ids for frame in frames.values())
    if not has_objects:
        return None
    is_stored = False
    for number, frame in frames.items():
        for each, mask in frame.masks.items():
            if mask >= 0:
                return None
            is_stored |= question.mask_key(each, number) in numbers
    return "unreadable masks" if is_stored else "no masks"


def _count_faults(
    collected: ItemCollector,
    question: TrackQuestion,
    frames: Mapping[int, TrueFrame],
    numbers: Mapping[str, int],
    index: MaskIndex,
) -> None:
    for number, frame in frames.items():
        for each, mask in frame.masks.items():
            if mask >= 0:
                collected.warnings[OTHER_SIZE] += tuple(index.sizes[mask]) != question.size
            elif question.mask_key(each, number) in numbers:
                collected.warnings[UNREADABLE] += 1
            elif each in frame.ids:
                collected.warnings[NO_MASK] += 1
