"""Following objects that a phrase or a question names, in data sets of video segmentation.

Molmo2 (arXiv 2601.10611) asks them all in one way: a table of questions with the same columns, and videos and
masks of the original data sets.

- Ref-DAVIS17: 61 objects, each named by four people; the questions about an object are one cluster. Masks are pictures
  with a palette, whose pixels are numbers of objects. Source: Khoreva et al., "Video Object Segmentation with
  Language Referring Expressions" (ACCV 2018).
- Ref-YT-VOS: masks are pictures, white (255) where the object is. Source: Seo et al., URVOS (ECCV 2020).
- ReasonVOS: questions that need thought, masks as in Ref-YT-VOS. Source: VideoLISA, arXiv 2409.19603.
- MeViS valid_u: sentences about motion; one file has all masks. The split `valid_u` has masks, the larger `valid` is
  scored by a server only. Source: MeViS, arXiv 2308.08544.

See `protocols/tracking.py` for the rules.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import DatasetSource, Items, VideoSegment, View
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    read_rows,
    stated_size,
    text_of,
    whole_number,
    write_parquet,
)
from molmopoint.eval.datasets.track_masks import (
    MaskSource,
    PictureTracks,
    RunLengthTracks,
    by_frame,
    length_of,
)
from molmopoint.eval.datasets.videos import VideoFinder
from molmopoint.eval.fixtures import moving_shapes
from molmopoint.eval.fixtures.moving_shapes import FPS, SIZE, MovingShapes
from molmopoint.eval.protocols.tracking import (
    RATE,
    Place,
    TrackBenchmark,
    TrackQuestion,
    add_questions,
    sound_place,
)
from molmopoint.metrics.tracking import is_on_grid

COLUMNS = ("video", "expression", "fps", "width", "height", "frame_trajectories", "mask_id", "qid")
OPTIONAL = ("sampling_fps",)
TASK_FOLDER = "track"
OTHER_RATE = "row for another number of answers a second, not part of the benchmark"
UNLISTED = "place of an object that is not listed, left out"
NO_FRAME = "moment without the number of its frame, left out"
NO_PLACE = "object without a place in a frame, left out"

MEVIS_MASKS = "mask_dict.json"
_LICENCE = "see the data set's card"
_VIDEOS = (
    "put the videos into `videos` as VIDEO.mp4 (6 frames per second), or their frames into `JPEGImages/VIDEO`"
)


class ReferringVideoBenchmark(TrackBenchmark):
    """A table of questions; `mask_id` lists the objects, and `frame_trajectories` says where they are.

    Attributes:
        split: of the table.
    """

    split: ClassVar[str]
    views = (View(("objects",), order=("0", "1", "2 and more")),)

    def read(self, folder: Path) -> Items:
        """Reads the table and indexes the masks at the moments asked for."""
        collected = ItemCollector()
        videos = VideoFinder(folder)
        files = _tracking_files(find_parquet(folder, self.split))
        rows = list(read_rows(files, COLUMNS, OPTIONAL))
        rows_asked = [row for row in rows if row.get("sampling_fps") in (None, RATE)]
        collected.warnings[OTHER_RATE] += len(rows) - len(rows_asked)
        questions = []
        for row in rows_asked:
            question = self._question(collected, videos, row)
            if question is not None:
                questions.append(question)
        add_questions(collected, folder, self.name, questions, self.masks(folder, questions))
        return collected.items()

    @abstractmethod
    def masks(self, folder: Path, questions: Sequence[TrackQuestion]) -> MaskSource:
        """The masks of the questions' objects."""

    def cluster(self, video: str, objects: Sequence[str]) -> str:
        """Questions of one cluster are not independent."""
        return video

    def _question(
        self, collected: ItemCollector, videos: VideoFinder, row: dict[str, Any]
    ) -> TrackQuestion | None:
        video = str(row["video"])
        expression = text_of(row, "expression")
        item_id = collected.name(f"{video}/{row['qid']}/{expression}")
        size = stated_size([row["width"], row["height"]])
        fps = row["fps"]
        if not expression:
            return collected.miss(item_id, "no expression", video)
        if size is None or not fps or not math.isfinite(fps) or fps <= 0:
            detail = f"{row['width']} x {row['height']}, {fps} a second"
            return collected.miss(item_id, "no size or frame rate of the video", detail)
        fps = float(fps)
        objects = tuple(dict.fromkeys(str(each) for each in row["mask_id"] or ()))
        path = videos.expect(video)
        places = _places(collected, row["frame_trajectories"], objects)
        listed = tuple(sorted(places))
        asked = tuple(frame for frame in listed if is_on_grid(frame, fps, RATE))
        return TrackQuestion(
            item_id=item_id,
            expression=expression,
            video=video,
            clip=VideoSegment(path, frames_per_second=fps),
            size=size,
            fps=fps,
            objects=objects,
            places=places,
            asked=asked
            or listed,  # a table out of step with the seconds still says which moments it is about
            reference=listed,
            cluster=self.cluster(video, objects),
            categories={"objects": str(len(objects)) if len(objects) < 2 else "2 and more"},
        )


class RefDavis17(ReferringVideoBenchmark):
    """See the module."""

    name = "ref_davis17"
    title = "Ref-DAVIS17 (ACCV 2018)"
    split = "valid"
    source = DatasetSource(
        "allenai/molmo2-ref-davis17",
        patterns=("*valid-*.parquet",),
        note=f"{_VIDEOS}, and the masks of DAVIS 2017 into `Annotations/VIDEO/FRAME.png`",
        licence=_LICENCE,
    )

    def masks(self, folder: Path, questions: Sequence[TrackQuestion]) -> PictureTracks:
        """A picture of numbers per frame."""
        return _picture_masks(folder, questions, numbered=True)

    def cluster(self, video: str, objects: Sequence[str]) -> str:
        """An object."""
        return f"{video}/{'+'.join(objects)}"

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Two objects of one video, named by two people each, and one whose number is none."""
        shapes = moving_shapes.make(rng, 2, leaves=0)
        moving_shapes.write_frames(folder / "JPEGImages" / "blobs", shapes.frames)
        _write_numbered_masks(folder / "Annotations" / "blobs", shapes.masks)
        rows = []
        for person in range(2):
            for i, word in enumerate(("the red", "the blue")):
                rows.append(_made_row("blobs", f"{person}_{i}", f"{word} disc", shapes, {i: str(i + 1)}))
        rows.append(_made_row("blobs", "x", "the one without a number", shapes, {0: "first"}))
        write_parquet(folder / "data" / "valid-00000-of-00001.parquet", rows)


class _WhiteMaskBenchmark(ReferringVideoBenchmark):
    """Masks are white pictures, in a folder per object."""

    def masks(self, folder: Path, questions: Sequence[TrackQuestion]) -> PictureTracks:
        """A folder of pictures per object."""
        return _picture_masks(folder, questions, numbered=False)

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four questions and two that cannot be scored.

        One video as a file, one as a folder of frames; a disc that leaves, masks of half the size, a broken
        one, and a question none of whose masks is there.
        """
        first = moving_shapes.make(rng, 2, leaves=1)
        second = moving_shapes.make(rng, 1)
        moving_shapes.write_video(folder / "videos" / "0a.mp4", first.frames)
        moving_shapes.write_frames(folder / "JPEGImages" / "1b", second.frames)
        annotations = folder / "Annotations"
        for i in range(2):
            _write_white_masks(annotations / "0a" / str(i + 1), first.masks[i])
        _write_white_masks(annotations / "1b" / "1", second.masks[0], smaller=True)
        (annotations / "1b" / "1" / f"{FPS:05}.png").write_bytes(b"no picture")
        rows = [
            _made_row("0a", "0", "the red disc", first, {0: "1"}),
            _made_row("0a", "1", "the disc that leaves", first, {1: "2"}),
            _made_row("0a", "2", "all discs", first, {0: "1", 1: "2"}),
            _made_row("1b", "0", "the disc", second, {0: "1"}),
            _made_row("1b", "1", "the one without masks", second, {0: "7"}),
            _made_row("1b", "2", "", second, {0: "1"}),
        ]
        write_parquet(folder / "data" / f"{self.split}-00000-of-00001.parquet", rows)


_WHITE_MASKS_NOTE = f"{_VIDEOS}, and the masks into `Annotations/VIDEO/MASK_ID/FRAME.png`"


class RefYtVos(_WhiteMaskBenchmark):
    """See the module."""

    name = "ref_yt_vos"
    title = "Ref-YT-VOS (URVOS, ECCV 2020)"
    split = "valid"
    source = DatasetSource(
        "allenai/molmo2-ref-yt-vos", patterns=("*valid-*.parquet",), note=_WHITE_MASKS_NOTE, licence=_LICENCE
    )


class ReasonVos(_WhiteMaskBenchmark):
    """See the module."""

    name = "reasonvos"
    title = "ReasonVOS (VideoLISA, arXiv 2409.19603)"
    split = "test"
    source = DatasetSource(
        "allenai/molmo2-reasonvos", patterns=("*test-*.parquet",), note=_WHITE_MASKS_NOTE, licence=_LICENCE
    )


class Mevis(ReferringVideoBenchmark):
    """See the module."""

    name = "mevis"
    title = "MeViS valid_u (arXiv 2308.08544)"
    split = "valid_u"
    note = f"{_VIDEOS}; put {MEVIS_MASKS} of MeViS (a list of COCO run-lengths per mask id) beside them"
    source = DatasetSource(
        "allenai/molmo2-mevis", patterns=("*valid_u-*.parquet",), note=note, licence=_LICENCE
    )

    def masks(self, folder: Path, questions: Sequence[TrackQuestion]) -> RunLengthTracks:
        """From the file of MeViS."""
        path = min(folder.rglob(MEVIS_MASKS), default=None)
        if path is None:
            raise EvaluationError(f"expected {MEVIS_MASKS} in {folder}, found none; {self.note}")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(f"expected JSON in {path}, got {error}; download it again") from error
        tracks = {}
        lengths = {}
        for question in questions:
            of_objects = {each: stored.get(each) for each in question.objects}
            tracks[question.item_id] = {each: by_frame(masks) for each, masks in of_objects.items()}
            lengths[question.item_id] = length_of(of_objects.values())
        return RunLengthTracks(tracks, lengths)

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Five questions about two videos.

        A disc that leaves, a question about nothing, a broken mask, and a place of an object that is not
        listed.
        """
        first = moving_shapes.make(rng, 3, leaves=2)
        second = moving_shapes.make(rng, 1)
        moving_shapes.write_video(folder / "videos" / "c0.mp4", first.frames)
        moving_shapes.write_frames(folder / "JPEGImages" / "c1", second.frames)
        stored = {str(10 + i): _made_run_lengths(first.masks[i]) for i in range(3)}
        stored["2"] = _made_run_lengths(second.masks[0])
        stored["2"][0] = {"size": [64, 96], "counts": "!!"}
        (folder / MEVIS_MASKS).write_text(json.dumps(stored))
        rows = [
            _made_row("c0", "0", "the discs that stay", first, {0: "10", 1: "11"}),
            _made_row("c0", "1", "the disc that leaves", first, {2: "12"}),
            _made_row("c0", "2", "all discs", first, {2: "12", 1: "11", 0: "10"}),
            _made_row("c0", "3", "the square", first, {}),
            _made_row("c1", "0", "the disc", second, {0: "2"}),
        ]
        unlisted = {"id": "99", "point": [1.0, 1.0], "occluded": False}
        rows[0]["frame_trajectories"][0]["points"].append(unlisted)
        write_parquet(folder / "data" / "valid_u-00000-of-00001.parquet", rows)


def _tracking_files(files: Sequence[Path]) -> list[Path]:
    """Of data sets with a folder per task the files of the one that follows objects all the way.

    Raises:
        EvaluationError: there are several folders and none of them is `track`.
    """
    folders = sorted({file.parent for file in files})
    if len(folders) == 1:
        return list(files)
    chosen = [file for file in files if file.parent.name == TASK_FOLDER]
    if not chosen:
        names = ", ".join(folder.name for folder in folders)
        raise EvaluationError(
            f"expected one folder with tables, or one named {TASK_FOLDER}, got {names}; leave only the "
            "tracking questions there"
        )
    return chosen


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
            place = sound_place(point["point"])
            name = str(point["id"])
            if name not in objects:
                collected.warnings[UNLISTED] += 1
            elif place is None:
                collected.warnings[NO_PLACE] += 1
            else:
                here.setdefault(name, place)
    return places


def _picture_masks(folder: Path, questions: Sequence[TrackQuestion], *, numbered: bool) -> PictureTracks:
    """Masks as pictures below `Annotations`; see `PictureTracks`."""
    names = {question.item_id: question.video for question in questions}
    frames: dict[str, Path | None] = {}
    for question in questions:
        path = question.clip.path
        frames[question.video] = path if path.is_dir() else None
    return PictureTracks(folder, names, frames, numbered=numbered)


def _made_row(
    video: str, qid: str, expression: str, shapes: MovingShapes, mask_ids: Mapping[int, str]
) -> dict[str, Any]:
    """A question about some discs, once per second; a disc without a mask has left.

    Args:
        video: name.
        qid: number of the question.
        expression: names the discs.
        shapes: of the video.
        mask_ids: by the number of the disc.
    """
    moments = []
    for frame in range(0, len(shapes.frames), FPS):
        points = []
        for i, name in mask_ids.items():
            if shapes.masks[i, frame].any():
                points.append({"id": name, "point": shapes.centres[i, frame].tolist(), "occluded": False})
        moments.append({"frame": frame, "time": frame / FPS, "points": points})
    return {
        "id": f"{video}_{qid}",
        "video": video,
        "expression": expression,
        "fps": FPS,
        "sampling_fps": 1,
        "width": SIZE[0],
        "height": SIZE[1],
        "frame_trajectories": moments,
        "mask_id": list(mask_ids.values()),
        "obj_id": [str(i) for i in mask_ids],
        "anno_id": list(mask_ids.values()),
        "qid": qid,
    }


def _made_run_lengths(masks: np.ndarray) -> list[dict[str, object] | None]:
    """Run-lengths of a disc (T, height, width), None where it has left."""
    return [moving_shapes.run_lengths(mask) if mask.any() else None for mask in masks]


def _write_white_masks(folder: Path, masks: np.ndarray, smaller: bool = False) -> None:
    """A picture per frame that has the object, white where it is; `smaller` ones have half the size."""
    folder.mkdir(parents=True)
    step = 2 if smaller else 1
    for frame, mask in enumerate(masks):
        if mask.any():
            white = np.where(mask, 255, 0).astype(np.uint8)
            Image.fromarray(white[::step, ::step]).save(folder / f"{frame:05}.png")


def _write_numbered_masks(folder: Path, masks: np.ndarray) -> None:
    """A picture with a palette per frame; disc i has the number i + 1."""
    folder.mkdir(parents=True)
    for frame in range(masks.shape[1]):
        numbers = np.zeros(masks.shape[2:], dtype=np.uint8)
        for i, mask in enumerate(masks[:, frame], 1):
            numbers[mask] = i
        picture = Image.fromarray(numbers)
        picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
        picture.save(folder / f"{frame:05}.png")
