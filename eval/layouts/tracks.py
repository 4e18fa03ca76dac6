"""What tracking benchmarks have in common: questions about objects that move, and how answers are judged.

A model is asked to point once per second, at whole seconds from the start of the clip. Each of these moments is scored like a
picture, with the objects that are there at that moment; where the data lists a moment without objects, no point is right. The score
of a question is the mean over moments, and that of the benchmark the mean over questions.

- `grid`, the default: points between the moments asked for are left out, because a model may answer more often.
- `strict`: every frame with points counts, and one that was not asked for scores 0.

Known flaws of the reference, repeated by `ref_compat` whatever the rule: as `strict` (T17); recall divides by all objects of the
question, also those that are not there, and objects in the order listed in the frame are paired with masks in the order of the
question (T18); for HOTA the objects of a frame are in the order of the question, and paired with masks in the same way (T19); where a
clip has no whole number of frames a second, its moments drift from the seconds (0, 29, 58, 87 and 116 at 29.97).

Of a list of coordinates as text that was cut before its closing quote the reference reads nothing, which `ref_compat` repeats; we
count the whole points of a cut answer.

The model sees frames at the highest rate up to 10 a second that divides that of the video, without its last moment, as in training.
A mask of another size than its video is brought to the video's size, and points are rounded in pixels of the video.

Tracking benchmarks that were made from data sets of video segmentation, all with the same columns.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import CUT_LIST, Answer, Asking, Benchmark, Clip, Item, Items, Metric, View
from molmopoint.eval.layouts.boxes import whole_number
from molmopoint.eval.layouts.outlines import index_masks
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, in_size, read_rows, stated_size, text_of
from molmopoint.eval.layouts.track_masks import MaskSource, PictureTracks
from molmopoint.eval.layouts.video_files import VideoFinder
from molmopoint.metrics.run_lengths import MaskIndex
from molmopoint.metrics.tracking import NO_ID, TrueFrame, TrueTracks, at_frames, is_on_grid, on_grid, track_scores

RATE = 1.0
"""Answers per second that every benchmark asks for."""
UNREADABLE = "unreadable mask, never hit"
NO_MASK = "place of an object without a mask, never hit"
OTHER_SIZE = "mask of another size than its video"

Place = tuple[float, float]


@dataclass(frozen=True)
class Question:
    """A row of a tracking benchmark.

    Attributes:
        item_id: of the item.
        expression: says which objects are meant.
        video: name.
        clip: to look at.
        size: (width, height) of the video.
        fps: frames per second.
        objects: ids, in the stored order of their masks.
        places: pixels, by object in the order listed, by frame of the clip; a frame may be listed without objects.
        asked: frames that are scored.
        reference: frames that the reference scores.
        cluster: of the item.
        categories: of the item.
        numbered: ids of the objects in the order that numbers them; empty if it is that of their masks.
    """

    item_id: str
    expression: str
    video: str
    clip: Clip
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


class TrackBenchmark(Benchmark):
    """See the module for the rules; `Item.truth` is a `TrueTracks`."""

    version: ClassVar[int] = 2
    asking: ClassVar[Asking] = Asking(max_new_tokens=4096, fps=RATE, max_frames=384, sample_mode="fps")
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

    def judge(self, item: Item, answer: Answer, rule: str, *, ref_compat: bool = False) -> dict[str, float]:
        """Point scores and HOTA."""
        truth: TrueTracks = item.truth
        answer = answer.as_reference_reads() if ref_compat else answer
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


def add_questions(collected: ItemCollector, folder: Path, name: str, questions: Sequence[Question], masks: MaskSource) -> None:
    """Indexes the masks of all questions and adds their items.

    A question none of whose masks can be read is missing; single faults are counted as warnings, and their masks never hit.

    Args:
        collected: gets items and warnings.
        folder: of the data.
        name: of the benchmark.
        questions: in a fixed order.
        masks: of their objects.
    """
    wanted = [(question, each, frame) for question in questions for frame in question.scored for each in question.objects]
    there = [(question, each, frame) for question, each, frame in wanted if masks.has(question.item_id, each, frame)]
    keys = [f"{question.item_id}/{each}/{frame}" for question, each, frame in there]
    indexed = index_masks(folder, name, keys, lambda i: masks.read(there[i][0].item_id, *there[i][1:]), masks.fingerprint())
    numbers = dict(zip(keys, indexed.numbers, strict=True))
    for question in questions:
        frames = {frame: _true_frame(question, frame, numbers) for frame in question.scored}
        anyone = any(frame.ids for frame in frames.values())
        if anyone and not any(number >= 0 for frame in frames.values() for number in frame.masks.values()):
            unreadable = any(f"{question.item_id}/{each}/{frame}" in numbers for each in question.objects for frame in frames)
            collected.miss(question.item_id, "unreadable masks" if unreadable else "no masks", ", ".join(question.objects))
            continue
        _count_faults(collected, question, frames, numbers, indexed.index)
        num_frames = masks.num_frames(question.item_id)
        truth = TrueTracks(
            indexed.index,
            question.size,
            question.fps,
            RATE,
            {frame: frames[frame] for frame in question.asked},
            num_frames,
            {frame: frames[frame] for frame in question.reference},
            question.numbered,
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


def _true_frame(question: Question, frame: int, numbers: Mapping[str, int]) -> TrueFrame:
    places = question.places[frame]
    ids = tuple(each for each in places if each in question.objects)
    masks = {each: numbers.get(f"{question.item_id}/{each}/{frame}", -1) for each in question.objects}
    return TrueFrame(ids, np.array([places[each] for each in ids], dtype=np.float64).reshape(-1, 2), masks)


def _count_faults(
    collected: ItemCollector, question: Question, frames: Mapping[int, TrueFrame], numbers: Mapping[str, int], index: MaskIndex
) -> None:
    for number, frame in frames.items():
        for each, mask in frame.masks.items():
            if mask >= 0:
                collected.warnings[OTHER_SIZE] += tuple(index.sizes[mask]) != question.size
            elif f"{question.item_id}/{each}/{number}" in numbers:
                collected.warnings[UNREADABLE] += 1
            elif each in frame.ids:
                collected.warnings[NO_MASK] += 1


COLUMNS = ("video", "expression", "fps", "width", "height", "frame_trajectories", "mask_id", "qid")
OPTIONAL = ("sampling_fps",)
TASK_FOLDER = "track"
OTHER_RATE = "row for another number of answers a second, not part of the benchmark"
UNLISTED = "place of an object that is not listed, left out"
NO_FRAME = "moment without the number of its frame, left out"
NO_PLACE = "object without a place in a frame, left out"
VIDEOS_NOTE = "put the videos into `videos` as VIDEO.mp4 (6 frames per second), or their frames into `JPEGImages/VIDEO`"


class AcademicTracks(TrackBenchmark):
    """A table of questions; `mask_id` lists the objects, and `frame_trajectories` says where they are.

    Attributes:
        split: of the table.
    """

    split: ClassVar[str]
    views = (View(("objects",), order=("0", "1", "2 and more")),)

    def read(self, folder: Path) -> Items:
        """Reads the table and indexes the masks at the moments asked for."""
        collected, videos = ItemCollector(), VideoFinder(folder)
        rows = list(read_rows(_tracking_files(find_parquet(folder, self.split)), COLUMNS, OPTIONAL))
        rows_asked = [row for row in rows if row.get("sampling_fps") in (None, RATE)]
        collected.warnings[OTHER_RATE] += len(rows) - len(rows_asked)
        questions = [question for row in rows_asked if (question := self._question(collected, videos, row)) is not None]
        add_questions(collected, folder, self.name, questions, self.masks(folder, questions))
        return collected.items()

    @abstractmethod
    def masks(self, folder: Path, questions: Sequence[Question]) -> MaskSource:
        """The masks of the questions' objects."""

    def cluster(self, video: str, objects: Sequence[str]) -> str:
        """Questions of one cluster are not independent."""
        return video

    def _question(self, collected: ItemCollector, videos: VideoFinder, row: dict[str, Any]) -> Question | None:
        video, expression = str(row["video"]), text_of(row, "expression")
        item_id = collected.name(f"{video}/{row['qid']}/{expression}")
        size, fps = stated_size([row["width"], row["height"]]), row["fps"]
        if not expression:
            return collected.miss(item_id, "no expression", video)
        if size is None or not fps or not math.isfinite(fps) or fps <= 0:
            return collected.miss(item_id, "no size or frame rate of the video", f"{row['width']} x {row['height']}, {fps} a second")
        objects = tuple(dict.fromkeys(str(each) for each in row["mask_id"] or ()))
        path = videos.expect(video)
        places = _places(collected, row["frame_trajectories"], objects)
        listed = tuple(sorted(places))
        asked = tuple(frame for frame in listed if is_on_grid(frame, float(fps), RATE))
        return Question(
            item_id,
            expression,
            video,
            Clip(path, frames_per_second=float(fps)),
            size,
            float(fps),
            objects,
            places,
            asked or listed,  # a table out of step with the seconds still says which moments it is about
            listed,
            self.cluster(video, objects),
            {"objects": str(len(objects)) if len(objects) < 2 else "2 and more"},
        )


def picture_masks(folder: Path, questions: Sequence[Question], *, numbered: bool) -> PictureTracks:
    """Masks as pictures below `Annotations`; see `PictureTracks`."""
    names = {question.item_id: question.video for question in questions}
    frames = {question.video: question.clip.path if question.clip.path.is_dir() else None for question in questions}
    return PictureTracks(folder, names, frames, numbered=numbered)


def _tracking_files(files: Sequence[Path]) -> list[Path]:
    """Of data sets with a folder per task the files of the one that follows objects all the way.

    Raises:
        EvaluationError: there are several folders and none of them is `track`.
    """
    folders = sorted({file.parent for file in files})
    if len(folders) == 1:
        return list(files)
    if chosen := [file for file in files if file.parent.name == TASK_FOLDER]:
        return chosen
    names = ", ".join(folder.name for folder in folders)
    raise EvaluationError(
        f"expected one folder with tables, or one named {TASK_FOLDER}, got {names}; leave only the tracking questions there"
    )


def _places(
    collected: ItemCollector, trajectories: Sequence[Mapping[str, Any]] | None, objects: Sequence[str]
) -> dict[int, dict[str, Place]]:
    """Where the objects are, by frame, those without objects included. Hidden objects have a place too."""
    places: dict[int, dict[str, Place]] = {}
    for moment in trajectories or ():
        frame = whole_number(moment["frame"])
        if frame is None:
            collected.warnings[NO_FRAME] += 1
            continue
        here = places.setdefault(frame, {})
        for point in moment["points"] or ():
            place, name = sound_place(point["point"]), str(point["id"])
            if name not in objects:
                collected.warnings[UNLISTED] += 1
            elif place is None:
                collected.warnings[NO_PLACE] += 1
            else:
                here.setdefault(name, place)
    return places
