"""Many requests, in order, with bounded memory.

While the model answers one batch, the pictures of the next are read and cut into crops in a thread. At most
two batches are alive at any time, however many requests there are, and a result that was given is not held
here any more. Large pictures from files wait as the bytes of their files, not as pixels.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice, repeat, zip_longest
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from molmopoint.backends.media import EncodedImage
from molmopoint.errors import NumericalError, ProcessingError
from molmopoint.processing.pictures import is_picture

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

DEFAULT_BATCH_SIZE = 8
"""Requests per run of the model."""

OnError = Literal["raise", "yield"]

OnPhase = Callable[[str, float], None]
"""Is told seconds of a batch: "prepare" in the thread, "wait" for it, and "answer" by the model."""


def run_in_batches(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    answer: Callable[[Sequence[Prepared]], Sequence[Result]],
    *,
    batch_size: int,
    on_error: OnError,
    on_phase: OnPhase | None = None,
) -> Iterator[Result | Exception]:
    """Prepares every item in a thread, answers them batch by batch, and yields in the order of the items.

    Args:
        items: consumed as needed, at most two batches ahead of what was yielded.
        prepare: turns one item into model input; runs in the thread.
        answer: runs the model on a batch; runs in the caller's thread.
        batch_size: items per run of the model.
        on_error: "raise" stops at the first item that cannot be prepared; "yield" gives its error in its
            place.
        on_phase: is told where the time goes; "prepare" comes from the thread.

    Raises:
        ProcessingError: `batch_size` or `on_error` is none of the allowed values; or, with "raise", what
            `prepare` raised.
    """
    check_batches(batch_size, on_error)
    return _run(iter(items), prepare, answer, batch_size, on_error, on_phase or _nobody)


def check_batches(batch_size: int, on_error: OnError) -> None:
    """Refuses values that neither can have.

    Raises:
        ProcessingError: there is one.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ProcessingError(f"expected batch_size to be a whole number of 1 or more, got {batch_size!r}")
    if on_error not in ("raise", "yield"):
        raise ProcessingError(f"expected on_error to be 'raise' or 'yield', got {on_error!r}")


def _run(
    items: Iterator[Item],
    prepare: Callable[[Item], Prepared],
    answer: Callable[[Sequence[Prepared]], Sequence[Result]],
    batch_size: int,
    on_error: OnError,
    on_phase: OnPhase,
) -> Iterator[Result | Exception]:
    def prepare_batch(batch: Sequence[Item]) -> list[Prepared | Exception]:
        return [_attempt(prepare, item) for item in batch]

    def submit(batch: Sequence[Item]) -> Future[list[Prepared | Exception]] | None:
        return pool.submit(_timed, on_phase, "prepare", prepare_batch, batch) if batch else None

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="molmopoint-prepare")
    try:
        waiting = submit(list(islice(items, batch_size)))
        while waiting is not None:
            prepared = _timed(on_phase, "wait", waiting.result)
            waiting = submit(list(islice(items, batch_size)))
            yield from _answer_batch(prepared, partial(_timed, on_phase, "answer", answer), on_error)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _answer_batch(
    prepared: list[Prepared | Exception],
    answer: Callable[[Sequence[Prepared]], Sequence[Result]],
    on_error: OnError,
) -> Iterator[Result | Exception]:
    """Results of one batch in order; with "raise", those before the first error are still given.

    Empties the list, and holds no result that was given: requests and results hold pictures.

    A batch in which the model computes numbers that are not finite is answered again one by one, so that good
    rows keep their answers.
    """
    failed = next((i for i, item in enumerate(prepared) if isinstance(item, Exception)), len(prepared))
    if on_error == "raise":
        del prepared[failed + 1 :]
    errors = [item if isinstance(item, Exception) else None for item in prepared]
    results = _answers([item for item in prepared if not isinstance(item, Exception)], answer)
    prepared.clear()
    for error in errors:
        result = next(results) if error is None else error
        if isinstance(result, Exception) and on_error == "raise":
            raise result
        yield result
        del result


def _answers(
    good: Sequence[Prepared], answer: Callable[[Sequence[Prepared]], Sequence[Result]]
) -> Iterator[Result | Exception]:
    """Answers of one batch, and the error of a row in its place where the numbers of this row are not finite."""
    if not good:
        return
    try:
        results: deque[Result] | None = deque(answer(good))
    except NumericalError as error:
        if len(good) == 1:
            yield error
            return
        results = None
    if results is not None:
        del good
        while results:
            yield results.popleft()
        return
    for item in good:
        try:
            (result,) = answer([item])
        except NumericalError as error:
            yield error
        else:
            yield result


def _attempt(prepare: Callable[[Item], Prepared], item: Item) -> Prepared | Exception:
    try:
        return prepare(item)
    except Exception as error:  # whatever is wrong with one item must not end the others; the caller decides
        return error


def _timed(
    on_phase: OnPhase,
    phase: str,
    work: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    start = time.perf_counter()
    result = work(*args, **kwargs)
    on_phase(phase, time.perf_counter() - start)
    return result


def _nobody(phase: str, seconds: float) -> None:
    """Notes nothing."""


def is_one_picture(images: Any) -> bool:
    """Whether this is a picture by itself, or what a model has seen of one, and not several."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview | EncodedImage) or hasattr(
        images, "read"
    ):
        return True
    return is_picture(images)


def paired(
    images: Iterable[Any], prompts: str | Iterable[str], what: str = "images"
) -> Iterator[tuple[Any, str]]:
    """Each request's picture or clip and its prompt, without reading ahead.

    Args:
        images: one per request.
        prompts: one per request, or one for all.
        what: the name of the first, for messages.

    Raises:
        ProcessingError: one picture where several belong, prompts that are neither text nor several texts;
            or, while it is read, more of the one than of the other.
    """
    if is_one_picture(images) or not isinstance(images, Iterable):
        raise ProcessingError(
            f"expected several {what}, got one ({type(images).__name__}); pass it in a list"
        )
    if isinstance(prompts, str):
        return ((image, prompts) for image in images)
    if not isinstance(prompts, Iterable):
        raise ProcessingError(
            f"expected one prompt per request, or one text for all, got {type(prompts).__name__}"
        )
    if isinstance(images, Sized) and isinstance(prompts, Sized) and len(images) != len(prompts):
        raise ProcessingError(
            f"expected one prompt for each of {len(images)} {what}, or one text for all, got {len(prompts)} "
            "prompts"
        )
    return _pairs(images, prompts, what)


def _pairs(images: Iterable[Any], prompts: Iterable[str], what: str) -> Iterator[tuple[Any, str]]:
    """Pairs in order; whichever ends first must not leave any of the other, but for a picture that is
    repeated for ever.
    """
    if isinstance(images, repeat):
        yield from zip(images, prompts, strict=False)
        return
    for count, (image, prompt) in enumerate(zip_longest(images, prompts, fillvalue=_NONE_LEFT)):
        if image is _NONE_LEFT:
            raise ProcessingError(
                f"expected one prompt for each of {count} {what}, or one text for all, got more prompts"
            )
        if prompt is _NONE_LEFT:
            raise ProcessingError(
                f"expected one prompt per request, or one text for all, got {count} prompts and more {what}"
            )
        yield image, prompt


_NONE_LEFT: Any = object()
