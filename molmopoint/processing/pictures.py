"""Turning what people bring into pictures of RGB bytes, as they are displayed.

A picture is a path, the bytes of a file, a `data:` address, a PIL picture, an array (H, W, 3) or (H, W), or a
tensor (3, H, W). Arrays and tensors hold uint8, or floats in [0, 1]. The surprise to know: points refer to
the picture **as displayed**, so the orientation a camera stored in EXIF is applied first, and sizes are those
after the turn.

Transparent pixels are laid on white, as a page or a viewer shows them; dropping the alpha channel would bring
up whatever colours an editor left behind the transparent parts. Animations and multi-page files are refused,
because a point in a picture that moves has no single meaning; phone pictures (MPO) that merely carry a second
view are fine.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import check_picture_size, is_file, is_folder, open_picture
from molmopoint.files.addresses import bytes_of_data_address, fetch, is_data_address, is_web_address

_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})
_STILL_FORMATS = frozenset({"MPO"})  # several pictures in the file, the first is the photograph


_ODD_SETTINGS = (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, MemoryError)
"""How image processors fail whose settings have other types, are out of range, or do not fit each other."""

_LARGE = 2**22
"""Pixels from which the bytes of a picture's file are worth keeping in place of its pixels."""

_LONGEST_SHOWN = 1000
"""Characters up to which a text that names no file is shown whole; longer ones are most likely base64."""


def load_picture(source: Any, *, allow_urls: bool = False) -> Image.Image:
    """The picture as PIL RGB, upright, without transparency.

    Args:
        source: a path; the bytes of a picture file, or a file that is open for reading them; a `data:`
            address; a PIL picture; an array (H, W, 3) or (H, W); or a tensor (3, H, W). uint8, or floats in
            [0, 1].
        allow_urls: fetch an address of the web, `https://...`, from a public host.

    Returns:
        A new PIL picture of mode RGB, as displayed (EXIF orientation applied, alpha on white).

    Raises:
        ProcessingError: the file is missing, broken or not a picture; it is animated, empty or larger than
            `molmopoint.files.max_picture_pixels()`; the array has another shape, type or range. The message
            names the file if there is one.
    """
    return load_with_file(source, allow_urls=allow_urls)[0]


def load_with_file(source: Any, *, allow_urls: bool = False) -> tuple[Image.Image, bytes | None]:
    """As `load_picture`, with the bytes of the picture's file where they are much fewer than its pixels.

    Args:
        source: as in `load_picture`.
        allow_urls: as in `load_picture`.

    Returns:
        The picture; and the file from which `load_picture` makes the same one again, or None where the
        picture is small, did not come from a file, or is hardly compressed in it.

    Raises:
        ProcessingError: as `load_picture`.
    """
    if isinstance(source, str) and is_data_address(source):
        return _open_bytes(bytes_of_data_address(source), "a data address")
    if isinstance(source, str) and is_web_address(source):
        return _open_bytes(_fetched(source, allow_urls), repr(source[:120]))
    if isinstance(source, (str, Path)):
        return _open_file(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _open_bytes(bytes(source), "bytes")
    if hasattr(source, "read"):
        return _open_bytes(_read(source), "an open file")
    if isinstance(source, Image.Image):
        return _to_rgb(source, _name_of(source)), None
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return Image.fromarray(_array_to_rgb_bytes(source)), None
    raise ProcessingError(
        f"expected a picture (path, bytes, PIL picture, array or tensor), got {type(source).__name__}; open "
        "it with PIL.Image.open first"
    )


def picture_to_tensor(source: Any) -> torch.Tensor:
    """The same as `load_picture`, as uint8 tensor (3, H, W) on the CPU; arrays and tensors skip the way
    through PIL.
    """
    if isinstance(source, (np.ndarray, torch.Tensor)):
        rgb = _array_to_rgb_bytes(source)  # (H, W, 3)
    else:
        rgb = _pixels_of(source if _is_loaded(source) else load_picture(source))
    if not rgb.flags.writeable:
        rgb = rgb.copy()
    return torch.from_numpy(rgb).permute(2, 0, 1)


def is_picture(source: Any) -> bool:
    """Whether this is one decoded picture: PIL, or an array or tensor of two or three dimensions."""
    return isinstance(source, Image.Image) or (
        isinstance(source, (np.ndarray, torch.Tensor)) and source.ndim in (2, 3)
    )


def _is_loaded(source: Any) -> bool:
    """Whether `load_picture` would only copy it, as it does with what it has made itself."""
    if type(source) is not Image.Image or source.mode != "RGB" or "transparency" in source.info:
        return False
    _check_size(source.width, source.height, _name_of(source))
    return source.getexif().get(ExifTags.Base.Orientation, 1) == 1


def _pixels_of(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8; read in strips, because Pillow holds what it hands out twice for a moment."""
    rows = max(1, _LARGE // picture.width)
    if rows >= picture.height:
        return np.array(picture)
    pixels = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    return pixels


def _open_file(path: str | Path) -> tuple[Image.Image, bytes | None]:
    name = str(path)
    if not is_file(Path(name)):
        if is_folder(Path(name)):
            raise ProcessingError(
                f"expected a picture file at {name!r}, found a folder there; pass its files, such as "
                "sorted(Path(folder).glob('*.png')) to `point_batch`"
            )
        if len(name) > _LONGEST_SHOWN:
            raise ProcessingError(
                f"expected a picture file, got a text of {len(name):,} characters, {name[:40]!r}...; base64 "
                "needs 'data:image/png;base64,' in front"
            )
        raise ProcessingError(f"expected a picture file at {name!r}, found nothing there; check the path")
    with _picture_errors(repr(name)):
        size = Path(name).stat().st_size
        if not size:
            raise ProcessingError(
                f"expected a picture in {name!r}, got an empty file; save or fetch it again"
            )
        with open_picture(name) as picture:
            if not _is_worth_keeping(picture, size):
                return _to_rgb(picture, repr(name)), None
        content = Path(name).read_bytes()
        with open_picture(io.BytesIO(content), name=repr(name)) as picture:
            return _to_rgb(picture, repr(name)), content


def _open_bytes(content: bytes, name: str) -> tuple[Image.Image, bytes | None]:
    if not content:
        raise ProcessingError(
            f"expected the bytes of a picture in {name}, got none; read the file from its beginning"
        )
    with _picture_errors(name), open_picture(io.BytesIO(content), name=name) as picture:
        file = content if _is_worth_keeping(picture, len(content)) else None
        return _to_rgb(picture, name), file


def _is_worth_keeping(picture: Image.Image, file_size: int) -> bool:
    """Whether a picture is large, and its file takes at most a third of the memory of its pixels."""
    pixels = picture.width * picture.height
    return pixels >= _LARGE and file_size <= pixels


@contextlib.contextmanager
def _picture_errors(name: str) -> Iterator[None]:
    """Tells what goes wrong with the file of a picture as an error of ours."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ProcessingError(
            f"expected a picture in {name}, got bytes of no known format; save it as PNG or JPEG"
        ) from error
    except OSError as error:
        raise ProcessingError(
            f"expected a readable picture in {name}, got: {error}; check permissions and the file"
        ) from error


def _fetched(address: str, allow_urls: bool) -> bytes:
    """The bytes at an address of the web, where that is allowed."""
    if not allow_urls:
        raise ProcessingError(
            f"expected a picture file, got the address {address[:80]!r}; addresses are not fetched unless "
            "allow_urls=True says so"
        )
    return fetch(address)


def _read(file: Any) -> bytes:
    """What is left in a file that is open for reading bytes."""
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # closed, or not open for reading
        raise ProcessingError(
            f"expected a file that is open for reading, got: {error}; open it again"
        ) from error
    if not isinstance(content, bytes):
        raise ProcessingError(
            f"expected a file that is open for reading bytes, got {type(content).__name__} from it; open it "
            "with 'rb'"
        )
    return content


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    _check_size(picture.width, picture.height, name)
    picture = _upright(picture, name)
    if picture.mode in _SIXTEEN_BIT_MODES or picture.mode == "F":
        gray = _deep_gray_to_bytes(np.asarray(picture), name)  # (H, W)
        return Image.fromarray(_gray_to_rgb_bytes(gray))
    if picture.mode == "La":  # multiplied by its alpha; Pillow converts it by way of LA alone
        picture = picture.convert("LA")
    if picture.mode in _ALPHA_MODES or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(paper, picture).convert("RGB")
    if picture.mode == "RGB":
        return picture  # a copy by now
    return picture.convert("RGB")


def _upright(picture: Image.Image, name: str) -> Image.Image:
    """A copy of the decoded picture, as displayed."""
    try:
        frames = getattr(picture, "n_frames", 1)
        if frames == 1 or picture.format in _STILL_FORMATS:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as error:  # readers of Pillow raise nearly anything for cut or garbled files
        raise ProcessingError(
            f"expected a whole picture in {name}, got a broken or truncated one ({error}); save it again"
        ) from error
    raise ProcessingError(
        f"expected a still picture in {name}, got {frames} frames ({picture.format}); save the frame or "
        "page you mean as PNG, "
        "or pass the frames as a video"
    )


def _deep_gray_to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    """16-bit integers scaled to 8 bits (Pillow would clip them to white); floats in [0, 1] times 255."""
    if values.dtype.kind == "f":
        return _unit_floats_to_bytes(values, name)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ProcessingError(
            f"expected 16-bit values 0..65535 in {name}, got {low}..{high}; scale the picture to 8 bits first"
        )
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _unit_floats_to_bytes(values: np.ndarray, name: str) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and high <= 1.0):  # NaN fails both comparisons
        raise ProcessingError(
            f"expected floats in [0, 1] for {name}, got {low:g}..{high:g}; divide by 255, or pass uint8"
        )
    return np.rint(values.astype(np.float32) * 255).astype(np.uint8)


def _array_to_rgb_bytes(source: np.ndarray | torch.Tensor) -> np.ndarray:
    """(H, W, 3) uint8 from an array (H, W, 3) or (H, W), or a tensor (3, H, W)."""
    if isinstance(source, torch.Tensor):
        if source.ndim != 3 or source.shape[0] != 3:
            raise ProcessingError(
                f"expected a tensor (3, height, width), got {tuple(source.shape)}; permute it, or pass a "
                "NumPy array"
            )
        if source.device.type == "meta" or source.layout != torch.strided or source.is_quantized:
            kind = "one without values" if source.device.type == "meta" else f"one of layout {source.layout}"
            raise ProcessingError(
                f"expected a dense tensor of pixels, got {kind}; pass its values, or `.to_dense()`"
            )
        pixels = source.detach().permute(1, 2, 0).cpu()
        if pixels.is_floating_point():
            pixels = pixels.float()  # NumPy has no bfloat16
        values, name = pixels.numpy(), "a tensor"
    else:
        if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
            raise ProcessingError(
                f"expected an array (height, width, 3) or (height, width), got {source.shape}; "
                "channels come last in arrays, transparency needs a PIL picture, and several pictures are a "
                "list"
            )
        values, name = source, "an array"
    _check_size(values.shape[1], values.shape[0], name)
    if values.dtype.kind == "f":
        values = _unit_floats_to_bytes(values, name)
    elif values.dtype != np.uint8:
        raise ProcessingError(
            f"expected uint8, or floats in [0, 1], for {name}, got {values.dtype}; convert it with "
            ".astype('uint8')"
        )
    if values.ndim == 2:
        return _gray_to_rgb_bytes(values)
    return np.ascontiguousarray(values)


def _gray_to_rgb_bytes(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ProcessingError(
            f"expected at least one pixel in {name}, got {width} x {height} (width x height)"
        )
    check_picture_size((width, height), name)


def _name_of(picture: Image.Image) -> str:
    filename = getattr(picture, "filename", "")
    return repr(str(filename)) if filename else "a PIL picture"


@contextlib.contextmanager
def using_image_processor() -> Iterator[None]:
    """Tells what an image processor of transformers fails with: its pictures are odd, or its own settings are.

    Raises:
        ProcessingError: it failed.
    """
    try:
        yield
    except MolmoPointError:
        raise
    except ValueError as error:
        raise ProcessingError(
            f"expected pictures that the image processor of the host takes, got: {error}; cut them"
        ) from error
    except (*_ODD_SETTINGS, StrictDataclassError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ProcessingError(
            f"expected an image processor whose settings fit each other, got: {reason}; load the one that belongs to "
            "the model"
        ) from error
