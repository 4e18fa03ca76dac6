"""Pictures of requests, as bytes: they come as base64, as data addresses or as files of a form, and from the
web only where the server allows it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Sequence

from molmopoint.files.addresses import bytes_of_data_address, fetch, is_data_address, is_web_address
from molmopoint.serving.refusals import Refused, valid

_SHOWN = 40
_FETCHES_AT_ONCE = 8
_LONG = 2**18
"""Characters from which decoding would keep other requests waiting."""


class PictureReader:
    """Reads what clients send as pictures.

    Args:
        allow_urls: fetch addresses of the web, from public hosts alone.
    """

    def __init__(self, *, allow_urls: bool) -> None:
        self._allow_urls = allow_urls
        self._fetches = asyncio.Semaphore(_FETCHES_AT_ONCE)

    async def read(self, pictures: Sequence[str | bytes]) -> tuple[bytes, ...]:
        """The bytes of each picture; never those of a path.

        Raises:
            Refused: one is nothing of the kind, or an address where none is allowed.
        """
        contents = []
        for picture in pictures:
            content = picture if isinstance(picture, bytes) else await self._bytes_of(picture)
            if not content:
                raise Refused(400, "expected the bytes of a picture, got none")
            contents.append(content)
        return tuple(contents)

    async def _bytes_of(self, picture: str) -> bytes:
        if is_web_address(picture):
            return await self._fetched(picture)
        if len(picture) < _LONG:
            return decoded(picture)
        return await asyncio.to_thread(decoded, picture)

    async def _fetched(self, address: str) -> bytes:
        if not self._allow_urls:
            raise Refused(
                400,
                f"expected a picture as base64 or as a data URL, got the address {address[:_SHOWN]!r}; send "
                "its bytes, or start the server with --allow-urls",
            )
        async with self._fetches:
            return await asyncio.to_thread(valid, lambda: fetch(address))


def decoded(text: str) -> bytes:
    """The bytes that stand in base64 or in a data address.

    Raises:
        Refused: they do not.
    """
    if is_data_address(text):
        return valid(lambda: bytes_of_data_address(text))
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            400,
            f"expected base64 or a data URL, got {text[:_SHOWN]!r}; send the bytes, not a path",
        ) from error


def key_of(contents: Sequence[bytes]) -> str | None:
    """What equal pictures have in common; None for no pictures."""
    if not contents:
        return None
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
