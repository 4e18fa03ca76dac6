"""Which pages are meant, which are on this machine, and the script of steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from molmopoint.errors import MolmoPointError
from molmopoint.files.addresses import is_local_address
from molmopoint.screens.dataset import addresses_of, short_name
from molmopoint.screens.steps import Script, Step, read_steps


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost/",
        "http://localhost:8000/a?b#c",
        "https://app.localhost/",
        "http://127.0.0.1:5000",
        "http://127.8.9.1/",
        "http://[::1]:80/",
        "file:///tmp/a.html",
        "ws://localhost:1/",
        "data:text/html,hi",
        "about:blank",
        "HTTP://LOCALHOST/",
    ],
)
def test_addresses_on_this_machine(address: str):
    assert is_local_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/",
        "https://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://192.168.0.1/",
        "http://0.0.0.0/",
        "http://user@example.com:80@evil/",
        "http://localhost@example.com/",
        "file://server/share/a.html",
        "ftp://localhost/",
        "http://[::2]/",
        "http://[broken/",
        "",
        "javascript:alert(1)",
        "http://2130706433.example/",
        "chrome://crash",
    ],
)
def test_addresses_elsewhere(address: str):
    assert not is_local_address(address)


def test_sources_become_addresses_once_and_in_order(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("z.html", "a.htm", "b/c.HTML", "notes.txt"):
        (tmp_path / name).write_text("")
    found = addresses_of([str(tmp_path / "z.html"), str(tmp_path), "http://localhost:1/x"])
    assert [short_name(address) for address in found] == ["z", "a", "c", "x"]
    assert found[-1] == "http://localhost:1/x" and all(
        address.startswith("file:///") for address in found[:3]
    )


@pytest.mark.parametrize("source", ["nowhere.html", "ftp://localhost/a", "javascript://x", "http://[broken/"])
def test_sources_that_are_none_are_named(source: str):
    with pytest.raises(MolmoPointError, match="expected an"):
        addresses_of([source])


def test_folders_without_pages_are_named(tmp_path: Path):
    with pytest.raises(MolmoPointError, match="expected HTML files"):
        addresses_of([str(tmp_path)])


@pytest.mark.parametrize(
    ("address", "name"),
    [("file:///a/b%20c.html", "b-20c"), ("http://localhost/", "localhost"), ("file:///日本.html", "page")],
)
def test_short_names_are_safe(address: str, name: str):
    assert short_name(address) == name


def test_steps_are_read(tmp_path: Path):
    file = tmp_path / "steps.toml"
    file.write_text(
        '[[once]]\nfill = "Password"\ntext = "secret"\n[[step]]\nclick = "Menu"\n[[step]]\nwait = 1\n'
    )
    assert read_steps(file) == Script(
        (Step("fill", "Password", "secret"),), (Step("click", "Menu"), Step("wait", "1"))
    )
    assert "secret" not in str(read_steps(file).once[0]), "what is filled in must not come into messages"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "[[step]]\n",
        '[[step]]\nclick = "a"\nhover = "b"',
        "[[step]]\nclick = 1",
        '[[step]]\nfill = "a"',
        "[step]\nclick = 'a'",
        '[[step]]\nclick = "a"\ntext = "b"',
        "[[step]]\nwait = -1",
        "[[step]]\nwait = true",
        "[[step]]\nwait = nan",
        '[[step]]\ndance = "a"',
        "step = [1]",
        "[[step]]\nwait = 1e9",
        "not toml",
        '[[step]]\nclick = ""',
    ],
)
def test_steps_that_are_none_are_named(tmp_path: Path, text: str):
    file = tmp_path / "steps.toml"
    file.write_text(text)
    with pytest.raises(MolmoPointError, match="expected"):
        read_steps(file)


def test_files_of_steps_that_are_none_are_named(tmp_path: Path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name in ("missing.toml", "bytes.toml", "."):
        with pytest.raises(MolmoPointError, match="expected a TOML file"):
            read_steps(tmp_path / name)
