"""`molmopoint ask`, and the other commands on a model that writes coordinates as text."""

from __future__ import annotations

import json

import pytest
from toy_processor import picture
from typer.testing import CliRunner

import molmopoint
from molmopoint.cli import app
from molmopoint.cli.console import NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.eval.benchmarks.synthetic import write_scenes
from molmopoint.safe_text import printable

LIMIT = ("--max-new-tokens", 8)


@pytest.fixture
def files(tmp_path):
    for i, name in enumerate(("one.png", "two.png")):
        picture(60 + 10 * i, 90, seed=i).save(tmp_path / name)
    return [tmp_path / "one.png", tmp_path / "two.png"]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_answers_are_those_of_the_pointer(molmo2_folder, files):
    pointer = molmopoint.load(molmo2_folder, device_map="cpu")
    for media, given in (([], None), (files[:1], files[0]), (files, files)):
        expected = pointer.ask(given, "What?", max_new_tokens=8)
        shown = run("ask", *media, "What?", "--model", molmo2_folder, "--device", "cpu", *LIMIT)
        assert (
            shown.exit_code == OK
            and shown.stdout.strip() == printable(expected).strip()
            and "token limit" in shown.stderr
        )
    document = json.loads(run("ask", *files, "What?", "--model", molmo2_folder, "--json", *LIMIT).stdout)
    assert (
        document["answer"] == expected
        and document["truncated"]
        and document["question"] == "What?"
        and len(document["files"]) == 2
    )


def test_wrong_usage(molmo2_folder, files, tmp_path):
    for words, message in (
        ([*files], "question after the files"),
        ([files[0], "clip.mp4", "What?"], "one video alone"),
        ([files[0], " "], "empty"),
        ([files[0], "What?", "--max-new-tokens", "0"], "max-new-tokens"),
        ([], "[FILE]"),
    ):
        result = run("ask", *words, *(("--model", "no-such-model") if words else ()))
        assert result.exit_code == USAGE and message in result.output
    assert run("ask", "What?", "--model", "nan").exit_code == NO_MODEL
    gone = run("ask", tmp_path / "gone.png", "What?", "--model", molmo2_folder, *LIMIT)
    assert gone.exit_code == SOME_FAILED and "gone.png" in gone.stderr
    lost = run("ask", tmp_path / "gone.mp4", "What?", "--model", molmo2_folder, *LIMIT)
    assert lost.exit_code == SOME_FAILED and "gone.mp4" in lost.stderr


def test_pointing_and_evaluating_with_text_coordinates(molmo2_folder, files, tmp_path):
    pointed = run("point", *files, "cats", "--model", molmo2_folder, "--json", *LIMIT)
    assert pointed.exit_code == OK and all(
        answer["error"] is None for answer in json.loads(pointed.stdout)["results"]
    )
    (tmp_path / "scenes").mkdir()
    write_scenes(tmp_path / "scenes", 2)
    out = tmp_path / "out"
    done = run(
        "eval",
        "synthetic",
        "--data",
        tmp_path / "scenes",
        "--out",
        out,
        "--model",
        molmo2_folder,
        "--limit",
        2,
        *LIMIT,
    )
    assert done.exit_code == OK, done.output
    assert json.loads((out / "synthetic" / "metrics.json").read_text())["coverage"]["scored"] == 2


def test_a_question_longer_than_a_file_name(molmo2_folder, files):
    """It is looked for as a file, to tell who forgot the question."""
    assert run("ask", files[0], "What is left of it? " * 20, "--model", molmo2_folder, *LIMIT).exit_code == OK
    assert (
        run(
            "point",
            files[0],
            "the cup left of it, " * 20 + "as in a.png",
            "--model",
            "nano",
            "--device",
            "cpu",
        ).exit_code
        == OK
    )
