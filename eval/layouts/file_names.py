"""Files by the names that a table gives them: in whatever spelling, and never outside of their folder.

Names come in several spellings: composed or decomposed accents (NFC, NFD), slashes of Windows, a folder that wraps everything or not.
Everything is looked up in one spelling. A name that leads out of its folder, or that no file can have, stands for a file that is not
there: its item is counted as missing, and the others go on.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from molmopoint.errors import MolmoPointError
from molmopoint.files import inside_folder, one_spelling

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
    """Files below a folder by their relative names, in whatever spelling; a single folder that wraps everything is left out.

    Args:
        folder: which may be missing; then nothing is found.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("._")] if folder.is_dir() else []
        self._by_name = {one_spelling(path.relative_to(folder).as_posix()): path for path in files if "__MACOSX" not in path.parts}
        tops = {PurePosixPath(name).parts[0] for name in self._by_name}
        self._wrapper = f"{tops.pop()}/" if len(tops) == 1 and all("/" in name for name in self._by_name) else ""

    def __len__(self) -> int:
        return len(self._by_name)

    def find(self, name: str) -> Path | None:
        """The file of a relative name, or None."""
        wanted = one_spelling(name).removeprefix("./")
        return self._by_name.get(wanted) or self._by_name.get(self._wrapper + wanted)

    def expect(self, name: str) -> Path:
        """The file of a relative name, or where it should be; see `place_of`."""
        return self.find(name) or place_of(self.folder, name)
