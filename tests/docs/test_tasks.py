"""Every page for a task is followed from its first block to its last: Python runs, commands run, and what they
print is what the page says.
"""

from __future__ import annotations

import ast
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from document_blocks import ROOT, Block, blocks, name
from stated_values import run_block, same_text
from typer.testing import CliRunner

from molmopoint.cli import app

PAGES = sorted((ROOT / "docs" / "tasks").glob("*.md"))
LONG = {"evaluate.md", "finetune.md"}
"""Pages that take longer than a test of the default suite may."""

SKIPPED = ("pip", "git", "cd", "pytest")
"""What a test must not do to its own environment; the names in these commands are checked elsewhere."""


def marked(page: Path):
    return pytest.param(page, id=name(page), marks=[pytest.mark.slow] if page.name in LONG else [])


@pytest.mark.parametrize("page", [marked(page) for page in PAGES])
def test_the_page_is_true_from_beginning_to_end(page, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "examples" / "images")
    shutil.copy(ROOT / "examples" / "write_a_benchmark.py", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    namespace: dict[str, object] = {"__name__": "__document__"}
    printed = ""
    for block in blocks(page):
        if block.reason is not None:
            if block.language == "python":
                ast.parse(block.code)
        elif block.language == "python":
            run_block(block.code, block.line, name(page), namespace)
        elif block.language == "bash":
            printed = run_commands(block, monkeypatch, name(page))
        elif block.language == "text" and printed:
            assert same_text(block.code, printed), f"{name(page)}:{block.line}: the command prints {printed}"
            printed = ""


def run_commands(block: Block, monkeypatch: pytest.MonkeyPatch, page: str) -> str:
    """Runs the commands of a block, and gives what the last one printed."""
    printed = ""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words or words[0] in SKIPPED:
            continue
        if words[0] == "molmopoint":
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{page}: {line} ends with {done.exit_code}:\n{done.output}"
            printed = done.stdout
        else:
            assert words[0] == "python", f"{page}: the tests do not know how to run {line}"
            printed = run_script(words[1:], monkeypatch)
    return printed


def run_script(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a script of the examples, and gives what it printed."""
    import contextlib
    import io

    output = io.StringIO()
    monkeypatch.setattr(sys, "argv", words)
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    return output.getvalue()
