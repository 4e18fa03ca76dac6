"""Unpacking the archives of a benchmark, which may come from anyone.

Everything is checked before the first byte is written: members that lead out of the folder, links, passwords, and archives that grow
beyond all measure. An archive that is refused leaves nothing behind.

Names in zip files without a mark for UTF-8 are bytes that are read as cp437, so accents are put right first.

Pictures that a data set names by address and sha256, in a folder where somebody has put them.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from molmopoint.errors import EvaluationError, MolmoPointError
from molmopoint.eval.layouts.file_names import place_of
from molmopoint.files import inside_folder, one_spelling, remove_leftovers, written_whole

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
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
"""What the zip module says to broken, locked and unknown contents, and to names and offsets that cannot be."""


def unpacked(folder: Path, archive: str) -> Path:
    """The folder with the contents of a zip file; unpacked the first time, beside and renamed.

    Args:
        folder: of the data set.
        archive: name of the zip file in it. A folder of that name without the ending is taken as it is.

    Raises:
        EvaluationError: neither is there, or the archive is broken, locked, too large, or leaves its folder.
    """
    target, source = folder / Path(archive).stem, folder / archive
    if target.is_dir():
        return target
    if not source.is_file():
        raise EvaluationError(f"expected {archive}, or a folder {target.name}, in {folder}, found neither; download it again")
    try:
        remove_leftovers(folder)
        with zipfile.ZipFile(source) as opened, written_whole(target) as beside:
            members = opened.infolist()
            places = _places(members, beside, source)
            _check_sizes(members, source)
            beside.mkdir()
            for place, member in places.items():
                place.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as packed, place.open("wb") as out:
                    shutil.copyfileobj(packed, out)
    except MolmoPointError:
        raise
    except _BROKEN as error:
        raise EvaluationError(f"expected a whole zip file, got {source} ({error}); download it again") from error
    except OSError as error:
        if not target.is_dir():  # another process may have been quicker
            raise EvaluationError(f"expected to unpack {archive} into {folder}, got {error}; unpack it there by hand") from error
    return target


def _places(members: Sequence[zipfile.ZipInfo], folder: Path, source: Path) -> dict[Path, zipfile.ZipInfo]:
    """The files by where they go. Entries for folders are checked too, but files make their folders by themselves.

    Raises:
        EvaluationError: a member is no plain file, is locked, leads out of the folder, or goes where another one goes.
    """
    places: dict[Path, zipfile.ZipInfo] = {}
    for member in members:
        name = _name_of(member)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise EvaluationError(f"expected plain files in {source}, got {what}, {name[:200]!r}; do not trust this file")
        if member.flag_bits & _ENCRYPTED_FLAG:
            raise EvaluationError(f"expected an archive without a password, got {source} with {name[:200]!r} locked; unpack it by hand")
        place = _place(name, folder, source)
        if member.is_dir():
            continue
        if place in places:
            raise EvaluationError(f"expected every member once, got {name[:200]!r} twice in {source}; download it again")
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
    leads_out = name.startswith("/") or ".." in path.parts or bool(_DRIVE.match(name)) or "\0" in name
    if not leads_out and path.parts:
        with contextlib.suppress(MolmoPointError):
            return inside_folder(folder, name)
    raise EvaluationError(f"expected members inside the archive's folder, got {name[:200]!r} in {source}; do not trust this file")


def _check_sizes(members: Sequence[zipfile.ZipInfo], source: Path) -> None:
    """Refuses an archive that would fill the disk; more bytes than a member states are never unpacked.

    Raises:
        EvaluationError: too many members, too many bytes, too many for the size of the file, or more than there is room for.
    """
    if len(members) > MAX_MEMBERS:
        raise EvaluationError(f"expected at most {MAX_MEMBERS:,} members, got {len(members):,} in {source}; do not trust this file")
    size, packed = sum(member.file_size for member in members), source.stat().st_size
    if size > MAX_BYTES or (size > _SMALL and size > MAX_RATIO * packed):
        raise EvaluationError(
            f"expected an archive of at most {MAX_BYTES:,} bytes that grows {MAX_RATIO} times at most, got {size:,} in the {packed:,} "
            f"of {source}; do not trust this file, or unpack it by hand"
        )
    if size > (room := shutil.disk_usage(source.parent).free):
        raise EvaluationError(f"expected room for the {size:,} bytes of {source}, got {room:,}; free some, or move the data")
