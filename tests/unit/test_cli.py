"""The command line on a toy model: outputs, files, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_sam2 import tiny_sam2, tiny_sam2_processor
from toy_processor import picture
from typer.testing import CliRunner

from molmopoint.cli import app
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.files import plan_outputs
from molmopoint.drawing import write_picture
from molmopoint.errors import ProcessingError
from molmopoint.points import Points
from molmopoint.version import __version__

LIMIT = ("--max-new-tokens", "24")


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("one", "two", "three")]
    for i, path in enumerate(paths):
        picture(60 + 10 * i, 90, seed=i).save(path)
    return [str(path) for path in paths]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_picture(toy_folder, pictures, tmp_path):
    out = tmp_path / "points.jpg"
    result = run(
        "point", pictures[0], "the cats", "--model", toy_folder, "--out", out, "--heatmap", "--json", *LIMIT
    )
    assert result.exit_code == OK, result.stderr
    document = json.loads(result.stdout)
    answer = document["results"][0]
    assert document["schema_version"] == 1 and answer["drawn"] == [str(out)] and answer["error"] is None
    assert Points.from_dict(answer["points"]).image_sizes == ((90, 60),)
    with Image.open(out) as drawn:
        assert drawn.size == (90, 60) and drawn.format == "JPEG"


def test_a_large_picture_is_looked_at_again(toy_folder, tmp_path):
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    picture(300, 400).save(large)
    picture(60, 60).save(small)
    words = ("point", large, small, "the cats", "--model", toy_folder, *LIMIT)
    result = run(*words, "--zoom", "--json")
    assert result.exit_code == OK, result.stderr
    first, second = json.loads(result.stdout)["results"]
    assert first["looks"] > 1 and "looks" not in second
    assert "looks and" in result.stderr and "s an answer" in result.stderr
    assert "looked again at" in run(*words, "--zoom").stdout
    assert run(*words, "--zoom", "--heatmap", "--out", tmp_path / "drawn").exit_code == USAGE
    assert run(*words, "--zoom", "--calibrated").exit_code == USAGE


def test_masks(toy_folder, pictures, tmp_path):
    segmenter, out = tmp_path / "sam2", tmp_path / "masks"
    tiny_sam2().save_pretrained(segmenter)
    tiny_sam2_processor().save_pretrained(segmenter)
    result = run(
        "point",
        *pictures[:2],
        "the cats",
        "--model",
        toy_folder,
        "--masks",
        segmenter,
        "--out",
        out,
        "--json",
        "--single",
        *LIMIT,
    )
    assert result.exit_code == OK, result.stderr
    answers = json.loads(result.stdout)["results"]
    assert all(len(answer["masks"]) == len(answer["points"]["points"]) for answer in answers) and any(
        answer["masks"] for answer in answers
    )
    sizes = [each["mask"]["size"] for answer in answers for each in answer["masks"]]
    assert {tuple(size) for size in sizes} <= {(60, 90), (70, 90)} | {(90, 60), (90, 70)}
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "two.png"]
    without = run("point", pictures[0], "the cats", "--model", toy_folder, "--masks", segmenter, *LIMIT)
    assert without.exit_code == USAGE and "--json together with --masks" in without.stderr
    missing = run(
        "point",
        pictures[0],
        "the cats",
        "--model",
        toy_folder,
        "--masks",
        tmp_path / "none",
        "--json",
        *LIMIT,
    )
    assert missing.exit_code == NO_MODEL and "SAM 2" in missing.stderr


def test_for_people(toy_folder, pictures):
    result = run("point", pictures[0], "the cats", "--model", toy_folder, "--single", *LIMIT)
    assert result.exit_code == OK and "one.png: 1 point" in result.stdout and "score" in result.stdout


def test_good_pictures_survive_broken_ones(toy_folder, tmp_path):
    names = [f"good{i}.png" for i in range(20)]
    for i, name in enumerate(names):
        picture(40, 50, seed=i).save(tmp_path / name)
    (tmp_path / "cut.png").write_bytes((tmp_path / names[0]).read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("hello")
    everything = [*names[:7], "cut.png", *names[7:12], "gone.png", *names[12:], "text.jpg"]
    out = tmp_path / "many"
    paths = [tmp_path / name for name in everything]
    result = run(
        "point", *paths, "cats", "--model", toy_folder, "--out", out, "--json", "--max-new-tokens", 4
    )
    assert result.exit_code == SOME_FAILED
    answers = json.loads(result.stdout)["results"]
    assert [Path(answer["images"][0]).name for answer in answers] == everything
    bad = {Path(answer["images"][0]).name for answer in answers if answer["error"]}
    assert bad == {"cut.png", "gone.png", "text.jpg"}
    assert all(name in result.stderr for name in bad) and "3 of 23" in result.stderr
    assert sorted(path.name for path in out.iterdir()) == sorted(names)


def test_together(toy_folder, pictures, tmp_path):
    result = run(
        "point",
        *pictures,
        "the cats",
        "--model",
        toy_folder,
        "--together",
        "--out",
        tmp_path / "all",
        "--json",
        *LIMIT,
    )
    assert result.exit_code == OK, result.stderr
    (answer,) = json.loads(result.stdout)["results"]
    assert answer["images"] == pictures and len(answer["points"]["image_sizes"]) == 3
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["one.png", "three.png", "two.png"]
    result = run(
        "point", *pictures, tmp_path / "gone.png", "the cats", "--model", toy_folder, "--together", *LIMIT
    )
    assert result.exit_code == SOME_FAILED and "gone.png" in result.stderr


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--heatmap"], "--out"),
        (["--out", "points.png"], "folder"),
        (["--template", "no slot"], "template"),
        (["--max-points", "0"], "max-points"),
        (["--no-such-option"], "No such option"),
        (["--dtype", "int3"], "dtype"),
    ],
)
def test_wrong_usage_does_nothing(pictures, extra, message):
    result = run("point", *pictures, "cats", "--model", "no-such-model", *extra)
    assert result.exit_code == USAGE and message in result.stderr and not result.stdout


def test_forgotten_prompt_and_overwriting(pictures, tmp_path):
    result = run("point", *pictures, "--model", "no-such-model")
    assert result.exit_code == USAGE and "prompt after the pictures" in result.stderr
    result = run("point", pictures[0], "cats", "--out", pictures[0], "--model", "no-such-model")
    assert result.exit_code == USAGE and "one of them" in result.stderr
    result = run("point", *pictures, "cats", "--out", tmp_path, "--model", "no-such-model")
    assert result.exit_code == USAGE and "one of them" in result.stderr


def test_models_that_cannot_be_loaded(pictures, tmp_path):
    result = run("point", pictures[0], "cats", "--model", "nan")
    assert result.exit_code == NO_MODEL and "did you mean nano" in result.stderr and not result.stdout
    result = run("point", pictures[0], "cats", "--model", tmp_path)
    assert result.exit_code == NO_MODEL and "config.json" in result.stderr
    result = run("point", pictures[0], "cats", "--device", "toaster")
    assert result.exit_code == NO_MODEL and "toaster" in result.stderr


def test_unwritable_output_is_named(toy_folder, pictures, tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = run(
        "point", pictures[0], "cats", "--model", toy_folder, "--out", tmp_path / "file" / "out.png", *LIMIT
    )
    assert result.exit_code == USAGE and "--out where files can be written" in result.stderr
    (tmp_path / "drawn" / "two.png").mkdir(parents=True)
    (tmp_path / "drawn" / "two.png" / "in the way").touch()
    result = run("point", *pictures[:2], "cats", "--model", toy_folder, "--out", tmp_path / "drawn", *LIMIT)
    assert result.exit_code == SOME_FAILED and "could not be written" in result.stderr
    assert (tmp_path / "drawn" / "one.png").is_file(), "the other is drawn"


def test_interruption(toy_folder, pictures, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("molmopoint.backends.molmopoint.MolmoPointBackend.answer", interrupt)
    assert run("point", pictures[0], "cats", "--model", toy_folder, *LIMIT).exit_code == INTERRUPTED


def test_an_interrupted_loading_says_so(pictures, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("molmopoint.modeling.MolmoPointForConditionalGeneration.from_pretrained", interrupted)
    result = run("point", pictures[0], "cats")
    assert result.exit_code == INTERRUPTED and "interrupted while" in result.stderr


def test_outputs_have_names_of_their_own(tmp_path):
    inputs = [Path("a/cat.png"), Path("b/cat.jpg"), Path("c/Cat.png"), Path("dog.webp")]
    assert [path.name for path in plan_outputs(tmp_path / "out", inputs)] == [
        "cat.png",
        "cat-2.png",
        "Cat-3.png",
        "dog.png",
    ]
    assert plan_outputs(tmp_path / "x.webp", inputs[:1]) == [tmp_path / "x.webp"]
    assert plan_outputs(tmp_path, inputs[:1]) == [tmp_path / "cat.png"]
    with pytest.raises(ProcessingError, match="picture format"):
        plan_outputs(tmp_path / "x.docx", inputs[:1])


def test_files_are_whole_or_not_there(tmp_path):
    target = tmp_path / "sub" / "x.png"
    write_picture(Image.new("RGB", (4, 4)), target)
    before = target.read_bytes()
    with pytest.raises(Exception, match="cannot write mode"):
        write_picture(Image.new("F", (4, 4)), target)
    assert target.read_bytes() == before and [path.name for path in target.parent.iterdir()] == ["x.png"]


def test_zoo_and_doctor():
    listed = json.loads(run("zoo", "--json").stdout)["models"]
    assert "nano" in [entry["name"] for entry in listed] and all(entry["licence"] for entry in listed)
    assert "molmopoint-8b" in run("zoo").stdout
    found = json.loads(run("doctor", "--json").stdout)
    assert found["packages"]["molmopoint"] == __version__ and found["devices"][0]["name"] == "cpu"
    assert "torch" in run("doctor").stdout


def test_help_is_quick_and_names_the_exit_codes():
    code = "import sys; from molmopoint.cli import app; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    text = run("point", "--help").stdout
    assert "Exit codes" in text and "--together" in text
    assert run("--version").stdout == f"molmopoint {__version__}\n"


def test_options_of_drawing(toy_folder, pictures, tmp_path):
    plain, labelled = tmp_path / "plain.png", tmp_path / "labelled.png"
    point = ("point", pictures[0], "red circles", "--model", toy_folder, "--out")
    assert run(*point, plain).exit_code == OK
    assert run(*point, labelled, "--style", "crosshair", "--scores", "--labels").exit_code == OK
    with Image.open(plain) as one, Image.open(labelled) as other:
        assert one.size == other.size and one.tobytes() != other.tobytes()
    wrong = run(*point, plain, "--style", "cross")
    assert wrong.exit_code == USAGE and "did you mean crosshair?" in wrong.stderr
    nowhere = run("point", pictures[0], "red circles", "--model", toy_folder, "--scores")
    assert nowhere.exit_code == USAGE and "expected --out together with --scores" in nowhere.stderr
