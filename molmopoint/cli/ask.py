"""`molmopoint ask`: a question about pictures, a video, or nothing, answered while it is being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmopoint.backends.options import complete_prompt, question_options
from molmopoint.cli import console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.loading import LOADING_FAULTS, load_pointer
from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from molmopoint.pipeline import Pointer, PointingResult


@dataclass
class AskCommand:
    """One call of the command; `run` does everything and returns the exit code."""

    files: Sequence[Path]
    question: str
    model: str = "nano"
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    compile_steps: bool = False
    json_output: bool = False
    max_crops: int | None = None
    max_new_tokens: int = 2048
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> int:
        """Asks, writes the answer to stdout, and returns the exit code."""
        try:
            media = self._media()
        except (MolmoPointError, TypeError) as error:
            console.complain(error)
            return USAGE
        try:
            with console.quiet_stdout():
                pointer = load_pointer(self.model, self.dtype, self.device, self.quantize, self.compile_steps)
        except LOADING_FAULTS as error:
            console.complain(f"the model {self.model!r} could not be loaded: {error}")
            return NO_MODEL
        try:
            result = self._answer(pointer, media)
        except KeyboardInterrupt:
            console.complain("interrupted")
            return INTERRUPTED
        except (MolmoPointError, RuntimeError) as error:
            console.complain(error)
            return SOME_FAILED
        if self.json_output:
            files = [str(file) for file in self.files]
            console.print_json(
                {"model": self.model, "question": self.question, "files": files, **_fields(result)}
            )
        elif result.truncated:
            console.notes().print("[yellow]cut by the token limit; raise --max-new-tokens[/]")
        return OK

    def _media(self) -> Any:
        """What the question is about: None, a picture, a list of them, or a video file.

        Raises:
            ProcessingError: videos among other files, an empty question, or an option that cannot be.
        """
        complete_prompt(self.question, "{}")
        question_options(self._options())
        return list(self.files) if len(self.files) > 1 else next(iter(self.files), None)

    def _options(self) -> dict[str, Any]:
        """Options of the question."""
        return {"max_new_tokens": self.max_new_tokens, "max_crops": self.max_crops, **self.sampling}

    def _answer(self, pointer: Pointer, media: Any) -> PointingResult:
        """The answer; without --json its words are written as they come."""
        with pointer.ask_stream(media, self.question, **self._options()) as pieces:
            begun = False
            for piece in pieces:
                words = piece if begun else piece.lstrip()
                begun = begun or bool(words)
                if not self.json_output:
                    console.write(words)
            if not self.json_output:
                console.write("\n")
        if pieces.result is None:
            raise RuntimeError("expected an answer, got a stream that ended without one")
        return pieces.result


def _fields(result: PointingResult) -> dict[str, Any]:
    """What an answer to a question says, for JSON."""
    return {"answer": result.text, "truncated": result.truncated, "points": result.points.rounded().to_dict()}
