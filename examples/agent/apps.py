"""Made-up apps of a few screens each, with tasks of three to six clicks.

An app is one HTML page: all of its screens, of which one is shown, and a table of what a press does. Its state
is the screen that is shown, what is switched on or chosen, and which buttons were pressed, in order. A task is
done if the state is the one that its clicks, and no others, lead to; where on the screen somebody pressed is
never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from screens import pages
from screens.icon_sets import Icons
from screens.kits import Kit
from screens.words import ACTIONS, CHOICES, OPTIONS, SECTIONS, SENTENCES

ROOM = (336, 336)
"""Width and height of the window, in pixels of the page."""

_SCRIPT = """
const app = { screen: "home", values: {}, pressed: [] };
const table = %s;
function show(name) {
  app.screen = name;
  for (const part of document.querySelectorAll("[data-screen]"))
    part.style.display = part.dataset.screen === name ? "" : "none";
}
document.addEventListener("click", (event) => {
  for (let part = event.target; part && part.closest; part = part.parentElement) {
    const action = table[part.id];
    if (!action) continue;
    event.preventDefault();
    app.pressed.push(action.name);
    if (action.leads) show(action.leads);
    return;
  }
});
document.addEventListener("change", (event) => {
  if (event.target.type === "radio")
    for (const other of document.getElementsByName(event.target.name)) app.values[other.id] = other.checked;
  else app.values[event.target.id] = event.target.checked;
});
for (const box of document.querySelectorAll("input[type=checkbox], input[type=radio]"))
  app.values[box.id] = box.checked;
show("home");
"""


@dataclass(frozen=True)
class Click:
    """One click of a task.

    Attributes:
        instruction: what a person would say.
        element: identity of the element that is meant; the agent never sees it.
        state: of the app after this click.
    """

    instruction: str
    element: str
    state: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """An app and what is to be done in it.

    Attributes:
        kind: a key of `KINDS`.
        html: the app.
        clicks: in order.
        look: kit and icons that it is drawn with, for the report.
    """

    kind: str
    html: str
    clicks: tuple[Click, ...]
    look: str

    @property
    def goal(self) -> dict[str, Any]:
        """The state of the app when all is done."""
        return self.clicks[-1].state


@dataclass
class App:
    """An app while it is written.

    Attributes:
        make: writes its parts.
        screens: body of each screen by its name; "home" is shown first.
        table: what the parts that can be pressed are called, and the screens that they lead to.
        values: what is switched on or chosen, by identity of the part.
        groups: identities of radio buttons that belong together.
        planned: instruction and identity of each click of the task.
    """

    make: pages.Maker
    screens: dict[str, str] = field(default_factory=dict)
    table: dict[str, dict[str, str]] = field(default_factory=dict)
    values: dict[str, bool] = field(default_factory=dict)
    groups: list[list[str]] = field(default_factory=list)
    planned: list[tuple[str, str]] = field(default_factory=list)

    # ---- Parts, each with its identity

    def button(self, label: str, leads: str = "", icon: str | None = None) -> tuple[str, str]:
        """A button with words, or with a drawing alone."""
        part = self._usable(lambda: self.make.button(label, icon, alone=icon is not None))
        return self._counted(part, label, leads)

    def link(self, label: str, leads: str = "") -> tuple[str, str]:
        """A link."""
        return self._counted(self.make.link(label), label, leads)

    def tab(self, label: str, leads: str = "", chosen: bool = False) -> tuple[str, str]:
        """A tab, to be put into a row of tabs."""
        attributes = self.make._attrs('aria-selected="true"' if chosen else "")
        part = self.make._fill("tab", inner=label, attrs=attributes, **pages._active(chosen))
        return self._counted(part, label, leads)

    def menu_item(self, label: str, leads: str = "") -> tuple[str, str]:
        """An entry, to be put into a menu."""
        part = self.make._fill("menu_item", inner=label, attrs=self.make._attrs(""))
        return self._counted(part, label, leads)

    def box(self, label: str, kind: str, checked: bool) -> tuple[str, str]:
        """A switch, a checkbox or a radio button."""
        part = self._usable(lambda: self.make.checkbox(label, kind, checked))
        self.values[self._last] = checked
        return part, self._last

    def radios(self, labels: Sequence[str]) -> tuple[str, list[str]]:
        """Radio buttons of which the first is chosen, and their identities."""
        group = f"group{len(self.groups)}"
        parts = ""
        identities = []
        for number, label in enumerate(labels):
            part, identity = self.box(label, "radio", number == 0)
            named = part.replace("<input", f'<input name="{group}"', 1)
            parts += f'<div class="mp-block">{named}</div>'
            identities.append(identity)
        self.groups.append(identities)
        return parts, identities

    @property
    def _last(self) -> str:
        """Identity of the part that was written last."""
        return f"e{self.make._last}"

    def _counted(self, part: str, label: str, leads: str) -> tuple[str, str]:
        self.table[self._last] = {"name": label, "leads": leads}
        return part, self._last

    def _usable(self, write: Callable[[], str]) -> str:
        """A part that is not disabled."""
        part = write()
        while " disabled" in part:
            part = write()
        return part

    # ---- The task

    def then(self, instruction: str, part: tuple[str, str]) -> str:
        """Plans a click on a part, and gives its text."""
        text, identity = part
        self.planned.append((instruction, identity))
        return text

    def clicks(self) -> tuple[Click, ...]:
        """The clicks of the task, with the state after each of them."""
        screen = "home"
        values = dict(self.values)
        pressed: list[str] = []
        clicks = []
        for instruction, identity in self.planned:
            if identity in self.table:
                pressed.append(self.table[identity]["name"])
                screen = self.table[identity]["leads"] or screen
            else:
                self._switch(values, identity)
            state = {"screen": screen, "values": dict(values), "pressed": list(pressed)}
            clicks.append(Click(instruction, identity, state))
        return tuple(clicks)

    def _switch(self, values: dict[str, bool], identity: str) -> None:
        """What a press does to boxes: of radio buttons one is chosen, others change."""
        for group in self.groups:
            if identity in group:
                values.update({other: other == identity for other in group})
                return
        values[identity] = not values[identity]

    def html(self, style: str) -> str:
        """The whole page."""
        rng = self.make.rng
        parts = ""
        for name, body in self.screens.items():
            parts += f'<section data-screen="{name}">{body}</section>'
        script = _SCRIPT % json.dumps(self.table)
        return (
            f"<!doctype html><html><head><style>{style}</style></head>"
            f'<body style="{pages.body_style(rng)}">{parts}<script>{script}</script></body></html>'
        )


# ---- Kinds of apps


def _others(app: App, number: int, leads: str = "") -> list[str]:
    """Buttons that the task does not ask for."""
    return [app.button(app.make.names.of(ACTIONS), leads)[0] for _ in range(number)]


def _shuffled(app: App, parts: list[str]) -> list[str]:
    order = app.make.rng.permutation(len(parts)).tolist()
    return [parts[i] for i in order]


def _question(app: App, name: str) -> None:
    """A dialog that asks once more."""
    make = app.make
    label = make.names.of(("OK", "Yes", "Confirm", "Continue", "Done", "Accept", "Apply"))
    pressed = app.then(f"the {label} button", app.button(label, "end"))
    bar = make.bar(_shuffled(app, [pressed, *_others(app, 1)]), "group")
    inner = f"<p>{make.pick(SENTENCES)}</p>{bar}"
    box = make._fill("dialog", label="Dialog", inner=inner)
    app.screens[name] = f'<div style="width:260px;margin:40px auto 0">{box}</div>'
    app.screens["end"] = f"<h3>{make.pick(SENTENCES)}</h3>"


def settings_app(app: App) -> None:
    """Open settings by a tab, switch some of them, save; sometimes say yes."""
    make = app.make
    section, *others = (make.names.of(SECTIONS) for _ in range(3))
    tabs = [app.tab(others[0], chosen=True)[0]]
    tabs.append(app.then(f"the {section} tab", app.tab(section, "settings")))
    tabs.append(app.tab(others[1])[0])
    home = make._fill("tabs", inner="".join(tabs)) + f"<p>{make.pick(SENTENCES)}</p>"
    app.screens["home"] = home + make.bar(_others(app, 2))

    kind = make.pick(("switch", "checkbox"))
    rows = []
    wanted = set(make.rng.permutation(4)[: make.some(1, 3)].tolist())
    for number in range(4):
        label = make.names.of(OPTIONS)
        box = app.box(label, kind, make.chance(0.5))
        text = app.then(f"the {label} {kind}", box) if number in wanted else box[0]
        rows.append(make.row(text))
    label = make.names.of(("Save", "Apply", "Done", "Submit", "Update"))
    asks = make.chance(0.4)
    pressed = app.then(f"the {label} button", app.button(label, "question" if asks else "end"))
    bar = make.bar(_shuffled(app, [pressed, *_others(app, 1)]), "group")
    app.screens["settings"] = f"<h3>{section}</h3>" + "".join(rows) + bar
    if asks:
        _question(app, "question")
    else:
        app.screens["end"] = f"<h3>{make.pick(SENTENCES)}</h3>"


def files_app(app: App) -> None:
    """Tick files, press a drawing, say yes."""
    make = app.make
    names = [make.names.file() for _ in range(3)]
    section = make.names.of(SECTIONS)
    menu = [app.then(f"the {section} menu item", app.menu_item(section, "files"))]
    menu += [app.menu_item(make.names.of(SECTIONS))[0] for _ in range(2)]
    app.screens["home"] = make.bar(_others(app, 2)) + make._fill("menu", inner="".join(_shuffled(app, menu)))

    rows = []
    wanted = set(make.rng.permutation(3)[: make.some(1, 2)].tolist())
    for number, name in enumerate(names):
        box = app.box(name, "checkbox", False)
        text = app.then(f"the {name} checkbox", box) if number in wanted else box[0]
        rows.append(make.row(text))
    icons = [make.icons.names[i] for i in make.rng.permutation(len(make.icons.names))[:3].tolist()]
    drawn = [app.then(f"the {icons[0]} icon", app.button(icons[0], "question", icon=icons[0]))]
    drawn += [app.button(icon, icon=icon)[0] for icon in icons[1:]]
    app.screens["files"] = make.bar(_shuffled(app, drawn)) + f'<div role="list">{"".join(rows)}</div>'
    _question(app, "question")


def order_app(app: App) -> None:
    """Open a thing, choose how it comes, order it."""
    make = app.make
    things = [make.names.thing() for _ in range(3)]
    number = make.some(0, 2)
    rows = []
    for i, thing in enumerate(things):
        link = app.link(thing, "thing" if i == number else "")
        rows.append(make.row(app.then(f"the {thing} link", link) if i == number else link[0]))
    app.screens["home"] = make.bar(_others(app, 2)) + f'<div role="list">{"".join(rows)}</div>'

    choices = [make.names.of(CHOICES) for _ in range(3)]
    radios, identities = app.radios(choices)
    chosen = make.some(1, 2)
    app.then(f"the {choices[chosen]} radio button", ("", identities[chosen]))
    box = ""
    if make.chance(0.5):
        label = make.names.of(OPTIONS)
        box = make.row(app.then(f"the {label} checkbox", app.box(label, "checkbox", False)))
    label = make.names.of(("Order", "Buy now", "Add to cart", "Book", "Checkout", "Pay"))
    pressed = app.then(f"the {label} button", app.button(label, "question"))
    bar = make.bar(_shuffled(app, [pressed, *_others(app, 1)]), "group")
    app.screens["thing"] = f"<h3>{things[number]}</h3>{radios}{box}{bar}"
    _question(app, "question")


def tools_app(app: App) -> None:
    """Press a drawing, open a tab, press a button; sometimes say yes."""
    make = app.make
    icons = [make.icons.names[i] for i in make.rng.permutation(len(make.icons.names))[:5].tolist()]
    drawn = [app.then(f"the {icons[0]} icon", app.button(icons[0], "inside", icon=icons[0]))]
    drawn += [app.button(icon, icon=icon)[0] for icon in icons[1:]]
    app.screens["home"] = make.bar(_shuffled(app, drawn)) + f"<p>{make.pick(SENTENCES)}</p>"

    labels = [make.names.of(SECTIONS) for _ in range(3)]
    number = make.some(1, 2)
    tabs = []
    for i, label in enumerate(labels):
        tab = app.tab(label, "tab" if i == number else "", chosen=i == 0)
        tabs.append(app.then(f"the {label} tab", tab) if i == number else tab[0])
    text = f"<p>{make.pick(SENTENCES)}</p>"
    app.screens["inside"] = make._fill("tabs", inner="".join(tabs)) + text + make.bar(_others(app, 2))

    label = make.names.of(ACTIONS)
    asks = make.chance(0.6)
    pressed = app.then(f"the {label} button", app.button(label, "question" if asks else "end"))
    bar = make.bar(_shuffled(app, [pressed, *_others(app, 2)]))
    app.screens["tab"] = f"<h3>{labels[number]}</h3>{bar}{make.field()}"
    if asks:
        _question(app, "question")
    else:
        app.screens["end"] = f"<h3>{make.pick(SENTENCES)}</h3>"


KINDS: dict[str, Callable[[App], None]] = {
    "settings": settings_app,
    "files": files_app,
    "order": order_app,
    "tools": tools_app,
}
"""Kinds of apps."""


def make_task(rng: np.random.Generator, kind: str, kit: Kit, icons: Icons, modules: Path) -> Task:
    """An app with a task.

    Args:
        rng: everything random comes from here.
        kind: a key of `KINDS`.
        kit: of its parts.
        icons: its drawings.
        modules: folder `node_modules` with the style sheets of kits.
    """
    app = App(pages.Maker(rng, pages.Look(kit, icons), held_out=True, room=ROOM))
    KINDS[kind](app)
    return Task(kind, app.html(kit.style(modules)), app.clicks(), f"{kit.name}/{icons.name}")
