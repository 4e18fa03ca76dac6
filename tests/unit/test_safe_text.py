from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.safe_text import from_table_cell, printable, printable_json, table_cell

OBEYED = [*map(chr, (*range(0x20), *range(0x7F, 0xA0))), *"\u202a\u202e\u2066\u2069\u061c\u2028\u2029\ud800"]
ANY_TEXT = st.text(st.one_of(st.characters(), st.sampled_from(["'", "=", "-", "+", "@", *OBEYED])))


def test_control_characters_are_shown_as_escapes():
    assert printable("a\x1b]0;owned\x07b\x9b31m") == "a\\x1b]0;owned\\x07b\\x9b31m"
    assert printable("photo\u202egnp.exe") == "photo\\u202egnp.exe"
    assert printable("one\r\ntwo\tthree") == "one\\r\ntwo\tthree"
    assert printable("\ud83d") == "\\ud83d"


@pytest.mark.parametrize(
    "text", ["", "the red cup", "tête à tête", "שלום", "مرحبا\u200f!", "杯子", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "a\n\tb", "back\\slash"]
)
def test_what_people_write_stays(text: str):
    assert printable(text) == text


@settings(derandomize=True)
@given(ANY_TEXT)
def test_nothing_obeyed_is_left(text: str):
    shown = printable(text)
    assert not set(shown) & set(OBEYED) - {"\n", "\t"}
    assert printable(shown) == shown
    shown.encode()


@settings(derandomize=True)
@given(ANY_TEXT)
def test_json_means_the_same(text: str):
    document = printable_json(json.dumps({"name": text}, ensure_ascii=False))
    assert not set(document) & set(OBEYED)
    assert json.loads(document) == {"name": text}


@pytest.mark.parametrize("text", ['=HYPERLINK("x")', "+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\uff1d1+1"])
def test_formulas_stand_behind_an_apostrophe(text: str):
    assert table_cell(text) == f"'{text}"


@pytest.mark.parametrize("text", ["'tis", "''", "cup", "3", "", " =1", "a=b"])
def test_other_cells_stay(text: str):
    assert table_cell(text) == text
    assert from_table_cell(text) == text


@settings(derandomize=True)
@given(ANY_TEXT.filter(lambda text: "\0" not in text))
def test_cells_read_back_equal(text: str):
    cell = table_cell(text)
    assert cell[:1] not in tuple("=+-@\t\r\n")
    assert from_table_cell(cell) == text
    paper = io.StringIO()
    csv.writer(paper).writerow([cell, 1])
    assert next(csv.reader(io.StringIO(paper.getvalue(), newline=""))) == [cell, "1"]
