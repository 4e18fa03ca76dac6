"""What is no source, no format and no option of the importers is refused at the call, whatever the format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from datasets_of_the_hub import HUB_SETS, hub_folder

from molmopoint.data.importers import (
    FORMATS,
    PREFERENCE_FORMATS,
    Journal,
    format_options,
    import_preferences,
    import_records,
)
from molmopoint.errors import ProcessingError

ALL = [*FORMATS, *PREFERENCE_FORMATS]


def imported(format: str, source: Any, left_out: list[str] | None = None, **options: Any) -> list[Any]:
    """All rows."""
    read = import_preferences if format in PREFERENCE_FORMATS else import_records
    said = [] if left_out is None else left_out
    return list(read(format, source, journal=Journal(said.append), **options))


def needed(format: str, folder: Path) -> dict[str, Any]:
    return {name: str(folder) for name, is_needed in format_options(format).items() if is_needed}


@pytest.mark.parametrize("format", ALL)
def test_sources_of_other_kinds(format, tmp_path):
    for source in (None, 5, True, 1.5, b"x", {"a": 1}, "a\0b"):
        with pytest.raises(ProcessingError, match=r"as the source of .*; "):
            imported(format, source, **needed(format, tmp_path))


@pytest.mark.parametrize("format", [name for name in ALL if format_options(name)])
def test_options_of_other_kinds(format, tmp_path):
    for option in format_options(format):
        for value in ([], {}, b"x", 1j):
            with pytest.raises(ProcessingError, match=f"expected the option {option} as .*; "):
                imported(format, tmp_path, [], **(needed(format, tmp_path) | {option: value}))


def test_formats_of_other_kinds():
    for format in (None, 5, [], {}):
        for read in (import_records, import_preferences):
            with pytest.raises(ProcessingError, match=r"format.*choose"):
                read(format, [])  # type: ignore[arg-type]
        with pytest.raises(ProcessingError, match=r"format.*choose"):
            format_options(format)  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0, -1, 1e-320, 1e9, math.inf, math.nan, "nan", True])
def test_rates_that_are_none(tmp_path, rate):
    folder = hub_folder(tmp_path / "media")
    with pytest.raises(ProcessingError, match="the option rate"):
        imported("video_track", HUB_SETS["video_track"], images=folder, rate=rate)


def test_long_ids_keep_their_digits(tmp_path):
    row = {"question": "Where?", "chosen": "Here.", "rejected": "There."}
    left_out: list[str] = []
    rows = [{**row, "idx": idx} for idx in (2**53 + 1, 12345678901234567891, 10**5000)]
    records = imported("rlaif_v", rows, left_out, images=tmp_path)
    assert [Path(str(record.media[0])).stem for record in records] == [
        "9007199254740993",
        "12345678901234567891",
    ]
    assert len(left_out) == 1 and "at most 100 digits" in left_out[0]


def test_answers_to_different_questions_are_not_compared(tmp_path):
    def turns(question: str, role: str = "assistant") -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": role, "content": f"About {question}"}]

    left_out: list[str] = []
    pairs = [
        {"chosen": turns("cats"), "rejected": turns("dogs")},
        {"chosen": turns("cats", "user"), "rejected": turns("cats")},
    ]
    assert imported("chat_pairs", pairs, left_out) == []
    battle = {"winner": "model_a", "question_id": 1}
    battle |= {"conversation_a": turns("cats"), "conversation_b": turns("dogs")}
    assert imported("wildvision", [battle], left_out, images=tmp_path) == []
    assert ["one question" in sentence for sentence in left_out] == [True, False, True]
