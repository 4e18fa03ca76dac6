"""A small script of steps before the picture is taken: logging in, opening a menu, hovering over something.

    [[once]]
    fill = "Password"
    text = "secret"

    [[once]]
    click = "Sign in"

    [[step]]
    hover = "File"

    [[step]]
    wait = 0.5

What is to be done once is done on the first page, the steps on every page. Names are accessible names, as a
person reads them; what begins with "css=" is a selector.
"""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.errors import MolmoPointError

ACTIONS = ("click", "hover", "fill", "press", "wait", "go")
"""What a step can do: click and hover name an element, fill one and a text, press keys, wait seconds, go an
address.
"""

_ROLES = ("button", "link", "menuitem", "tab", "checkbox", "switch", "radio", "option", "combobox")
_LONGEST = 60.0


@dataclass(frozen=True)
class Step:
    """One action.

    Attributes:
        action: one of `ACTIONS`.
        target: name of the element, selector, keys, address, or seconds.
        text: what is filled in.
    """

    action: str
    target: str
    text: str = ""

    def __str__(self) -> str:
        """For messages; what is filled in stays secret."""
        return f"{self.action} {self.target!r}"

    async def run(self, page: Any, timeout: float) -> None:
        """Acts on a page of Playwright; `timeout` in milliseconds."""
        if self.action == "wait":
            await asyncio.sleep(float(self.target))
        elif self.action == "press":
            await page.keyboard.press(self.target)
        elif self.action == "go":
            await page.goto(self.target, timeout=timeout)
        elif self.action == "fill":
            await self._find(page, _field).first.fill(self.text, timeout=timeout)
        elif self.action == "click":
            await self._find(page, _named).first.click(timeout=timeout)
        else:
            await self._find(page, _named).first.hover(timeout=timeout)

    def _find(self, page: Any, by_name: Callable[[Any, str], Any]) -> Any:
        """The locator of the target: by its selector, if it is one, or else by its name."""
        if self.target.startswith("css="):
            return page.locator(self.target)
        return by_name(page, self.target)


@dataclass(frozen=True)
class Script:
    """Steps of a file.

    Attributes:
        once: for the first page that a browser opens.
        each: for every page.
    """

    once: tuple[Step, ...] = ()
    each: tuple[Step, ...] = ()


def read_steps(path: str | os.PathLike[str]) -> Script:
    """The steps of a TOML file.

    Raises:
        MolmoPointError: the file cannot be read, or a step is none.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise MolmoPointError(
            f"expected a TOML file of steps at {os.fspath(path)!r}, got: {error}; correct it"
        ) from error
    lists = [content.get(name, []) for name in ("once", "step")]
    if not content or set(content) - {"once", "step"} or not all(isinstance(steps, list) for steps in lists):
        got = ", ".join(content) or "nothing"
        raise MolmoPointError(
            f"expected only [[once]] and [[step]] tables in {os.fspath(path)!r}, got {got}; correct it"
        )
    once, each = (
        tuple(_step(number, fields) for number, fields in enumerate(steps, start=1)) for steps in lists
    )
    return Script(once, each)


def _step(number: int, fields: Any) -> Step:
    where = f"step {number}"
    if not isinstance(fields, Mapping):
        raise MolmoPointError(
            f"{where}: expected a table like {{click = 'Save'}}, got {fields!r}; correct it"
        )
    actions = [name for name in fields if name in ACTIONS]
    unknown = sorted(set(fields) - {*ACTIONS, "text"})
    if unknown or len(actions) != 1:
        got = ", ".join(map(str, fields)) or "nothing"
        raise MolmoPointError(
            f"{where}: expected one of {', '.join(ACTIONS)}, and text beside fill, got {got}; correct it"
        )
    action, target = actions[0], fields[actions[0]]
    if action == "wait":
        if isinstance(target, bool) or not isinstance(target, int | float) or not 0 <= target <= _LONGEST:
            raise MolmoPointError(f"{where}: expected 0 to {_LONGEST:g} seconds, got {target!r}; correct it")
        target = str(target)
    if not isinstance(target, str) or not target:
        raise MolmoPointError(
            f"{where}: expected a name, got {target!r}; write the name of the element in quotes"
        )
    text = fields.get("text", "")
    if (action == "fill") != ("text" in fields) or not isinstance(text, str):
        raise MolmoPointError(f"{where}: expected text beside fill, and only there, got {text!r}; correct it")
    return Step(action, target, text)


def _field(page: Any, name: str) -> Any:
    """The field with a label or a placeholder."""
    return page.get_by_label(name).or_(page.get_by_placeholder(name))


def _named(page: Any, name: str) -> Any:
    """Whatever has the name: something to press first, else a field or words."""
    found = page.get_by_role(_ROLES[0], name=name)
    for role in _ROLES[1:]:
        found = found.or_(page.get_by_role(role, name=name))
    return found.or_(page.get_by_label(name)).or_(page.get_by_text(name))
