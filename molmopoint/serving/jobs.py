"""Jobs: work that takes longer than a client wants to wait. Each has an id that cannot be guessed, tells how
far it is, and is forgotten some time after its end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from molmopoint.errors import MolmoPointError
from molmopoint.serving.clips import ClipWork
from molmopoint.serving.engine import Cancelled, Closed
from molmopoint.serving.limits import Limits
from molmopoint.serving.refusals import SERVER_ERROR, Refused, as_refused, error_object
from molmopoint.serving.streams import Document

Status = Literal["queued", "running", "done", "failed", "cancelled"]
_WORKERS = 2
_MOST_KEPT = 256
"""Finished jobs that are kept; the oldest go first."""

_LOG = logging.getLogger("molmopoint.serving")


@dataclass(eq=False)
class ClipJob:
    """One piece of work and what became of it.

    Attributes:
        work: that is done.
        owner: key of the client, as the gate knows it; empty where nobody needs one.
        id: for the client.
        status: how far it is.
        progress: windows that are answered, and all of them; None until they are known.
        result: for JSON.
        error: why there is none.
        created: second at which it came.
        ended: second at which it ended, by the clock that only goes forward.
        done: has its result, which says nothing, at its end.
    """

    work: ClipWork
    owner: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: Status = "queued"
    progress: tuple[int, int] | None = None
    result: Document | None = None
    error: Refused | None = None
    created: float = field(default_factory=time.time)
    ended: float | None = None
    done: Future[None] = field(default_factory=Future)

    def document(self) -> Document:
        """What a client is told."""
        progress = None
        if self.progress is not None:
            progress = {"done": self.progress[0], "of": self.progress[1]}
        error = None if self.error is None else error_object(self.error)["error"]
        return {
            "id": self.id,
            "object": "job",
            "status": self.status,
            "progress": progress,
            "created": int(self.created),
            "result": self.result,
            "error": error,
        }


class Jobs:
    """All jobs of a server.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="molmopoint-job")
        self._jobs: dict[str, ClipJob] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def num_open(self) -> int:
        """Jobs that wait or run."""
        with self._lock:
            return sum(job.ended is None for job in self._jobs.values())

    def submit(self, work: ClipWork, owner: str) -> ClipJob:
        """Takes a piece of work.

        Raises:
            Refused: there are too many, or the server is being stopped.
        """
        self._forget()
        most = self._limits.jobs
        if self.num_open >= most:
            raise Refused(
                429, f"expected at most {most} open jobs, got more; ask again later", "rate_limit_exceeded"
            )
        job = ClipJob(work, owner)
        with self._lock:
            if self._closed:
                raise Refused(
                    503, "expected a running server, got one that is being stopped; ask again", SERVER_ERROR
                )
            self._jobs[job.id] = job
            self._pool.submit(self._run, job)
        return job

    def find(self, identity: str, owner: str) -> ClipJob:
        """The job of an id.

        Raises:
            Refused: this client has none of it, or it is forgotten.
        """
        self._forget()
        job = self._jobs.get(identity)
        if job is None or job.owner != owner:
            kept = self._limits.job_kept_seconds
            raise Refused(
                404,
                f"expected the id of a job, got another; finished ones are forgotten after {kept:g} seconds",
                "job_not_found",
            )
        return job

    def drop(self, job: ClipJob) -> None:
        """Forgets a job whose client has its answer."""
        with self._lock:
            self._jobs.pop(job.id, None)

    def cancel(self, job: ClipJob) -> None:
        """Ends a job at its next token."""
        job.work.cancelled.set()
        with self._lock:
            if job.ended is None:
                self._end(job, "cancelled")

    async def wait(self, job: ClipJob, seconds: float) -> bool:
        """Whether it ended in so many seconds."""
        await asyncio.wait([asyncio.wrap_future(job.done)], timeout=seconds)
        return job.done.done()

    def close(self) -> None:
        """Ends all jobs."""
        with self._lock:
            self._closed = True
            open_jobs = [job for job in self._jobs.values() if job.ended is None]
        for job in open_jobs:
            self.cancel(job)
        self._pool.shutdown(wait=True)

    # In the threads of jobs

    def _run(self, job: ClipJob) -> None:
        if job.work.cancelled.is_set():
            return
        job.status = "running"

        def tell(done: int, of: int) -> None:
            job.progress = (done, of)

        clock = threading.Timer(self._limits.job_seconds, self._too_late, [job])
        clock.daemon = True
        clock.start()
        try:
            result = job.work.run(tell)
        except Exception as error:
            self._fail(job, error)
        else:
            with self._lock:
                if job.ended is None:
                    job.result = result
                    self._end(job, "done")
        finally:
            clock.cancel()
            job.work.video = b""

    def _fail(self, job: ClipJob, error: Exception) -> None:
        if not isinstance(error, (MolmoPointError, Refused, Cancelled, Closed)):
            _LOG.exception("a job failed")
        with self._lock:
            if job.ended is None:
                job.error = as_refused(error)
                self._end(job, "failed")

    def _too_late(self, job: ClipJob) -> None:
        job.work.cancelled.set()
        seconds = self._limits.job_seconds
        with self._lock:
            if job.ended is None:
                job.error = Refused(
                    504,
                    f"expected a job of at most {seconds:g} seconds, got a longer one; ask about a part",
                    "timeout",
                )
                self._end(job, "failed")

    def _end(self, job: ClipJob, status: Status) -> None:
        """Closes a job; the lock is held."""
        job.status = status
        job.ended = time.monotonic()
        job.done.set_result(None)

    def _forget(self) -> None:
        """Drops what ended long ago."""
        oldest = time.monotonic() - self._limits.job_kept_seconds
        with self._lock:
            ended = {job.id: job.ended for job in self._jobs.values() if job.ended is not None}
            by_age = sorted(ended, key=lambda identity: ended[identity])
            too_many = by_age[: max(len(by_age) - _MOST_KEPT, 0)]
            too_old = [identity for identity in by_age if ended[identity] < oldest]
            for identity in {*too_many, *too_old}:
                del self._jobs[identity]
