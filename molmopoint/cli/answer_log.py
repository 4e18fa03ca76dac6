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


class AnswerLog:
    """Appends a line per answer, whole and at once, so that whatever stops the command loses none.

    Args:
        path: of the file; what it already holds is kept. A line that was cut off at its end is removed.
        asked: what all answers of this run have in common, such as the model and what was asked; no entry of
            an answer.

    Raises:
        ProcessingError: the file holds something else, or cannot be written.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self._path = path
        self._asked = dict(asked)
        self._answered: set[str] = set()
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
        return self._key({**self._asked, "images": [str(image) for image in images]}) in self._answered

    def append(self, answer: Mapping[str, Any]) -> None:
        """Writes one answer, which has its pictures in "images".

        Raises:
            OSError: the disk is full, or the file cannot be written any more.
        """
        assert self._file is not None, "the file is open"
        line = json.dumps(
            {"schema_version": SCHEMA_VERSION, **self._asked, **answer}, allow_nan=False, ensure_ascii=False
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
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                document = json.loads(line)
                self._answered.add(self._key(document))
            except (ValueError, RecursionError, KeyError, TypeError) as error:
                raise ProcessingError(
                    f"expected answers of this command in {str(self._path)!r}, got something else in line "
                    f"{number}; choose another file"
                ) from error
        return whole

    def _key(self, document: Mapping[str, Any]) -> str:
        """What tells one question from another."""
        return json.dumps([document["images"], *(document[name] for name in self._asked)])
