"""What the documents say: their Python runs, their commands and files exist, their table is that of the zoo."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import typer
from document_blocks import DOCUMENTS, ROOT, blocks, name
from stated_values import run_block
from typer.testing import CliRunner

from molmopoint.checkpoints import ZooEntry, list_models
from molmopoint.cli import app

TASKS = ROOT / "docs" / "tasks"
COMMANDS = {
    'pip install -e . && molmopoint point examples/images/shapes.png "the red circles" --out points.png',
    'pip install -e ".[test]" && pytest',
}

_LINK = re.compile(r"\]\(([^()\s]+)\)")


@pytest.fixture
def beside_the_examples(tmp_path, monkeypatch):
    """A folder to write into, where the paths of the documents exist."""
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "examples" / "images")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("document", [page for page in DOCUMENTS if page.parent != TASKS], ids=name)
@pytest.mark.usefixtures("beside_the_examples")
def test_python_runs(document):
    """The blocks of a document run one after the other and give what their comments say; those not run must
    at least be Python.
    """
    namespace: dict[str, object] = {"__name__": "__document__"}
    for block in blocks(document):
        if block.language != "python":
            continue
        if block.reason is None:
            run_block(block.code, block.line, name(document), namespace)
        else:
            ast.parse("\n" * (block.line - 1) + block.code, filename=name(document))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_to_files(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in _LINK.findall(text):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{name(document)} links to {target}, which is not there"
        assert file.is_relative_to(ROOT)
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{name(document)} links to {target}, which has no such heading"


def shell_lines() -> list[tuple[str, str]]:
    """Commands of all documents, one each; comments left out, lines that go on joined."""
    found = [
        (name(document), block)
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language == "bash"
    ]
    return [
        (where, command)
        for where, block in found
        for line in block.code.replace("\\\n", " ").splitlines()
        for command in line.split(" && ")
        if shlex.split(command, comments=True)
    ]


def check_program(words: list[str], where: str) -> None:
    """A call of the command line, without its first word: command, command in a group, options."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{where}: no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


@pytest.mark.parametrize(("where", "command"), shell_lines())
def test_commands_exist(where, command):
    words = shlex.split(command, comments=True)
    if words[0] == "molmopoint":
        check_program(words[1:], where)
    elif words[0] in ("torchrun", "accelerate"):
        start = words.index("-m")
        assert words[start + 1] == "molmopoint"
        check_program(words[start + 2 :], where)
        files = [words[i + 1] for i, word in enumerate(words) if word == "--config_file"]
        assert all((ROOT / file).is_file() for file in files), f"{where}: no file {files}"
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(f"{words[2]}.__main__") or importlib.util.find_spec(words[2]), (
            f"{where}: no module {words[2]}"
        )
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), f"{where}: no file {words[1]}"
    elif words[0] == "pip":
        named = re.findall(r"\[([\w,]+)\]", command)
        extras = [extra for group in named for extra in group.split(",")]
        assert all(f'"{extra}"' in (ROOT / "setup.py").read_text() for extra in extras)
    elif words[0] in ("git", "cd", "source"):
        assert words[1] in ("clone", "molmopoint", ".venv/bin/activate"), (
            f"{where}: {command} is not for readers"
        )
    else:
        assert words[0] == "pytest", f"{where}: the tests do not know the command {words[0]!r}"


def test_readme_has_the_two_commands():
    lines = {
        line
        for block in blocks(ROOT / "README.md")
        if block.language == "bash"
        for line in block.code.splitlines()
    }
    assert lines >= COMMANDS


@pytest.mark.usefixtures("beside_the_examples")
def test_the_first_command_points():
    arguments = next(shlex.split(command) for command in sorted(COMMANDS) if "molmopoint" in command)
    call = arguments[arguments.index("molmopoint") + 1 :]
    done = CliRunner().invoke(app, [*call, "--max-new-tokens", "256"])
    assert done.exit_code == 0, done.output
    assert Path("points.png").is_file()


def zoo_row(entry: ZooEntry) -> str:
    parameters, memory = "not counted", "not counted"
    if entry.parameters is not None:
        unit, letter = (10**9, "B") if entry.parameters >= 10**9 else (10**6, "M")
        parameters = f"{entry.parameters / unit:.1f} {letter}"
        memory = f"{2 * entry.parameters / unit:.1f} {'GB' if letter == 'B' else 'MB'}"
    scores = "; ".join(f"{score.benchmark} {score.value}" for score in entry.scores) or "see its model card"
    weights = f"`{entry.hub_id}`" if entry.hub_id else "in this package"
    looks_at = ", ".join(entry.modalities)
    return f"| `{entry.name}` | {weights} | {parameters} | {memory} | {looks_at} | {scores} |"


def test_the_table_is_that_of_the_zoo():
    rows = [
        line
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `[a-z0-9.-]+` \|", line)
    ]
    assert rows == [zoo_row(entry) for entry in list_models()]


def test_the_four_files_to_read_first_are_modules():
    text = (TASKS / "read_code.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\d\. \[([\w/]+)\.py\]", text, flags=re.MULTILINE)
    assert len(listed) == 4
    for path in listed:
        room = path.removeprefix("../../")
        import_module(("" if room.startswith("molmopoint/") else "molmopoint.") + room.replace("/", "."))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1500


def test_every_task_of_the_readme_has_its_page():
    """The tables of the README and of the site's first page lead to the same pages, and to all of them."""
    for document, folder in ((ROOT / "README.md", "docs/tasks"), (ROOT / "docs" / "index.md", "tasks")):
        rows = re.findall(
            rf"^\| \[[^\]]+\]\({folder}/(\w+)\.md\)", document.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert sorted(rows) == sorted(page.stem for page in TASKS.glob("*.md"))


def test_messages_of_the_troubleshooting_page_are_those_of_the_library():
    """Every message in the first column, in its constant parts, is written somewhere in the code."""
    rooms = [ROOT / room for room in ("molmopoint", "eval", "heads", "checkpoints")]
    files = [file for room in rooms for file in room.rglob("*.py")]
    code = "".join(file.read_text(encoding="utf-8") for file in files)
    # Strings that go on in the next line are one string.
    code = re.sub(r'["\']\s+f?["\']', "", code)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `((?:…|expected|addresses|lies|no row|unexpected)[^`]*)`", page, re.MULTILINE)
    assert len(messages) > 15
    for message in messages:
        for part in message.split("…"):
            assert part.strip(" ;") in code, f"no message says {part!r}"


def test_every_page_is_found_from_the_first_one_and_from_the_menu():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCUMENTS:
        if page.parent == ROOT or page.name == "index.md":
            continue
        path = page.relative_to(ROOT / "docs").as_posix()
        assert f"]({path})" in index, f"docs/index.md does not lead to {path}"
        assert f": {path}\n" in menu, f"mkdocs.yml does not lead to {path}"
