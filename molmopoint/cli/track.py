"""`molmopoint track`: one clip, one prompt, tracks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from molmopoint.backends.options import complete_prompt
from molmopoint.cli import console
from molmopoint.cli.clip_command import ClipCommand, Progress
from molmopoint.drawing import write_picture
from molmopoint.safe_text import printable_name

if TYPE_CHECKING:
    from molmopoint.pipeline import Pointer, TrackingResult


@dataclass
class TrackCommand(ClipCommand["TrackingResult"]):
    """One call of the command.

    Attributes:
        sheet: file of the contact sheet.
        files: where to write the tracks, by their form: "csv", "mot" and "coco".
        request: options of `Pointer.track`.
    """

    sheet: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)

    def _title(self) -> str:
        return f"Tracking in {self.video.name}"

    def _check_usage(self) -> None:
        """Raises a MolmoPointError where options do not fit, before anything is loaded."""
        complete_prompt(self.prompt, self.request.get("template"))
        # Their room loads the libraries of models, which takes seconds.
        from molmopoint.pipeline.tracking import TrackOptions
        from molmopoint.pipeline.video_writing import check_video_path

        TrackOptions.of(**self.request)
        if self.out is not None:
            check_video_path(self.out)

    def _answer(self, pointer: Pointer, progress: Progress) -> TrackingResult:
        return pointer.track(self.video, self.prompt, progress=progress, **self.request)

    def _write(self, result: TrackingResult) -> Iterator[Path]:
        """Writes every file that was asked for, and names it."""
        for form, path in self.files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            result.tracks.save(path, form)
            yield path
        if self.sheet is not None:
            write_picture(result.contact_sheet(), self.sheet)
            yield self.sheet
        if self.out is not None:
            result.draw(self.out)
            yield self.out

    def _report(self, result: TrackingResult, written: list[Path]) -> None:
        """The answer on stdout, as JSON or for people."""
        if self.json_output:
            files = [str(path) for path in written]
            console.print_json(
                {"model": self.model, "video": str(self.video), **result.to_dict(), "written": files}
            )
            return
        paper = console.findings()
        for line in _lines(self.video, result):
            paper.print(line)
        for path in written:
            paper.print(f"  written to {escape(printable_name(path))}")


def _lines(video: Path, result: TrackingResult) -> Iterator[str]:
    """The answer for people, as rich markup."""
    objects = f"{len(result)} object{'s' * (len(result) != 1)}"
    windows = f", in {len(result.answers)} windows" if len(result.answers) > 1 else ""
    yield f"[bold]{escape(printable_name(video))}[/]: {objects}{windows}  [dim]{escape(' '.join(result.text.split()))}[/]"
    for track in result.tracks:
        first, last = track.xy[0], track.xy[-1]
        places = f"({first[0]:.1f}, {first[1]:.1f}) to ({last[0]:.1f}, {last[1]:.1f})"
        yield f"  [bold]{track.object_id:>3}[/]  {len(track):4d} points  {track.start:7.2f} to {track.end:7.2f} s  {places}"
    if result.truncated:
        yield "  [yellow]cut by the token limit; raise --max-new-tokens[/]"
    if result.invalid:
        yield f"  [yellow]{result.invalid} of the answer's points name no place and are left out[/]"
