"""Videos of a benchmark, which publishers leave for others to fetch: the same names, in whatever format and folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from molmopoint.errors import MolmoPointError
from molmopoint.eval.layouts.file_names import FileFinder, place_of
from molmopoint.eval.layouts.outlines import CACHE_FOLDER
from molmopoint.files import is_file, is_folder, written_whole
from molmopoint.video import open_video

logger = logging.getLogger(__name__)

VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi")
FOLDER = "videos"
FRAMES_FOLDER = "JPEGImages"


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
            if (file := self._file(name)) is not None:
                return file
            frames = place_of(self.folder / FRAMES_FOLDER, _without_ending(name))
            if is_folder(frames):
                return frames
        return place_of(self.folder / FOLDER, _without_ending(names[0]) + VIDEO_ENDINGS[0])

    def _file(self, name: str) -> Path | None:
        if name.endswith(VIDEO_ENDINGS):
            return self._files.find(name)
        return next((file for ending in VIDEO_ENDINGS if (file := self._files.find(name + ending)) is not None), None)


def _without_ending(name: str) -> str:
    return next((name.removesuffix(ending) for ending in VIDEO_ENDINGS if name.endswith(ending)), name)


class FrameRates:
    """Frames per second of videos whose data set does not say it: read from the videos once and kept beside the data.

    Args:
        folder: of the data.
        name: of the benchmark.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._file = folder, folder / CACHE_FOLDER / f"{name}-frame-rates.json"
        self._rates: dict[str, float] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
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
        """Writes down what was read, so that stored answers can be judged without the videos."""
        if not self._new:
            return
        try:
            with written_whole(self._file) as beside:
                beside.write_text(json.dumps(self._rates), encoding="utf-8")
        except OSError as error:
            logger.warning("frame rates are read from the videos every time, because they cannot be kept: %s", error)
