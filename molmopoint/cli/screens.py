"""`molmopoint data screens`: training data about pages that a browser draws."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molmopoint.cli import console
from molmopoint.cli.console import OK, SOME_FAILED, USAGE
from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from molmopoint.screens.browser import View
    from molmopoint.screens.dataset import Drawn

_SIZE = re.compile(r"(\d{2,4})x(\d{2,4})")
_LARGEST, _SMALLEST = 4096, 64
_SHOWN = 5
"""Faults that are written out; all of them are in report.json."""


def screens_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="HTML files, folders of them, or addresses on this machine.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.", show_default=False)],
    size: Annotated[
        list[str] | None, typer.Option(help="Window in pixels of the page, such as 390x844; may be repeated.")
    ] = None,
    ratio: Annotated[
        list[float] | None, typer.Option(help="Pixels of the picture per pixel of the page; may be repeated.")
    ] = None,
    theme: Annotated[
        list[str] | None, typer.Option(help="light or dark, which pages may follow; may be repeated.")
    ] = None,
    scroll: Annotated[
        list[float] | None, typer.Option(help="How far down to scroll, 0 to 1; may be repeated.")
    ] = None,
    steps: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of steps before the picture: click, hover, fill, press, wait, go.",
            show_default=False,
        ),
    ] = None,
    questions: Annotated[int, typer.Option(min=1, max=200, help="Most questions about each picture.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the questions.")] = 0,
    browser: Annotated[
        str | None,
        typer.Option(help="Program of Chromium; by default the one installed.", show_default=False),
    ] = None,
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Also open and load addresses outside of this machine.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="Most that a page, and each look at it, may take.")
    ] = 20.0,
) -> None:
    """Draw pages in a browser, and make pictures with questions and points of them.

    Only what a person sees is asked about. Nothing outside of this machine is reached unless --allow-urls is
    given. What goes wrong with a page is counted and told in report.json; the others are drawn.

    [bold]Examples[/bold]

      molmopoint data screens app/index.html --out screens

      molmopoint data screens http://localhost:8000/ --size 1280x800 --size 390x844 --theme light --theme dark
      --out screens

      molmopoint data screens pages/ --steps steps.toml --out screens && molmopoint finetune
      screens/data.jsonl --out learned
    """
    raise typer.Exit(
        _run(
            sources,
            out,
            _Options(size, ratio, theme, scroll, steps, questions, seed, browser, allow_urls, seconds),
        )
    )


class _Options:
    """What the options ask for, as it was typed."""

    def __init__(
        self, size: list[str] | None, ratio: list[float] | None, theme: list[str] | None, scroll: list[float] | None,
        steps: Path | None, questions: int, seed: int, browser: str | None, allow_urls: bool, seconds: float,
    ) -> None:  # fmt: skip
        self.sizes, self.ratios, self.themes, self.scrolls = (
            size or ["1280x800"],
            ratio or [1.0],
            theme or ["light"],
            scroll or [0.0],
        )
        self.steps, self.questions, self.seed, self.browser = steps, questions, seed, browser
        self.allow_urls, self.seconds = allow_urls, seconds

    def views(self) -> list[View]:
        """Every size in every ratio, theme and scroll position.

        Raises:
            MolmoPointError: a size, ratio, theme or position that cannot be.
        """
        from molmopoint.screens.browser import View

        sizes = [_size(text) for text in dict.fromkeys(self.sizes)]
        for ratio in self.ratios:
            if not 0.5 <= ratio <= 4:
                raise MolmoPointError(
                    f"expected --ratio from 0.5 to 4, got {ratio:g}; 1 and 2 are those of most screens"
                )
        for theme in self.themes:
            if theme not in ("light", "dark"):
                raise MolmoPointError(f"expected --theme light or dark, got {theme!r}")
        for scroll in self.scrolls:
            if not 0 <= scroll <= 1:
                raise MolmoPointError(f"expected --scroll from 0, the top, to 1, the bottom, got {scroll:g}")
        choices = itertools.product(
            sizes, dict.fromkeys(self.ratios), dict.fromkeys(self.themes), dict.fromkeys(self.scrolls)
        )
        return [
            View(width, height, ratio, theme, scroll) for (width, height), ratio, theme, scroll in choices
        ]


def _run(sources: list[str], out: Path, options: _Options) -> int:
    from molmopoint.files.addresses import is_local_address
    from molmopoint.screens.browser import Browser
    from molmopoint.screens.dataset import addresses_of, draw_pages
    from molmopoint.screens.steps import read_steps

    notes = console.notes()
    try:
        views, addresses = options.views(), addresses_of(sources)
        far = [address for address in addresses if not is_local_address(address)]
        if far and not options.allow_urls:
            raise MolmoPointError(
                f"expected addresses on this machine, got {far[0]!r}; allow others with --allow-urls"
            )
        script = None if options.steps is None else read_steps(options.steps)
        with Browser(options.browser, everywhere=options.allow_urls, seconds=options.seconds) as browser:
            drawn = draw_pages(
                addresses, out, browser, views, script=script, questions=options.questions, seed=options.seed,
                progress=lambda told: notes.print(told, markup=False, soft_wrap=True),
            )  # fmt: skip
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    _tell(drawn, out)
    return SOME_FAILED if drawn.faults or not drawn.rows else OK


def _tell(drawn: Drawn, out: Path) -> None:
    """What was written, and what went wrong."""
    paper = console.findings()
    paper.print(
        f"{drawn.rows} rows about {drawn.pictures} pictures of {drawn.pages} pages in {out / 'data.jsonl'}",
        markup=False,
    )
    seen = f"{drawn.elements} elements seen, {drawn.left_out} left out because nobody sees them"
    paper.print(seen + (f", {drawn.missed} not looked at" if drawn.missed else ""), markup=False)
    if drawn.kinds:
        paper.print(
            "questions: " + ", ".join(f"{kind} {number}" for kind, number in sorted(drawn.kinds.items())),
            markup=False,
        )
    if drawn.events:
        paper.print(
            "pages did by themselves: "
            + ", ".join(f"{what} {number}" for what, number in drawn.events.items()),
            markup=False,
        )
    if drawn.empty:
        paper.print(f"{drawn.empty} pictures with nothing to ask for", markup=False)
    for address, kind, message in drawn.faults[:_SHOWN]:
        console.notes().print(f"{kind}: {address}: {message}", markup=False, style="yellow", soft_wrap=True)
    if len(drawn.faults) > _SHOWN:
        console.notes().print(f"... {len(drawn.faults) - _SHOWN} more faults in report.json", style="yellow")


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(_SMALLEST <= side <= _LARGEST for side in (width, height)):
        raise MolmoPointError(
            f"expected --size like 1280x800, each side from {_SMALLEST} to {_LARGEST}, got {text!r}"
        )
    return width, height
