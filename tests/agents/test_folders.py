"""Files that a client names: inside allowed folders, links resolved, and nowhere else."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from PIL import Image

from molmopoint.agents.folders import Sources
from molmopoint.agents.targets import AgentError
from molmopoint.errors import MolmoPointError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a picture, and another one beside it that nobody allowed."""
    for name in ("allowed", "allowed-not", "secret"):
        (tmp_path / name / "inner").mkdir(parents=True)
        Image.new("RGB", (20, 10), "red").save(tmp_path / name / "a.png")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "allowed" / "inner" / "b.png")
    (tmp_path / "allowed" / "words.png").write_text("no picture")
    (tmp_path / "allowed" / "out.png").symlink_to(tmp_path / "secret" / "a.png")
    (tmp_path / "allowed" / "in.png").symlink_to(tmp_path / "allowed" / "a.png")
    (tmp_path / "allowed" / "away").symlink_to(tmp_path / "secret")
    (tmp_path / "allowed" / "circle.png").symlink_to(tmp_path / "allowed" / "circle.png")
    os.mkfifo(tmp_path / "allowed" / "pipe.png")
    return tmp_path / "allowed"


def test_pictures_inside_are_read(folder: Path):
    sources = Sources.of([folder])
    for name in ("a.png", "inner/b.png", "inner/../a.png", str(folder / "a.png"), "in.png"):
        assert sources.picture(name).size == (20, 10)
    assert Sources.of([folder / "inner", folder]).picture("a.png").size == (20, 10)


TRICKS = [
    "../secret/a.png", "../allowed-not/a.png", "inner/../../secret/a.png", "out.png", "away/a.png", "/etc/passwd", "none.png", "circle.png",
    "pipe.png", "inner", "", ".", "a.png\x00.png", "file:///etc/passwd", "https://example.com/a.png", "x" * 5000, "~/a.png",
]  # fmt: skip


@pytest.mark.parametrize("name", TRICKS)
def test_paths_that_lead_elsewhere_are_refused(folder: Path, name: str):
    with pytest.raises(AgentError, match="expected"):
        Sources.of([folder]).picture(name)


def test_an_allowed_link_allows_what_it_names(folder: Path):
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert Sources.of([link]).picture("a.png").size == (20, 10)
    assert Sources.of([link]).picture(str(link / "a.png")).size == (20, 10)


def test_limits_and_what_is_no_picture(folder: Path):
    content = (folder / "a.png").read_bytes()
    data = "data:image/png;base64," + base64.b64encode(content).decode()
    assert Sources().picture(data).size == (20, 10)
    for sources, name in [
        (Sources(), "a.png"),
        (Sources.of([folder], most_bytes=10), "a.png"),
        (Sources(most_bytes=10), data),
        (Sources(most_pixels=100), data),
        (Sources.of([folder]), "words.png"),
        (Sources(), "data:image/png;base64,AAAA"),
        (Sources(), "data:image/png;base64,*"),
    ]:
        with pytest.raises(MolmoPointError, match="expected"):
            sources.picture(name)
    with pytest.raises(AgentError, match="ending"):
        Sources.of([folder]).clip("a.png")
    with pytest.raises(AgentError, match="folder to allow"):
        Sources.of([folder / "none"])
