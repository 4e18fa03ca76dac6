"""`molmopoint point` for a video: one clip, one prompt, points with their times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from molmopoint.backends.options import AnswerOptions, complete_prompt, refuse_zoom
from molmopoint.cli import console
from molmopoint.cli.clip_command import ClipCommand, Progress
from molmopoint.cli.files import check_drawing
from molmopoint.cli.inputs import check_can_write
from molmopoint.drawing import write_picture
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file
from molmopoint.safe_text import printable_name

if TYPE_CHECKING:
    from molmopoint.pipeline import Pointer, PointingResult


@dataclass
class PointClipCommand(ClipCommand["PointingResult"]):
    """One call of the command; `out` is a folder for the frames that have points, drawn.

    Attributes:
        part: `start`, `end` and `windows` of `Pointer.point_video`; times count from the beginning of the
            video.
        request: options of the answer.
        drawing: options of `PointingResult.draw`.
    """

    part: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    drawing: Mapping[str, Any] = field(default_factory=dict)

    def _title(self) -> str:
        return "Pointing"

    def _check_usage(self) -> None:
        """Raises a MolmoPointError where options do not fit, before anything is loaded."""
        complete_prompt(self.prompt, self.request.get("template"))
        check_drawing(self.drawing, self.out)
        if self.out is not None and (is_file(self.out) or self.out.suffix):
            raise ProcessingError(
                f"expected --out to be a folder for the frames of a video, got {str(self.out)!r}; pass a "
                "folder"
            )
        check_can_write("--out", self.out)
        refuse_zoom(AnswerOptions.of(**self.request))
        # Its room loads the libraries of models, which takes seconds.
        from molmopoint.backends.clips import ClipOptions

        ClipOptions(start=self.part.get("start", 0.0), end=self.part.get("end"))

    def _answer(self, pointer: Pointer, progress: Progress) -> PointingResult:
        return pointer.point_video(
            self.video, self.prompt, absolute=True, progress=progress, **self.part, **self.request
        )

    def _write(self, result: PointingResult) -> Iterator[Path]:
        """Writes the frames that have points, and names each."""
        if self.out is None or not len(result.points):
            return
        times = sorted(set(result.points.group.tolist()))
        pictures = result.draw(**self.drawing)
        for time, picture in zip(times, pictures if isinstance(pictures, list) else [pictures], strict=True):
            path = self.out / f"{self.video.stem}-{time:09.2f}s.png"
            write_picture(picture, path)
            yield path

    def _report(self, result: PointingResult, written: list[Path]) -> None:
        """The answer on stdout, as JSON or for people."""
        if self.json_output:
            beside = {"windows": len(result.answers) or 1, "drawn": [str(path) for path in written]}
            console.print_json({"model": self.model, "video": str(self.video), **result.to_dict(), **beside})
            return
        paper = console.findings()
        for line in _lines(self.video, result):
            paper.print(line)
        for path in written:
            paper.print(f"  drawn to {escape(printable_name(path))}")


def _lines(video: Path, result: PointingResult) -> Iterator[str]:
    """The answer for people, as rich markup."""
    found = f"{len(result.points)} point{'s' * (len(result.points) != 1)}"
    windows = f", in {len(result.answers)} windows" if len(result.answers) > 1 else ""
    yield f"[bold]{escape(printable_name(video))}[/]: {found}{windows}  [dim]{escape(' '.join(result.text.split()))}[/]"
    for point in result.points:
        score = "" if math.isnan(point.score) else f"  score {point.score:.2f}"
        yield f"  [bold]{point.object_id:>3}[/]  {point.group:8.2f} s  x {point.x:8.1f}  y {point.y:8.1f}{score}"
    if result.truncated:
        yield "  [yellow]cut by the token limit; raise --max-new-tokens[/]"
    if result.invalid:
        yield f"  [yellow]{result.invalid} of the answer's points name no place and are left out[/]"
    for note in result.notes:
        yield f"  [yellow]{escape(note)}[/]"
