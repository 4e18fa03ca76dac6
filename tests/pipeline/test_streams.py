"""Streams that are dropped, closed, left by an error, or read twice."""

from __future__ import annotations

import gc
import threading
import time

import pytest
from toy_pointer import STEPS, toy_pointer
from toy_processor import picture

from molmopoint.errors import ProcessingError

PICTURE = picture(60, 90)
LONG = {"max_new_tokens": 1500, "min_new_tokens": 1500}


@pytest.fixture
def pointer():
    pointer = toy_pointer()
    pointer.calls = 0

    def count(*_):
        pointer.calls += 1

    pointer.model.register_forward_hook(count)
    return pointer


def streams():
    return [thread for thread in threading.enumerate() if thread.name == "molmopoint-stream"]


def stands_still(pointer) -> bool:
    """Whether the model stops running, long before the limit of the answer."""
    for thread in streams():
        thread.join(20)
    return not streams() and 0 < pointer.calls < 1400


@pytest.mark.parametrize("method", ["stream", "ask_stream"])
@pytest.mark.parametrize("way", ["dropped", "closed", "left", "error"])
def test_a_stream_that_nobody_reads_stops(pointer, method, way):
    start = getattr(pointer, method)
    if way == "left":
        with start(PICTURE, "What is it?", **LONG) as stream:
            next(stream)
    elif way == "error":
        with pytest.raises(RuntimeError, match="mine"):
            for _ in start(PICTURE, "What is it?", **LONG):
                raise RuntimeError("mine")
    else:
        stream = start(PICTURE, "What is it?", **LONG)
        next(stream)
        if way == "closed":
            stream.close()
            assert list(stream) == []
        del stream
    gc.collect()
    assert stands_still(pointer)


def test_two_loops_over_one_stream(pointer):
    right = [str(event) for event in pointer.stream(PICTURE, "the cats", max_new_tokens=STEPS)]
    stream = pointer.stream(PICTURE, "the cats", max_new_tokens=STEPS)
    together = threading.Barrier(2)
    got = []

    def read():
        together.wait()
        try:
            got.append([str(event) for event in stream])
        except ProcessingError as error:
            got.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    (refused,) = [each for each in got if isinstance(each, ProcessingError)]
    assert "one reader" in str(refused) and right in got


def test_two_that_ask_at_a_time(pointer):
    """Neither waits for ever, and neither takes what it has for the whole answer."""
    go_on = threading.Event()
    pointer.model.register_forward_pre_hook(lambda *_: go_on.wait(20) and None)
    stream = pointer.stream(PICTURE, "the cats", **LONG)
    errors = []

    def ask():
        try:
            next(stream)
        except ProcessingError as error:
            errors.append(error)

    first = threading.Thread(target=ask)
    first.start()
    while not stream._reading.locked():
        time.sleep(0.01)
    ask()
    go_on.set()
    first.join(20)
    assert len(errors) == 2
    with pytest.raises(ProcessingError, match="one reader"):
        next(stream)
    assert stands_still(pointer)


def test_one_reader_may_change_its_thread(pointer):
    """As servers do, which take every piece in whatever thread is free."""
    right = [str(event) for event in pointer.stream(PICTURE, "the cats", max_new_tokens=STEPS)]
    pieces = iter(pointer.stream(PICTURE, "the cats", max_new_tokens=STEPS))
    got = []

    def take():
        got.append(next(pieces, None))

    while not got or got[-1] is not None:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(20)
    assert [str(event) for event in got[:-1]] == right


def test_a_loop_may_go_on(pointer):
    right = [str(event) for event in pointer.stream(PICTURE, "the cats", max_new_tokens=STEPS)]
    stream = pointer.stream(PICTURE, "the cats", max_new_tokens=STEPS)
    got = [str(next(stream))]
    for event in stream:
        got.append(str(event))
        break
    assert [*got, *(str(event) for event in stream)] == right
