"""What kinds of elements are called, and what can be true of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """Words for a kind of element.

    Attributes:
        singular: its names, the commonest first.
        plural: the same for several, in the same order.
    """

    singular: tuple[str, ...]
    plural: tuple[str, ...]


def _noun(*names: str) -> Noun:
    """Names with regular plurals; "check box/check boxes" gives an irregular one."""
    singular = []
    plural = []
    for name in names:
        one, _, many = name.partition("/")
        singular.append(one)
        plural.append(many or f"{one}s")
    return Noun(tuple(singular), tuple(plural))


NOUNS: dict[str, Noun] = {
    "button": _noun("button", "push button"),
    "icon": _noun("icon", "symbol"),
    "text field": _noun("text field", "input field", "text box/text boxes", "input", "field"),
    "checkbox": _noun("checkbox/checkboxes", "check box/check boxes", "tick box/tick boxes"),
    "radio button": _noun("radio button", "radio", "option button"),
    "switch": _noun("switch/switches", "toggle", "toggle switch/toggle switches"),
    "slider": _noun("slider", "range slider"),
    "dropdown": _noun(
        "dropdown", "drop-down", "select box/select boxes", "combo box/combo boxes", "select menu"
    ),
    "progress bar": _noun("progress bar", "loading bar", "progress indicator"),
    "link": _noun("link", "hyperlink"),
    "tab": _noun("tab"),
    "menu item": _noun("menu item", "menu entry/menu entries"),
    "image": _noun("image", "picture", "photo"),
    "avatar": _noun("avatar", "profile picture"),
    "heading": _noun("heading", "title", "headline"),
    "text": _noun("text", "label"),
}
"""Kinds of elements, with their words."""

_ROLES = {
    "button": "button", "PopUpButton": "dropdown", "ToggleButton": "button", "DisclosureTriangle": "button", "summary": "button",
    "link": "link", "textbox": "text field", "searchbox": "text field", "textField": "text field", "spinbutton": "text field",
    "Date": "text field", "DateTime": "text field", "InputTime": "text field", "combobox": "dropdown", "ComboBoxSelect": "dropdown",
    "listbox": "dropdown", "checkbox": "checkbox", "radio": "radio button", "switch": "switch", "slider": "slider",
    "progressbar": "progress bar", "meter": "progress bar", "tab": "tab", "menuitem": "menu item", "menuitemcheckbox": "menu item",
    "menuitemradio": "menu item", "option": "menu item", "treeitem": "menu item", "image": "image", "img": "image", "heading": "heading",
    "columnheader": "heading", "ColorWell": "button",
}  # fmt: skip

STATES: dict[str, tuple[str, ...]] = {
    "checked": ("checked", "ticked"),
    "empty": ("empty", "unchecked"),
    "on": ("on", "switched on"),
    "off": ("off", "switched off"),
    "disabled": ("disabled", "inactive"),
    "selected": ("selected", "active", "current"),
    "filled": ("filled",),
    "open": ("open", "expanded"),
    "invalid": ("invalid",),
}
"""What can be true of an element, with the words for it. Of a checkbox "empty" means that it is not checked."""

AREAS = {
    "dialog": "dialog", "alertdialog": "dialog", "toolbar": "toolbar", "menu": "menu", "menubar": "menu bar", "navigation": "navigation",
    "banner": "header", "contentinfo": "footer", "table": "table", "grid": "table", "complementary": "sidebar", "form": "form",
    "alert": "alert",
}  # fmt: skip
"""Parts of a screen by their role, with the words for them."""


_WORDS_OF_CHECKED = {
    "switch": ("off", "on"),
    "checkbox": ("empty", "checked"),
    "radio button": ("empty", "checked"),
}
"""Words for what is not checked and what is, by kind."""


def kind_of(role: str, tag: str, input_type: str, classes: str) -> str:
    """The kind of an element.

    Args:
        role: in the accessibility tree of Chromium.
        tag: name of the element, in capitals.
        input_type: `type` of an input, "" of others.
        classes: its classes, which tell avatars and editable combo boxes apart.

    Returns:
        A key of `NOUNS`.
    """
    if role in ("image", "img") and "avatar" in classes.lower():
        return "avatar"
    if role == "combobox" and tag in ("INPUT", "TEXTAREA"):
        return "text field"
    if tag == "INPUT" and input_type in ("button", "submit", "reset", "file", "color", "image"):
        return "button"
    return _ROLES.get(role, "text")


def states_of(kind: str, told: dict[str, bool | str]) -> frozenset[str]:
    """Words of `STATES` for what the page tells of an element of a kind."""
    words = set()
    checked = told.get("checked")
    if kind in _WORDS_OF_CHECKED:
        if isinstance(checked, bool):  # else it is "mixed", or not told
            words.add(_WORDS_OF_CHECKED[kind][checked])
    elif checked is True or told.get("selected") is True:
        words.add("selected")
    if kind == "button" and told.get("pressed") is True:
        words.add("selected")
    if kind == "text field" and "empty" in told:
        words.add("empty" if told["empty"] else "filled")
    for word, state in (("disabled", "disabled"), ("open", "expanded"), ("invalid", "invalid")):
        if told.get(state) is True:
            words.add(word)
    return frozenset(words)
