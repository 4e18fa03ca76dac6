"""The page at `/`: a few files of the package, each read once, none found by a name that a client sends."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

PAGE = Path(__file__).parent.parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked about: a new version shows at once
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes:
        path: of its route.
        content: its bytes.
        content_type: of it.
        tag: changes with the content.
    """

    path: str
    content: bytes
    content_type: str
    tag: str

    def response(self, request: Request) -> Response:
        """The file; or that it is the one which the browser has."""
        headers = _HEADERS | {"ETag": self.tag}
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, media_type=self.content_type, headers=headers)


def page_files(folder: Path = PAGE) -> list[PageFile]:
    """The files of the page, the index under `/`."""
    files = []
    for file in sorted(folder.iterdir()):
        if file.suffix not in _TYPES:
            continue
        content = file.read_bytes()
        path = "/" if file.name == "index.html" else f"/{file.name}"
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        files.append(PageFile(path, content, _TYPES[file.suffix], tag))
    return files


def routes(files: list[PageFile]) -> APIRouter:
    """A route per file, not listed among those of programs."""
    router = APIRouter(include_in_schema=False)
    for file in files:
        router.add_api_route(file.path, file.response, methods=["GET", "HEAD"])
    return router
