"""A file of answers, one JSON document per line, that the same command goes on with where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from molmopoint.errors import ProcessingError
from molmopoint.safe_text import printable_json

SCHEMA_VERSION = 1
"""Version of the lines."""


_UNKNOWN = "?"

_LINE_BEGINS = b'{"schema_version": '
"""What every line begins with."""


class AnswerLog:
    """Appends a line per answer, whole and at once, so that whatever stops the command loses none.

    Args:
        path: of the file; what it already holds is kept. A line that was cut off at its end is removed.
        asked: what all answers of this run have in common, such as the model and what was asked; no entry of
            an answer.
        options: everything else that changes an answer; every line has them in "options". An answer that was
            made with others is none to this run's question.

    Raises:
        ProcessingError: the file holds something else, or cannot be written.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self._path = path
        self._asked = dict(asked)
        self._options = dict(options)
        self._answered: dict[str, list[Any]] = {}
        self._file: IO[bytes] | None = None
        whole = self._read()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
            self._file.truncate(whole)
        except OSError as error:
            raise ProcessingError(
                f"expected a file that can be written at {str(path)!r}, got: {error}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def has(self, images: Sequence[Path]) -> bool:
        """Whether the file holds an answer to this run's question about these pictures."""
        return self._options in self._answered_with(images)

    def other_options(self, images: Sequence[Path]) -> list[str] | None:
        """How the options of an earlier answer differ from this run's, such as "max_crops=4 and not 8".

        Returns:
            None where there is no earlier answer, or one with the same options.
        """
        found = self._answered_with(images)
        if not found or self._options in found:
            return None
        differences = [self._differences(earlier) for earlier in found]
        return min(differences, key=len)

    def _differences(self, earlier: Any) -> list[str]:
        """How the options of an earlier answer differ from this run's; those of older files are not known."""
        known = earlier if isinstance(earlier, dict) else {}
        names = [name for name in self._options if known.get(name, _UNKNOWN) != self._options[name]]
        return [f"{name}={known.get(name, _UNKNOWN)} and not {self._options[name]}" for name in names]

    def _answered_with(self, images: Sequence[Path]) -> list[Any]:
        """The options of the answers to this question that the file holds."""
        return self._answered.get(self._key({**self._asked, "images": [str(image) for image in images]}), [])

    def append(self, answer: Mapping[str, Any]) -> None:
        """Writes one answer, which has its pictures in "images".

        Raises:
            OSError: the disk is full, or the file cannot be written any more.
        """
        assert self._file is not None, "the file is open"
        line = json.dumps(
            {"schema_version": SCHEMA_VERSION, **self._asked, "options": self._options, **answer},
            allow_nan=False,
            ensure_ascii=False,
        )
        self._file.write(printable_json(line).encode() + b"\n")
        self._file.flush()

    def _read(self) -> int:
        """Takes note of the answers that are there; returns the number of bytes that are whole lines."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise ProcessingError(
                f"expected a file that can be read at {str(self._path)!r}, got: {error}"
            ) from error
        whole = content.rfind(b"\n") + 1
        if not _is_cut_off(content[whole:], is_first=whole == 0):
            raise ProcessingError(
                f"expected answers of this command in {str(self._path)!r}, got something else at its end; choose "
                "another file"
            )
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                document = json.loads(line)
                self._answered.setdefault(self._key(document), []).append(document.get("options"))
            except (ValueError, RecursionError, KeyError, TypeError) as error:
                raise ProcessingError(
                    f"expected answers of this command in {str(self._path)!r}, got something else in line "
                    f"{number}; choose another file"
                ) from error
        return whole

    def _key(self, document: Mapping[str, Any]) -> str:
        """What tells one question from another."""
        return json.dumps([document["images"], *(document[name] for name in self._asked)])


def _is_cut_off(rest: bytes, *, is_first: bool) -> bool:
    """Whether what stands behind the last whole line may be a line of ours that was cut off; anything else is
    somebody's, and not removed.

    Args:
        rest: bytes behind the last line end.
        is_first: whether no line before tells whose file it is.
    """
    if not is_first:
        return not rest or rest.startswith(b"{")
    return rest.startswith(_LINE_BEGINS) or _LINE_BEGINS.startswith(rest)
