"""From what a user names to addresses of pages, and which of them are on this machine."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from molmopoint.errors import MolmoPointError

PAGE_SUFFIXES = frozenset({".html", ".htm", ".xhtml"})
"""Endings of files in a folder that are pages."""

_WEB = ("http", "https", "ws", "wss")


def addresses_of(sources: Sequence[str]) -> list[str]:
    """The addresses of all pages that some sources name, each once, in order.

    Args:
        sources: HTML files, folders of them (with those below), and addresses.

    Raises:
        MolmoPointError: a source is neither there nor an address.
    """
    found: dict[str, None] = {}
    for source in sources:
        if "://" in source:
            found[_checked(source)] = None
            continue
        path = Path(source)
        if path.is_dir():
            pages = sorted(page for page in path.rglob("*") if page.suffix.lower() in PAGE_SUFFIXES and page.is_file())
            if not pages:
                raise MolmoPointError(f"expected HTML files in {source!r}, got none; name another folder")
            found.update((page.resolve().as_uri(), None) for page in pages)
        elif path.is_file():
            found[path.resolve().as_uri()] = None
        else:
            raise MolmoPointError(f"expected an HTML file, a folder or an address, got {source!r}; write addresses with http://")
    return list(found)


def is_local(address: str) -> bool:
    """Whether an address is on this machine: a file, or a server at a loopback address."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme in ("file", "data", "blob", "about"):
        return parts.scheme != "file" or host in (None, "", "localhost")
    if parts.scheme not in _WEB or not host:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def short_name(address: str) -> str:
    """A few letters of an address, for names of files."""
    parts = urlsplit(address)
    stem = os.path.splitext(parts.path.rstrip("/").rsplit("/", 1)[-1])[0] or parts.hostname or "page"  # noqa: PTH122
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem)
    return kept.strip("-")[:40] or "page"


def _checked(source: str) -> str:
    """An address that a browser can be sent to."""
    try:
        scheme = urlsplit(source).scheme.lower()
    except ValueError as error:
        raise MolmoPointError(f"expected an address, got {source!r} ({error}); correct it") from error
    if scheme not in ("http", "https", "file"):
        raise MolmoPointError(f"expected an address with http, https or file, got {source!r}; correct it")
    return source
