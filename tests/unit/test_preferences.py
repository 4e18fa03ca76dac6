"""Rows of preferences: three ways to write them give one record, faults name row and remedy, and the schema
agrees.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import molmopoint.data
from molmopoint.data.preferences import (
    PREFERENCE_COLUMNS,
    parse_preferences,
    preference_fields,
    ranks_of_scores,
    read_preferences,
)
from molmopoint.errors import ProcessingError

SCHEMA = json.loads(
    (Path(molmopoint.data.__file__).parent / "preference.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ASKED = {"prompt": "What is it?"}


def chat(role, text):
    return [{"role": role, "content": text}]


@pytest.mark.parametrize(
    ("columns", "responses", "rankings"),
    [
        ({**ASKED, "responses": ["a", "b", "c"], "rankings": [2, 1, 2]}, ("a", "b", "c"), (2, 1, 2)),
        ({**ASKED, "responses": ["a", "b"], "scores": [0.5, 3]}, ("a", "b"), (2, 1)),
        ({**ASKED, "chosen": "a", "rejected": "b"}, ("a", "b"), (1, 2)),
        # lists on both sides: the chosen are as good as each other
        ({**ASKED, "chosen": ["a", "b"], "rejected": ["c", "d"]}, ("a", "b", "c", "d"), (1, 1, 3, 3)),
        # one turn of chat, as TRL writes it
        (
            {
                "prompt": chat("user", "What?"),
                "chosen": chat("assistant", "a"),
                "rejected": chat("assistant", "b"),
            },
            ("a", "b"),
            (1, 2),
        ),
        (
            {
                "prompt": chat("user", [{"type": "image"}, {"type": "text", "text": "What?"}]),
                "chosen": "a",
                "rejected": "b",
            },
            ("a", "b"),
            (1, 2),
        ),
        # another name of the prompt, and whole numbers that a data set stores as floats
        (
            {"question": "What?", "responses": ["a", "b"], "rankings": [1.0, 2.0], "id": 7, "image": None},
            ("a", "b"),
            (1, 2),
        ),
        # blank answers go with their ranks
        (
            {
                **ASKED,
                "responses": ["", "b", " \n", "d"],
                "rankings": [1, 2, 3, 4],
                "models": ["w", "x", "y", "z"],
            },
            ("b", "d"),
            (2, 4),
        ),
    ],
)
def test_three_forms_are_one_record(columns, responses, rankings):
    record = parse_preferences(columns, 1)
    assert (record.responses, record.rankings) == (responses, rankings)
    VALIDATOR.validate(columns)
    again = preference_fields(record)
    VALIDATOR.validate(again)
    assert preference_fields(parse_preferences(again, 1)) == again


FAULTS = [
    ({**ASKED, "responses": ["a", "b"], "rankings": [1]}, r"row 3, rankings: expected 2 numbers, one per answer, got 1", False),
    ({**ASKED, "responses": ["a", "b"], "rankings": [0, 1]}, r"\[0\]: expected a whole number from 1, .* got 0; count from 1", True),
    ({**ASKED, "responses": ["a", "b"], "rankings": [1, 1.5]}, r"rankings\[1\]: expected a whole number from 1", True),
    ({**ASKED, "responses": ["a", "b"], "scores": [1, None]}, r"scores\[1\]: expected a finite number, got None", True),
    ({**ASKED, "responses": ["a", "b"], "scores": "12"}, r"scores: expected a list of numbers", True),
    ({**ASKED, "responses": ["a", "b"], "rankings": [1, 2], "scores": [1, 2]}, r"got rankings and responses and scores", True),
    ({**ASKED, "chosen": "a"}, r"row 3: expected either responses and rankings, chosen and rejected", True),
    ({**ASKED}, r"got none of them", True),
    ({"chosen": "a", "rejected": "b"}, r"row 3, prompt: expected one prompt, got none", True),
    ({**ASKED, "question": "b", "chosen": "a", "rejected": "b"}, r"prompt: expected one prompt, got prompt and question", True),
    ({**ASKED, "chosen": [], "rejected": "b"}, r"chosen: expected one or more answers", True),
    ({**ASKED, "responses": [], "rankings": []}, r"responses: expected two or more answers", True),
    ({**ASKED, "responses": ["a", 5], "rankings": [1, 2]}, r"responses\[1\]: expected text, got 5", True),
    ({**ASKED, "chosen": "a", "rejected": "b", "ranking": [1]}, r"ranking: expected one of the columns .*; rename or remove it", True),
    ({**ASKED, "chosen": "a", "rejected": "b", "image": "a.png", "video": "b.mp4"}, r"expected one of image, images and video", True),
    ({"prompt": chat("user", "a") * 2, "chosen": "a", "rejected": "b"}, r"one turn of the user, got turns of user, user", True),
    ({**ASKED, "responses": ["a", "b"], "rankings": [1, 2], "models": ["x"]}, r"models: expected 2 names", False),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "message", "in_schema"), FAULTS)
def test_faults_name_row_and_remedy(columns, message, in_schema):
    with pytest.raises(ProcessingError, match=message):
        parse_preferences(columns, 3)
    assert VALIDATOR.is_valid(columns) != in_schema  # lengths of lists are beyond a schema


def test_the_schema_has_every_column():
    assert set(SCHEMA["properties"]) == set(PREFERENCE_COLUMNS)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6))
def test_ranks_of_scores_are_competition_ranks(scores):
    ranks = ranks_of_scores(scores)
    assert min(ranks) == 1
    for score, rank in zip(scores, ranks, strict=True):
        assert rank == 1 + sorted(scores, reverse=True).index(score)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_file_is_read_and_what_teaches_nothing_is_counted(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    pair = {"prompt": "What?", "image": "a.png", "chosen": "a", "rejected": "b"}
    rows = [
        pair,
        {**pair, "rejected": " "},
        {**ASKED, "responses": ["a", "b"], "scores": [1, 1]},
        {**ASKED, "chosen": ["a", ""], "rejected": "b"},
    ]
    data = read_preferences(write(tmp_path / "data.jsonl", rows))
    assert [record.row for record in data.records] == [1, 4]
    assert (data.dropped, data.single, data.undecided, data.folder) == (2, 1, 1, tmp_path)
    assert (
        data.describe()
        == "2 rows; 2 blank answers left out; 1 rows with one answer left out; 1 rows without a preference left out"
    )
    assert data.records[0].media == ("a.png",) and data.records[1].media == ("What is it?",)
    with pytest.raises(
        ProcessingError,
        match=r"expected rows with two or more answers .* got 0 rows; 1 blank answers left out; 1 rows with one",
    ):
        read_preferences(write(tmp_path / "single.jsonl", rows[1:2]))
    with pytest.raises(
        ProcessingError,
        match=r"row 2, video: expected a file that is there, got no file .*clip\.mp4; correct the path",
    ):
        read_preferences(
            write(
                tmp_path / "missing.jsonl",
                [pair, {**ASKED, "video": "clip.mp4", "chosen": "a", "rejected": "b"}],
            )
        )
    with pytest.raises(ProcessingError, match="row 1: expected one JSON object per line"):
        read_preferences(_broken(tmp_path))


def _broken(folder):
    (folder / "broken.jsonl").write_text("{", encoding="utf-8")
    return folder / "broken.jsonl"


def test_a_data_set_with_its_pictures_in_it():
    datasets = pytest.importorskip("datasets")
    picture = Image.new("RGB", (8, 8), "red")
    columns = {
        "image": [picture, None],
        "prompt": ["a?", "b?"],
        "chosen": ["x", "x"],
        "rejected": [["y"], ["y", "z"]],
    }
    data = read_preferences(datasets.Dataset.from_dict(columns))
    assert [len(record.images) for record in data.records] == [1, 0]
    assert data.records[0].images[0].open().convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ProcessingError, match="expected the path of a file, got an embedded picture"):
        preference_fields(data.records[0])
