"""Readings of the code's shape, to be compared with those of other projects: `python tests/readings.py
[FOLDER ...]`.

They are no limits: nobody wants a line count met by worse code. Counted are the Python files of the package,
without its tests. A line of code is one that holds a token which is neither a comment nor part of a
docstring.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("molmopoint", "heads", "eval", "checkpoints")
_SILENT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.COMMENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_LONG = 60
_SMALL = 60


@dataclass(frozen=True)
class Reading:
    """What is counted in one file."""

    module: str
    lines: int
    code_lines: int
    tokens: int
    comments: int
    import_lines: int
    imported: frozenset[str]
    comprehensions: int
    conditional_expressions: int
    long_functions: int


def files_of(folders: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Module names and files; the links inside the package, which show rooms a second time, are left out."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[0] == "molmopoint" and len(parts) > 1 and parts[1] in FOLDERS:
                continue
            if parts[0] != "molmopoint":
                parts.insert(0, "molmopoint")
            module = ".".join(parts)
            yield module.removesuffix(".__init__"), path


def read(module: str, path: Path) -> Reading:
    """Counts one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    silent_lines = docstring_lines(tree)
    code_lines: set[int] = set()
    tokens = comments = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += 1
        if token.type in _SILENT or token.start[0] in silent_lines:
            continue
        tokens += 1
        code_lines.update(range(token.start[0], token.end[0] + 1))
    imported: set[str] = set()
    import_lines: set[int] = set()
    comprehensions = conditional_expressions = long_functions = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= names_of(node)
            import_lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, _COMPREHENSIONS):
            comprehensions += 1
        elif isinstance(node, ast.IfExp):
            conditional_expressions += 1
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            long_functions += (node.end_lineno or node.lineno) - node.lineno + 1 > _LONG
    return Reading(
        module=module,
        lines=len(text.splitlines()),
        code_lines=len(code_lines),
        tokens=tokens,
        comments=comments,
        import_lines=len(import_lines),
        imported=frozenset(imported),
        comprehensions=comprehensions,
        conditional_expressions=conditional_expressions,
        long_functions=long_functions,
    )


def docstring_lines(tree: ast.Module) -> set[int]:
    """Lines of docstrings, those behind assignments included."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", ()) if isinstance(getattr(node, "body", ()), list) else ():
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines


def names_of(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Full names of what is imported, modules and their parts alike."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    return {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}


def importers(readings: Iterable[Reading]) -> dict[str, set[str]]:
    """Which modules import each module."""
    known = {reading.module for reading in readings}
    found: dict[str, set[str]] = defaultdict(set)
    for reading in readings:
        for name in reading.imported & known:
            if name != reading.module:
                found[name].add(reading.module)
    return found


def room_of(module: str) -> str:
    """The folder a module lies in."""
    return module.rpartition(".")[0]


def table(readings: list[Reading]) -> list[tuple[str, str]]:
    """Names and values of all readings."""
    lines = sum(reading.lines for reading in readings)
    code_lines = sum(reading.code_lines for reading in readings)
    by_importer = importers(readings)
    edges = sum(len(modules) for modules in by_importer.values())
    only_next_door = [
        module
        for module, modules in by_importer.items()
        if len(modules) == 1 and room_of(next(iter(modules))) == room_of(module)
    ]

    def per_thousand(count: int, of: int) -> str:
        return f"{1000 * count / of:.1f}"

    sizes = [reading.lines for reading in readings]
    return [
        ("files, lines", f"{len(readings)}, {lines}"),
        ("files per 1,000 lines", per_thousand(len(readings), lines)),
        ("median file", f"{statistics.median(sizes):.0f}"),
        (f"files under {_SMALL} lines", str(sum(size < _SMALL for size in sizes))),
        ("import edges per 1,000 lines", per_thousand(edges, lines)),
        ("share of import lines", f"{100 * sum(reading.import_lines for reading in readings) / lines:.1f} %"),
        ("modules with one importer, in the same folder", str(len(only_next_door))),
        ("tokens per line of code", f"{sum(reading.tokens for reading in readings) / code_lines:.1f}"),
        (
            "comprehensions per 1,000 lines of code",
            per_thousand(sum(reading.comprehensions for reading in readings), code_lines),
        ),
        (
            "conditional expressions per 1,000 lines of code",
            per_thousand(sum(r.conditional_expressions for r in readings), code_lines),
        ),
        (
            "comments per 1,000 lines of code",
            per_thousand(sum(reading.comments for reading in readings), code_lines),
        ),
        (
            f"functions over {_LONG} lines per 1,000 lines",
            per_thousand(sum(reading.long_functions for reading in readings), lines),
        ),
    ]


def main() -> None:
    """Prints the table, and the densest files."""
    readings = [read(module, path) for module, path in files_of(sys.argv[1:] or FOLDERS)]
    for name, value in table(readings):
        print(f"{value:>14}  {name}")
    print("\ndensest files: tokens per line of code")
    dense = sorted(
        (r for r in readings if r.code_lines >= 40), key=lambda r: r.tokens / r.code_lines, reverse=True
    )
    for reading in dense[:30]:
        print(f"{reading.tokens / reading.code_lines:>14.1f}  {reading.module}")


if __name__ == "__main__":
    main()
