"""Many pictures on the command line: what is meant by files, answers as they come, and going on after a stop."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from toy_processor import picture
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.cli.answer_log import AnswerLog
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.inputs import expanded
from molmopoint.errors import ProcessingError

LIMIT = ("--max-new-tokens", "12", "--batch-size", "1")


@pytest.fixture
def folder(tmp_path):
    pictures = tmp_path / "in"
    pictures.mkdir()
    for i in range(3):
        picture(40 + 10 * i, 50, seed=i).save(pictures / f"{i}.png")
    (pictures / "notes.txt").write_text("no picture")
    return pictures


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_folders_and_patterns_are_the_pictures_in_them(folder, tmp_path):
    every = [folder / f"{i}.png" for i in range(3)]
    assert expanded([str(folder)]) == every == expanded([str(folder / "*.png")])
    assert expanded([str(folder / "gone.png"), str(every[0])]) == [folder / "gone.png", every[0]]
    odd = folder / "[1].png"
    picture(40, 50).save(odd)
    assert expanded([str(odd)]) == [odd], "a file whose name looks like a pattern is that file"
    empty = tmp_path / "empty"
    empty.mkdir()
    for word, message in (
        (empty, "without any"),
        (folder / "*.gif", "fit the pattern"),
        ("https://a.example/b.png", "https://a.example/b.png"),
    ):
        with pytest.raises(ProcessingError, match=message):
            expanded([str(word)])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["0.png"], USAGE, "prompt after the pictures"),
        (["the cats"], USAGE, "pictures before the prompt"),
        (["gone.png", "the cats"], SOME_FAILED, "found nothing there"),
        (["0.png", "the cats", "--model", "nan"], NO_MODEL, "did you mean nano"),
        (["https://a.example/b.png", "the cats"], USAGE, "address https://a.example/b.png"),
        (["0.png", "the cats", "--json", "--jsonl", "a.jsonl"], USAGE, "got both"),
    ],
)
def test_told_before_the_libraries_of_models_are_loaded(folder, words, code, message):
    script = "import sys; from molmopoint.cli import main; sys.argv[0] = 'molmopoint'\n"
    script += "try: main()\nfinally: print('LOADED', sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script, "point", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code and message in done.stderr and "LOADED []" in done.stdout
    assert "Traceback" not in done.stderr


def test_lines_are_appended_and_the_same_command_goes_on(toy_folder, folder, tmp_path):
    out = tmp_path / "deep" / "answers.jsonl"
    command = ("the cats", "--model", toy_folder, "--jsonl", out, *LIMIT)
    assert run("point", folder / "0.png", folder / "gone.png", *command).exit_code == SOME_FAILED
    (first,) = lines(out)
    assert (
        first["images"] == [str(folder / "0.png")]
        and first["prompt"] == "Point to the cats"
        and "points" in first
    )
    with out.open("a") as file:
        file.write('{"images": ["cut o')  # killed while it wrote
    result = run("point", folder, *command)
    assert result.exit_code == OK and "1 of 3 were answered before" in result.stderr and not result.stdout
    assert [line["images"][0] for line in lines(out)] == [
        str(folder / f"{i}.png") for i in range(3)
    ] and lines(out)[0] == first
    assert run("point", folder, *command).exit_code == OK and len(lines(out)) == 3
    other = ("the dogs", *command[1:])
    assert run("point", folder, *other).exit_code == OK and len(lines(out)) == 6


def test_ctrl_c_loses_no_answer(toy_folder, folder, tmp_path, monkeypatch):
    from molmopoint.backends.molmopoint import MolmoPointBackend

    whole, asked = MolmoPointBackend.answer, []

    def answer(self, requests, *arguments, **options):
        asked.append(requests)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return whole(self, requests, *arguments, **options)

    monkeypatch.setattr(MolmoPointBackend, "answer", answer)
    out = tmp_path / "answers.jsonl"
    stopped = run("point", folder, "the cats", "--model", toy_folder, "--jsonl", out, *LIMIT)
    assert stopped.exit_code == INTERRUPTED and "after 2 of 3" in stopped.stderr and len(lines(out)) == 2
    assert (
        run("point", folder, "the cats", "--model", toy_folder, "--jsonl", out, *LIMIT).exit_code == OK
        and len(lines(out)) == 3
    )
    asked.clear()
    for extra, answers in (([], "2.png"), (["--json"], None)):
        asked.clear()
        stopped = run("point", folder, "the cats", "--model", toy_folder, *extra, *LIMIT)
        assert stopped.exit_code == INTERRUPTED and "0.png" in stopped.stdout and "1.png" in stopped.stdout
        assert answers is None or answers not in stopped.stdout
    assert len(json.loads(stopped.stdout)["results"]) == 2


def test_files_of_something_else_are_left_alone(tmp_path):
    for text in ("hello\n", "[1]\n", '{"images": 3}\n'):
        path = tmp_path / "a.jsonl"
        path.write_text(text)
        with pytest.raises(ProcessingError, match="line 1"):
            AnswerLog(path, {"model": "nano", "prompt": "x"})
        assert path.read_text() == text
