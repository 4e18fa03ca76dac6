"""Files behind the addresses in a Label Studio export.

An address is what the labelling page loaded: an upload, a local file of the server, an object of a bucket, a link that
the server resolves. The pictures lie in a folder of the user, flat or with some of the folders of the address. Two
addresses never become one file: where the folder cannot keep them apart, both are refused, since points of one would
land on the picture of the other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from molmopoint.data.importers.common import picture_path
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")
"""What the server writes in front of the name of an upload."""


_MAX_PARTS = 64
"""Folders of an address; all their endings are compared."""


class _Address(NamedTuple):
    """Where a picture comes from.

    Attributes:
        parts: host or bucket, folders and name.
        local: a path as the user wrote it, which is kept whole where no file is found.
    """

    parts: tuple[str, ...]
    local: bool


class ExportedFiles:
    """Files of all addresses of an export.

    Args:
        folder: of the pictures or clips.
        addresses: all that the export has; their differences decide how much of each path is needed.
    """

    def __init__(self, folder: Path, addresses: Iterable[str]) -> None:
        self._folder = folder
        self._found: dict[_Address, Path] = {}
        known: set[_Address] = set()
        for text in addresses:
            try:
                known.add(_parse(text))
            except ProcessingError:
                continue  # told where it is asked for
        # How many addresses end in the same folders and name.
        self._endings = Counter(address.parts[start:] for address in known for start in range(len(address.parts)))
        for address in known:
            if (file := self._existing(address)) is not None:
                self._found[address] = file
        self._users = Counter(self._found.values())

    def file(self, text: str) -> Path:
        """The file of an address; where there is none, the path at which it would be looked for.

        Raises:
            ProcessingError: the address names no file, leads out of the folder, or shares its file with another.
        """
        address = _parse(text)
        if (file := self._found.get(address)) is not None:
            if self._users[file] > 1:
                raise ProcessingError(
                    f"expected a file of its own for {text!r}, got {file.name!r}, in which other addresses of the "
                    "export end as well; keep their folders below the one given as images"
                )
            return file
        return self._inside("/".join(self._shortest(address)))

    def known(self, texts: Iterable[str]) -> Iterator[Path]:
        """The files of addresses, as far as they name one."""
        for text in texts:
            with contextlib.suppress(ProcessingError):
                yield self.file(text)

    def _existing(self, address: _Address) -> Path | None:
        """The file with as many folders of the address as possible; names without the mark of uploads come last."""
        for name in (address.parts[-1], _UPLOAD.sub("", address.parts[-1], count=1)):
            for start in range(len(address.parts)):
                try:
                    path = self._inside("/".join([*address.parts[start:-1], name]))
                except ProcessingError:
                    continue
                if is_file(path):
                    return path
        return None

    def _shortest(self, address: _Address) -> tuple[str, ...]:
        """The name, with as many folders as tell it from the other addresses."""
        if address.local:
            return address.parts
        lengths = range(1, len(address.parts) + 1)
        return next((address.parts[-n:] for n in lengths if self._endings[address.parts[-n:]] == 1), address.parts)

    def _inside(self, name: str) -> Path:
        return picture_path(self._folder, name, "address of a picture")


def file_ending(text: str) -> str:
    """How the file of an address ends, in lower case; nothing if it names no file."""
    try:
        return PurePosixPath(_parse(text).parts[-1]).suffix.lower()
    except ProcessingError:
        return ""


def _parse(text: str) -> _Address:
    """The parts of an address.

    Raises:
        ProcessingError: it names no file.
    """
    try:
        url = urlsplit(text)
        query = parse_qs(url.query)
    except ValueError as error:  # such as a bracket that is not closed
        raise ProcessingError(f"expected the address of a file, got {text[:80]!r} ({error}); correct it") from error
    if url.scheme == "data":
        raise ProcessingError("expected the address of a file, got the picture itself in the export; write it to a file first")
    if "fileuri" in query:
        return _parse(_decoded(query["fileuri"][0]))
    if "local-files" in url.path and "d" in query:
        return _from_path("", query["d"][0], local=True)
    if url.scheme in ("http", "https"):
        return _from_path(url.netloc, unquote(url.path), local=False)
    if "://" in text:  # a bucket, whose names may have any characters
        return _from_path("", text.partition("://")[2], local=False)
    if text.startswith("/"):
        return _from_path("", unquote(url.path), local=False)
    return _from_path("", text, local=not url.scheme)  # a drive of Windows is as good as a scheme


def _from_path(host: str, path: str, *, local: bool) -> _Address:
    parts = [part for part in [host, *path.replace("\\", "/").split("/")] if part not in ("", ".")]
    if not parts or len(parts) > _MAX_PARTS or ".." in parts or path.endswith(("/", "\\")):
        raise ProcessingError(f"expected the path of a file, got {path[:80]!r}; correct it")
    return _Address(tuple(parts), local)


def _decoded(text: str) -> str:
    """The address inside of a link that the server resolves."""
    try:
        standard = text.rstrip("=").replace("-", "+").replace(" ", "+").replace("_", "/")  # a plus in an address means a space
        inner = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ProcessingError(f"expected an address in base64 as fileuri, got {text[:80]!r} ({error}); export it again") from error
    if "fileuri=" in inner:
        raise ProcessingError(f"expected the address of a file as fileuri, got another link {inner[:80]!r}; export it again")
    return inner
