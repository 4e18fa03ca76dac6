"""Pictures that people bring: what they become, and what is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy_processor import noise, picture

from molmopoint.errors import ProcessingError
from molmopoint.processing import load_picture
from molmopoint.processing.pictures import picture_to_tensor

GRADIENT = np.linspace(0, 65535, 12, dtype=np.uint16).reshape(3, 4)
RGBA = np.dstack([np.zeros((3, 4, 3), dtype=np.uint8), np.array([[0, 255, 128, 255]] * 3, dtype=np.uint8)])


def palette() -> Image.Image:
    return picture(6, 8).quantize(4)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (noise(3, 4), noise(3, 4)),  # an array as it is
        (noise(3, 4)[..., 0], np.repeat(noise(3, 4)[..., :1], 3, axis=2)),  # grey
        (noise(3, 4) / 255.0, noise(3, 4)),  # floats in [0, 1]
        (torch.tensor(noise(3, 4)).permute(2, 0, 1), noise(3, 4)),  # a tensor, channels first
        (
            torch.tensor(noise(3, 4)).permute(2, 0, 1).to(torch.float16) / 255,
            noise(3, 4),
        ),  # half precision keeps the bytes
        (noise(3, 4)[:, ::-1], noise(3, 4)[:, ::-1]),  # negative strides
        (Image.fromarray(noise(3, 4)), noise(3, 4)),
        (Image.fromarray(noise(3, 4)[..., 0]), np.repeat(noise(3, 4)[..., :1], 3, axis=2)),  # mode L
        (
            Image.fromarray(GRADIENT),
            np.repeat(np.linspace(0, 255, 12).round().reshape(3, 4, 1), 3, axis=2),
        ),  # 16 bits are scaled
        (
            Image.fromarray(GRADIENT.astype(np.int32)),
            np.repeat(np.linspace(0, 255, 12).round().reshape(3, 4, 1), 3, axis=2),
        ),
        (
            Image.fromarray(np.array([[0, 0.5, 1]], dtype=np.float32)),
            np.repeat(np.array([[[0], [128], [255]]]), 3, axis=2),
        ),  # mode F in [0, 1]
        (
            Image.fromarray(RGBA),
            np.repeat(np.array([[[255], [0], [127], [0]]] * 3), 3, axis=2),
        ),  # alpha on white
        (palette(), np.asarray(palette().convert("RGB"))),
        (picture(6, 8).convert("CMYK"), np.asarray(picture(6, 8).convert("CMYK").convert("RGB"))),
        (picture(6, 8).convert("1"), np.asarray(picture(6, 8).convert("1").convert("RGB"))),
    ],
)
def test_becomes_rgb_bytes(source: Any, expected: np.ndarray) -> None:
    got = load_picture(source)
    assert got.mode == "RGB"
    assert np.array_equal(np.asarray(got), expected)
    tensor = picture_to_tensor(source)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0), expected)


def test_a_transparent_palette_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png", transparency=0)
    assert np.asarray(load_picture(tmp_path / "p.png")).tolist() == [[[255, 255, 255], [40, 50, 60]]]


@pytest.mark.parametrize("as_path", [str, Path, Image.open])
def test_exif_turns_the_picture(tmp_path: Path, as_path: Callable[[Path], Any]) -> None:
    upright, exif = picture(20, 30), Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    shown = load_picture(as_path(tmp_path / "turned.png"))
    assert shown.size == (30, 20)
    assert np.array_equal(np.asarray(shown), np.asarray(upright))
    assert np.array_equal(np.asarray(load_picture(shown)), np.asarray(upright)), "turned twice"


def test_the_source_is_left_alone() -> None:
    source = picture(4, 4)
    load_picture(source).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(source), noise(4, 4))
    array = noise(4, 4)
    array.flags.writeable = False
    assert picture_to_tensor(array).shape == (3, 4, 4)


def test_phone_pictures_with_a_second_view_are_fine(tmp_path: Path) -> None:
    picture(8, 8).save(tmp_path / "phone.mpo", save_all=True, append_images=[picture(8, 8, seed=1)])
    assert load_picture(tmp_path / "phone.mpo").size == (8, 8)


def png(tmp_path: Path) -> Path:
    picture(60, 60).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def truncated(tmp_path: Path) -> Path:
    data = png(tmp_path).read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 3])
    return tmp_path / "cut.png"


def truncated_jpeg(tmp_path: Path) -> Path:
    buffer = io.BytesIO()
    picture(60, 60).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:700])
    return tmp_path / "cut.jpg"


def text_file(tmp_path: Path) -> Path:
    (tmp_path / "words.png").write_text("no picture")
    return tmp_path / "words.png"


def empty_file(tmp_path: Path) -> Path:
    (tmp_path / "empty.jpg").touch()
    return tmp_path / "empty.jpg"


def animation(tmp_path: Path) -> Path:
    picture(8, 8).save(tmp_path / "moves.gif", save_all=True, append_images=[picture(8, 8, seed=1)])
    return tmp_path / "moves.gif"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tmp: tmp / "missing.png", r"expected a picture file at '.*missing.png', found nothing"),
        (lambda tmp: tmp, "found a folder there; pass its files"),
        (
            lambda tmp: "iVBORw0KGgo" * 200,
            r"got a text of 2,200 characters, 'iVBOR.{35}'...; base64 needs 'data:",
        ),
        (lambda tmp: "https://example.org/a.png", "unless allow_urls"),
        (text_file, r"words.png', got bytes of no known format"),
        (empty_file, r"empty.jpg', got an empty file"),
        (truncated, r"cut.png', got a broken or truncated one"),
        (truncated_jpeg, r"cut.jpg', got a broken or truncated one"),
        (animation, r"expected a still picture in '.*moves.gif', got 2 frames \(GIF\)"),
        (lambda tmp: Image.new("RGB", (0, 5)), "at least one pixel in a PIL picture, got 0 x 5"),
        (lambda tmp: np.zeros((0, 4, 3), np.uint8), "at least one pixel in an array, got 4 x 0"),
        (lambda tmp: np.zeros((4, 4, 4), np.uint8), r"expected an array \(height, width, 3\)"),
        (lambda tmp: np.zeros((3, 4, 5), np.uint8), "channels come last in arrays"),
        (lambda tmp: np.zeros((2, 4, 4, 3), np.uint8), "several pictures are a list"),
        (
            lambda tmp: np.zeros((4, 4, 3), np.int64),
            "expected uint8, or floats in .0, 1., for an array, got int64",
        ),
        (lambda tmp: np.full((4, 4, 3), 200.0), r"got 200..200; divide by 255"),
        (lambda tmp: np.full((4, 4, 3), np.nan), "got nan..nan"),
        (lambda tmp: np.full((4, 4), -0.5), "got -0.5..-0.5"),
        (
            lambda tmp: torch.zeros(4, 4, 3, dtype=torch.uint8),
            r"expected a tensor \(3, height, width\), got \(4, 4, 3\)",
        ),
        (lambda tmp: torch.zeros(4, 4, dtype=torch.uint8), r"expected a tensor \(3, height, width\)"),
        (lambda tmp: torch.full((3, 2, 2), 2.0), r"floats in \[0, 1\] for a tensor, got 2..2"),
        (lambda tmp: Image.fromarray(np.array([[0, 9]], dtype=np.float32)), r"for a PIL picture, got 0..9"),
        (
            lambda tmp: Image.fromarray(np.array([[0, 70000]], dtype=np.int32)),
            "expected 16-bit values 0..65535",
        ),
        (lambda tmp: 7, "expected a picture .*, got int"),
        (lambda tmp: b"bytes", "expected a picture .*, got bytes"),
    ],
)
def test_refused_by_name(tmp_path: Path, make: Callable[[Path], Any], message: str) -> None:
    source = make(tmp_path)
    with pytest.raises(ProcessingError, match=message):
        load_picture(source)
    with pytest.raises(ProcessingError, match=message):
        picture_to_tensor(source)


@pytest.mark.parametrize(
    "source", [noise(9, 12), Image.fromarray(noise(9, 12)), torch.tensor(noise(9, 12)).permute(2, 0, 1)]
)
def test_too_large(monkeypatch: pytest.MonkeyPatch, source: Any) -> None:
    monkeypatch.setenv("MOLMOPOINT_MAX_PIXELS", "100")
    with pytest.raises(
        ProcessingError, match=r"at most 100 pixels in .*, got 12 x 9 = 108 \(width x height\)"
    ):
        load_picture(source)
