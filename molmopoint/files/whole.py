"""Writing files whole or not at all, and removing what killed processes left beside them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import socket
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_PARTIAL = ".partial"
_IN_PROGRESS: set[str] = set()
"""Names of the partial files that this process is writing."""

_OTHER_MACHINES_KEEP = 24 * 3600.0
"""Seconds after which a partial file of another machine, where nobody can look for its process, counts as
left over.
"""


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file or folder beside the target, renamed to it at the end; after an error the target is what it was
    before.

    A new file has the permissions that the process gives to new files, a replaced one keeps its own. Links
    are followed. What is neither file nor folder, such as /dev/stdout or a pipe, is written to directly.

    Args:
        path: the target. Its folder is made if it is not there. A folder is only replaced where it is empty.

    Yields:
        The path to write to, where nothing is yet; it has the ending of the target, so that writers that look
        at it choose the right format.

    Raises:
        OSError: the target cannot be written; nothing of it is left.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(_partial_name(target.name))
    _IN_PROGRESS.add(beside.name)
    try:
        yield beside
        if beside.is_file():
            _keep_mode(beside, target)
            _flush(beside)
        beside.replace(target)
    except BaseException:
        _remove(beside)
        raise
    finally:
        _IN_PROGRESS.discard(beside.name)


@contextlib.contextmanager
def filled_whole(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder inside the target, whose files are moved into the target at the end; after an error
    nothing was added.

    Other files of the target stay. What killed processes left in the target is removed first.

    Args:
        folder: the target; made if it is not there.

    Yields:
        The folder to write files to.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target)
    beside = target / _partial_name("saving")
    beside.mkdir()
    _IN_PROGRESS.add(beside.name)
    try:
        yield beside
        for path in sorted(beside.iterdir()):
            path.replace(target / path.name)
    finally:
        _remove(beside)
        _IN_PROGRESS.discard(beside.name)


def write_text_whole(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in UTF-8, whole or not at all; line ends stay as they are.

    Raises:
        OSError: as `written_whole`.
    """
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Tries whether a file could be written, before the work whose result it takes; nothing stays of it.

    Args:
        path: of a file, or of a folder to be; folders above it that are missing would be made.

    Raises:
        OSError: it could not, and why.
    """
    target = Path(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISDIR(target.stat().st_mode) and not stat.S_ISREG(target.stat().st_mode):
            return  # such as /dev/stdout
    place = target if target.is_dir() else target.parent
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    probe = place / _partial_name("probe")
    _IN_PROGRESS.add(probe.name)
    try:
        probe.touch(exist_ok=False)
    finally:
        _remove(probe)
        _IN_PROGRESS.discard(probe.name)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Removes what processes that were killed left beside their targets in this folder.

    Returns:
        The removed paths; those of running processes stay, and those of other machines for a day.
    """
    removed = []
    for path in sorted(Path(folder).glob(f".*{_PARTIAL}*")):
        if _is_left_over(path):
            _remove(path)
            removed.append(path)
    return removed


def is_partial(path: str | os.PathLike[str]) -> bool:
    """Whether this is the name of something that is being written, or was when its process was killed."""
    return _owner_of(Path(path).name) is not None


def process_runs(process_id: int) -> bool:
    """Whether a process of this id runs on this machine."""
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def _partial_name(name: str) -> str:
    """A hidden name with machine and process, short enough for any file system, with the ending of the
    target.
    """
    target = PurePosixPath(name)
    stem = target.stem.encode("utf-8", "replace")[:80].decode("utf-8", "ignore")
    return f".{stem}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}{target.suffix}"


def _machine() -> str:
    """Eight letters for this machine's name."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _owner_of(name: str) -> tuple[str, int] | None:
    """Machine and process id in the name of a partial file."""
    before, found, _ = name.rpartition(_PARTIAL)
    machine, _, rest = before.rpartition(".")[2].partition("-")
    process_id = rest.partition("-")[0]
    return (machine, int(process_id)) if found and process_id.isdecimal() else None


def _is_left_over(path: Path) -> bool:
    owner = _owner_of(path.name)
    if owner is None:
        return False
    machine, process_id = owner
    if machine != _machine():
        with contextlib.suppress(OSError):
            return time.time() - path.lstat().st_mtime > _OTHER_MACHINES_KEEP
        return False
    if process_id == os.getpid():  # an earlier process may have had our id
        return path.name not in _IN_PROGRESS
    return not process_runs(process_id)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _keep_mode(beside: Path, target: Path) -> None:
    """Gives the new file the permissions of the one it replaces."""
    with contextlib.suppress(OSError):  # there is none, or it is another user's
        beside.chmod(target.stat().st_mode & 0o777)


def _flush(path: Path) -> None:
    """Waits until a file is on the disk, so that a full one speaks up before the old file is gone."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (
                errno.EINVAL,
                errno.EBADF,
                errno.ENOTSUP,
            ):  # file systems that have no such thing
                raise
