"""Lets pages of the site link to files of the repository, as they do when read in the repository itself.

A link such as `../examples/images/shapes.png` leaves the folder of the documents. Every file that is linked
in this way becomes part of the site below `repository/`, and the link leads there; documents among them are
pages, whose own links are followed alike.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PLACE = "repository"
"""Folder of the site in which files of the repository lie."""

_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the files that pages link to, and those that these link to in turn."""
    files.remove(files.src_uris["repository_links.py"])
    waiting = [page.src_uri for page in files.documentation_pages()]
    contributing = ROOT / "CONTRIBUTING.md"  # in the navigation, whoever links to it
    files.append(File.generated(config, uri_of(contributing), abs_src_path=str(contributing)))
    waiting.append(uri_of(contributing))
    while waiting:
        page = waiting.pop()
        text = repository_file(page).read_text(encoding="utf-8")
        for link in _LINK.finditer(text):
            target = linked_file(page, link["path"])
            if target is None or uri_of(target) in files.src_uris:
                continue
            uri = uri_of(target)
            files.append(File.generated(config, uri, abs_src_path=str(target)))
            if target.suffix == ".md":
                waiting.append(uri)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Points every link of a page at the file's place on the site; links to folders without a page become
    plain text.
    """

    def replaced(link: re.Match[str]) -> str:
        uri = page.file.src_uri
        target = linked_file(uri, link["path"])
        if target is not None:
            relative = os.path.relpath(uri_of(target), PurePosixPath(uri).parent)
            return f"[{link['text']}]({relative}{link['anchor'] or ''})"
        if (repository_file(uri).parent / link["path"]).is_dir():
            return link["text"]
        return link[0]

    return _LINK.sub(replaced, markdown)


def repository_file(uri: str) -> Path:
    """The file behind a page of the site."""
    path = PurePosixPath(uri)
    if path.parts[0] == PLACE:
        return ROOT.joinpath(*path.parts[1:])
    return ROOT / "docs" / path


def linked_file(page: str, link: str) -> Path | None:
    """The file of the repository that a link on a page leads to; that of a folder is its README."""
    target = (repository_file(page).parent / link).resolve()
    if target.is_dir():
        target = target / "README.md"
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def uri_of(file: Path) -> str:
    """The place of a file of the repository on the site."""
    relative = file.relative_to(ROOT)
    if relative.parts[0] == "docs":
        return PurePosixPath(*relative.parts[1:]).as_posix()
    return f"{PLACE}/{relative.as_posix()}"
