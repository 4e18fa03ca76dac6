"""Unpacking the archives of a benchmark, which may come from anyone.

Everything is checked before the first byte is written: members that lead out of the folder, links, passwords,
and archives that grow beyond all measure. An archive that is refused leaves nothing behind.

Names in zip files without a mark for UTF-8 are bytes that are read as cp437, so accents are put right first.
"""

from __future__ import annotations

import contextlib
import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from molmopoint.errors import EvaluationError, MolmoPointError
from molmopoint.files import inside_folder, one_spelling, remove_leftovers, written_whole

MAX_MEMBERS = 500_000
"""Members of an archive; the largest published one has a few thousand."""
MAX_BYTES = 64 * 2**30
"""Bytes that an archive may unpack to; the largest published one has 2 GiB."""
MAX_RATIO = 200
"""Times that an archive may grow; one of pictures hardly does."""

_SMALL = 64 * 2**20
"""Bytes below which no one minds how far an archive grows."""
_UTF8_FLAG = 0x800
_ENCRYPTED_FLAG = 0x1
_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What the zip module says to broken, locked and unknown contents, and to names and offsets that cannot
be."""


def unpacked(folder: Path, archive: str) -> Path:
    """The folder with the contents of a zip file; unpacked the first time, beside and renamed.

    Args:
        folder: of the data set.
        archive: name of the zip file in it. A folder of that name without the ending is taken as it is.

    Raises:
        EvaluationError: neither is there, or the archive is broken, locked, too large, or leaves its folder.
    """
    source = folder / archive
    target = folder / Path(archive).stem
    if target.is_dir():
        return target
    if not source.is_file():
        raise EvaluationError(
            f"expected {archive}, or a folder {target.name}, in {folder}, found neither; download it again"
        )
    try:
        remove_leftovers(folder)
        with zipfile.ZipFile(source) as opened, written_whole(target) as beside:
            _unpack(opened, beside, source)
    except MolmoPointError:
        raise
    except _BROKEN as error:
        raise EvaluationError(
            f"expected a whole zip file, got {source} ({error}); download it again"
        ) from error
    except OSError as error:
        if not target.is_dir():  # another process may have been quicker
            raise EvaluationError(
                f"expected to unpack {archive} into {folder}, got {error}; unpack it there by hand"
            ) from error
    return target


def _unpack(opened: zipfile.ZipFile, folder: Path, source: Path) -> None:
    """Checks all members of an archive, then writes them into a new folder."""
    members = opened.infolist()
    places = _places(members, folder, source)
    _check_sizes(members, source)
    folder.mkdir()
    for place, member in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as packed, place.open("wb") as out:
            shutil.copyfileobj(packed, out)


def _places(members: Sequence[zipfile.ZipInfo], folder: Path, source: Path) -> dict[Path, zipfile.ZipInfo]:
    """The files by where they go. Entries for folders are checked too, but files make their folders by
    themselves.

    Raises:
        EvaluationError: a member is no plain file, is locked, leads out of the folder, or goes where another
            one goes.
    """
    places: dict[Path, zipfile.ZipInfo] = {}
    for member in members:
        name = _name_of(member)
        shown = repr(name[:200])
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise EvaluationError(
                f"expected plain files in {source}, got {what}, {shown}; do not trust this file"
            )
        if member.flag_bits & _ENCRYPTED_FLAG:
            raise EvaluationError(
                f"expected an archive without a password, got {source} with {shown} locked; unpack it by hand"
            )
        place = _place(name, folder, source)
        if member.is_dir():
            continue
        if place in places:
            raise EvaluationError(
                f"expected every member once, got {shown} twice in {source}; download it again"
            )
        places[place] = member
    return places


def _name_of(member: zipfile.ZipInfo) -> str:
    """The name with its accents right and with forward slashes."""
    name = member.orig_filename
    if not member.flag_bits & _UTF8_FLAG:
        with contextlib.suppress(UnicodeError):  # then it really is cp437
            name = name.encode("cp437").decode("utf-8")
    return one_spelling(name)


def _place(name: str, folder: Path, source: Path) -> Path:
    """Where a name goes below the folder.

    Raises:
        EvaluationError: out of it.
    """
    path = PurePosixPath(name)
    is_absolute = name.startswith("/") or bool(_DRIVE.match(name))
    leads_out = is_absolute or ".." in path.parts or "\0" in name
    if not leads_out and path.parts:
        with contextlib.suppress(MolmoPointError):
            return inside_folder(folder, name)
    raise EvaluationError(
        f"expected members inside the archive's folder, got {name[:200]!r} in {source}; do not trust this "
        "file"
    )


def _check_sizes(members: Sequence[zipfile.ZipInfo], source: Path) -> None:
    """Refuses an archive that would fill the disk; more bytes than a member states are never unpacked.

    Raises:
        EvaluationError: too many members, too many bytes, too many for the size of the file, or more than
            there is room for.
    """
    if len(members) > MAX_MEMBERS:
        raise EvaluationError(
            f"expected at most {MAX_MEMBERS:,} members, got {len(members):,} in {source}; do not trust this "
            "file"
        )
    size = sum(member.file_size for member in members)
    packed = source.stat().st_size
    if size > MAX_BYTES or (size > _SMALL and size > MAX_RATIO * packed):
        raise EvaluationError(
            f"expected an archive of at most {MAX_BYTES:,} bytes that grows {MAX_RATIO} times at most, got "
            f"{size:,} "
            f"in the {packed:,} of {source}; do not trust this file, or unpack it by hand"
        )
    room = shutil.disk_usage(source.parent).free
    if size > room:
        raise EvaluationError(
            f"expected room for the {size:,} bytes of {source}, got {room:,}; free some, or move the data"
        )
