"""Pictures are opened in one place: known formats, a limit of ours, and nothing of Pillow's suspicion."""

from __future__ import annotations

import ast
import io
import random
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from molmopoint.data.embedded import EmbeddedPicture, inspect_picture
from molmopoint.errors import ProcessingError
from molmopoint.files import MAX_PIXELS_VARIABLE, PICTURE_FORMATS, open_picture, picture_limit
from molmopoint.processing import load_picture

ROOT = Path(__file__).resolve().parents[2]
HERE = "molmopoint/files/pictures.py"
LOSSLESS = ["PNG", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "QOI", "WEBP", "JPEG2000", "AVIF", "ICO"]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def of_format(name: str, size: tuple[int, int] = (16, 16)) -> bytes:
    Image.init()
    if name not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {name}")
    ramp = np.arange(size[0] * size[1] * 3, dtype=np.uint32).reshape(size[1], size[0], 3) % 251
    paper = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint8)).save(paper, name, **({"lossless": True} if name == "WEBP" else {}))
    return paper.getvalue()


def test_pictures_are_opened_in_one_place():
    """`Image.open` tries every reader that Pillow has, Ghostscript among them."""
    for folder in ("molmopoint", "eval", "checkpoints", "heads", "examples"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            tree = ast.parse(file.read_text(encoding="utf-8"))
            opened = [
                n.lineno
                for n in ast.walk(tree)
                if isinstance(n, ast.Attribute) and n.attr == "open" and _is_image(n.value)
            ]
            imported = [
                n.lineno for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "PIL.Image"
            ]
            assert not opened + imported, (
                f"{name}:{(opened + imported)[0]}: use molmopoint.files.open_picture"
            )


def _is_image(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id in ("Image", "PIL")) or (
        isinstance(node, ast.Attribute) and node.attr == "Image"
    )


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "MPO"])
def test_the_same_pixels_as_pillow(kind, tmp_path):
    content = of_format(kind)
    (tmp_path / "a.bin").write_bytes(content)
    with Image.open(io.BytesIO(content)) as right:
        expected = np.asarray(right)
    for source in (io.BytesIO(content), tmp_path / "a.bin", str(tmp_path / "a.bin")):
        with open_picture(source) as picture:
            assert picture.format == right.format
            np.testing.assert_array_equal(np.asarray(picture), expected)


def test_postscript_starts_nothing(tmp_path, monkeypatch):
    for name in ("a.png", "a.eps"):
        (tmp_path / name).write_bytes(POSTSCRIPT)
        monkeypatch.setattr(subprocess, "Popen", pytest.fail)
        with pytest.raises(ProcessingError, match="no known format"):
            load_picture(tmp_path / name)
        assert inspect_picture(tmp_path / name) == "a file of no known picture format"
    with pytest.raises(ProcessingError, match="bytes of x"):
        EmbeddedPicture("", "x", POSTSCRIPT).open()


def test_no_format_runs_or_describes():
    assert not {"EPS", "WMF", "FPX", "MIC", "PDF", "GRIB", "HDF5", "BUFR"} & set(PICTURE_FORMATS)


def blank(size: tuple[int, int], kind: str = "PNG") -> bytes:
    paper = io.BytesIO()
    Image.new("1", size).save(paper, kind)
    return paper.getvalue()


@pytest.fixture(scope="module")
def large() -> bytes:
    """108 megapixels, as phones take them."""
    return blank((12_000, 9_000))


@pytest.fixture(scope="module")
def huge() -> bytes:
    """400 megapixels in 50 kB."""
    return blank((20_000, 20_000))


def test_108_megapixels_are_legal_and_pillow_is_silent(large):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_picture(io.BytesIO(large)) as picture:
            assert picture.size == (12_000, 9_000)


def test_tiff_of_108_megapixels_is_silent_too(tmp_path):
    Image.new("1", (12_000, 9_000)).save(tmp_path / "a.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_picture(tmp_path / "a.tif", decode=True) as picture:
            assert picture.getpixel((11_999, 8_999)) == 0


def test_message_names_size_limit_and_option(huge, tmp_path):
    (tmp_path / "huge.png").write_bytes(huge)
    for read in (load_picture, open_picture):
        with pytest.raises(ProcessingError) as raised:
            read(tmp_path / "huge.png")
        for words in ("huge.png", "20,000 x 20,000", "268,435,456", "max_pixels=", MAX_PIXELS_VARIABLE):
            assert words in str(raised.value)
    assert "at most 268,435,456 pixels" in str(inspect_picture(tmp_path / "huge.png"))


def test_limit_can_be_raised_beyond_that_of_pillow(huge, monkeypatch):
    pillows = Image.MAX_IMAGE_PIXELS
    with picture_limit(400_000_000), open_picture(io.BytesIO(huge)) as picture:
        assert picture.size == (20_000, 20_000)
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "400_000_000")
    with open_picture(io.BytesIO(huge)) as picture:
        assert picture.size == (20_000, 20_000)
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_limit_can_be_lowered(monkeypatch):
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "100")
    for picture in (io.BytesIO(blank((11, 10))),):
        with pytest.raises(ProcessingError, match="at most 100 pixels"):
            open_picture(picture)
    for array in (np.zeros((10, 11), dtype=np.uint8), Image.new("RGB", (11, 10))):
        with pytest.raises(ProcessingError, match="at most 100 pixels"):
            load_picture(array)
    with picture_limit(110):
        load_picture(Image.new("RGB", (11, 10)))


@pytest.mark.parametrize("value", ["", "many", "0", "-5", "1e9", "9" * 5000])
def test_limits_that_are_none(value, monkeypatch):
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, value)
    with pytest.raises(ProcessingError, match=MAX_PIXELS_VARIABLE):
        load_picture(Image.new("RGB", (2, 2)))


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "many"])
def test_arguments_that_are_no_limit(value):
    with pytest.raises(ProcessingError, match="max_pixels"), picture_limit(value):
        pass


def test_limit_is_that_of_the_thread():
    inside, checked, seen = threading.Event(), threading.Event(), []

    def raised():
        with picture_limit(1_000):
            inside.set()
            checked.wait(5)

    thread = threading.Thread(target=raised)
    thread.start()
    inside.wait(5)
    seen.append(load_picture(Image.new("RGB", (100, 100))).size)
    checked.set()
    thread.join()
    assert seen == [(100, 100)]


def test_a_picture_in_an_icon_counts():
    """An icon says how large it is in a byte; what is in it may be larger."""
    inner = blank((300, 200))
    icon = (
        b"\0\0\1\0\1\0"
        + bytes([16, 16, 0, 0, 1, 0, 32, 0])
        + len(inner).to_bytes(4, "little")
        + (22).to_bytes(4, "little")
        + inner
    )
    with (
        pytest.raises(ProcessingError, match="at most 1,000"),
        picture_limit(1_000),
        pytest.warns(UserWarning, match="expected size"),
    ):
        open_picture(io.BytesIO(icon))


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "MPO"])
def test_garbled_files_are_told_in_one_way(kind):
    content, chance = of_format(kind, (40, 30)), random.Random(7)
    for _ in range(60):
        spoilt = bytearray(content[: chance.randrange(1, len(content) + 1)])
        for _ in range(chance.randrange(6)):
            spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            try:
                open_picture(io.BytesIO(bytes(spoilt)), decode=True).close()
            except (OSError, ProcessingError):
                continue


def test_missing_files_and_text(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_picture(tmp_path / "gone.png")
    (tmp_path / "a.png").write_text("This is not a picture, but it is long enough to be one.")
    with pytest.raises(UnidentifiedImageError, match=r"a\.png"):
        open_picture(tmp_path / "a.png")


def test_importing_files_loads_no_pillow():
    code = "import sys, molmopoint.files; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
