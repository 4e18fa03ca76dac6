"""Pictures on their way to a server: the bytes of their files where a server reads those as well, else PNG.

Nothing is decoded to be sent but what a server could not read; what was sent is decoded when it is drawn on.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from PIL import Image

from molmopoint.backends.clips import is_clip
from molmopoint.backends.options import AnswerOptions
from molmopoint.errors import ProcessingError
from molmopoint.files import is_file
from molmopoint.files.addresses import bytes_of_data_address, fetch, is_data_address, is_web_address
from molmopoint.processing.pictures import load_picture

_FILE_KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""First bytes of files that are sent as they are."""


class SentPictures(Sequence[Image.Image]):
    """Pictures of a request to a server, each of them decoded whenever it is asked for.

    `Client.encode` gives them as well: their files are read once, and the server, which knows pictures by their
    bytes, looks at them once while it keeps them.

    Args:
        image: a picture in any form that `Pointer.point` takes, a list of them, or None.
        max_crops: most crops per picture; None leaves it to the request.
        allow_urls: fetch pictures from addresses of the web, from public hosts alone.

    Attributes:
        as_list: they came as a list.
        addresses: of each picture, `data:`, as they are sent.

    Raises:
        ProcessingError: there is a clip among them, or nothing that could be a picture.
    """

    def __init__(self, image: Any, *, max_crops: int | None = None, allow_urls: bool = False) -> None:
        AnswerOptions(max_crops=max_crops, allow_urls=allow_urls)  # refuses what neither can be
        self.as_list = isinstance(image, (list, tuple))
        self.max_crops = max_crops
        given = [] if image is None else list(image) if self.as_list else [image]
        sent = [_sent(source, allow_urls) for source in given]
        self._kept = [kept for kept, _ in sent]
        self.addresses = tuple(address for _, address in sent)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of every displayed picture."""
        return tuple(picture.size for picture in self)

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...

    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [load_picture(kept) for kept in self._kept[index]]
        return load_picture(self._kept[index])

    def __repr__(self) -> str:
        return f"SentPictures({len(self)})"


def _sent(source: Any, allow_urls: bool) -> tuple[Image.Image | bytes, str]:
    """What is kept of a picture to draw on, and its `data:` address."""
    if is_clip(source):
        raise ProcessingError(
            f"expected pictures for a server, got a clip ({source!r:.60}); pass it to `point_video` or `track`"
        )
    content = _file_bytes(source, allow_urls)
    kind = next((kind for head, kind in _FILE_KINDS.items() if content.startswith(head)), None)
    if kind is not None:
        return content, _address(content, kind)
    picture = load_picture(content or source)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return picture, _address(file.getvalue(), "image/png")


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _file_bytes(source: Any, allow_urls: bool) -> bytes:
    """The bytes of a picture that is a file; none of one that is not."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if not isinstance(source, (str, Path)):
        return b""
    if isinstance(source, str) and is_data_address(source):
        return bytes_of_data_address(source)
    if isinstance(source, str) and is_web_address(source):
        return fetch(source) if allow_urls else b""
    try:
        return Path(source).read_bytes() if is_file(Path(source)) else b""
    except OSError as error:
        raise ProcessingError(
            f"expected a readable picture in {str(source)!r}, got: {error}; check permissions and the file"
        ) from error
