"""Where the command line writes: findings on stdout, everything else on stderr.

Everything passes through here, and nothing of it is obeyed by a terminal: names and answers are somebody
else's text.

Exit codes of the command line; they are part of its interface.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text
from typer.core import TyperGroup

from molmopoint.safe_text import printable, printable_json, printable_name

OK = 0
SOME_FAILED = 1
"""At least one picture could not be read, answered or drawn; each is named on stderr."""

USAGE = 2
"""Options that do not exist or do not fit each other; nothing was done. Also what the option parser uses."""

NO_MODEL = 3
"""The model could not be loaded; nothing was done."""

INTERRUPTED = 130


SCHEMA_VERSION = 1
"""Version of the JSON documents of all commands."""


class SafeConsole(Console):
    """A console on which only its own styles reach the terminal as control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as it is shown; done here too, so that columns are as wide as what stands in them."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Everything shown passes here: texts, tables, progress."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class SafeGroup(TyperGroup):
    """A group of commands whose complaints about arguments are safe to show: they repeat the arguments."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Reads the options before the command."""
        with _printable_complaints():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Reads the command and its arguments, and runs it."""
        with _printable_complaints():
            return super().invoke(ctx)


@dataclass
class _Loudness:
    quiet: bool = False
    verbose: bool = False


_LOUDNESS = _Loudness()


def set_loudness(*, quiet: bool = False, verbose: bool = False) -> None:
    """How much this command tells beside its results and errors."""
    _LOUDNESS.quiet, _LOUDNESS.verbose = quiet, verbose
    if quiet:
        warnings.simplefilter("ignore")
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s", force=True)


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return _LOUDNESS.quiet


def notes() -> Console:
    """For people: progress and remarks; takes them and shows nothing if only results are wanted."""
    return SafeConsole(stderr=True, highlight=False, emoji=False, quiet=_LOUDNESS.quiet)


def findings() -> Console:
    """For results; without colours where stdout is no terminal, and never wrapped there."""
    return SafeConsole(highlight=False, soft_wrap=True, emoji=False)


def progress_bar(title: str, *, shown: bool = True, unit: str = "") -> Progress:
    """A bar on stderr with what is done and the time left, which disappears at its end; nothing where stderr
    is no terminal.

    Args:
        title: of the work.
        shown: whether there is a bar at all.
        unit: what is counted, such as "windows".
    """
    paper = notes()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=paper, transient=True, disable=not (shown and paper.is_terminal))
    bar.add_task(escape(title), total=None)
    return bar


def say(message: object) -> None:
    """One remark on stderr, as it is: brackets are no markup."""
    notes().print(str(message), markup=False, soft_wrap=True)


def write(text: str) -> None:
    """A piece of an answer on stdout, while the answer is written."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


def complain(message: object) -> None:
    """One error on stderr; with `--verbose` also where it came from, if it is being handled."""
    paper = SafeConsole(stderr=True, highlight=False, emoji=False)
    paper.print(f"[bold red]error:[/] {escape(str(message))}", soft_wrap=True)
    if _LOUDNESS.verbose and sys.exception() is not None:
        show_uncaught()


def complain_of(file: object, message: object) -> None:
    """One error about a file on stderr, which names the file once."""
    text = str(message)
    complain(text if str(file) in text else f"{printable_name(file)}: {text}")


def detail(message: object) -> None:
    """One remark on stderr for those who want to know more."""
    if _LOUDNESS.verbose:
        say(message)


def print_json(document: dict[str, Any]) -> None:
    """One strict JSON document on stdout, keys in the order of the document."""
    text = json.dumps(
        {"schema_version": SCHEMA_VERSION, **document}, indent=2, allow_nan=False, ensure_ascii=False
    )
    # The line ends of the document are the only control characters that JSON leaves outside of escapes.
    sys.stdout.write(printable_json(text) + "\n")


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Sends what libraries may print to stderr, so that stdout holds results alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def guard_messages() -> None:
    """Makes warnings and log records safe to show, those of other libraries too."""
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _printable_warning


def show_uncaught() -> None:
    """The error that is being handled, with its traceback, on stderr."""
    sys.stderr.write(printable(traceback.format_exc()))


class _PrintableRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return printable(super().getMessage())


def _printable_warning(*about: Any, **options: Any) -> str:
    return printable(_FORMAT_WARNING(*about, **options))


_FORMAT_WARNING = warnings.formatwarning


@contextlib.contextmanager
def _printable_complaints() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        message = getattr(error, "message", None)  # of the errors of typer, which are in no public module
        if isinstance(message, str):
            error.message = printable(message)
        raise
