"""What the commands about one video share: check, load, answer, write, report, and the exit code of each failure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from molmopoint.cli import console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.loading import LOADING_FAULTS, load_pointer
from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from molmopoint.pipeline import Pointer

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Is told how many windows are done, and how many there are."""


@dataclass
class ClipCommand(ABC, Generic[Result]):
    """One call of a command; `run` does everything and returns the exit code.

    Attributes:
        video: the file.
        prompt: as it was typed.
        model: name of the zoo, hub id or folder.
        device: None for the default.
        dtype: precision, None for the default.
        quantize: fewer bits for weights, None for none.
        out: where to draw.
        json_output: print one JSON document instead of lines for people.
    """

    video: Path
    prompt: str
    model: str = "nano"
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    compile_steps: bool = False
    out: Path | None = None
    json_output: bool = False

    def run(self) -> int:
        """Answers, writes what was asked for, and returns the exit code."""
        try:
            self._check_usage()
        except MolmoPointError as error:
            console.complain(error)
            return USAGE
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
                with console.progress_bar(self._title(), unit="windows") as bar:

                    def tell(done: int, total: int) -> None:
                        bar.update(bar.task_ids[0], completed=done, total=total)

                    result = self._answer(pointer, tell)
                written = list(self._write(result))
        except KeyboardInterrupt:
            console.complain("interrupted")
            return INTERRUPTED
        except (MolmoPointError, OSError, RuntimeError) as error:
            console.complain_of(self.video, error)
            return SOME_FAILED
        self._report(result, written)
        return OK

    @abstractmethod
    def _title(self) -> str:
        """Of the progress bar on stderr."""

    @abstractmethod
    def _check_usage(self) -> None:
        """Raises a MolmoPointError where options do not fit, before anything is loaded."""

    @abstractmethod
    def _answer(self, pointer: Pointer, progress: Progress) -> Result:
        """What the model says of the video."""

    @abstractmethod
    def _write(self, result: Result) -> Iterator[Path]:
        """Writes every file that was asked for, and names it."""

    @abstractmethod
    def _report(self, result: Result, written: list[Path]) -> None:
        """The answer on stdout, as JSON or for people."""
