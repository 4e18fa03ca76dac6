"""Opening pictures: known formats only, and no more pixels than the limit in force."""

from __future__ import annotations

import contextlib
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TYPE_CHECKING

from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files.names import is_file

if TYPE_CHECKING:
    from PIL import Image

PICTURE_FORMATS = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "AVIF",
    "JPEG2000",
    "PPM",
    "ICO",
    "TGA",
    "QOI",
)
"""Pillow's names of the formats that are read (its JPEG reader takes MPO along).

Formats that run another program (EPS) or describe drawings (WMF) are not among them.
"""

PICTURE_SUFFIXES = frozenset(
    {
        ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".avif", ".jp2", ".j2k",
        ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".qoi",
    }
)  # fmt: skip
"""Endings, in lower case, of files in which a picture is expected."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".3gp"}
)
"""Endings of files that are clips where pictures could be meant as well."""

_MAY_MOVE = frozenset({".gif", ".webp", ".apng"})
"""Endings of pictures that may have several frames, to be shown one after the other."""

MAX_PICTURE_PIXELS = 16384 * 16384
"""Largest width times height of a picture unless somebody raises it: about 0.8 GB as RGB."""

MAX_PIXELS_VARIABLE = "MOLMOPOINT_MAX_PIXELS"
"""Environment variable with another limit on the pixels of a picture, for the command line and for whole
programs.
"""

_limit_here: ContextVar[int | None] = ContextVar("limit on the pixels of pictures", default=None)
_FILTERS = threading.Lock()


@contextlib.contextmanager
def picture_limit(max_pixels: int | None) -> Iterator[None]:
    """Within this, and in this thread, pictures may have so many pixels; None changes nothing.

    Raises:
        ProcessingError: a limit that is no whole number above 0.
    """
    if max_pixels is None:
        yield
        return
    token = _limit_here.set(_checked_limit(max_pixels, "max_pixels"))
    try:
        yield
    finally:
        _limit_here.reset(token)


def max_picture_pixels() -> int:
    """The limit on width times height that is in force here: of `picture_limit`, else of the environment,
    else ours.

    Raises:
        ProcessingError: the environment variable holds no whole number above 0.
    """
    here = _limit_here.get()
    if here is not None:
        return here
    value = os.environ.get(MAX_PIXELS_VARIABLE)
    return MAX_PICTURE_PIXELS if value is None else _checked_limit(value, MAX_PIXELS_VARIABLE)


def check_picture_size(size: tuple[int, int], name: str) -> None:
    """Refuses a picture that has too many pixels.

    Args:
        size: (width, height).
        name: what the message calls it.

    Raises:
        ProcessingError: it is larger than `max_picture_pixels()`; the message names the size, the limit and
            how to raise it.
    """
    width, height = size
    limit = max_picture_pixels()
    if width * height > limit:
        raise ProcessingError(
            f"expected at most {limit:,} pixels in {name}, got {width:,} x {height:,} = {width * height:,} "
            "(width x height); make it "
            "smaller, the model sees far fewer, or raise the limit: max_pixels= of molmopoint.load, or "
            f"{MAX_PIXELS_VARIABLE}"
        )


def open_picture(
    source: str | os.PathLike[str] | IO[bytes], *, decode: bool = False, name: str | None = None
) -> Image.Image:
    """A picture of a known format; `with` closes it.

    Its size is compared with `max_picture_pixels()` before anything is decoded. Pillow's own limit, which is
    one for the whole process and warns, is not asked where that can be avoided.

    Args:
        source: a path, or a file that is open for reading bytes and can be sought in.
        decode: read all pixels; else only what stands before them.
        name: what messages call it; by default its path.

    Raises:
        PIL.UnidentifiedImageError: bytes of none of `PICTURE_FORMATS`.
        OSError: the file cannot be read, or is broken.
        ProcessingError: the picture has too many pixels.
    """
    name = _name_of(source) if name is None else name
    with _pillow_errors(name):
        picture = _identify(source, name)
    try:
        check_picture_size(picture.size, name)
        # An icon holds pictures whose size only shows when they are decoded; TIFF files warn then.
        if decode or picture.format == "ICO" or (picture.format == "TIFF" and _is_suspicious(picture)):
            with _pillow_errors(name), _without_suspicion(picture):
                picture.load()
            check_picture_size(picture.size, name)
    except BaseException:
        picture.close()
        raise
    return picture


def is_clip_file(file: Path) -> bool:
    """Whether a file is asked about as a clip: its ending says so, or its picture moves."""
    ending = file.suffix.lower()
    if ending in VIDEO_SUFFIXES:
        return True
    if ending not in _MAY_MOVE or not is_file(file):
        return False
    try:
        with open_picture(file) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except (OSError, SyntaxError, ValueError, MolmoPointError):
        return False  # what is wrong with it is told where it is read


def _identify(source: str | os.PathLike[str] | IO[bytes], name: str) -> Image.Image:
    """What `PIL.Image.open` does, but for its comparison with a limit of the process."""
    from PIL import Image, UnidentifiedImageError

    Image.init()
    beginning = _beginning(source)
    for each in PICTURE_FORMATS:
        if each not in Image.OPEN:  # AVIF and JPEG 2000 are options of Pillow
            continue
        factory, accepts = Image.OPEN[each]
        try:
            if accepts is not None and accepts(beginning) is not True:
                continue
            if isinstance(source, (str, os.PathLike)):
                return factory(os.fspath(source), os.fspath(source))  # type: ignore[arg-type]  # its base class opens paths
            source.seek(0)
            return factory(source, "")
        except (
            SyntaxError,
            IndexError,
            TypeError,
            struct.error,
        ):  # how a reader says that the file is none of its kind
            continue
    raise UnidentifiedImageError(f"cannot identify image file {name}")


def _beginning(source: str | os.PathLike[str] | IO[bytes]) -> bytes:
    """The bytes by which formats are told apart."""
    if isinstance(source, (str, os.PathLike)):
        with Path(source).open("rb") as file:
            return file.read(16)
    source.seek(0)
    return source.read(16)


@contextlib.contextmanager
def _pillow_errors(name: str) -> Iterator[None]:
    """Readers of Pillow raise nearly anything for broken files; here it is OSError, and our own error where
    its limit speaks.
    """
    from PIL import Image

    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ProcessingError(
            f"expected a picture that Pillow agrees to read in {name}, got: {error} "
            "Save it as PNG or JPEG, for which only the limit of this library counts, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except (OSError, MemoryError, MolmoPointError):
        raise
    except Exception as error:
        raise OSError(f"broken or truncated picture: {error}") from error


def _is_suspicious(picture: Image.Image) -> bool:
    """Whether Pillow would warn of it."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and picture.width * picture.height > limit


@contextlib.contextmanager
def _without_suspicion(picture: Image.Image) -> Iterator[None]:
    """Without Pillow's warning about large pictures. The filters of warnings are the process's, so one thread
    at a time changes them.
    """
    from PIL import Image

    if not _is_suspicious(picture):
        yield
        return
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _name_of(source: str | os.PathLike[str] | IO[bytes]) -> str:
    """For messages."""
    if isinstance(source, (str, os.PathLike)):
        return repr(os.fspath(source))
    name = getattr(source, "name", None)
    return repr(name) if isinstance(name, str) else "a picture"


def _checked_limit(value: int | str, name: str) -> int:
    try:
        limit = int(value)
    except (TypeError, ValueError):
        limit = 0
    if isinstance(value, (bool, float)) or limit < 1:
        raise ProcessingError(f"expected a whole number of pixels above 0 in {name}, got {str(value)[:40]!r}")
    return limit
