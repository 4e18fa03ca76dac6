"""Tracking benchmarks that were made from data sets of video segmentation, all with the same columns."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Clip, Items, View
from molmopoint.eval.layouts.collecting import ItemCollector, text_of
from molmopoint.eval.layouts.counting import whole_number
from molmopoint.eval.layouts.parquet_rows import find_parquet, read_rows
from molmopoint.eval.layouts.sizes import stated_size
from molmopoint.eval.layouts.track_masks import MaskSource, PictureTracks
from molmopoint.eval.layouts.tracks import RATE, Place, Question, TrackBenchmark, add_questions, sound_place
from molmopoint.eval.layouts.video_files import VideoFinder
from molmopoint.metrics.tracking import is_on_grid

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
