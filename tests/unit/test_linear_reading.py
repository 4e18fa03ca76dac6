"""Reading what a model wrote takes time in proportion to its length, and never fails, whatever it wrote."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_processor import picture, toy_processor

from molmopoint.backends.history import conversation
from molmopoint.backends.markup import MarkupStripper, plain_text
from molmopoint.backends.result import PointingResult, count_of
from molmopoint.decoding import read_answer
from molmopoint.metrics.matching import stated_count
from molmopoint.points import Points
from molmopoint.processing.coordinate_forms import json_points, plain_points
from molmopoint.processing.text_point_stream import CoordsScanner
from molmopoint.processing.text_points import read_text_answer
from molmopoint.tokens import IMAGE_PLACEHOLDER

SIZE = (640, 480)


@pytest.fixture(scope="module")
def metadata() -> Any:
    processor = toy_processor()
    seen = processor(
        text=[IMAGE_PLACEHOLDER], images=[picture(*SIZE)], return_pointing_metadata=True, return_tensors="pt"
    )
    return seen["pointing_metadata"][0]


def scan(text: str) -> None:
    scanner = CoordsScanner()
    for character in text:
        scanner.push(character)
        assert len(scanner.unfinished) < 4


def strip(text: str) -> None:
    stripper = MarkupStripper()
    for character in text:
        stripper.push(character)
    stripper.finish()


READERS: dict[str, Callable[[str], object]] = {
    "text": lambda text: read_text_answer(text, [SIZE]),
    "scanner": lambda text: CoordsScanner().push(text),
    "words": plain_text,
    "count": stated_count,
    "count of the reference": lambda text: stated_count(text, ref_compat=True),
    "number": lambda text: count_of(SimpleNamespace(text=text, points=[], left_out=0)),  # type: ignore[arg-type]
    "plain": plain_points,
    "json": json_points,
}

BY_CHARACTER: dict[str, Callable[[str], object]] = {"scanner": scan, "words": strip}

LENGTH = 24_000
REPEATED = [
    '">', '"', "<", ">", " ", "\n ", "9", "1 ", "( ", "[", "{", '["', "[1,", '{"a":[', "[[1,2],", "</point>", "<points ", "<point",
    '<points coords="', '<points coords="1 1 100 200">', '<points coords="1 1 100 200">a</points>', '<point x="1" y="', 'x="1" ',
    " coords", ' coords = "x', "1 1 100 200;", "1;", "<POINT_1>", "<POINT_1><POINT_301>", "<POINT_9>1", "the total number of ",
    "the total number of x  ", "a total of ", "there are ", "Click( 1", "p = 1", "12.5, ", "```json ", "\\", "\ufffd",
]  # fmt: skip
WORST = ['">', '"', "<", " ", "9", "1 ", " coords", "<points "]
BEGINNINGS = [
    "",
    "5",
    '<points coords="',
    '<points coords="1 ',
    '<points a="',
    '<point x="1',
    "the total number of x",
    "[",
    '{"point_2d": [',
]


def slowest(read: Callable[[str], object], texts: list[tuple[str, str]]) -> tuple[float, str]:
    """Seconds of this process for the worst text, and its beginning."""
    found = (0.0, "")
    for beginning, part in texts:
        text = (beginning + part * LENGTH)[:LENGTH]
        begun = time.process_time()
        read(text)
        found = max(found, (time.process_time() - begun, f"{beginning}{part}..."))
    return found


@pytest.mark.parametrize("name", READERS)
def test_time_grows_with_the_length_and_no_faster(name):
    """Reading in quadratic time would take ten times as long and more."""
    texts = [("", part) for part in REPEATED] + [
        (beginning, part) for beginning in ('<points coords="', '<points a="') for part in WORST
    ]
    seconds, text = slowest(READERS[name], texts)
    assert seconds < 1.5, text


@pytest.mark.parametrize("name", BY_CHARACTER)
@pytest.mark.parametrize(
    "text", [("", '">'), ('<points coords="', "9"), ('<points a="', "<"), ("<points ", " coords")]
)
def test_time_grows_with_the_length_of_what_comes_by_characters(name, text):
    seconds, _ = slowest(BY_CHARACTER[name], [text])
    assert seconds < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_beginning_and_no_repetition_is_slow(name):
    seconds, text = slowest(
        READERS[name], [(beginning, part) for beginning in BEGINNINGS for part in REPEATED]
    )
    assert seconds < 1.5, text


@pytest.mark.parametrize(
    "part",
    [
        '">',
        "<POINT_1>",
        '<points coords="',
        "<POINT_200><POINT_726><POINT_731>",
        '<POINT_200>">a</point>',
        "1",
        " ",
    ],
)
def test_grounding_tokens_are_read_in_linear_time(metadata, part):
    text = (part * LENGTH)[:LENGTH]
    begun = time.process_time()
    read_answer(text, metadata, 10_000)
    result = PointingResult(
        Points.empty(), text, text, "a", truncated=False, invalid=0, image_sizes=(SIZE,), metadata=metadata
    )
    conversation("image", 1, [("a", result)], "b")
    assert time.process_time() - begun < 2.0


def test_work_is_counted_where_it_can_be():
    """Twice the length, twice the steps of the interpreter, in the readers that go step by step."""
    import sys

    def steps(read: Callable[[str], object], text: str) -> int:
        count = 0

        def tick(*_: object) -> Any:
            nonlocal count
            count += 1
            return tick

        before = sys.gettrace()
        sys.settrace(tick)
        try:
            read(text)
        finally:
            sys.settrace(before)
        return count

    for part in ('">', '<points coords="1 1 100 200;', '<points coords="1 1 100 200">a</points>', "9"):
        for read in (scan, strip, lambda text: CoordsScanner().push(text), plain_text):
            short, long = (steps(read, part * count) for count in (100, 400))
            assert long < 5 * short


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *REPEATED,
                "1e400",
                "9" * 5000,
                "0" * 400,
                "-",
                ".",
                "١٢",
                "NaN",
                "Infinity",
                "</points>",
                "There are none.",
                "\ud800",
                "\0",
            ]
        ),
        st.text(max_size=8),
        st.integers(-(10**30), 10**30).map(str),
        st.floats().map(str),
    ),
    max_size=24,
).map("".join)


@settings(derandomize=True, max_examples=150)
@given(TEXTS)
def test_no_text_is_an_error(text):
    for read in READERS.values():
        read(text)
    for times in (None, [0.0, 0.5]):
        answer = read_text_answer(text, [SIZE], times)
        assert answer.invalid >= 0 and np.isfinite(answer.points.xy).all()
        assert ((answer.points.xy >= 0) & (answer.points.xy <= SIZE)).all()
    for points in (plain_points(text), json_points(text)):
        assert all(math.isfinite(number) for xy in points for number in xy)
    number = stated_count(text)
    assert number is None or number >= 0


@settings(derandomize=True, max_examples=100)
@given(
    TEXTS,
    st.lists(
        st.sampled_from(
            ["<POINT_200>", "<POINT_726>", "<POINT_731>", "<POINT_" + "9" * 5000 + ">", "1", '">']
        ),
        max_size=12,
    ),
)
def test_no_mixture_with_grounding_tokens_is_an_error(metadata, text, tokens):
    answer = read_answer(text + "".join(tokens) + text, metadata, 10_000)
    assert np.isfinite(answer.points.xy).all() and (answer.points.object_id >= 0).all()


HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("text", "points", "invalid"),
    [
        (f'<points coords="1 {HUGE} 100 100">a</points>', 0, 1),
        (f'<points coords="{HUGE} 1 100 100">a</points>', 0, 1),
        (f'<points coords="1 1 {HUGE} 100 2 200 200">a</points>', 1, 1),
        ('<points coords="1 1 1e400 100">a</points>', 0, 1),
        ('<point x="1e400" y="10">a</point>', 0, 1),
        (f'<point x="{HUGE}" y="10">a</point>', 0, 1),
        (f"Click({HUGE}, 10.0)", 0, 0),
    ],
)
def test_huge_numbers_are_no_places(text, points, invalid):
    answer = read_text_answer(text, [SIZE])
    assert (len(answer.points), answer.invalid) == (points, invalid)


def test_huge_numbers_of_other_forms_are_no_places():
    assert plain_points(f"({HUGE}, 1)") == [] and json_points(f'{{"point_2d": [1{"0" * 400}, 2]}}') == []
    assert json_points("[[1e400, 2], [3, 4]]") == [(3.0, 4.0)]
    assert json_points("[" * 30 + "1, 2" + "]" * 30) == [], "nobody nests points so deep"
    assert json_points('{"point_2d": ' * 200 + "[1, 2]" + "}" * 200) == []
    assert stated_count(HUGE) is None and stated_count(f"There are {HUGE} cups.") is None


def test_an_object_id_of_too_many_digits_counts_on(metadata):
    first = metadata.num_patches
    place = f"<POINT_{{}}><POINT_{first + 1}><POINT_{first + 1 + metadata.num_slots}>"
    text = place.format(first - 4) + HUGE + place.format(first - 2) + "7" + place.format(first - 1)
    assert read_answer(text, metadata, 10_000).points.object_id.tolist() == [1, 7, 8]
