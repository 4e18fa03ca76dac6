"""What cannot be is told before the libraries of models are loaded: files, models, options that do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from toy_processor import picture

from molmopoint.cli.answer_log import AnswerLog
from molmopoint.cli.console import NO_MODEL, SOME_FAILED, USAGE
from molmopoint.cli.evaluation import StoredForm
from molmopoint.cli.inputs import WRITTEN_VIDEOS
from molmopoint.errors import ProcessingError
from molmopoint.eval.predictions.readers import FORMS
from molmopoint.files import check_writable
from molmopoint.pipeline import video_writing
from molmopoint.safe_text import printable_name

TOLD = [
    (["point", "a.png", " "], USAGE, "got an empty one"),
    (["point", "a.png", "cups", "--template", "Click"], USAGE, "one {} for the prompt"),
    (["point", "a.png", "cups", "--device", "cudaa"], NO_MODEL, "did you mean cuda?"),
    (["point", "a.png", "cups", "--model", "other"], NO_MODEL, "got model_type 'llama'"),
    (["point", "a.png", "cups", "--masks", "none", "--json"], NO_MODEL, "the segmenter 'none'"),
    (["point", "a.png", "cups", "--masks", "a/sam", "--json"], NO_MODEL, "the segmenter 'a/sam'"),
    (["point", "a.png", "cups", "--model", "molmopoint-8b"], NO_MODEL, "34.7 GB"),
    (["point", "a.png", "cups", "--jsonl", "notes.txt"], USAGE, "something else in line 1"),
    (["point", "notes.txt", "cups"], SOME_FAILED, "got text; save it as PNG"),
    (["point", "fake.mp4", "cups"], SOME_FAILED, "expected a video, got text"),
    (["point", "fake.mp4", "cups", "--start", "3", "--end", "1"], USAGE, "--end after --start 3"),
    (["point", "a.png", "cups", "--jsonl", "cut.txt"], USAGE, "something else at its end"),
    (["point", "none.png", "cups"], SOME_FAILED, "got an empty file"),
    (["point", "a.png", "cups", "--out", "/proc/none/a.png"], USAGE, "--out where files can be written"),
    (["point", "a.png", "cups", "--out", f"{'o' * 300}.png"], USAGE, "File name too long"),
    (["point", "fake.mp4", "cups", "--jsonl", "a.jsonl"], USAGE, "pictures with --jsonl, got a video"),
    (["point", "fake.mp4", "cups", "--heatmap", "--together"], USAGE, "--heatmap, --together"),
    (["ask", "a.png", "gone.png", "what?"], SOME_FAILED, "gone.png: expected a file"),
    (["track", "other", "cars"], USAGE, "a video file, got the folder 'other'"),
    (["track", "*.txt", "cars"], USAGE, "which 2 files fit"),
    (["track", "none.png", "cars"], SOME_FAILED, "got an empty file"),
    (["track", "fake.mp4", "cars", "--csv", "fake.mp4"], USAGE, "which is the video"),
    (["track", "fake.mp4", "cars", "--csv", "t", "--mot", "t"], USAGE, "which is that of --csv"),
    (["track", "fake.mp4", "cars", "--coco", "other"], USAGE, "--coco as a file, got the folder"),
    (["track", "fake.mp4", "cars", "--out", "/proc/t.mp4"], USAGE, "--out where files can be written"),
    (["finetune", "pages", "--out", "o"], USAGE, "the folder 'pages', which holds no rows"),
    (["finetune", "rows.jsonl", "--out", "new"], USAGE, "expected rows without faults in rows.jsonl"),
    (["finetune-reward", "rows.jsonl", "--out", "new"], USAGE, "row 1"),
    (["finetune", "rows.jsonl", "--out", "other"], USAGE, "with other files ('config.json')"),
    (["finetune", "rows.jsonl", "--out", "/proc/o"], USAGE, "--out where files can be written"),
    (["eval", "synthetic", "--out", "/proc/o"], USAGE, "--out where files can be written"),
    (["data", "import", "coco", "rows.jsonl", "--out", "a.png"], USAGE, "--out as a JSONL file, got 'a.png'"),
    (["data", "import", "coco", "rows.jsonl", "--out", "rows.jsonl"], USAGE, "which is them"),
    (["serve", "nano", "--api-key", ""], USAGE, "got an empty one (key 1)"),
    (["serve", "nano", "--api-key", "kéy"], USAGE, "cannot stand in a header"),
    (["serve", "nano", "--api-keys", "gone.txt"], USAGE, "key per line at 'gone.txt'"),
    (["serve", "nano", "--api-keys", "a.png"], USAGE, "no text in UTF-8"),
    (["serve", "nano", "--host", "999.1.1.1"], USAGE, "--host and --port at which this machine can listen"),
    (["serve", "nano", "--reward", "nano"], USAGE, "got 'nano' twice"),
    (["ask", "notes.txt", "what?"], SOME_FAILED, "expected a picture, got text"),
    (["ask", "what?", "--model", "nanoo"], NO_MODEL, "did you mean nano"),
    (["track", "gone.mp4", "cars"], SOME_FAILED, "found nothing there"),
    (["track", "https://a.example/b.mp4", "cars"], USAGE, "the address https://a.example/b.mp4"),
    (["track", "a.png", "cars"], SOME_FAILED, "a still picture"),
    (["track", "fake.mp4", "cars", "--out", "a.png"], USAGE, "--out as a video that ends in .mp4"),
    (["track", "fake.mp4", "cars", "--max-gap", "1"], USAGE, "--interpolate together with --max-gap"),
    (["finetune", "gone.jsonl", "--out", "o"], USAGE, "nothing at 'gone.jsonl'"),
    (["finetune", "rows.jsonl", "--out", "a.png/run"], USAGE, "'a.png' is a file"),
    (["finetune", "rows.jsonl", "--out", "o", "--model", "nanoo"], NO_MODEL, "did you mean nano"),
    (["finetune", "rows.jsonl", "--out", "o", "--recipe", "lorra"], USAGE, "did you mean lora"),
    (["finetune", "rows.jsonl", "--out", "o", "--set", "epoch=3"], USAGE, "did you mean epochs"),
    (["finetune", "rows.jsonl", "--out", "o", "--replay", "synthetics"], USAGE, "'synthetic', got"),
    (["finetune-reward", "rows.jsonl", "--out", "o", "--held-out", "gone"], USAGE, "as --held-out"),
    (["eval", "pointbench"], USAGE, "did you mean 'point_bench'?"),
    (["eval", "point_bench"], USAGE, "was never downloaded, and HF_HUB_OFFLINE"),
    (["eval", "synthetic", "--rule", "masks"], USAGE, "one of the rules"),
    (["eval", "synthetic", "--data", "gone"], USAGE, "--data as a folder"),
    (["eval", "synthetic", "--baseline", "gone"], USAGE, "without metrics.json"),
    (["eval", "synthetic", "--dtype", "flaot16"], USAGE, "did you mean float16"),
    (["eval", "synthetic", "--model", "nanoo"], NO_MODEL, "did you mean nano"),
    (["score", "synthetic", "gone.jsonl"], USAGE, "found nothing"),
    (["data", "import", "cocoo", "rows.jsonl", "--out", "x.jsonl"], USAGE, "did you mean coco?"),
    (["data", "check", "gone.jsonl"], USAGE, "gone.jsonl"),
    (["data", "screens", "gone.html", "--out", "s"], USAGE, "gone.html"),
    (["serve", "nanoo"], NO_MODEL, "did you mean nano"),
    (["serve", "nano", "--point-style", "xm"], USAGE, "--point-style as one of"),
    (["data", "check", "a.png"], USAGE, "a picture or a video"),
    (["download", "https://huggingface.co/allenai/MolmoPoint-8B"], NO_MODEL, "write allenai/MolmoPoint-8B"),
    (["download", "nanoo"], NO_MODEL, "did you mean nano"),
]

SCRIPT = """
import json, sys
from typer.testing import CliRunner
from molmopoint.cli import app
for words in json.load(sys.stdin):
    done = CliRunner().invoke(app, words)
    loaded = sorted({"torch", "transformers"} & set(sys.modules))
    print(json.dumps([done.exit_code, done.stderr, loaded, repr(done.exception)]))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each command line says, all of them in one process."""
    pytest.importorskip("fastapi")
    folder = tmp_path_factory.mktemp("told")
    picture(40, 50).save(folder / "a.png")
    for name in ("notes.txt", "fake.mp4"):
        (folder / name).write_text("hello\n")
    (folder / "rows.jsonl").write_text("{}\n")
    (folder / "cut.txt").write_text("a note without a line end")
    (folder / "none.png").touch()
    (folder / "pages").mkdir()
    (folder / "pages" / "page.txt").write_text("hello\n")
    (folder / "other").mkdir()
    (folder / "other" / "config.json").write_text('{"model_type": "llama"}')
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([words for words, _, _ in TOLD]),
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(TOLD)), ids=[" ".join(words) for words, _, _ in TOLD])
def test_told_before_anything_is_loaded(told, number):
    _, code, message = TOLD[number]
    exit_code, stderr, loaded, exception = told[number]
    assert (exit_code, loaded) == (code, []), (stderr, exception)
    assert message in stderr and stderr.count("error:") == 1 and "Traceback" not in stderr


def test_lists_that_are_known_twice_agree():
    assert [form.value for form in StoredForm] == list(FORMS)
    assert set(WRITTEN_VIDEOS) == set(video_writing._FORMATS)


def test_nothing_of_other_files_is_lost(tmp_path):
    """A file that is no file of answers keeps its end, and a line of ours that was cut off goes."""
    path = tmp_path / "notes.jsonl"
    for content in ("a note", '{"image": "a.png"}', "x" * 40):
        path.write_text(content)
        with pytest.raises(ProcessingError, match="something else at its end"):
            AnswerLog(path, {"model": "nano", "asked": "cups"}, {})
        assert path.read_text() == content
    for content in ("", '{"sch', '{"schema_version": 1, "model": "na'):
        path.write_text(content)
        with AnswerLog(path, {"model": "nano", "asked": "cups"}, {}) as log:
            assert not log.has([Path("a.png")]) and path.read_text() == ""
    path.write_text("")
    with AnswerLog(path, {"model": "nano", "asked": "cups"}, {}) as log:
        log.append({"images": ["a.png"]})
    line = path.read_text()
    path.write_text(f"{line}a note")
    with pytest.raises(ProcessingError, match="something else at its end"):
        AnswerLog(path, {"model": "nano", "asked": "cups"}, {})
    path.write_text(f'{line}{{"images": ["cut o')
    with AnswerLog(path, {"model": "nano", "asked": "cups"}, {}) as log:
        assert log.has([Path("a.png")]) and path.read_text() == line


def test_trying_an_output_leaves_nothing(tmp_path):
    check_writable(tmp_path / "new" / "deep" / "a.png")
    check_writable(tmp_path)
    check_writable("/dev/null")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.png", tmp_path / ("o" * 300)):
        with pytest.raises(OSError):
            check_writable(path)


def test_a_name_with_a_line_end_is_no_line_of_its_own():
    assert printable_name(Path("a\nerror: b\t\x1b.png")) == "a\\nerror: b\\t\\x1b.png"
