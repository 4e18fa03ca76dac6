"""Importers of published preferences, on made rows in their layouts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fuzzing import attack, odd_documents
from PIL import Image
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.data.importers import (
    PREFERENCE_FORMATS,
    Journal,
    format_options,
    import_preferences,
    import_records,
)
from molmopoint.data.preferences import PreferenceRecord, read_preferences, write_preferences
from molmopoint.errors import ProcessingError


def rating(value: Any) -> dict[str, Any]:
    return {"Rating": value, "Rationale": "because"}


def said_by(role: str, question: str, answer: str) -> list[dict[str, str]]:
    """A conversation of one turn, in the form of LLaVA ("human") or of chats ("user")."""
    if role == "human":
        return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


SETS: dict[str, list[dict[str, Any]]] = {
    "vlfeedback": [
        {
            "id": "one",
            "prompt": "What is it?",
            "completions": [
                {
                    "response": "A cup.",
                    "model": "m1",
                    "annotations": {"Helpfulness": rating("5"), "Ethics": rating("N/A")},
                },
                {
                    "response": "A dog.",
                    "model": "m2",
                    "annotations": {"Helpfulness": rating("1"), "Ethics": rating("4")},
                },
                {"response": "?", "model": "m3", "annotations": {"Helpfulness": rating("N/A")}},
            ],
        }
    ],
    "rlaif_v": [
        {
            "idx": 7,
            "image": None,
            "image_path": "one.jpg",
            "question": "What is it?",
            "chosen": "A cup.",
            "rejected": "A dog.",
        }
    ],
    "mm_rlhf": [
        {"image": "long/one.jpg", "prompt": "What is it?", "chosen": "A cup.", "rejected": "A dog."},
        {"video": "video/two.mp4", "prompt": "What happens?", "chosen": "It falls.", "rejected": "Nothing."},
    ],
    "povid": [
        {
            "id": 1,
            "image": "one.jpg",
            "conversations": said_by("human", "<image>\nWhat is it?", "A cup."),
            "rejected_conversations": said_by("human", "<image>\nWhat is it?", "A dog."),
        }
    ],
    "wildvision": [
        {
            "question_id": "one",
            "image": {"bytes": None, "path": None},
            "model_a": "m1",
            "model_b": "m2",
            "winner": "model_b",
            "conversation_a": said_by("user", "What is it?", "A dog."),
            "conversation_b": said_by("user", "What is it?", "A cup."),
        }
    ],
    "chat_pairs": [
        {
            "source": "magpie",
            "chosen": said_by("user", "What is it?", "A cup."),
            "rejected": said_by("user", "What is it?", "A dog."),
        }
    ],
    "nectar": [
        {
            "prompt": "\n\nHuman: What is it?\n\nAssistant: ",
            "answers": [
                {"answer": "A dog.", "model": "m2", "rank": 2.0},
                {"answer": "A cup.", "model": "m1", "rank": 1.0},
            ],
        }
    ],
    "pku_saferlhf": [
        {
            "prompt": "What is it?",
            "response_0": "A dog.",
            "response_1": "A cup.",
            "better_response_id": 1,
            "safer_response_id": 0,
        }
    ],
}


def imported(
    format: str, source: Any, folder: Path, **options: Any
) -> tuple[list[PreferenceRecord], Counter[str], list[str]]:
    """Records, what was left out by kind, and the sentences about it."""
    said: list[str] = []
    journal = Journal(said.append)
    if "images" in format_options(format):
        options["images"] = folder
    return list(import_preferences(format, source, journal=journal, **options)), journal.left_out, said


def test_every_set_is_tried():
    assert SETS.keys() == PREFERENCE_FORMATS.keys()


@pytest.mark.parametrize("format", SETS)
def test_the_better_answer_is_the_best(tmp_path, format):
    records, left_out, _ = imported(format, SETS[format], tmp_path)
    first = records[0]
    assert first.prompt == "What is it?" and [first.responses[i] for i in first.best] == ["A cup."]
    assert len(first.responses) == 2 and first.source == format
    assert left_out == ({"answers without a rating": 1} if format == "vlfeedback" else {})
    lines = tmp_path / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in SETS[format]))
    assert imported(format, lines, tmp_path)[0] == records


def test_pictures_and_clips_are_found(tmp_path):
    names = {format: imported(format, SETS[format], tmp_path)[0][0].images for format in SETS}
    assert names["vlfeedback"] == names["wildvision"] == names["rlaif_v"] == (str(tmp_path / "one.jpg"),)
    assert names["mm_rlhf"] == (str(tmp_path / "long" / "one.jpg"),) and names["nectar"] == ()
    assert imported("mm_rlhf", SETS["mm_rlhf"], tmp_path)[0][1].video == str(tmp_path / "video" / "two.mp4")


def test_what_says_nothing_is_left_out(tmp_path):
    tie = {**SETS["wildvision"][0], "winner": "tie (bothbad)"}
    long = {**SETS["chat_pairs"][0], "chosen": SETS["chat_pairs"][0]["chosen"] * 2}
    same = {**SETS["pku_saferlhf"][0], "response_0": " "}
    equal = {**SETS["nectar"][0], "answers": [{"answer": a, "rank": 1} for a in "ab"]}
    turns = {**SETS["nectar"][0], "prompt": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: "}
    bad = {
        **SETS["vlfeedback"][0],
        "completions": [{"response": "a", "annotations": {"Helpfulness": rating("great")}}],
    }
    out = {**SETS["rlaif_v"][0], "image_path": "../../etc/passwd"}
    neither = {**SETS["pku_saferlhf"][0], "better_response_id": 2}
    for format, row, kind, words in (
        ("wildvision", tie, "ties", "nobody won"),
        (
            "chat_pairs",
            long,
            "rows",
            "row 1 of the source, chosen: expected a question and its answer, got 4 messages",
        ),
        ("pku_saferlhf", same, "rows with one answer", "fewer than two answers"),
        ("nectar", equal, "rows without a preference", "all answers are as good"),
        ("nectar", turns, "rows", "expected one turn, got several"),
        ("vlfeedback", bad, "rows", "expected a rating, a number or N/A, got 'great'"),
        ("rlaif_v", out, "rows", "leads out of it"),
        ("pku_saferlhf", neither, "rows", "better_response_id: expected 0 or 1, got 2"),
    ):
        records, left_out, said = imported(format, [row], tmp_path)
        assert not records and left_out == {kind: 1} and words in said[0], format


def test_safety_is_another_comparison(tmp_path):
    (safer,), _, _ = imported("pku_saferlhf", SETS["pku_saferlhf"], tmp_path, by="safer")
    assert [safer.responses[i] for i in safer.best] == ["A dog."]
    with pytest.raises(ProcessingError, match="option by among better, safer"):
        imported("pku_saferlhf", [], tmp_path, by="nicer")


@pytest.mark.parametrize("format", SETS)
def test_odd_rows_are_refused_or_left_out(tmp_path, format):
    def read(changed: list[Any]) -> None:
        rows = changed if isinstance(changed, list) else [changed]
        records = imported(format, rows, tmp_path)[0]
        write_preferences(tmp_path / "out.rows", records)

    attack(odd_documents(SETS[format]), read, examples=10)


def test_the_command_line_writes_what_training_reads(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "pictures" / "one.jpg")
    source, out = tmp_path / "rows.jsonl", tmp_path / "deep" / "preferences.jsonl"
    source.write_text(json.dumps(SETS["rlaif_v"][0]) + "\n")
    words = ["data", "import", "rlaif_v", source, "--images", tmp_path / "pictures", "--out", out]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0 and "1 rows in" in done.stdout, done.output
    assert json.loads(out.read_text())["image"] == "../pictures/one.jpg"
    assert len(read_preferences(out).records) == 1


def test_each_kind_of_format_names_the_other():
    with pytest.raises(ProcessingError, match="call import_preferences"):
        import_records("nectar", [])
    with pytest.raises(ProcessingError, match="a format of preferences among chat_pairs"):
        import_preferences("coco", [])
    with pytest.raises(ProcessingError, match="expected no options with nectar, got 'images'"):
        import_preferences("nectar", [], images="pictures")
