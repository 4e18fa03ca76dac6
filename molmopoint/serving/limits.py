"""What a server takes from one request, and from all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Limits of a server.

    Attributes:
        body_bytes: of a request.
        pixels: width times height of a picture.
        pictures: of a request.
        crops: per picture.
        frames: of a clip, all windows together.
        video_bytes: of a request with a clip.
        points: of an answer.
        tokens: of an answer.
        seconds: from arrival to the whole answer.
        body_seconds: until the body of a request is there; large ones have a second more for each 256 KB.
        inline_seconds: for which a request with a clip waits before it becomes a job.
        jobs: of clips that wait or run.
        job_seconds: of a job, from its beginning to its result.
        job_kept_seconds: for which a finished job can be asked for.
        responses: that a reward model judges in one request.
        queue: requests that wait or are being answered.
        client_requests: of one client, by its key or its address, at a time; None for no limit but the queue.
        batch: rows of one run of the model.
        batch_tokens: of the rows of one run, prompts and longest answers included.
        cached_pictures: whose features are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bytes: int = Field(default=32 * 2**20, ge=1)
    pixels: int = Field(default=64_000_000, ge=1)
    pictures: int = Field(default=16, ge=1)
    crops: int = Field(default=64, ge=1)
    frames: int = Field(default=10_000, ge=1)
    video_bytes: int = Field(default=256 * 2**20, ge=1)
    points: int = Field(default=1000, ge=1)
    tokens: int = Field(default=4096, ge=1)
    seconds: float = Field(default=120.0, gt=0)
    body_seconds: float = Field(default=30.0, gt=0)
    inline_seconds: float = Field(default=20.0, ge=0)
    jobs: int = Field(default=16, ge=1)
    job_seconds: float = Field(default=3600.0, gt=0)
    job_kept_seconds: float = Field(default=3600.0, gt=0)
    responses: int = Field(default=32, ge=1)
    queue: int = Field(default=256, ge=1)
    client_requests: int | None = Field(default=None, ge=1)
    batch: int = Field(default=16, ge=1)
    batch_tokens: int = Field(default=65_536, ge=1)
    cached_pictures: int = Field(default=32, ge=0)


def read_keys(path: Path) -> tuple[str, ...]:
    """Keys of a file, one per line; empty lines and those that begin with # are left out.

    Raises:
        ValueError: there are none, or the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bytes that are no text in UTF-8"
        raise ValueError(
            f"expected a file with a key per line at {str(path)!r}, got: {reason}; check the path"
        ) from error
    lines = (line.strip() for line in text.splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ValueError(
            f"expected one or more keys in {str(path)!r}, one per line, got none; write one there"
        )
    return keys


def check_keys(keys: Sequence[str]) -> None:
    """Refuses keys that no client could send, and above all an empty one, behind which a server would be open
    to everybody.

    Raises:
        ValueError: there is one.
    """
    for number, key in enumerate(keys, 1):
        is_sent = key.isascii() and key.isprintable() and key == key.strip() and key
        if not is_sent:
            got = "an empty one" if not key.strip() else "one that cannot stand in a header"
            raise ValueError(
                f"expected keys of ASCII letters, digits and signs, got {got} (key {number}); set the variable it comes "
                "from, or leave the option out to ask nobody for a key"
            )
