"""Icons of free sets, as SVG text; one set and one style are never trained."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from molmopoint.screens.icons import STEMS


@dataclass(frozen=True)
class IconSet:
    """One style of a set of icons.

    Attributes:
        name: of the set and its style.
        folder: below `node_modules`.
        ending: what follows the name of the icon in file names, the first that exists is taken.
        separator: between the words of a file name.
        drop: names that mean something else in this set.
    """

    name: str
    folder: str
    ending: tuple[str, ...] = ("",)
    separator: str = "-"
    drop: frozenset[str] = field(default_factory=frozenset)

    def files(self, modules: Path) -> dict[str, Path]:
        """The file of each icon that the set has."""
        folder, found = modules / self.folder, {}
        for icon, stems in STEMS.items():
            spelt = [
                stem.replace("-", self.separator) + ending
                for ending in self.ending
                for stem in stems
                if stem not in self.drop
            ]
            paths = [folder / f"{stem}.svg" for stem in spelt]
            path = next((path for path in paths if path.is_file()), None)
            if path is not None:
                found[icon] = path
        return found


TRAINED = (
    IconSet("bootstrap", "bootstrap-icons/icons"),
    IconSet("bootstrap filled", "bootstrap-icons/icons", ("-fill", "")),
    IconSet("tabler", "@tabler/icons/icons/outline"),
    IconSet("tabler filled", "@tabler/icons/icons/filled"),
    IconSet("material filled", "@material-design-icons/svg/filled", separator="_", drop=frozenset({"list"})),
    IconSet(
        "material outlined", "@material-design-icons/svg/outlined", separator="_", drop=frozenset({"list"})
    ),
    IconSet("material round", "@material-design-icons/svg/round", separator="_", drop=frozenset({"list"})),
    IconSet("material sharp", "@material-design-icons/svg/sharp", separator="_", drop=frozenset({"list"})),
    IconSet("phosphor", "@phosphor-icons/core/assets/regular"),
    IconSet("phosphor bold", "@phosphor-icons/core/assets/bold", ("-bold",)),
    IconSet("phosphor filled", "@phosphor-icons/core/assets/fill", ("-fill",)),
)
"""Sets that are drawn for training."""

HELD_OUT_SET = IconSet("lucide", "lucide-static/icons")
"""A set that no trained page shows."""

HELD_OUT_STYLE = IconSet(
    "material two-tone", "@material-design-icons/svg/two-tone", separator="_", drop=frozenset({"list"})
)
"""A style, of a set that is trained in others, that no trained page shows."""

_COMMENT = re.compile(r"<!--.*?-->|<\?xml.*?\?>", re.DOTALL)
_SIZES = re.compile(r'\s(width|height|class|id)="[^"]*"')
_MAIN = re.compile(r"<svg[^>]*>")


class Icons:
    """The drawings of a set.

    Args:
        icon_set: which one.
        modules: folder `node_modules` of the cache.
    """

    def __init__(self, icon_set: IconSet, modules: Path) -> None:
        self.name, self._paths = icon_set.name, icon_set.files(modules)
        self._drawings: dict[str, str] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Icons that the set has."""
        return tuple(self._paths)

    def svg(self, icon: str, side: int) -> str:
        """The drawing in the colour of the text around it."""
        if icon not in self._drawings:
            text = _COMMENT.sub("", self._paths[icon].read_text(encoding="utf-8"))
            head = _MAIN.search(text)
            if head is None:
                raise ValueError(
                    f"expected a drawing in {self._paths[icon]}, got none; fetch the icons again"
                )
            opening = _SIZES.sub("", head[0])
            if "fill=" not in opening and "stroke=" not in opening:
                opening = opening.replace("<svg", '<svg fill="currentColor"', 1)
            self._drawings[icon] = opening + text[head.end() :].strip()
        drawing = self._drawings[icon]
        return drawing.replace(
            "<svg",
            f'<svg data-icon="{icon}" aria-hidden="true" width="{side}" height="{side}" class="mp-icon"',
            1,
        )
