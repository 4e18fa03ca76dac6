"""Odd input for readers: documents, texts and bytes in which something is of another type, size or encoding.

A test says how its reader is called, and `attack` calls it with many odd inputs; whatever escapes but an
error of the library fails the test. `attack` with `examples` is quick and always tries the same inputs; a
test marked `slow` gives it `SECONDS`:

    DOCUMENT = {"points": [{"x": 1, "y": 2}]}

    @pytest.mark.parametrize("seconds", [0, pytest.param(SECONDS, marks=pytest.mark.slow)])
    def test_odd_documents(tmp_path, seconds):
        def read(text: bytes) -> None:
            (tmp_path / "a.json").write_bytes(text)
            reader(tmp_path / "a.json")

        attack(odd_json(DOCUMENT), read, examples=200, seconds=seconds)
"""

from __future__ import annotations

import copy
import json
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar
from xml.etree import ElementTree

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from molmopoint.errors import MolmoPointError

SECONDS = float(os.environ.get("MOLMOPOINT_FUZZ_SECONDS", "25"))
"""Time of a slow test for one reader."""

_ROUND = 200
"""Examples of a round; a slow test begins rounds until its time is over."""

_DEEP = "@deep@"
_MANY_DIGITS = "@digits@"
"""Stand for what neither `json.dumps` nor messages can write, and are replaced in the text of a file."""

Value = TypeVar("Value")


def _nested(levels: int, inner: Any = 1) -> list[Any]:
    for _ in range(levels):
        inner = [inner]
    return inner


_TEXTS = (
    "", " ", "\0", "\n", "a", "no", "1", "-1", "0.5", "1e999", "nan", "inf", "1_000", "\u0661", "\ud83d", "\udc80", "\U0001f600", "e\u0301",
    "\x1b[31m", "x" * 300, "../../../etc/passwd", "//outside/x", "\\\\outside\\x", "C:\\x.png", "/", ".", "..", "a/../../b", "%00",
    "data:,x", "=1+1",
)  # fmt: skip
_NUMBERS = (
    0, -1, 1, 2, 255, 2**31, 2**63, 2**64, 10**18, 10**400, -(10**400), 0.5, -0.5, 1e-320, 1e18, 1e200, 1.7e308, -1.7e308,
    math.nan, math.inf, -math.inf, -0.0,
)  # fmt: skip
_SIMPLE: tuple[Any, ...] = (None, True, False, *_NUMBERS, *_TEXTS, _DEEP, _MANY_DIGITS)


def odd_values() -> SearchStrategy[Any]:
    """Any JSON type: huge numbers, NaN, halves of characters, long names, deep lists, and small values of
    other types.
    """
    leaves = st.sampled_from(_SIMPLE) | st.integers() | st.floats() | st.text(max_size=8)
    nested = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )
    return st.sampled_from(_SIMPLE) | nested | st.sampled_from([_nested(60), _nested(600), _nested(3, {})])


@st.composite
def odd_documents(draw: st.DrawFn, document: Any, most: int = 3) -> Any:
    """A copy of a document of lists, dicts and plain values in which one or a few places are changed.

    Args:
        draw: given by hypothesis.
        document: a valid one, with every field that the reader knows.
        most: changes at most.
    """
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(changed))
        if not places:
            return draw(odd_values())
        container, key = draw(st.sampled_from(places))
        action = draw(
            st.sampled_from(("replace", "replace", "replace", "remove", "wrap", "repeat", "rename"))
        )
        if action == "replace":
            container[key] = draw(odd_values())
        elif action == "remove":
            del container[key]
        elif action == "wrap":
            container[key] = draw(
                st.sampled_from(([container[key]], {"a": container[key]}, {"0": container[key]}))
            )
        elif action == "repeat" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif isinstance(container, dict):
            container[draw(st.sampled_from(_TEXTS))] = container.pop(key)
    return changed


def odd_json(document: Any, most: int = 3) -> SearchStrategy[bytes]:
    """Bytes of JSON files: a changed document, its text changed, or its bytes."""
    text = json.dumps(document)
    return st.one_of(
        odd_documents(document, most).map(as_json),
        odd_documents(document, most).map(as_json),
        odd_bytes(text.encode()),
        odd_texts(text),
    )


def as_json(value: Any) -> bytes:
    """JSON, also of what Python refuses to write: deep lists and numbers of thousands of digits."""
    text = json.dumps(_writable(value, 0))
    deep = "[" * 100_000 + "]" * 100_000
    return (
        text.replace(f'"{_DEEP}"', deep)
        .replace(f'"{_MANY_DIGITS}"', "9" * 5000)
        .encode("utf-8", "surrogatepass")
    )


@st.composite
def odd_texts(draw: st.DrawFn, text: str, most: int = 3) -> bytes:
    """UTF-8 of a text (XML, YAML, CSV, ...) in which words, numbers and quoted texts are exchanged for odd
    ones, or lines are lost.
    """
    for _ in range(draw(st.integers(1, most))):
        tokens = list(re.finditer(r"[-+.\w]+|\"[^\"]*\"|[<>\[\]{}:,;=/]", text))
        if not tokens:
            break
        token = draw(st.sampled_from(tokens))
        odd = draw(st.sampled_from((*_TEXTS, *(str(number) for number in _NUMBERS))) | st.text(max_size=8))
        if token.group().startswith('"'):
            odd = f'"{odd}"'
        action = draw(st.sampled_from(("replace", "replace", "remove", "repeat", "cut")))
        if action == "cut":
            text = text[: token.start()]
        elif action == "remove":
            text = text[: token.start()] + text[token.end() :]
        else:
            text = text[: token.start() if action == "replace" else token.end()] + odd + text[token.end() :]
    return text.encode("utf-8", "surrogatepass")


def odd_xml(text: str, most: int = 3) -> SearchStrategy[bytes]:
    """Bytes of XML files: mostly well formed with changed elements, else the text changed, or its bytes."""
    return st.one_of(
        _odd_elements(text, most),
        _odd_elements(text, most),
        _odd_elements(text, most),
        odd_texts(text),
        odd_bytes(text.encode()),
    )


@st.composite
def _odd_elements(draw: st.DrawFn, text: str, most: int) -> bytes:
    """XML in which attributes and texts of elements are exchanged for odd ones, or elements are lost, doubled
    or renamed.
    """
    root = ElementTree.fromstring(text)
    odd = st.sampled_from(
        (*_TEXTS, *(str(number) for number in _NUMBERS), "nan,1;2,3", "1,2,3", "1e9,1e9")
    ) | st.text(max_size=8)
    for _ in range(draw(st.integers(1, most))):
        parent = draw(st.sampled_from([element for element in root.iter() if len(element)] or [root]))
        element = draw(st.sampled_from([*parent] or [root]))
        action = draw(
            st.sampled_from(
                ("attribute", "attribute", "attribute", "text", "remove", "forget", "repeat", "rename")
            )
        )
        if action == "attribute":
            element.set(draw(st.sampled_from([*element.keys()] or ["label"])), draw(odd))
        elif action == "text":
            element.text = draw(odd)
        elif action == "forget" and element.keys():
            del element.attrib[draw(st.sampled_from([*element.keys()]))]
        elif action == "remove" and element in list(parent):
            parent.remove(element)
        elif action == "repeat":
            parent.append(copy.deepcopy(element))
        elif action == "rename":
            element.tag = draw(st.sampled_from([other.tag for other in root.iter()]))
    return ElementTree.tostring(root, encoding="unicode").encode("utf-8", "surrogatepass")


@st.composite
def odd_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut off, exchanged or put in, or a text in another encoding than it should have."""
    action = draw(st.sampled_from(("cut", "exchange", "insert", "encoding", "anything")))
    at = draw(st.integers(0, max(len(data) - 1, 0)))
    if action == "cut":
        return data[:at]
    if action == "exchange":
        return data[:at] + draw(st.binary(min_size=1, max_size=4)) + data[at + 1 :]
    if action == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=20)) + data[at:]
    if action == "anything":
        return draw(st.binary(max_size=200))
    encoding = draw(st.sampled_from(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037", "utf-7")))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


def attack(
    inputs: SearchStrategy[Value],
    action: Callable[[Value], object],
    *,
    examples: int = 100,
    seconds: float = 0,
    number: int = 0,
) -> Counter[str]:
    """Calls a reader with odd inputs.

    Args:
        inputs: what it is called with.
        action: calls it; errors of the library are fine, all others fail the test with the smallest such
            input.
        examples: to try, without `seconds`.
        seconds: how long to go on with new inputs.
        number: of the first seed.

    Returns:
        How many inputs were "read" and how many "refused"; printed by slow runs.
    """
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while True:
        _round(inputs, action, _ROUND if seconds else examples, number, counts)
        number += 1
        if time.monotonic() >= end:
            break
    if seconds:
        print(f"{counts.total()} odd inputs: {counts['read']} read, {counts['refused']} refused")
    return counts


def _round(
    inputs: SearchStrategy[Any],
    action: Callable[[Any], object],
    examples: int,
    number: int,
    counts: Counter[str],
) -> None:
    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
            HealthCheck.large_base_example,
        ],
        phases=(Phase.generate, Phase.shrink),
    )
    @given(inputs)
    def survives(value: Any) -> None:
        try:
            action(value)
        except MolmoPointError:
            counts["refused"] += 1
        else:
            counts["read"] += 1

    survives()


def _places(value: Any) -> Any:
    """(container, key) of everything inside a document."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)


def _writable(value: Any, depth: int) -> Any:
    """The value with stand-ins for what cannot be written."""
    if depth > 500:
        return _DEEP
    if isinstance(value, dict):
        return {str(key): _writable(inner, depth + 1) for key, inner in value.items()}
    return [_writable(inner, depth + 1) for inner in value] if isinstance(value, list) else value
