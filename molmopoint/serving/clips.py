"""Work about clips: points or tracks in a video that a client has sent."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointingResult, count_of
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.pipeline import Pointer
from molmopoint.serving.engine import Engine
from molmopoint.serving.limits import Limits
from molmopoint.serving.refusals import Refused
from molmopoint.serving.streams import Document
from molmopoint.video import open_video

Kind = Literal["point", "track"]
Progress = Callable[[int, int], None]
_THE_VIDEO = "the video"
_UNCOUNTED = 1e9
"""Frames beyond which their number is not told: clients make rates up."""


@dataclass(eq=False)
class ClipWork:
    """One question about one clip.

    Attributes:
        kind: points or tracks.
        video: bytes of the file.
        prompt: as the client has written it.
        options: keywords of `Pointer.point_video` or `Pointer.track`.
        engine: of the model.
        model: its name.
        limits: of the server.
        cancelled: set when nobody waits for the answer any more.
    """

    kind: Kind
    video: bytes
    prompt: str
    options: dict[str, Any]
    engine: Engine
    model: str
    limits: Limits
    cancelled: threading.Event = field(default_factory=threading.Event)
    _prompt_tokens: int = 0
    _completion_tokens: int = 0

    def run(self, progress: Progress) -> Document:
        """The answer, for JSON; runs in a thread of jobs, while the engine runs the model.

        Raises:
            MolmoPointError: the video or the request cannot be used.
            Refused: it is too long, or took too long.
        """
        begin = time.monotonic()
        pointer = self.engine.pointer.through(self._answer)
        with video_file(self.video) as path:
            try:
                self._check_length(path, pointer)
                find = self._points if self.kind == "point" else self._tracks
                answer = find(pointer, path, progress)
            except MolmoPointError as error:
                raise ProcessingError(_without_path(str(error), path)) from error
            answer["notes"] = [_without_path(note, path) for note in answer["notes"]]
        answer["usage"] = {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "seconds": round(time.monotonic() - begin, 4),
        }
        return answer | {"model": self.model}

    def _points(self, pointer: Pointer, path: str, progress: Progress) -> Document:
        result = pointer.point_video(path, self.prompt, progress=progress, **self.options)
        ((width, height), *_) = result.image_sizes
        points = [
            {
                "x": point.x,
                "y": point.y,
                "x_norm": point.x / width,
                "y_norm": point.y / height,
                "seconds": point.group,
                "object_id": point.object_id,
                "label": point.label,
                "score": None if math.isnan(point.score) else point.score,
            }
            for point in result
        ]
        return {
            "points": points,
            "text": result.text,
            "count": count_of(result),
            "absent": None if math.isnan(result.absent) else result.absent,
            "truncated": result.truncated,
            "image_sizes": [[width, height]],
            "notes": list(result.notes),
            "windows": max(len(result.answers), 1),
        }

    def _tracks(self, pointer: Pointer, path: str, progress: Progress) -> Document:
        result = pointer.track(path, self.prompt, progress=progress, **self.options)
        return {**result.to_dict(), "image_sizes": [list(result.size)]}

    def _check_length(self, path: str, pointer: Pointer) -> None:
        """Refuses a clip of which more frames would be looked at, or filled in, than the server allows.

        Raises:
            Refused: it is too long.
        """
        reader = open_video(path)
        end = min(self.options.get("end") or math.inf, reader.duration)
        seconds = max(end - self.options.get("start", 0.0), 0.0)
        usual = pointer.processor.video_processor.max_fps or reader.frame_rate
        filled_in = self.options.get("interpolate", False)
        if isinstance(filled_in, bool):  # True is the rate of the video, which clients cannot make up
            filled_in = 0.0
        rate = max(self.options.get("max_fps") or usual, self.options.get("fps") or 0.0, filled_in)
        frames = math.ceil(min(seconds * rate, _UNCOUNTED))
        if self.kind == "point" and not self.options.get("windows"):
            most = self.options.get("max_frames") or pointer.processor.video_processor.num_frames
            frames = min(frames, most)
        if frames > self.limits.frames:
            raise Refused(
                400,
                f"expected a clip of which at most {self.limits.frames} frames are looked at, got "
                f"{frames}; ask about a part with start and end, or pass a lower max_fps or interpolate",
            )

    def _answer(self, requests: Sequence[Request], options: AnswerOptions) -> list[PointingResult]:
        results = self.engine.answer(requests, options, self.cancelled)
        self._prompt_tokens += sum(len(request.row) for request in requests)
        self._completion_tokens += sum(self.engine.count_tokens(result) for result in results)
        return results


@contextmanager
def video_file(content: bytes) -> Iterator[str]:
    """A path under which decoders find a video that came as bytes: in memory where the system can do so, else
    in a temporary folder that nobody else may read.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("molmopoint-video")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="molmopoint-") as folder:
        path = Path(folder) / "video"
        path.write_bytes(content)
        yield str(path)


def _without_path(text: str, path: str) -> str:
    return text.replace(repr(path), _THE_VIDEO).replace(path, _THE_VIDEO)
