"""Pages of made-up programs: forms, toolbars, tables, file lists, dialogs, menus, cards, settings, shops; and
mail, never trained.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from screens.icon_sets import Icons
from screens.kits import Kit
from screens.words import ACTIONS, CHOICES, FIELDS, LEVELS, OPTIONS, SECTIONS, SENTENCES, Names

_T = TypeVar("_T")

SHADES = {
    "red": ("#dc3545", "#e53935", "#c62828", "#f44336", "#d00000"),
    "orange": ("#fd7e14", "#f57c00", "#ff9800", "#e8710a"),
    "yellow": ("#ffc107", "#ffeb3b", "#fdd835", "#f7d000"),
    "green": ("#198754", "#43a047", "#2e7d32", "#00b050", "#22c55e"),
    "blue": ("#0d6efd", "#1e88e5", "#1565c0", "#2563eb", "#3b5bdb"),
    "purple": ("#6f42c1", "#8e24aa", "#7c3aed", "#673ab7"),
    "pink": ("#d63384", "#e91e63", "#ec4899"),
    "black": ("#111111", "#000000", "#212121"),
    "white": ("#ffffff", "#ffffff"),
    "gray": ("#6c757d", "#9e9e9e", "#757575", "#adb5bd"),
}
"""Shades that a person would call by these names."""

_LIGHT = {"yellow", "white"}
_FONTS = (
    "Lato",
    "Open Sans",
    "Roboto",
    "Liberation Sans",
    "DejaVu Sans",
    "Roboto Condensed",
    "Liberation Serif",
    "DejaVu Serif",
)


@dataclass(frozen=True)
class Look:
    """Everything about a page but what is on it.

    Attributes:
        kit: of its parts.
        icons: its drawings.
        dark: whether the dark form of the kit is asked for.
    """

    kit: Kit
    icons: Icons
    dark: bool = False


class Maker:
    """Writes the parts of one page in a kit.

    Args:
        rng: everything random comes from here.
        look: of the page.
        held_out: allow the names that are kept for the test.
        room: (width, height) of the screen in pixels of the page; larger screens get more.
    """

    def __init__(self, rng: np.random.Generator, look: Look, held_out: bool, room: tuple[int, int]) -> None:
        self.rng, self.kit, self.icons, self.room = rng, look.kit, look.icons, room
        self.names, self._last = Names(rng, held_out), 0
        self.icon_side = int(rng.integers(14, 23))
        self.by_icon_alone = float(rng.choice((0.15, 0.4, 0.7)))

    # ---- Chance
    def pick(self, options: Sequence[_T]) -> _T:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def chance(self, share: float) -> bool:
        """True in a share of the cases."""
        return bool(self.rng.random() < share)

    def some(self, least: int, most: int) -> int:
        """A number, both ends included."""
        return int(self.rng.integers(least, most + 1))

    # ---- Parts
    def icon(self, name: str | None = None, side: int | None = None, colour: float = 0.25) -> str:
        """A drawing, sometimes in a colour of its own."""
        drawing = self.icons.svg(name or self.pick(self.icons.names), side or self.icon_side)
        if self.chance(colour):
            shade = self.pick(SHADES[self.pick([name for name in SHADES if name not in ("white", "black")])])
            drawing = drawing.replace("<svg", f'<svg style="color:{shade}"', 1)
        return drawing

    def button(self, label: str | None = None, icon: str | None = None, alone: bool | None = None) -> str:
        """A button with words, a drawing, or both."""
        by_icon = self.chance(self.by_icon_alone) if alone is None else alone
        label = label or (self.names.of(ACTIONS) if not by_icon else "")
        if by_icon:
            icon = icon or self.pick(self.icons.names)
            inner, said = self.icon(icon, colour=0.15), f'aria-label="{label or icon}"'
        else:
            drawing = f"{self.icon(icon, colour=0.05)} " if icon or self.chance(0.18) else ""
            inner, said = drawing + html.escape(label), ""
        state = " disabled" if self.chance(0.07) else ""
        return self._fill(
            "button",
            look=self.pick(self.kit.looks),
            style=self._shade(),
            inner=inner,
            attrs=self._attrs(said) + state,
        )

    def field(self, label: str | None = None, bare: bool = False) -> str:
        """A text field, empty or filled in."""
        label = label or self.names.of(FIELDS)
        kind = "password" if label == "Password" else "text"
        attrs = f'aria-label="{label}" placeholder="{label}"' if bare else ""
        if self.chance(0.4):
            attrs += f' value="{html.escape(self._value())}"'
        elif not bare and self.chance(0.4):
            attrs += (
                f' placeholder="{self.pick(("Enter here", "Type here", "e.g. " + self._value(), "..."))}"'
            )
        attrs += " disabled" if self.chance(0.07) else ""
        return self._fill("bare_field" if bare else "field", label=label, type=kind, attrs=self._attrs(attrs))

    def checkbox(self, label: str | None = None, kind: str = "checkbox", checked: bool | None = None) -> str:
        """A checkbox, switch or radio button with its words."""
        label = label or self.names.of(OPTIONS)
        checked = self.chance(0.5) if checked is None else checked
        attrs = (" checked" if checked else "") + (" disabled" if self.chance(0.07) else "")
        if kind == "switch" and self.kit.part("switch").startswith('<label class="mp-switch"'):
            attrs += f' aria-label="{label}"'
        return self._fill(kind, label=label, attrs=self._attrs(attrs))

    def slider(self, label: str | None = None) -> str:
        """A slider somewhere between its ends."""
        label = label or self.names.of(LEVELS)
        return self._fill(
            "slider",
            label=label,
            style="width:100%",
            attrs=self._attrs(f'min="0" max="100" value="{self.some(0, 100)}"'),
        )

    def dropdown(self, label: str | None = None) -> str:
        """A dropdown with one choice shown."""
        choices = "".join(f"<option>{self.names.of(CHOICES)}</option>" for _ in range(3))
        return self._fill(
            "dropdown", options=choices, attrs=self._attrs(f'aria-label="{label or self.names.of(FIELDS)}"')
        )

    def progress(self, label: str | None = None) -> str:
        """A progress bar."""
        value, look = self.some(8, 95), self.pick(self.kit.bars)
        attrs = f'aria-label="{label or self.names.of(LEVELS)}"'
        if "<progress" in self.kit.part("progress") and "{value}" not in self.kit.part("progress"):
            attrs += f' value="{value}"'
        return self._fill(
            "progress", look=look, value=value, style=self._shade(0.5), attrs=self._attrs(attrs)
        )

    def tabs(self, number: int) -> str:
        """A row of tabs, one of them selected."""
        chosen = self.some(0, number - 1)
        inner = ""
        for i in range(number):
            drawing = f"{self.icon()} " if self.chance(0.15) else ""
            inner += self._fill("tab", inner=drawing + self.names.of(SECTIONS), attrs=self._attrs(f'aria-selected="{_said(i == chosen)}"'),
                                **_active(i == chosen))  # fmt: skip
        return self._fill("tabs", inner=inner)

    def menu(self, number: int) -> str:
        """A menu that is open."""
        chosen = self.some(0, 3 * number)
        inner, with_icons = "", self.chance(0.6)
        for i in range(number):
            drawing = f"{self.icon()} " if with_icons else ""
            said = ' aria-current="true"' if i == chosen else ""
            said += ' aria-disabled="true" style="opacity:.45"' if self.chance(0.06) else ""
            inner += self._fill(
                "menu_item",
                inner=drawing + self.names.of((*ACTIONS, *SECTIONS)),
                attrs=self._attrs(said),
                **_active(i == chosen),
            )
        return self._fill("menu", inner=inner)

    def link(self, label: str | None = None) -> str:
        """A link."""
        return self._fill("link", inner=label or self.names.of((*SECTIONS, *ACTIONS)), attrs=self._attrs(""))

    def avatar(self, person: str | None = None) -> str:
        """A person's round picture: initials on a colour, or a face."""
        person = person or self.names.person()
        initials = "".join(word[0] for word in person.split()[:2])
        shade = self.pick(SHADES[self.pick(("red", "green", "blue", "purple", "orange", "gray", "pink"))])
        if self.chance(0.4):
            face = f'<circle cx="16" cy="12" r="{self.some(5, 7)}" fill="#fffc"/><path d="M3 32a13 12 0 0 1 26 0" fill="#fffc"/>'
            initials = f'<svg width="32" height="32" viewBox="0 0 32 32" aria-hidden="true" style="border-radius:50%">{face}</svg>'
        return self._fill("avatar", label=person, inner=initials, style=f"background:{shade}")

    def photo(self, label: str | None = None, high: int = 64) -> str:
        """A drawn landscape in place of a photograph."""
        hue, sun = self.some(0, 359), self.pick(("#fff8", "#ffd60a", "#ff9f1c"))
        hills = "".join(
            f'<path d="M0 {self.some(30, 60)} Q {self.some(20, 80)} {self.some(5, 50)} 100 {self.some(30, 60)} V70 H0Z" '
            f'fill="hsl({(hue + self.some(-40, 40)) % 360} 45% {self.some(25, 60)}%)"/>'
            for _ in range(self.some(1, 3))
        )
        ground = f'<rect width="100" height="70" fill="hsl({hue} 60% {self.some(60, 88)}%)"/>'
        sky = ground + f'<circle cx="{self.some(10, 90)}" cy="15" r="9" fill="{sun}"/>'
        return (
            f'<svg class="mp-photo" role="img" aria-label="{label or self.names.thing()}" data-photo viewBox="0 0 100 70" '
            f'preserveAspectRatio="none" style="height:{high}px">{sky}{hills}</svg>'
        )

    def heading(self, text: str | None = None) -> str:
        """A heading."""
        return f"<h3>{text or self.names.of(SECTIONS)}</h3>"

    def row(self, *parts: str) -> str:
        """Parts side by side that belong together."""
        return f'<div class="mp-row" role="listitem">{"".join(parts)}</div>'

    def bar(self, parts: Sequence[str], role: str = "toolbar") -> str:
        """Parts side by side, as many as there is room for."""
        return f'<div class="mp-bar" role="{role}">{"".join(parts)}</div>'

    def _shade(self, share: float = 0.3) -> str:
        """A colour of our own, over that of the kit."""
        if not self.chance(share):
            return ""
        name = self.pick(list(SHADES))
        shade = self.pick(SHADES[name])
        return f"background:{shade};color:{'#222' if name in _LIGHT else '#fff'};border-color:{'#bbb' if name == 'white' else shade}"

    def _value(self) -> str:
        """Something that a person may have typed."""
        return self.pick(
            (self.names.file, self.names.person, self.names.thing, lambda: str(self.some(1, 9999)))
        )()

    def _attrs(self, more: str) -> str:
        self._last += 1
        return f'id="e{self._last}" {more}'

    def _fill(self, part: str, **values: object) -> str:
        defaults = {
            "label": "",
            "style": "",
            "look": "",
            "type": "text",
            "id": f"e{self._last}",
            "active": "",
            "bulma_active": "",
            "uk_active": "",
        }
        return self.kit.part(part).format(**(defaults | values))


def _said(truth: bool) -> str:
    return "true" if truth else "false"


def _active(chosen: bool) -> dict[str, str]:
    """How the kits mark what is selected."""
    return {"active": "active", "bulma_active": "is-active", "uk_active": "uk-active"} if chosen else {}


# ---- Kinds of pages


def _scale(make: Maker) -> float:
    """How much more there is room for than on a small screen."""
    return (make.room[0] * make.room[1] / (336 * 336)) ** 0.5


def form_page(make: Maker) -> str:
    """Fields with labels, some boxes to tick, and buttons."""
    parts = [make.heading()] if make.chance(0.6) else []
    for _ in range(round(make.some(2, 4) * _scale(make))):
        parts.append(make.pick((make.field, make.field, make.field, make.dropdown, make.slider))())
    if make.chance(0.6):
        parts += [f'<div class="mp-block">{make.checkbox()}</div>' for _ in range(make.some(1, 3))]
    if make.chance(0.5):
        chosen = make.some(0, 2)
        radios = "".join(make.checkbox(make.names.of(CHOICES), "radio", i == chosen) for i in range(3))
        parts.append(f'<fieldset style="border:0;padding:0;margin:0 0 8px">{radios}</fieldset>')
    parts.append(make.bar([make.button(alone=False) for _ in range(make.some(1, 3))], "group"))
    if make.chance(0.4):
        parts.append(make.link())
    return f"<form>{''.join(parts)}</form>"


def toolbar_page(make: Maker) -> str:
    """Bars of buttons above a text."""
    alone = make.chance(0.75)
    parts = []
    for _ in range(round(make.some(1, 3) * _scale(make))):
        parts.append(make.bar([make.button(alone=alone) for _ in range(make.some(3, 6))]))
    if make.chance(0.5):
        parts.append(make.bar([make.dropdown(), make.field(bare=True), make.button(alone=True)]))
    parts += [f"<p>{make.pick(SENTENCES)} {make.pick(SENTENCES)}</p>" for _ in range(make.some(1, 2))]
    if make.chance(0.4):
        parts.append(make.tabs(make.some(2, 4)))
    if make.chance(0.4):
        parts.append(make.progress())
    return "".join(parts)


def table_page(make: Maker) -> str:
    """Rows with a name, a number and something to press."""
    rows, actions = "", [make.pick(make.icons.names) for _ in range(make.some(1, 3))]
    with_box, in_words = make.chance(0.5), make.chance(0.3)
    name = make.pick((make.names.person, make.names.thing, make.names.file))
    for _ in range(round(make.some(3, 6) * _scale(make))):
        said = name()
        box = (
            f'<td><input type="checkbox" aria-label="Select {said}" {"checked" if make.chance(0.4) else ""}></td>'
            if with_box
            else ""
        )
        if in_words:
            pressed = make.button(alone=False)
        else:
            pressed = "".join(make.button(f"{action} {said}", action, alone=True) for action in actions[:2])
        rows += f"<tr>{box}<td>{said}</td><td>{make.some(1, 999)}</td><td>{pressed}</td></tr>"
    head = make.bar([make.field(bare=True), make.button()]) if make.chance(0.5) else make.heading()
    return head + make.kit.part("table").format(inner=rows)


def files_page(make: Maker) -> str:
    """A list of files with icons and actions."""
    actions = [make.pick(make.icons.names) for _ in range(make.some(1, 2))]
    rows = ""
    for _ in range(round(make.some(4, 7) * _scale(make))):
        said = make.names.file()
        pressed = "".join(make.button(f"{action} {said}", action, alone=True) for action in actions)
        kind = make.icon(
            make.pick(
                [
                    icon
                    for icon in ("file", "folder", "picture", "note", "video camera", "book")
                    if icon in make.icons.names
                ]
            )
        )
        rows += make.row(kind, f'<span class="grow">{said}</span>', pressed)
    return make.bar([make.button() for _ in range(make.some(1, 3))]) + f'<div role="list">{rows}</div>'


def dialog_page(make: Maker) -> str:
    """A question over a page that is dimmed."""
    behind = form_page(make) if make.chance(0.5) else toolbar_page(make)
    inner = make.row(
        f'<strong class="grow">{make.names.of(SECTIONS)}</strong>', make.button("Close", "cross", alone=True)
    )
    inner += f"<p>{make.pick(SENTENCES)}</p>"
    inner += make.pick((make.field, make.checkbox, make.progress, lambda: ""))()
    inner += make.bar([make.button(alone=False) for _ in range(make.some(1, 3))], "group")
    width, top = make.some(200, 300), make.some(20, 90)
    shade = make.pick(("#0008", "#0005", "#0009"))
    box = make._fill("dialog", label="Dialog", inner=inner)
    ground = "background:var(--mp-paper,#fff)" if make.kit.name in ("drawn", "spectre", "pico") else ""
    colour = "color:#222" if make.kit.name == "drawn" else ""
    return (
        f'{behind}<div style="position:fixed;inset:0;background:{shade}"></div>'
        f'<div style="position:fixed;top:{top}px;left:50%;width:{width}px;margin-left:-{width // 2}px;{ground};{colour}">{box}</div>'
    )


def menu_page(make: Maker) -> str:
    """A menu beside or below a bar."""
    head = make.bar([make.button() for _ in range(make.some(2, 4))])
    menu = make.menu(make.some(3, 7))
    side = "".join([make.heading(), f"<p>{make.pick(SENTENCES)}</p>", make.button(), make.checkbox()])
    return head + (
        f'<div class="mp-split">{menu}<div>{side}</div></div>' if make.chance(0.7) else menu + side
    )


def cards_page(make: Maker) -> str:
    """Cards with a picture, words and buttons."""
    across = max(1, round(make.pick((1, 2, 2)) * make.room[0] / 336))
    cards = ""
    for _ in range(round(make.some(2, 4) * _scale(make) ** 2)):
        person = make.chance(0.4)
        said = make.names.person() if person else make.names.thing()
        top = (
            make.row(make.avatar(said), f'<span class="grow">{said}</span>')
            if person
            else make.photo(said, make.some(40, 80))
        )
        words = "" if person else f"<strong>{said}</strong>"
        cards += make.kit.part("card").format(
            inner=top + words + make.bar([make.button() for _ in range(make.some(1, 2))], "group")
        )
    return f'<div class="mp-grid" style="grid-template-columns:repeat({across},minmax(0,1fr))">{cards}</div>'


def settings_page(make: Maker) -> str:
    """Switches, sliders and choices in rows."""
    parts = [make.tabs(make.some(2, 4))] if make.chance(0.4) else [make.heading()]
    kind = make.pick(("switch", "switch", "checkbox"))
    for _ in range(round(make.some(3, 5) * _scale(make))):
        drawing = make.icon() if make.chance(0.4) else ""
        parts.append(make.row(drawing, make.checkbox(kind=kind)))
    if make.chance(0.6):
        parts.append(make.slider())
    if make.chance(0.5):
        parts.append(make.row(f"<span>{make.names.of(FIELDS)}</span>", make.dropdown()))
    if make.chance(0.3):
        parts.append(make.progress())
    parts.append(make.bar([make.button(alone=False) for _ in range(make.some(0, 2))], "group"))
    return "".join(parts)


def shop_page(make: Maker) -> str:
    """Things with prices, to be put into a cart."""
    across = max(1, round(2 * make.room[0] / 336))
    items = ""
    for _ in range(round(make.some(2, 4) * _scale(make) ** 2)):
        said = make.names.thing()
        buy = make.button(icon="cart" if "cart" in make.icons.names else None)
        like = make.button(f"heart {said}", "heart", alone=True) if make.chance(0.5) else ""
        inner = (
            make.photo(said, make.some(40, 70)) + f"<strong>{said}</strong><div>{make.some(3, 300)} €</div>"
        )
        items += make.kit.part("card").format(inner=inner + make.bar([buy, like], "group"))
    head = make.bar(
        [
            make.field("Search term", bare=True),
            make.button(icon="search", alone=True),
            make.button(icon="cart", alone=True),
        ]
    )
    return (
        head
        + f'<div class="mp-grid" style="grid-template-columns:repeat({across},minmax(0,1fr))">{items}</div>'
    )


def mail_page(make: Maker) -> str:
    """Letters in a list; never trained."""
    head = make.bar(
        [make.button(icon=icon) for icon in ("pencil", "refresh", "trash") if icon in make.icons.names]
    )
    rows = ""
    for _ in range(round(make.some(3, 5) * _scale(make))):
        person = make.names.person()
        star = make.button(f"star {person}", "star", alone=True)
        box = f'<input type="checkbox" aria-label="Select {person}" {"checked" if make.chance(0.3) else ""}>'
        words = f'<span class="grow"><strong>{person}</strong><br>{make.pick(SENTENCES)}</span>'
        rows += make.row(box, make.avatar(person) if make.chance(0.6) else "", words, star)
    return head + f'<div role="list">{rows}</div>'


TRAINED: dict[str, Callable[[Maker], str]] = {
    "form": form_page, "toolbar": toolbar_page, "table": table_page, "files": files_page, "dialog": dialog_page, "menu": menu_page,
    "cards": cards_page, "settings": settings_page, "shop": shop_page,
}  # fmt: skip
"""Kinds of pages that are drawn for training."""


def board_page(make: Maker) -> str:
    """As many icons, words and boxes as there is room for: to learn from, not to be asked about."""
    across = make.some(5, 8)
    down = round(make.room[1] / make.some(26, 40))
    cells = "".join(
        f"<div style='min-width:0;overflow:hidden;white-space:nowrap'>{_cell(make)}</div>"
        for _ in range(across * down)
    )
    return f'<div style="display:grid;gap:{make.some(0, 4)}px;grid-template-columns:repeat({across},minmax(0,1fr))">{cells}</div>'


def _cell(make: Maker) -> str:
    """Something small."""
    draw = make.rng.random()
    if draw < 0.35:
        shade = make._shade(0.6)
        icon = make.icon(side=make.some(13, 24), colour=0.2)
        return f'<button type="button" aria-label="x" style="padding:2px 5px;{shade}">{icon}</button>'
    if draw < 0.55:
        return make.icon(side=make.some(13, 26), colour=0.5)
    if draw < 0.9:
        names = make.pick((ACTIONS, FIELDS, OPTIONS, SECTIONS, CHOICES))
        word = html.escape(make.names.of(names, made_up=0.6).split(" ")[0][:6])
        shade = make._shade(0.3)
        return f'<span style="padding:1px 3px;{shade};font-size:{make.some(11, 16)}px">{word}</span>'
    return f'<input type="{make.pick(("checkbox", "radio"))}" aria-label="x"{" checked" if make.chance(0.5) else ""}>'


PRACTICE = {"board": board_page}
"""Kinds that only the first stage sees."""
HELD_OUT = {"mail": mail_page}
"""A kind that no trained page is of."""


def body_style(rng: np.random.Generator) -> str:
    """Letters of a page: face and size."""
    face = _FONTS[int(rng.integers(len(_FONTS)))]
    kept = "" if rng.random() < 0.4 else f"font-family:'{face}';"
    return f"{kept}font-size:{int(rng.integers(12, 18))}px"


def write_page(rng: np.random.Generator, kind: str, look: Look, held_out: bool, room: tuple[int, int]) -> str:
    """The body of a page.

    Args:
        rng: everything random comes from here.
        kind: a key of `TRAINED`, `PRACTICE` or `HELD_OUT`.
        look: of the page.
        held_out: allow names that are kept for the test.
        room: (width, height) of the screen.
    """
    return (TRAINED | PRACTICE | HELD_OUT)[kind](Maker(rng, look, held_out, room))
