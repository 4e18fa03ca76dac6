"""Joins the two trees that the browser tells of a page: the document, which `collect.js` walks too, and that
of accessibility.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STATES = ("checked", "disabled", "expanded", "selected", "pressed", "invalid", "focused")
_ELEMENT, _DOCUMENT, _FRAGMENT = 1, 9, 11
"""Types of nodes, as the DOM numbers them."""
_LONGEST_NAME = 200
"""Letters of a name that are kept."""


@dataclass(frozen=True)
class Described:
    """An element as the accessibility tree has it.

    Attributes:
        tag: name of the element, as the document writes it.
        role: "" of elements that mean nothing by themselves.
        name: its accessible name.
        states: those of checked, disabled, expanded, selected, pressed, invalid and focused that are told;
            true, false or "mixed".
    """

    tag: str
    role: str = ""
    name: str = ""
    states: Mapping[str, bool | str] | None = None


def described(document: Mapping[str, Any], accessible: Sequence[Mapping[str, Any]]) -> list[Described]:
    """All elements in the order in which `collect.js` finds them.

    Args:
        document: the root of `DOM.getDocument` with all that lies below it.
        accessible: nodes of `Accessibility.getFullAXTree` of all frames.
    """
    told = {}
    for node in accessible:
        if not node.get("ignored") and "backendDOMNodeId" in node:
            told[node["backendDOMNodeId"]] = node
    return [_described(node, told.get(node["backendNodeId"])) for node in _elements(document)]


def frames_in(tree: Mapping[str, Any]) -> list[str]:
    """Ids of all frames of a `Page.getFrameTree`, the outermost first."""
    frames = [tree["frame"]["id"]]
    for child in tree.get("childFrames", ()):
        frames += frames_in(child)
    return frames


def _elements(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An element, its open shadow tree, the page in its frame, then its children; without recursion, for
    pages may nest deeply.
    """
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if here["nodeType"] not in (_ELEMENT, _DOCUMENT, _FRAGMENT):
            continue
        if here["nodeType"] == _ELEMENT:
            yield here
        below = [root for root in here.get("shadowRoots", ()) if root.get("shadowRootType") == "open"]
        if "contentDocument" in here:
            below.append(here["contentDocument"])
        below += here.get("children", ())
        waiting.extend(reversed(below))


def _described(node: Mapping[str, Any], told: Mapping[str, Any] | None) -> Described:
    tag = node["nodeName"]
    if told is None:
        return Described(tag)
    role = str(told.get("role", {}).get("value", ""))
    name = " ".join(str(told.get("name", {}).get("value", "")).split())
    states = {}
    for entry in told.get("properties", ()):
        if entry["name"] in _STATES:
            states[entry["name"]] = _truth(entry["value"].get("value"))
    return Described(tag, role, name[:_LONGEST_NAME], states)


def _truth(value: Any) -> bool | str:
    """True, false or "mixed" for how the tree writes it."""
    if value == "mixed":
        return "mixed"
    return value is True or value in ("true", "page", "grammar", "spelling")
