"""Nothing that the command line writes is obeyed by a terminal, whoever wrote the text."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings

import pytest
from rich.table import Table
from rich.text import Text

from molmopoint.cli import console

HOSTILE = "a\x1b]0;owned\x07\x9b31m\x1b[2J\u202eb\rc\x08\x7f"
RAW = set(HOSTILE) - set("abcowned0;]31m[2J")
SHOWN = "a\\x1b]0;owned\\x07\\x9b31m\\x1b[2J\\u202eb\\rc\\x08\\x7f"


def molmopoint(*words: str, prelude: str = "") -> tuple[int, str]:
    code = f"import sys; sys.argv = ['molmopoint', *sys.argv[1:]]; from molmopoint.cli import main\n{prelude}\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        check=False,
        env={"PATH": "", "COLUMNS": "300"},
    )
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.parametrize("make", [console.notes, console.findings])
def test_consoles_show_escapes(make, capsys):
    paper = make()
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(Text(HOSTILE))
    for shown in (HOSTILE, Text(HOSTILE), table):
        paper.print(shown, markup=False)
    console.complain(HOSTILE)
    console.say(HOSTILE)
    console.write(HOSTILE)
    printed = "".join(capsys.readouterr())
    assert not set(printed) & RAW
    assert printed.count(SHOWN) >= 6  # a Text of rich drops a few by itself


def test_own_styles_stay(capsys):
    paper = console.findings()
    colours = type(paper)(force_terminal=True, color_system="standard", highlight=False, _environ={})
    colours.print("[bold red]error:[/] fine")
    assert capsys.readouterr().out == "\x1b[1;31merror:\x1b[0m fine\n"


def test_brackets_and_colons_are_no_markup(capsys):
    console.say("[red]x[/red] :smile:")
    assert capsys.readouterr().err == "[red]x[/red] :smile:\n"


def test_json_escapes_all_of_them(capsys):
    console.print_json({"name": HOSTILE + "\u2028\ud83d"})
    printed = capsys.readouterr().out
    assert not set(printed) & RAW
    assert json.loads(printed)["name"] == HOSTILE + "\u2028\ud83d"


@pytest.mark.parametrize(
    "words",
    [["point", "a.png", "x", "--dtype", HOSTILE], [HOSTILE], ["zoo", HOSTILE], ["zoo", f"--{HOSTILE}"]],
)
def test_complaints_about_arguments(words):
    code, said = molmopoint(*words)
    assert code == 2
    assert not set(said) & RAW
    assert "x1b]0;owned" in said


@pytest.mark.parametrize(
    "statement",
    ["warnings.warn(text)", "logging.getLogger('x').warning('%s', text)", "raise RuntimeError(text)"],
)
def test_warnings_logs_and_errors_nobody_caught(statement):
    prelude = f"import logging, warnings, molmopoint.cli.zoo as zoo\ndef show(*_): text = {HOSTILE!r}; {statement}; return 0\n"
    _, said = molmopoint("zoo", prelude=prelude + "zoo.run = zoo.show_zoo = show")
    assert not set(said) & RAW
    assert SHOWN in said


def test_guard_leaves_messages_of_others_alone():
    assert logging.getLogRecordFactory() is logging.LogRecord
    assert warnings.formatwarning("x", UserWarning, "f", 1).endswith("UserWarning: x\n")
