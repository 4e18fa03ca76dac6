"""Names of files that came from somebody else: a name may lead out of its folder, or be none that a disk can
hold.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path, PurePosixPath

from molmopoint.errors import MolmoPointError

CALIBRATION_FILE = "calibration.json"
"""The map from scores to chances in the folder of a checkpoint; `molmopoint.metrics` reads and writes it."""


def inside_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of a name that came from a file, if it stays inside the folder.

    Separators of Windows are understood. Names are compared, not what links lead to: links below the folder
    are its owner's, such as pictures kept on another disk, or the files of the hub's cache, all of which are
    links. What unpacks an archive must refuse the links in it.

    Args:
        folder: which the path must not leave; it need not exist.
        name: relative, or absolute inside the folder.

    Returns:
        The path with its steps up and down taken, so that no link on the way changes where it leads.

    Raises:
        MolmoPointError: the name is empty, holds a null character, or leads out of the folder.
    """
    spelt = name.replace("\\", "/")
    if not spelt.strip() or "\0" in spelt:
        raise MolmoPointError(
            f"expected the name of a file in {os.fspath(folder)!r}, got {name!r}; correct the name"
        )
    path = Path(os.path.normpath(Path(folder) / PurePosixPath(spelt)))
    try:
        os.fsencode(path)
        stays = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 (`resolve` follows links)
    except ValueError as error:  # half characters
        raise MolmoPointError(
            f"expected a usable file name in {os.fspath(folder)!r}, got {name[:80]!r} ({error})"
        ) from error
    if not stays:
        where = os.fspath(folder)
        raise MolmoPointError(
            f"expected a file inside {where!r}, got {name[:200]!r}, which leads out of it; do not trust its "
            "source"
        )
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name the system cannot even look up (too long, half a character) is no
    file.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; see `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def one_spelling(name: str) -> str:
    """A name with composed accents and forward slashes, so that equal names compare equal."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))
