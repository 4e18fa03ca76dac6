"""Files by the names that a table gives them: in whatever spelling, and never outside of their folder.

Names come in several spellings: composed or decomposed accents (NFC, NFD), slashes of Windows, a folder that
wraps everything or not. Everything is looked up in one spelling. A name that leads out of its folder, or that
no file can have, stands for a file that is not there: its item is counted as missing, and the others go on.

Pictures that a data set names by address and sha256 are found in a folder where somebody has put them.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from PIL import Image

from molmopoint.errors import MolmoPointError
from molmopoint.files import inside_folder, one_spelling

CACHE_FOLDER = ".molmopoint"
"""In the folder of the data; may be deleted at any time."""

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What reading a broken or hostile picture may raise."""

NOWHERE = "(a name that is none in this folder)"
"""Name of the file that is never there."""


def place_of(folder: Path, name: str) -> Path:
    """Where the file of a name should be; for a name that leads out of the folder, a place where nothing is.

    Args:
        folder: which may be missing.
        name: relative, from a table.
    """
    try:
        return inside_folder(folder, name)
    except MolmoPointError:
        return folder / NOWHERE


class FileFinder:
    """Files below a folder by their relative names, in whatever spelling; a single folder that wraps
    everything is left out.

    Args:
        folder: which may be missing; then nothing is found.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, Path] = {}
        if folder.is_dir():
            for path in folder.rglob("*"):
                if path.is_file() and not _is_of_macos(path):
                    self._by_name[one_spelling(path.relative_to(folder).as_posix())] = path
        self._wrapper = _common_folder(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Path | None:
        """The file of a relative name, or None."""
        wanted = one_spelling(name).removeprefix("./")
        return self._by_name.get(wanted) or self._by_name.get(self._wrapper + wanted)

    def expect(self, name: str) -> Path:
        """The file of a relative name, or where it should be; see `place_of`."""
        return self.find(name) or place_of(self.folder, name)


def _is_of_macos(path: Path) -> bool:
    """Whether a file is one that macOS adds to archives."""
    return path.name.startswith("._") or "__MACOSX" in path.parts


def _common_folder(names: Collection[str]) -> str:
    """The one folder that all names lie in, with a slash; empty where there are several, or none."""
    if not all("/" in name for name in names):
        return ""
    tops = {PurePosixPath(name).parts[0] for name in names}
    return f"{tops.pop()}/" if len(tops) == 1 else ""


URL_FOLDER = "images"
DIFFERS = "picture file that is not the published one"
UNKNOWN = "picture whose data names no sha256"

HOW_TO = f"pictures by address go into a folder {URL_FOLDER} beside the data, named by their sha256 or by the last part of the address"


class UrlPictures:
    """Finds pictures by sha256 or by the last part of their address; only files with the published bytes are
    taken.

    Args:
        folder: of the data set; its folder `images` is searched, deeper ones too.

    Attributes:
        warnings: files that are not the published ones, and rows that cannot be checked, by kind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / URL_FOLDER
        self.warnings: Counter[str] = Counter()
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                for name in {one_spelling(path.name), path.stem.lower()}:
                    self._by_name[name].append(path)

    def expect(self, url: str | None, sha256: str | None) -> Path:
        """The picture's file, or where it should be.

        A file of the right name with other bytes is another picture (many addresses answer with a placeholder
        by now); it is counted and not used. Where the data names no sha256, the name alone decides, which is
        counted too.
        """
        name = one_spelling(unquote(PurePosixPath(_path_of(url)).name))
        digest = (sha256 or "").lower()
        candidates = [*self._by_name.get(digest, ()), *self._by_name.get(name, ())]
        if not digest:
            self.warnings[UNKNOWN] += 1
            return candidates[0] if candidates else place_of(self.folder, name or "nameless")
        for path in candidates:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    return path
        if candidates:
            self.warnings[DIFFERS] += 1
        return place_of(self.folder, f"{digest}.original")


def _path_of(url: str | None) -> str:
    """The path of an address; empty where it is none."""
    try:
        return urlsplit(url or "").path
    except ValueError:  # brackets that look like half of an address of the sixth version
        return ""
