"""Files: writing them whole or not at all, staying inside a folder, and opening pictures of known formats only.

Everything here treats names and bytes as somebody else's: a name may lead out of its folder, a picture may be a program.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from PIL import Image

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "TGA", "QOI")
"""Pillow's names of the formats that are read (its JPEG reader takes MPO along).

Formats that run another program (EPS) or describe drawings (WMF) are not among them.
"""

PICTURE_SUFFIXES = frozenset(
    {
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".jp2", ".j2k",
        ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".qoi",
    }
)  # fmt: skip
"""Endings, in lower case, of files in which a picture is expected."""

_PARTIAL = ".partial"


def inside_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """The path of a name that came from a file, if it stays inside the folder.

    Separators of Windows are understood. Links are followed before the comparison.

    Args:
        folder: which the path must not leave; it need not exist.
        name: relative, or absolute inside the folder.

    Returns:
        `folder / name`, as it is written rather than with its links followed.

    Raises:
        MolmoPointError: the name is empty, holds a null character, or leads out of the folder.
    """
    spelt = name.replace("\\", "/")
    if not spelt.strip() or "\0" in spelt:
        raise MolmoPointError(f"expected the name of a file in {os.fspath(folder)!r}, got {name!r}; correct the name")
    path = Path(folder) / PurePosixPath(spelt)
    try:
        stays = path.resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # circles of links, names that are too long, half characters
        raise MolmoPointError(f"expected a usable file name in {os.fspath(folder)!r}, got {name[:80]!r} ({error})") from error
    if not stays:
        where = os.fspath(folder)
        raise MolmoPointError(f"expected a file inside {where!r}, got {name[:200]!r}, which leads out of it; do not trust its source")
    return path


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name the system cannot even look up (too long, half a character) is no file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside the target, renamed to it at the end; after an error the target is what it was before.

    Args:
        path: the target. Its folder is made if it is not there.

    Yields:
        The path to write to; it has the ending of the target, so that writers that look at it choose the right format.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(_partial_name(target.name))
    try:
        yield beside
        beside.replace(target)
    except BaseException:
        if beside.is_dir():
            shutil.rmtree(beside, ignore_errors=True)
        else:
            beside.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Removes what processes that were killed left beside their targets in this folder.

    Returns:
        The removed paths; those of running processes stay.
    """
    removed = []
    for path in sorted(Path(folder).glob(f".*{_PARTIAL}*")):
        owner = _owner_of(path.name)
        if owner is None or process_runs(owner):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def process_runs(process_id: int) -> bool:
    """Whether a process of this id runs on this machine."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def open_picture(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """A picture of a known format, not decoded yet; `with` closes it.

    Pillow's own suspicion of large pictures is silent here: whoever decodes compares the size with a limit of ours first.

    Args:
        source: a path, or a file that is open for reading bytes.

    Raises:
        PIL.UnidentifiedImageError: bytes of none of `PICTURE_FORMATS`.
        OSError: the file cannot be read.
    """
    import warnings

    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(source, formats=PICTURE_FORMATS)


def one_spelling(name: str) -> str:
    """A name with composed accents and forward slashes, so that equal names compare equal."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _partial_name(name: str) -> str:
    """A hidden name with the process id, short enough for any file system, with the ending of the target."""
    target = PurePosixPath(name)
    return f".{target.stem[:80]}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}{target.suffix}"


def _owner_of(name: str) -> int | None:
    """The process id in the name of a partial file."""
    before, found, _ = name.rpartition(_PARTIAL)
    process_id = before.rpartition(".")[2].partition("-")[0]
    return int(process_id) if found and process_id.isdecimal() else None
