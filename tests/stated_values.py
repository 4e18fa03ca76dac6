"""Values that comments of a document state, compared with what its code gives.

    print(1 / 3)                  # 0.33                    all that is printed
    judge.score(...)              # [4.57, 3.67]; more is better      the value, and words behind a semicolon or a colon
    clip.frames                   # (8, height, width) uint8          the shape; names stand for any number
    names = list(found)           # ["a", "b"]              the value that the name gets
    print(error)                  # expected a picture, got ...        three points at the end stand for the rest

A comment behind a `print` is always its output, the first one where it runs again and again. Behind other
expressions it is a value if it begins like one, else it is words. A number with decimals may be one unit of
its last one away: it is rounded, and processors differ.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tokenize
from collections.abc import Callable
from typing import Any

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
_LIKE_A_VALUE = re.compile(r"-?\.?\d|[\[{'\"(]|(True|False|None)\b")
_SHAPE = re.compile(r"\((?P<sizes>\w+(?:, ?\w+)*),?\)")
_PRINT, _VALUE = "__printed__", "__valued__"


def run_block(code: str, line: int, where: str, namespace: dict[str, Any]) -> None:
    """Runs a block of a document and compares what its comments state.

    Args:
        code: of the block.
        line: of the document at which it begins, from 1.
        where: name of the document.
        namespace: of all its blocks.

    Raises:
        AssertionError: a value is another one than its comment says.
    """
    stated = _comments(code)
    tree = ast.parse(code, filename=where)
    seen: dict[int, tuple[str, Any]] = {}
    marked = _Marked(stated)
    ast.fix_missing_locations(ast.increment_lineno(marked.visit(tree), line - 1))
    namespace |= {_PRINT: _printer(seen), _VALUE: _keeper(seen)}
    exec(compile(tree, where, "exec"), namespace)
    for number, is_print in marked.lines.items():
        place = f"{where}:{line + number - 1}"
        assert number in seen or not is_print, f"{place}: the print before {stated[number]!r} never runs"
        if number in seen:
            compare(stated[number], *seen[number], place)


def compare(stated: str, kind: str, got: Any, place: str) -> None:
    """Compares one comment with the output ("printed") or the value ("value") before it.

    Raises:
        AssertionError: they differ, or the comment begins like a value and is none.
    """
    if kind == "printed":
        assert same_text(stated, got), f"{place}: the document says {stated!r}, its code prints {got!r}"
        return
    if not _LIKE_A_VALUE.match(stated):
        return
    text = _before_words(stated)
    shape = _SHAPE.match(text)
    if shape and hasattr(got, "shape"):
        sizes = [part.strip() for part in shape["sizes"].split(",")]
        found = tuple(got.shape)
        same = len(sizes) == len(found) and all(
            not size.isdigit() or int(size) == n for size, n in zip(sizes, found, strict=True)
        )
        assert same, f"{place}: the document says shape {shape[0]}, its code gives {found}"
        return
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise AssertionError(f"{place}: expected a value, then maybe `; words`, got {stated!r}") from error
    same = value == got if isinstance(value, str) else same_text(text, repr(got))
    assert same, f"{place}: the document says {text}, its code gives {got!r}"


def same_text(stated: str, got: str) -> bool:
    """Whether a text is the stated one, numbers within the digits that are stated; white space counts once,
    quotes are alike.
    """
    stated, got = (" ".join(text.replace('"', "'").split()) for text in (stated, got))
    if not stated.endswith("..."):
        return _same(stated, got)
    words = stated.removesuffix("...").rstrip()
    return any(_same(words, got[:end].rstrip()) for end in range(len(got) + 1))


def _same(stated: str, got: str) -> bool:
    if _NUMBER.sub("0", stated) != _NUMBER.sub("0", got):
        return False
    pairs = zip(_NUMBER.findall(stated), _NUMBER.findall(got), strict=True)
    return all(abs(float(a) - float(b)) <= _tolerance(a) for a, b in pairs)


def _tolerance(number: str) -> float:
    """One unit of the last decimal; nothing for whole numbers."""
    digits, _, exponent = number.partition("e")
    decimals = len(digits.partition(".")[2])
    unit = 10.0 ** (int(exponent or 0) - decimals)
    return unit * (1 + 1e-9) if decimals else 0.0


def _before_words(stated: str) -> str:
    """The part of a comment before its first semicolon or colon outside brackets and quotes."""
    depth, quote = 0, ""
    for place, letter in enumerate(stated):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in ";:" and not depth:
            return stated[:place].strip()
        else:
            depth += (letter in "([{") - (letter in ")]}")
    return stated


def _comments(code: str) -> dict[int, str]:
    """Text of the comments that stand behind code, by line."""
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    behind = [
        token for token in tokens if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip()
    ]
    return {token.start[0]: token.string.lstrip("# ").rstrip() for token in behind}


class _Marked(ast.NodeTransformer):
    """Hands the value of every commented statement over, and what it prints."""

    def __init__(self, stated: dict[int, str]) -> None:
        self.stated = stated
        self.lines: dict[int, bool] = {}

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        line = node.end_lineno or node.lineno
        if line in self.stated:
            is_print = (
                isinstance(node.value, ast.Call)
                and isinstance(node.value.func, ast.Name)
                and node.value.func.id == "print"
            )
            self.lines[line] = is_print
            if is_print:
                node.value.func = _call(_PRINT, ast.Constant(line))  # pyright: ignore[reportAttributeAccessIssue]
            else:
                node.value = _call(_VALUE, ast.Constant(line), node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        line = node.end_lineno or node.lineno
        if line in self.stated:
            self.lines[line] = False
            node.value = _call(_VALUE, ast.Constant(line), node.value)
        return node


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _printer(seen: dict[int, tuple[str, Any]]) -> Callable[[int], Callable[..., None]]:
    def of_line(line: int) -> Callable[..., None]:
        def printed(*arguments: Any, **options: Any) -> None:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                print(*arguments, **options)
            seen.setdefault(line, ("printed", output.getvalue()))

        return printed

    return of_line


def _keeper(seen: dict[int, tuple[str, Any]]) -> Callable[[int, Any], Any]:
    def valued(line: int, value: Any) -> Any:
        seen.setdefault(line, ("value", value))
        return value

    return valued
