"""One process at a time in a folder.

The system holds the lock and lets it go when the process ends, however it ends, so no folder stays locked.
The file beside it only says who holds it, for the message.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from molmopoint.errors import MolmoPointError
from molmopoint.files.names import is_file
from molmopoint.files.whole import process_runs, write_text_whole

_NAME = ".lock"
_PATIENCE = 10.0
"""Seconds to wait for the helpers of a process that was killed: until they notice, they keep its files open."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What network file systems without locks say."""


@contextlib.contextmanager
def alone_in(
    folder: str | os.PathLike[str],
    what: str,
    *,
    error: type[MolmoPointError] = MolmoPointError,
    part: str = "",
) -> Iterator[None]:
    """Keeps other processes out of a folder, as long as they ask too.

    Args:
        folder: made if it is not there; a folder that was made here and is left without any file is removed
            again.
        what: is done there, for the message of whoever comes second: "an evaluation".
        error: of which type the refusal is.
        part: of the folder; processes that share the work of one run each have their own.

    Raises:
        MolmoPointError: of the given type: a process is there already, which the message names; or nothing
            can be written there.
    """
    place = Path(folder)
    lock = FileLock(place / f"{_NAME}{part}", thread_local=False)
    owner = place / f"{_NAME}{part}.json"
    with _told_as(error, place):
        is_new = not place.exists()
        place.mkdir(parents=True, exist_ok=True)
        is_free = _acquired(lock, owner)
    if not is_free:
        raise error(_refusal(place, owner))
    try:
        about = {
            "what": what,
            "process_id": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.now().astimezone().isoformat(),
        }
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            owner.unlink(missing_ok=True)  # a link there would be followed, and what it leads to be replaced
            write_text_whole(owner, json.dumps(about) + "\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
            if is_new and all(map(is_lock, place.iterdir())):  # nothing came of it: no trace stays
                Path(lock.lock_file).unlink(missing_ok=True)
                place.rmdir()
        lock.release()


def check_free(
    folder: str | os.PathLike[str], *, error: type[MolmoPointError] = MolmoPointError, part: str = ""
) -> None:
    """Refuses a folder that another process is in, before anything expensive is loaded; `alone_in` decides.

    Args:
        folder: need not exist.
        error: as in `alone_in`.
        part: as in `alone_in`.

    Raises:
        MolmoPointError: as `alone_in`.
    """
    place = Path(folder)
    if not is_file(place / f"{_NAME}{part}"):
        return
    lock = FileLock(place / f"{_NAME}{part}", thread_local=False)
    owner = place / f"{_NAME}{part}.json"
    with _told_as(error, place):
        is_free = _acquired(lock, owner)
    if not is_free:
        raise error(_refusal(place, owner))
    lock.release()


@contextlib.contextmanager
def _told_as(error: type[MolmoPointError], place: Path) -> Iterator[None]:
    """What the system says against a folder, as an error of a type."""
    try:
        yield
    except (OSError, ValueError) as fault:  # a file there, no right to write, a name that cannot be one
        raise error(
            f"expected a folder that can be written to at {str(place)!r}, got: {fault}; choose another one, "
            "or change its permissions"
        ) from fault


def _refusal(place: Path, owner: Path) -> str:
    """What is said to whoever comes second."""
    return f"expected no other process in {place}, got {_in_words(_read(owner))}; wait until it ends, stop it, or choose another folder"


def is_lock(path: str | os.PathLike[str]) -> bool:
    """Whether this is a file of `alone_in`, which stays when the process ends."""
    return Path(path).name.startswith(_NAME)


def _acquired(lock: FileLock, owner: Path) -> bool:
    """Whether the lock was free; the helpers of a killed process get some seconds to end."""
    begun = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            pass
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return not _is_here(_read(owner))  # all that is left to go by
        else:
            return True
        if not _is_gone(_read(owner)) or time.monotonic() - begun > _PATIENCE:
            return False
        time.sleep(0.2)


def _is_here(about: Mapping[str, Any]) -> bool:
    """Whether the owner is known to run."""
    process_id = about.get("process_id")
    return (
        about.get("host") == socket.gethostname() and isinstance(process_id, int) and process_runs(process_id)
    )


def _is_gone(about: Mapping[str, Any]) -> bool:
    """Whether the owner is known to have ended."""
    return (
        about.get("host") == socket.gethostname()
        and isinstance(about.get("process_id"), int)
        and not _is_here(about)
    )


def _read(owner: Path) -> Mapping[str, Any]:
    try:
        about = json.loads(owner.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _in_words(about: Mapping[str, Any]) -> str:
    if not about:
        return "one that has just begun"
    name = f"{about.get('what')} by process {about.get('process_id')} on {about.get('host')}, started {about.get('started')}"
    return f"{name} (it has ended, but processes that it started hold its files)" if _is_gone(about) else name
