"""`molmopoint point`: many pictures, one prompt."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from molmopoint.cli import console
from molmopoint.cli.answer_log import AnswerLog
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.files import changed_options, check_drawing, check_not_overwriting, plan_outputs
from molmopoint.cli.inputs import check_at_once, check_can_write, check_segmenter
from molmopoint.cli.loading import LOADING_FAULTS, load_pointer
from molmopoint.drawing import write_picture
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.safe_text import printable_name

if TYPE_CHECKING:
    from PIL import Image

    from molmopoint.pipeline import Pointer, PointingResult
    from molmopoint.segmentation import Masks, Segmenter


@dataclass
class Outcome:
    """What became of one request.

    Attributes:
        images: its files.
        result: the answer, or None.
        error: why there is no answer, or why it could not be drawn.
        drawn: files that were written.
        masks: around the points, if they were asked for.
    """

    images: Sequence[Path]
    result: PointingResult | None = None
    error: str | None = None
    drawn: list[Path] = field(default_factory=list)
    masks: Masks | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON."""
        answer = {} if self.result is None else self.result.to_dict()
        files = {"images": [str(image) for image in self.images], "drawn": [str(path) for path in self.drawn]}
        outlines = {} if self.masks is None else {"masks": self.masks.to_dict()["masks"]}
        return {**files, "error": self.error, **answer, **outlines}


@dataclass
class PointCommand:
    """One call of the command; `run` does everything and returns the exit code.

    Every answer is written when it is there, and then forgotten, but for what `--json` puts into its
    document.
    """

    images: Sequence[Path]
    prompt: str
    model: str = "nano"
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    compile_steps: bool = False
    out: Path | None = None
    heatmap: bool = False
    json_output: bool = False
    jsonl: Path | None = None
    together: bool = False
    batch_size: int = 8
    segmenter: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    drawing: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> int:
        """Answers all pictures, writes what was asked for, and returns the exit code."""
        try:
            with contextlib.ExitStack() as stack:
                return self._run(stack)
        except ProcessingError as error:  # of the file of answers
            console.complain(error)
            return USAGE
        except OSError as error:
            console.complain(f"the answers could not be written: {error}")
            return SOME_FAILED

    def _run(self, stack: contextlib.ExitStack) -> int:
        try:
            outputs = self._check_files()
            check_segmenter(self.segmenter)
            missing = check_at_once(self.images, self.model, device=self.device)
            self._check_request()
        except MolmoPointError as error:
            console.complain(error)
            return USAGE
        if missing and self.together:
            return SOME_FAILED
        log = None
        requests = self._requests()
        if self.jsonl is not None:
            log = stack.enter_context(AnswerLog(self.jsonl, self._asked(), self._options()))
            requests = self._open_requests(requests, log, outputs)
            if not requests:
                return OK
        try:
            with console.quiet_stdout():
                pointer = load_pointer(self.model, self.dtype, self.device, self.quantize, self.compile_steps)
        except LOADING_FAULTS as error:
            console.complain(f"the model {self.model!r} could not be loaded: {error}")
            return NO_MODEL
        except KeyboardInterrupt:
            console.complain(f"interrupted while the model {self.model!r} was loaded")
            return INTERRUPTED
        try:
            with console.quiet_stdout():
                segmenter = self._load_segmenter(pointer)
        except LOADING_FAULTS as error:
            console.complain(f"the segmenter {self.segmenter!r} could not be loaded: {error}")
            return NO_MODEL
        except KeyboardInterrupt:
            console.complain(f"interrupted while the segmenter {self.segmenter!r} was loaded")
            return INTERRUPTED
        return self._answer_all(pointer, segmenter, outputs, log, requests, set(missing))

    def _answer_all(
        self,
        pointer: Pointer,
        segmenter: Segmenter | None,
        outputs: Mapping[Path, Path],
        log: AnswerLog | None,
        requests: list[list[Path]],
        named: set[Path],
    ) -> int:
        """Answers one request after the other, and returns the exit code.

        Args:
            pointer: answers.
            segmenter: draws masks, if they were asked for.
            outputs: where each picture is drawn.
            log: takes the answers.
            requests: the files of each.
            named: files that were told to be missing.
        """
        documents: list[dict[str, Any]] = []
        done = failed = looks = 0
        code = OK
        start = time.perf_counter()
        try:
            for outcome in self._answers(pointer, requests):
                with console.quiet_stdout():
                    self._segment(outcome, segmenter)
                    self._draw(outcome, outputs)
                done += 1
                looks += 1 if outcome.result is None else outcome.result.looks
                if outcome.error is not None:
                    failed += 1
                    if not named.issuperset(outcome.images):
                        console.complain_of(", ".join(map(str, outcome.images)), outcome.error)
                self._tell(outcome, documents, log)
        except KeyboardInterrupt:
            console.complain(f"interrupted after {done} of {len(requests)} requests")
            code = INTERRUPTED
        if self.request.get("zoom") and done:
            seconds = (time.perf_counter() - start) / done
            console.say(f"zoom: {looks / done:.1f} looks and {seconds:.2f} s an answer")
        if self.json_output:
            console.print_json({"model": self.model, "prompt": self.prompt, "results": documents})
        if log is not None and done > failed:
            console.say(f"{done - failed} of {len(requests)} are answered now, in {self.jsonl}")
        if failed and len(requests) > 1:
            console.complain(f"{failed} of {len(requests)} pictures failed")
        if code == OK and failed:
            code = SOME_FAILED
        return code

    def _tell(self, outcome: Outcome, documents: list[dict[str, Any]], log: AnswerLog | None) -> None:
        """Writes one answer where it was asked for; failures are not answers, and are tried again by the same
        command.
        """
        if self.json_output:
            documents.append(outcome.to_dict())
        elif log is None:
            paper = console.findings()
            for line in _lines(outcome):
                paper.print(line)
        if log is not None and outcome.error is None:
            log.append(outcome.to_dict())

    def _asked(self) -> dict[str, Any]:
        """What all answers of this command have in common."""
        return {"model": self.model, "asked": self.prompt}

    def _options(self) -> dict[str, Any]:
        """Everything else that changes an answer, as it was asked for."""
        return {**self.request, "dtype": self.dtype, "quantize": self.quantize, "masks": self.segmenter}

    def _open_requests(
        self, requests: list[list[Path]], log: AnswerLog, outputs: Mapping[Path, Path]
    ) -> list[list[Path]]:
        """The requests that the file of answers has no answer to; what that means is told."""
        answered = [files for files in requests if log.has(files)]
        # Drawings are no part of the file, and may have been asked for since.
        whole = [files for files in answered if _are_drawn(files, outputs)]
        if whole:
            console.say(f"{len(whole)} of {len(requests)} were answered before")
        if len(whole) < len(answered):
            number = len(answered) - len(whole)
            console.say(f"{number} of {len(requests)} were answered before and not drawn; answered again")
        remaining = [files for files in requests if files not in whole]
        others = [found for files in remaining if (found := log.other_options(files)) is not None]
        if others:
            console.say(
                f"{len(others)} of {len(requests)} were answered before with other options "
                f"({', '.join(others[0])}); answered again"
            )
        return remaining

    def _check_files(self) -> dict[Path, Path]:
        """Output file of each picture; raises ProcessingError where options do not fit each other. Loads no
        model's library.
        """
        if self.json_output and self.jsonl is not None:
            raise ProcessingError("expected --json or --jsonl, got both; choose one of them")
        if self.segmenter is not None and (self.heatmap or not (self.out or self.json_output or self.jsonl)):
            raise ProcessingError(
                "expected --out or --json together with --masks, and no --heatmap; say where the masks go"
            )
        if self.heatmap and self.request.get("zoom"):
            raise ProcessingError("expected --zoom or --heatmap, got both; a heatmap is that of one look")
        check_drawing(self.drawing, self.out)
        if self.segmenter is not None and changed_options(self.drawing):
            raise ProcessingError("expected --masks or --style, --labels and --scores, got both; choose one")
        if self.out is None:
            if self.heatmap:
                raise ProcessingError("expected --out together with --heatmap; say where to draw it")
            return {}
        pictures = list(dict.fromkeys(self.images))
        outputs = plan_outputs(self.out, pictures)
        check_not_overwriting(outputs, pictures)
        for output in outputs[:1]:  # all of them go to one folder
            check_can_write("--out", output)
        return dict(zip(pictures, outputs, strict=True))

    def _check_request(self) -> None:
        """Raises a MolmoPointError where the prompt or an option of the answer cannot be."""
        from molmopoint.backends.options import AnswerOptions, complete_prompt

        complete_prompt(self.prompt, self.request.get("template"))
        AnswerOptions.of(**self.request)

    def _load_segmenter(self, pointer: Pointer) -> Segmenter | None:
        if self.segmenter is None:
            return None
        from molmopoint.segmentation import load_segmenter

        with console.notes().status(f"Loading {escape(self.segmenter)} ..."):
            return load_segmenter(self.segmenter, device=pointer.model.device)

    def _requests(self) -> list[list[Path]]:
        """The files of each request."""
        return [list(self.images)] if self.together else [[image] for image in self.images]

    def _answers(self, pointer: Pointer, requests: Sequence[list[Path]]) -> Iterator[Outcome]:
        """One outcome per request, in order, with a progress bar on stderr where the answers themselves do
        not tell the progress.
        """
        answers_are_seen = sys.stdout.isatty() and not self.json_output and self.jsonl is None
        answers = pointer.point_batch(
            (files if self.together else files[0] for files in requests),
            self.prompt,
            batch_size=self.batch_size,
            on_error="yield",
            **self.request,
        )
        with console.progress_bar("Pointing", shown=not answers_are_seen) as bar:
            bar.update(bar.task_ids[0], total=len(requests))
            stopped = ""
            for files in requests:
                try:
                    with console.quiet_stdout():
                        answer = RuntimeError(stopped) if stopped else next(answers)
                except (
                    MolmoPointError,
                    RuntimeError,
                ) as error:  # of the model, such as memory: the batch is lost, and all after it
                    answer, stopped = error, f"not answered, because the model failed before: {error}"
                if isinstance(answer, Exception):
                    yield Outcome(files, error=str(answer) or type(answer).__name__)
                else:
                    yield Outcome(files, result=answer)
                bar.advance(bar.task_ids[0])

    def _segment(self, outcome: Outcome, segmenter: Segmenter | None) -> None:
        """Adds masks where they were asked for; a failure, such as of memory, is the outcome's error."""
        if outcome.result is None or segmenter is None:
            return
        try:
            outcome.masks = outcome.result.masks(segmenter)
        except (MolmoPointError, RuntimeError) as error:
            outcome.error = f"the masks could not be drawn: {error}"

    def _draw(self, outcome: Outcome, outputs: Mapping[Path, Path]) -> None:
        """Draws an answer where that was asked for; a file that cannot be written is the outcome's error."""
        if outcome.result is None or not outputs:
            return
        result, masks = outcome.result, outcome.masks
        try:
            drawn = self._drawn(result, masks)
            for image, picture in zip(
                outcome.images, drawn if isinstance(drawn, list) else [drawn], strict=True
            ):
                write_picture(picture, outputs[image])
                outcome.drawn.append(outputs[image])
        except MolmoPointError as error:  # such as a heatmap of points that were written as text
            outcome.error = str(error)
        except OSError as error:
            outcome.error = f"the drawn picture could not be written: {error}"

    def _drawn(self, result: PointingResult, masks: Masks | None) -> Image.Image | list[Image.Image]:
        """The pictures with points, and with masks where there are some."""
        if masks is not None:
            return masks.draw(points=result.points)
        return result.draw(heatmap=self.heatmap, **self.drawing)


def _are_drawn(files: Sequence[Path], outputs: Mapping[Path, Path]) -> bool:
    """Whether every drawing that is wanted of a request is there."""
    wanted = [outputs[file] for file in files if file in outputs]
    return all(path.exists() for path in wanted)


def _lines(outcome: Outcome) -> Iterator[str]:
    """One answer for people, as rich markup."""
    result = outcome.result
    if result is None:
        return
    name = escape(", ".join(map(printable_name, outcome.images)))
    found = f"{len(result.points)} point{'' if len(result.points) == 1 else 's'}"
    yield f"[bold]{name}[/]: {found}" + (f"  [dim]{escape(result.text)}[/]" if result.text else "")
    for point in result.points:
        where = f"  picture {int(point.group) + 1}" if len(outcome.images) > 1 else ""
        # Points written as text have none.
        score = "" if math.isnan(point.score) else f"  score {point.score:.2f}"
        yield f"  [bold]{point.object_id:>3}[/]  x {point.x:8.1f}  y {point.y:8.1f}{score}{where}"
    if result.truncated:
        yield "  [yellow]cut by the token limit; raise --max-new-tokens[/]"
    if result.invalid:
        yield f"  [yellow]{result.invalid} of the answer's points name no place and are left out[/]"
    if result.looks > 1:
        yield f"  [dim]looked again at {result.looks - 1} parts of the picture[/]"
    for path in outcome.drawn:
        yield f"  drawn to {escape(printable_name(path))}"
