# ruff: noqa: E501 -- templates of one part stand on one line
"""UI kits: how each of them writes buttons, fields, switches and the rest; one of them is never trained.

A kit is a table of templates. What stands in braces is filled in by `pages.Maker`: `look` is a class of the
kit or a style of our own, `attrs` holds identity, state and accessible name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Kit:
    """How a kit writes its parts.

    Attributes:
        name: of the kit.
        sheets: style sheets below `node_modules`.
        looks: classes of buttons, with the colours that the kit gives them by itself.
        bars: classes of progress bars.
        dark: attributes of the page that make the kit dark.
        css: a few rules of our own, where the kit has no such part.
        parts: templates by name of the part; those of `PLAIN` serve where the kit has none.
    """

    name: str
    sheets: Sequence[str] = ()
    looks: Sequence[str] = ("",)
    bars: Sequence[str] = ("",)
    dark: str = ""
    css: str = ""
    parts: dict[str, str] = field(default_factory=dict)

    def part(self, name: str) -> str:
        """The template of a part."""
        return self.parts.get(name) or PLAIN[name]

    def style(self, modules: Path) -> str:
        """All style sheets as one text."""
        texts = [(modules / sheet).read_text(encoding="utf-8") for sheet in self.sheets]
        return "\n".join([*texts, BASE, self.css])


PLAIN = {
    "button": '<button type="button" class="{look}" style="{style}" {attrs}>{inner}</button>',
    "field": '<label class="mp-field"><span>{label}</span><input type="{type}" {attrs}></label>',
    "bare_field": '<input type="{type}" {attrs}>',
    "checkbox": '<label class="mp-check"><input type="checkbox" {attrs}> {label}</label>',
    "radio": '<label class="mp-check"><input type="radio" {attrs}> {label}</label>',
    "switch": '<label class="mp-switch"><input type="checkbox" role="switch" {attrs}><span></span></label> {label}',
    "slider": '<label class="mp-field"><span>{label}</span><input type="range" style="{style}" {attrs}></label>',
    "dropdown": "<select {attrs}>{options}</select>",
    "progress": '<progress class="{look}" max="100" {attrs}></progress>',
    "tabs": '<div class="mp-tabs" role="tablist">{inner}</div>',
    "tab": '<button type="button" class="{active}" role="tab" {attrs}>{inner}</button>',
    "menu": '<div class="mp-menu" role="menu">{inner}</div>',
    "menu_item": '<div class="mp-item {active}" role="menuitem" tabindex="-1" {attrs}>{inner}</div>',
    "link": '<a href="#" {attrs}>{inner}</a>',
    "card": '<article class="mp-card">{inner}</article>',
    "table": '<table class="mp-table"><tbody>{inner}</tbody></table>',
    "dialog": '<div class="mp-card" role="dialog" aria-label="{label}">{inner}</div>',
    "avatar": '<span class="mp-avatar avatar" role="img" aria-label="{label}" style="{style}">{inner}</span>',
}
"""Parts that every kit can fall back on."""

BASE = """
*, *::before, *::after { transition: none !important; animation: none !important; caret-color: transparent !important }
html, body { margin: 0; overflow: hidden; height: auto }
body { padding: 8px; min-height: 100vh; box-sizing: border-box }
.mp-icon { vertical-align: -0.15em; flex: none }
.mp-row { display: flex; align-items: center; gap: 6px; flex-wrap: nowrap; margin-bottom: 6px; list-style: none }
.mp-row > .grow { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.mp-block { margin-bottom: 10px }
.mp-bar { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; margin-bottom: 8px }
.mp-grid { display: grid; gap: 8px }
.mp-card > img, .mp-photo { display: block; width: 100%; height: 64px; object-fit: cover }
.mp-avatar { display: inline-flex; align-items: center; justify-content: center; width: 32px; height: 32px; border-radius: 50%;
  color: #fff; font-size: 13px; flex: none }
.mp-split { display: flex; gap: 10px } .mp-split > :last-child { flex: 1; min-width: 0 }
ul.mp-list { list-style: none; margin: 0 0 8px; padding: 0 }
"""

_SWITCH = """
.mp-switch { display: inline-block; position: relative; width: 36px; height: 20px; vertical-align: middle; margin: 0 }
.mp-switch input { position: absolute; opacity: 0; width: 36px; height: 20px; margin: 0; left: 0; top: 0 }
.mp-switch span { position: absolute; inset: 0; border-radius: 10px; background: var(--off, #bbb) }
.mp-switch span::after { content: ""; position: absolute; left: 2px; top: 2px; width: 16px; height: 16px; border-radius: 8px; background: #fff }
.mp-switch input:checked + span { background: var(--on, #2b7de9) } .mp-switch input:checked + span::after { left: 18px }
"""
_PARTS = """
.mp-field { display: block; margin-bottom: 6px } .mp-field > span { display: block; font-size: 0.85em }
.mp-check { display: inline-flex; gap: 6px; align-items: center; margin: 2px 8px 2px 0 }
.mp-card { border: 1px solid #8885; padding: 8px; margin-bottom: 8px }
.mp-table { width: 100%; border-collapse: collapse } .mp-table td { padding: 3px 6px; border-bottom: 1px solid #8884 }
.mp-menu { border: 1px solid #8886; padding: 4px 0; width: 170px; margin-bottom: 8px } .mp-item { padding: 4px 12px; display: flex; gap: 8px; align-items: center }
.mp-item.active { background: #3b82f633 }
"""

BOOTSTRAP = Kit(
    "bootstrap",
    ("bootstrap/dist/css/bootstrap.min.css",),
    tuple(f"btn btn-{name}" for name in (
        "primary", "secondary", "success", "danger", "warning", "dark", "light", "outline-primary", "outline-secondary", "outline-danger",
        "outline-success", "link", "primary btn-sm", "danger btn-sm", "success btn-lg",
    )),
    ("", "bg-success", "bg-danger", "bg-warning"),
    'data-bs-theme="dark"',
    _PARTS,
    {
        "field": '<div class="mb-2"><label class="form-label mb-0 small" for="{id}">{label}</label><input type="{type}" class="form-control form-control-sm" {attrs}></div>',
        "bare_field": '<input type="{type}" class="form-control form-control-sm" {attrs}>',
        "checkbox": '<div class="form-check"><input class="form-check-input" type="checkbox" {attrs}><label class="form-check-label" for="{id}">{label}</label></div>',
        "radio": '<div class="form-check"><input class="form-check-input" type="radio" {attrs}><label class="form-check-label" for="{id}">{label}</label></div>',
        "switch": '<div class="form-check form-switch"><input class="form-check-input" type="checkbox" role="switch" {attrs}><label class="form-check-label" for="{id}">{label}</label></div>',
        "slider": '<label class="form-label mb-0 small" for="{id}">{label}</label><input type="range" class="form-range" {attrs}>',
        "dropdown": '<select class="form-select form-select-sm" {attrs}>{options}</select>',
        "progress": '<div class="progress" role="progressbar" aria-valuenow="{value}" aria-valuemin="0" aria-valuemax="100" {attrs}><div class="progress-bar {look}" style="width:{value}%"></div></div>',
        "tabs": '<div class="nav nav-tabs mb-2" role="tablist">{inner}</div>',
        "tab": '<button type="button" class="nav-link {active}" role="tab" {attrs}>{inner}</button>',
        "menu": '<div class="dropdown-menu show position-static mb-2" role="menu">{inner}</div>',
        "menu_item": '<button type="button" class="dropdown-item {active}" role="menuitem" {attrs}>{inner}</button>',
        "card": '<article class="card mb-2"><div class="card-body p-2">{inner}</div></article>',
        "table": '<table class="table table-sm align-middle"><tbody>{inner}</tbody></table>',
        "dialog": '<div class="modal-content border rounded p-3 shadow" role="dialog" aria-label="{label}">{inner}</div>',
    },
)  # fmt: skip

BULMA = Kit(
    "bulma",
    ("bulma/css/bulma.min.css",),
    tuple(f"button {name}" for name in (
        "is-primary", "is-link", "is-info", "is-success", "is-warning", "is-danger", "is-dark", "is-light", "", "is-small",
        "is-danger is-outlined", "is-link is-outlined", "is-text", "is-info is-small", "is-success is-light",
    )),
    ("progress is-primary", "progress is-info", "progress is-success", "progress is-danger", "progress is-warning"),
    'data-theme="dark"',
    _PARTS + _SWITCH,
    {
        "field": '<div class="field mb-2"><label class="label is-small mb-0" for="{id}">{label}</label><input type="{type}" class="input is-small" {attrs}></div>',
        "bare_field": '<input type="{type}" class="input is-small" {attrs}>',
        "checkbox": '<label class="checkbox mp-check"><input type="checkbox" {attrs}> {label}</label>',
        "radio": '<label class="radio mp-check"><input type="radio" {attrs}> {label}</label>',
        "dropdown": '<div class="select is-small"><select {attrs}>{options}</select></div>',
        "progress": '<progress class="{look} is-small" max="100" value="{value}" {attrs}></progress>',
        "tabs": '<div class="tabs is-small mb-2"><ul role="tablist">{inner}</ul></div>',
        "tab": '<li class="{bulma_active}" role="presentation"><a role="tab" tabindex="0" {attrs}>{inner}</a></li>',
        "menu": '<div class="dropdown-content mb-2" role="menu" style="width:180px">{inner}</div>',
        "menu_item": '<a class="dropdown-item {bulma_active}" role="menuitem" tabindex="0" {attrs}>{inner}</a>',
        "card": '<article class="box p-2 mb-2">{inner}</article>',
        "table": '<table class="table is-fullwidth is-narrow"><tbody>{inner}</tbody></table>',
        "dialog": '<div class="box p-3" role="dialog" aria-label="{label}">{inner}</div>',
    },
)  # fmt: skip

_FOMANTIC = (
    "reset",
    "site",
    "button",
    "checkbox",
    "input",
    "menu",
    "progress",
    "table",
    "segment",
    "form",
    "label",
)
FOMANTIC = Kit(
    "fomantic",
    tuple(f"fomantic-ui-css/components/{name}.min.css" for name in _FOMANTIC),
    tuple(f"ui {name} button" for name in (
        "", "primary", "red", "green", "orange", "yellow", "black", "blue", "purple", "grey", "basic", "basic blue", "tiny red",
        "small teal", "basic red", "inverted green", "small",
    )),
    ("", "blue", "green", "red", "orange", "yellow", "purple"),
    "",
    _PARTS + _SWITCH + ".ui.progress{margin:0 0 8px} .ui.menu{min-height:0} .ui.segment{margin:0 0 8px}",
    {
        "field": '<div class="ui form" style="margin-bottom:6px"><div class="field"><label for="{id}">{label}</label><input type="{type}" style="padding:5px 8px" {attrs}></div></div>',
        "bare_field": '<div class="ui small input"><input type="{type}" style="padding:5px 8px;width:110px" {attrs}></div>',
        "checkbox": '<div class="ui checkbox"><input type="checkbox" {attrs}><label for="{id}">{label}</label></div>',
        "radio": '<div class="ui radio checkbox"><input type="radio" {attrs}><label for="{id}">{label}</label></div>',
        "switch": '<div class="ui toggle checkbox"><input type="checkbox" role="switch" {attrs}><label for="{id}">{label}</label></div>',
        "progress": '<div class="ui {look} small progress" role="progressbar" aria-valuenow="{value}" {attrs}><div class="bar" style="width:{value}%"></div></div>',
        "tabs": '<div class="ui tabular menu" role="tablist" style="margin:0 0 8px">{inner}</div>',
        "tab": '<a class="{active} item" role="tab" tabindex="0" {attrs}>{inner}</a>',
        "menu": '<div class="ui vertical small menu" role="menu" style="margin:0 0 8px">{inner}</div>',
        "menu_item": '<a class="{active} item" role="menuitem" tabindex="0" {attrs}>{inner}</a>',
        "card": '<article class="ui segment" style="padding:8px">{inner}</article>',
        "table": '<table class="ui very compact unstackable table" style="margin:0 0 8px"><tbody>{inner}</tbody></table>',
        "dialog": '<div class="ui raised segment" role="dialog" aria-label="{label}">{inner}</div>',
    },
)  # fmt: skip

SPECTRE = Kit(
    "spectre",
    ("spectre.css/dist/spectre.min.css", "spectre.css/dist/spectre-exp.min.css"),
    tuple(f"btn {name}" for name in ("", "btn-primary", "btn-success", "btn-error", "btn-link", "btn-sm", "btn-primary btn-sm", "btn-lg")),
    ("",),
    "",
    _PARTS,
    {
        "field": '<div class="form-group"><label class="form-label label-sm" for="{id}">{label}</label><input type="{type}" class="form-input input-sm" {attrs}></div>',
        "bare_field": '<input type="{type}" class="form-input input-sm" style="width:120px" {attrs}>',
        "checkbox": '<label class="form-checkbox"><input type="checkbox" {attrs}><i class="form-icon"></i> {label}</label>',
        "radio": '<label class="form-radio"><input type="radio" {attrs}><i class="form-icon"></i> {label}</label>',
        "switch": '<label class="form-switch"><input type="checkbox" role="switch" {attrs}><i class="form-icon"></i> {label}</label>',
        "slider": '<label class="form-label label-sm" for="{id}">{label}</label><input type="range" class="slider" {attrs}>',
        "dropdown": '<select class="form-select select-sm" {attrs}>{options}</select>',
        "progress": '<div class="bar" role="progressbar" aria-valuenow="{value}" {attrs}><div class="bar-item" style="width:{value}%;{style}"></div></div>',
        "tabs": '<ul class="tab" role="tablist">{inner}</ul>',
        "tab": '<li class="tab-item {active}" role="presentation"><a href="#" role="tab" {attrs}>{inner}</a></li>',
        "menu": '<ul class="menu" role="menu" style="width:180px;margin:0 0 8px">{inner}</ul>',
        "menu_item": '<li class="menu-item" role="presentation"><a href="#" class="{active}" role="menuitem" {attrs}>{inner}</a></li>',
        "card": '<article class="card" style="padding:8px;margin-bottom:8px">{inner}</article>',
        "table": '<table class="table"><tbody>{inner}</tbody></table>',
    },
)  # fmt: skip

UIKIT = Kit(
    "uikit",
    ("uikit/dist/css/uikit.min.css",),
    tuple(f"uk-button {name}" for name in (
        "uk-button-default", "uk-button-primary", "uk-button-danger", "uk-button-secondary", "uk-button-text", "uk-button-link",
        "uk-button-primary uk-button-small", "uk-button-default uk-button-small",
    )),
    ("uk-progress",),
    "",
    _PARTS + _SWITCH + ".uk-button{padding:0 14px} .uk-progress{margin-bottom:8px}",
    {
        "field": '<div style="margin-bottom:6px"><label class="uk-form-label" for="{id}">{label}</label><input type="{type}" class="uk-input uk-form-small" {attrs}></div>',
        "bare_field": '<input type="{type}" class="uk-input uk-form-small uk-form-width-small" {attrs}>',
        "checkbox": '<label class="mp-check"><input class="uk-checkbox" type="checkbox" {attrs}> {label}</label>',
        "radio": '<label class="mp-check"><input class="uk-radio" type="radio" {attrs}> {label}</label>',
        "slider": '<label class="uk-form-label" for="{id}">{label}</label><input type="range" class="uk-range" {attrs}>',
        "dropdown": '<select class="uk-select uk-form-small uk-form-width-small" {attrs}>{options}</select>',
        "progress": '<progress class="{look}" max="100" value="{value}" {attrs}></progress>',
        "tabs": '<ul class="uk-tab" role="tablist" style="margin-bottom:8px">{inner}</ul>',
        "tab": '<li class="{uk_active}" role="presentation"><a href="#" role="tab" {attrs}>{inner}</a></li>',
        "menu": '<ul class="uk-nav uk-nav-default" role="menu" style="width:180px;border:1px solid #ddd;padding:4px 10px;margin-bottom:8px">{inner}</ul>',
        "menu_item": '<li class="{uk_active}" role="presentation"><a href="#" role="menuitem" {attrs}>{inner}</a></li>',
        "card": '<article class="uk-card uk-card-default uk-card-small" style="padding:8px;margin-bottom:8px">{inner}</article>',
        "table": '<table class="uk-table uk-table-small uk-table-divider" style="margin:0"><tbody>{inner}</tbody></table>',
        "dialog": '<div class="uk-card uk-card-default" role="dialog" aria-label="{label}" style="padding:12px">{inner}</div>',
    },
)  # fmt: skip

PICO = Kit(
    "pico",
    ("@picocss/pico/css/pico.min.css",),
    ("", "secondary", "contrast", "outline", "outline secondary"),
    ("",),
    'data-theme="dark"',
    ".mp-field{margin-bottom:4px} .mp-row{margin-bottom:6px} "
    "button{width:auto!important;margin-bottom:4px;padding:4px 12px!important}"
    " input:not([type=checkbox],[type=radio],[type=range]),select{height:34px!important;padding:2px "
    "10px!important;margin-bottom:4px!important}"
    " .mp-tabs{display:flex;gap:4px;margin-bottom:8px} .mp-tabs button:not(.active){opacity:.55} "
    "article{padding:10px!important;margin-bottom:8px!important}"
    " .mp-menu{border:1px solid #8886;width:170px;margin-bottom:8px} .mp-item{padding:4px "
    "12px;display:flex;gap:8px} .mp-item.active{background:#3b82f633}"
    " .mp-check{display:inline-flex;align-items:center}",
    {"switch": '<label><input type="checkbox" role="switch" {attrs}> {label}</label>'},
)

TRAINED = (BOOTSTRAP, BULMA, FOMANTIC, SPECTRE, UIKIT)
"""Kits that are drawn for training, beside those that `drawn_kit` makes up."""

HELD_OUT = PICO
"""A kit that no trained page shows."""


def drawn_kit(rng: np.random.Generator) -> Kit:
    """A kit of our own with edges, surfaces, corners and sizes drawn by chance."""
    dark = rng.random() < 0.35
    radius = int(rng.choice((0, 2, 4, 6, 10, 18)))
    tint = _shade(rng, dark)
    line = "#fff" if dark else "#000"
    strength = float(rng.uniform(0.12, 0.5))
    accent = f"hsl({int(rng.integers(360))} {int(rng.integers(60, 95))}% {int(rng.integers(38, 58))}%)"
    pad = int(rng.integers(2, 9)), int(rng.integers(6, 18))
    edge = f"{int(rng.integers(1, 3))}px solid color-mix(in srgb, {line} {100 * strength:.0f}%, transparent)"
    shadow = "0 1px 3px #0006" if rng.random() < 0.3 else "none"
    field_surface = "transparent" if rng.random() < 0.4 else ("#ffffff14" if dark else "#fff")
    switch = int(rng.integers(16, 26))
    css = f"""
html, body {{ background: {tint}; color: {"#eee" if dark else "#222"}; color-scheme: {"dark" if dark else "light"} }}
a {{ color: {accent} }} h2, h3 {{ margin: 0 0 6px; font-size: {rng.uniform(1.05, 1.5):.2f}em }} p {{ margin: 0 0 6px }}
button {{ font: inherit; color: inherit; padding: {pad[0]}px {pad[1]}px; border: {edge}; border-radius: {radius}px; box-shadow: {shadow};
  background: {"#ffffff10" if dark else "#f3f3f3"} }}
button.main {{ background: {accent}; color: #fff; border-color: transparent }} button.flat {{ background: none; border-color: transparent; box-shadow: none }}
button.line {{ background: none; border-color: {accent}; color: {accent} }} button:disabled {{ opacity: 0.45 }}
input:not([type=checkbox], [type=radio], [type=range]), select {{ font: inherit; color: inherit; padding: {pad[0]}px {pad[1]}px; border: {edge};
  border-radius: {min(radius, 8)}px; background-color: {field_surface}; box-sizing: border-box; max-width: 100% }}
.mp-field input {{ width: 100% }} input, progress {{ accent-color: {accent} }} progress {{ width: 100%; height: {int(rng.integers(6, 18))}px }}
{_PARTS} .mp-card, .mp-menu {{ border: {edge}; border-radius: {min(radius, 10)}px; box-shadow: {shadow} }}
.mp-tabs {{ display: flex; gap: 2px; margin-bottom: 8px; border-bottom: {edge} }} .mp-tabs button {{ border: 0; background: none; border-radius: 0; box-shadow: none }}
.mp-tabs button.active {{ {rng.choice((f"border-bottom: 3px solid {accent}", f"background: {accent}; color: #fff", f"border: {edge}; border-bottom: 0; font-weight: bold"))} }}
.mp-item.active {{ background: color-mix(in srgb, {accent} 30%, transparent) }}
{_SWITCH.replace("20px", f"{switch}px").replace("36px", f"{int(1.8 * switch)}px").replace("16px", f"{switch - 4}px").replace("left: 18px", f"left: {int(1.8 * switch) - switch + 2}px").replace("10px", f"{switch // 2}px")}
:root {{ --on: {accent}; --off: {"#666" if dark else "#bbb"} }}
"""
    return Kit("drawn", (), ("", "main", "flat", "line", "", "main"), ("",), "", css, {})


def _shade(rng: np.random.Generator, dark: bool) -> str:
    """A ground, mostly without colour."""
    light = int(rng.integers(6, 24)) if dark else int(rng.integers(88, 101))
    strength = int(rng.integers(0, 30)) if rng.random() < 0.4 else 0
    return f"hsl({int(rng.integers(360))} {strength}% {light}%)"
