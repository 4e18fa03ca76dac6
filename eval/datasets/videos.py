"""Videos of a benchmark, which publishers leave for others to fetch: the same names, in whatever format and
folder.

Their files are found here, their frame rates looked up, and the frames read that a model sees.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from molmopoint.errors import EvaluationError, MolmoPointError
from molmopoint.eval.benchmark import GenerationSettings, VideoSegment
from molmopoint.eval.datasets.files import CACHE_FOLDER, FileFinder, place_of
from molmopoint.files import is_file, is_folder, open_picture, written_whole
from molmopoint.video import open_video, read_video, sample_indices

logger = logging.getLogger(__name__)

VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi")
FOLDER = "videos"
FRAMES_FOLDER = "JPEGImages"
FRAME_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
MAX_RATE = 10
"""Frames a second at most in mode `fps`, as in the training and the evaluation of the released models."""


class VideoFinder:
    """Videos below `videos`, or as folders of frames below `JPEGImages`.

    Args:
        folder: of the data set.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = FileFinder(folder / FOLDER)

    def expect(self, *names: str) -> Path:
        """The first of some names that is there, or where the first one should be.

        Args:
            names: relative, with or without the ending of the file.
        """
        for name in names:
            file = self._file(name)
            if file is not None:
                return file
            frames = place_of(self.folder / FRAMES_FOLDER, _without_ending(name))
            if is_folder(frames):
                return frames
        return place_of(self.folder / FOLDER, _without_ending(names[0]) + VIDEO_ENDINGS[0])

    def _file(self, name: str) -> Path | None:
        if name.endswith(VIDEO_ENDINGS):
            return self._files.find(name)
        for ending in VIDEO_ENDINGS:
            file = self._files.find(name + ending)
            if file is not None:
                return file
        return None


def _without_ending(name: str) -> str:
    for ending in VIDEO_ENDINGS:
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


class FrameRates:
    """Frames per second of videos whose data set does not say it: read from the videos once, kept beside the
    data.

    Args:
        folder: of the data.
        name: of the benchmark.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._file = folder / CACHE_FOLDER / f"{name}-frame-rates.json"
        self._rates: dict[str, float] = {}
        if self._file.is_file():
            self._rates = json.loads(self._file.read_text(encoding="utf-8"))
        self._new = False

    def of(self, path: Path) -> float | None:
        """Of a video file; None where it was never there, or cannot be read."""
        key = path.relative_to(self._folder).as_posix()
        if key not in self._rates and is_file(path):
            try:
                self._rates[key] = open_video(path).frame_rate
                self._new = True
            except MolmoPointError:
                return None
        return self._rates.get(key)

    def keep(self) -> None:
        """Writes down what was read, so that stored answers can be scored without the videos."""
        if not self._new:
            return
        try:
            with written_whole(self._file) as beside:
                beside.write_text(json.dumps(self._rates), encoding="utf-8")
        except OSError as error:
            logger.warning(
                "frame rates are read from the videos every time, because they cannot be kept: %s", error
            )


def read_frames(segment: VideoSegment, settings: GenerationSettings) -> tuple[np.ndarray, list[float]]:
    """Frames (T, height, width, 3) uint8 that a model sees, and their seconds from the start of the segment.

    Args:
        segment: of a video file, or of a folder of frames in the order of their names.
        settings: frames per second, and frames at most.

    Raises:
        EvaluationError: a folder without frames or without a frame rate.
        ProcessingError: a file that is no video.
    """
    if segment.path.is_dir():
        return _read_folder(segment, settings)
    read = read_video(
        segment.path,
        settings.max_frames,
        settings.fps,
        settings.sample_mode,
        sampling_fps=round(settings.fps),
        max_rate=MAX_RATE,
        start=segment.start or 0.0,
        end=segment.end,
    )
    return np.asarray(read.frames), [float(t) for t in read.timestamps]


def _read_folder(segment: VideoSegment, settings: GenerationSettings) -> tuple[np.ndarray, list[float]]:
    """See `read_frames`."""
    rate = segment.frames_per_second
    if not rate:
        raise EvaluationError(
            f"expected the frame rate of the folder of frames {segment.path}, got {rate}; the benchmark "
            "must give it"
        )
    files = _files_between(segment, rate)
    chosen = sample_indices(
        len(files),
        rate,
        settings.max_frames,
        settings.fps,
        settings.sample_mode,
        sampling_fps=round(settings.fps),
        max_rate=MAX_RATE,
    )
    frames = []
    for i in chosen:
        with open_picture(files[i]) as picture:
            frames.append(np.asarray(picture.convert("RGB")))
    return np.stack(frames), [float(i / rate) for i in chosen]


def _files_between(segment: VideoSegment, rate: float) -> list[Path]:
    files = sorted(file for file in segment.path.iterdir() if file.suffix.lower() in FRAME_ENDINGS)
    first = 0 if segment.start is None else round(segment.start * rate)
    last = len(files) if segment.end is None else round(segment.end * rate) + 1
    if not files[first:last]:
        raise EvaluationError(
            f"expected frames in {segment.path}, got none from {segment.start} to {segment.end} seconds; "
            "check the folder"
        )
    return files[first:last]
