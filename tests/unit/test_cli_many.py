"""Many pictures on the command line: what is meant by files, answers as they come, and going on after a stop."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

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
    assert "2 of 2 are answered now, in " in result.stderr
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


def test_answers_with_other_options_are_told_and_made_again(toy_folder, folder, tmp_path):
    out = tmp_path / "answers.jsonl"
    command = ("the cats", "--model", toy_folder, "--jsonl", out, "--batch-size", "1")
    assert run("point", folder, *command, *LIMIT[:2]).exit_code == OK
    for extra in (["--max-crops", "1"], ["--min-score", "0.5"], ["--single"], ["--dtype", "bfloat16"]):
        again = run("point", folder, *command, *LIMIT[:2], *extra)
        name = extra[0].removeprefix("--").replace("-", "_")
        assert again.exit_code == OK and "3 of 3 were answered before with other options" in again.stderr
        assert f"({name}=" in again.stderr
        assert run("point", folder, *command, *LIMIT[:2], *extra).stderr.endswith("3 were answered before\n")
    assert len(lines(out)) == 15 and lines(out)[0]["options"]["max_crops"] is None
    old = [{key: value for key, value in line.items() if key != "options"} for line in lines(out)[:3]]
    out.write_text("".join(json.dumps(line) + "\n" for line in old))
    assert "other options" in run("point", folder, *command, *LIMIT[:2]).stderr, "it is not known which"


def test_drawings_that_are_missing_are_made(toy_folder, folder, tmp_path):
    out, drawn = tmp_path / "answers.jsonl", tmp_path / "drawn"
    command = ("point", folder, "the cats", "--model", toy_folder, "--jsonl", out, *LIMIT)
    assert run(*command).exit_code == OK
    assert "3 of 3 were answered before and not drawn" in run(*command, "--out", drawn).stderr
    (drawn / "1.png").unlink()
    again = run(*command, "--out", drawn)
    assert "2 of 3 were answered before\n" in again.stderr and (drawn / "1.png").exists()


def test_sigint_leaves_whole_lines_and_the_same_command_goes_on(toy_folder, tmp_path):
    pictures = tmp_path / "in"
    pictures.mkdir()
    count = 40  # more than are answered before the signal comes
    for i in range(count):
        picture(40, 50, seed=i).save(pictures / f"{i:03}.png")
    out = tmp_path / "answers.jsonl"
    command = ["point", pictures, "the cats", "--model", toy_folder, "--jsonl", out, "--batch-size", "1"]
    words = [str(word) for word in (*command, "--max-new-tokens", "60")]
    started = subprocess.Popen(
        [sys.executable, "-m", "molmopoint", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Children of a shell's background jobs ignore the signal, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and not (out.exists() and out.read_bytes().count(b"\n") >= 2):
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    stdout, stderr = started.communicate(timeout=60)
    assert started.returncode == INTERRUPTED and "interrupted after" in stderr and not stdout, stderr
    assert "Traceback" not in stderr
    before = lines(out)
    assert 2 <= len(before) < count
    assert run(*words).exit_code == OK
    after = lines(out)
    assert after[: len(before)] == before
    assert [line["images"][0] for line in after] == [str(pictures / f"{i:03}.png") for i in range(count)]


def test_quiet_and_verbose(toy_folder, folder):
    command = ("point", folder / "0.png", folder / "gone.png", "the cats", "--model", toy_folder, *LIMIT)
    quiet, plain, verbose = (run(*command, *extra) for extra in (["--quiet"], [], ["--verbose"]))
    assert quiet.exit_code == plain.exit_code == verbose.exit_code == SOME_FAILED
    assert quiet.stdout == plain.stdout == verbose.stdout and "0.png" in plain.stdout
    assert "gone.png" in quiet.stderr, "errors are no remarks"
    assert "loaded Pointer" in verbose.stderr and "loaded Pointer" not in plain.stderr + quiet.stderr
    jsonl = (*command, "--jsonl", folder / "a.jsonl")
    run(*jsonl)
    assert "answered before" in run(*jsonl).stderr and "answered before" not in run(*jsonl, "-q").stderr
    assert "Traceback" in run("point", folder / "0.png", "the cats", "--model", "nanoo", "-v").stderr
    both = run(*command, "--quiet", "--verbose")
    assert both.exit_code == USAGE and "choose one" in both.stderr


def test_every_command_can_be_quiet_and_verbose():
    for words in (
        ["ask"], ["data", "check"], ["data", "import"], ["data", "screens"], ["doctor"], ["download"], ["eval"], ["finetune"],
        ["finetune-reward"], ["graft"], ["point"], ["score"], ["serve"], ["track"], ["zoo"],
    ):  # fmt: skip
        shown = run(*words, "--help").stdout
        assert "--quiet" in shown and "--verbose" in shown, words


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("molmopoint point a.png cups --model nano-", {"nano-reward", "nano-screens"}),
        ("molmopoint eval screenspot_", {"screenspot_pro", "screenspot_v2"}),
        ("molmopoint finetune a.jsonl --recipe q", {"qlora"}),
        ("molmopoint data import label", {"label_studio", "labelme"}),
        ("molmopoint down", {"download"}),
    ],
)
def test_the_shell_is_told_what_fits(typed, offered):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = CliRunner().invoke(
        app, [], prog_name="molmopoint", env={**words, "_MOLMOPOINT_COMPLETE": "complete_bash"}
    )
    assert set(done.stdout.split()) == offered


def test_files_of_something_else_are_left_alone(tmp_path):
    for text in ("hello\n", "[1]\n", '{"images": 3}\n'):
        path = tmp_path / "a.jsonl"
        path.write_text(text)
        with pytest.raises(ProcessingError, match="line 1"):
            AnswerLog(path, {"model": "nano", "prompt": "x"}, {})
        assert path.read_text() == text
