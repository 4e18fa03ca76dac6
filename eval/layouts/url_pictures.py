"""Pictures that a data set names by address and sha256, in a folder where somebody has put them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from molmopoint.eval.layouts.file_names import place_of
from molmopoint.files import one_spelling

FOLDER = "images"
DIFFERS = "picture file that is not the published one"
UNKNOWN = "picture whose data names no sha256"

HOW_TO = f"pictures by address go into a folder {FOLDER} beside the data, named by their sha256 or by the last part of the address"


class UrlPictures:
    """Finds pictures by sha256 or by the last part of their address; only files with the published bytes are taken.

    Args:
        folder: of the data set; its folder `images` is searched, deeper ones too.

    Attributes:
        warnings: files that are not the published ones, and rows that cannot be checked, by kind.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.warnings: dict[str, int] = {}
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else []:
            if path.is_file() and not path.name.startswith("."):
                for name in {one_spelling(path.name), path.stem.lower()}:
                    self._by_name[name].append(path)

    def expect(self, url: str | None, sha256: str | None) -> Path:
        """The picture's file, or where it should be.

        A file of the right name with other bytes is another picture (many addresses answer with a placeholder by now); it is
        counted and not used. Where the data names no sha256, the name alone decides, which is counted too.
        """
        name = one_spelling(unquote(PurePosixPath(_path_of(url)).name))
        digest = (sha256 or "").lower()
        candidates = [*self._by_name.get(digest, ()), *self._by_name.get(name, ())]
        if not digest:
            self._warn(UNKNOWN)
            return candidates[0] if candidates else place_of(self.folder, name or "nameless")
        for path in candidates:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    return path
        if candidates:
            self._warn(DIFFERS)
        return place_of(self.folder, f"{digest}.original")

    def _warn(self, kind: str) -> None:
        self.warnings[kind] = self.warnings.get(kind, 0) + 1


def _path_of(url: str | None) -> str:
    """The path of an address; empty where it is none."""
    try:
        return urlsplit(url or "").path
    except ValueError:  # brackets that look like half of an address of the sixth version
        return ""
