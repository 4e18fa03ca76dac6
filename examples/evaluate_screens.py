"""Scores a model on unseen pages: `python examples/evaluate_screens.py --model nano-screens --folder
runs/screens-test`.

Pages are drawn once and kept in --folder; what they are, and from which seeds, is told in
`screens/scoring.py`. The answers are asked for and judged by `molmopoint eval screens`, which goes on where
it was interrupted. `--card README.md` writes the figures into a model card, between its marks. `--large`
takes pages of 2560x1440 instead, which no crops of the model hold at native pixels, and `--zoom` looks again.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from screens.scoring import FIRST_LARGE, GROUPS, LARGE_GROUPS, SEED, draw_tests

import molmopoint

BEGIN, END = "<!-- scores -->", "<!-- end of scores -->"
METRICS = {"f1": "F1", "exact_count": "exact count", "click": "click"}
"""Columns of the card."""
KINDS = ("type", "colour", "state", "icon", "name", "position", "relation", "nothing there")
_SEEN = GROUPS[0].name

Cells = Mapping[tuple[tuple[str, ...], tuple[str, ...], str], Mapping[str, Any]]
"""What `metrics.json` says, by view, group and metric."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="zoo name, hub id or folder")
    parser.add_argument("--folder", type=Path, required=True, help="test pages live here")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("runs/npm"),
        help="where `train_screens.py fetch` put kits and icons",
    )
    parser.add_argument("--limit", type=int, help="questions at most; all of them by default")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--large", action="store_true", help="pages of 2560x1440, in a folder of their own")
    parser.add_argument("--zoom", action="store_true", help="look again at native pixels")
    parser.add_argument("--out", type=Path, default=Path("runs/screens-scores"), help="answers and tables")
    parser.add_argument("--card", type=Path, help="model card whose figures are written anew")
    arguments = parser.parse_args()
    if arguments.card and (arguments.large or arguments.zoom):
        parser.error("expected --card without --large and --zoom; its tables are those of the other pages")
    groups, first = (LARGE_GROUPS, FIRST_LARGE) if arguments.large else (GROUPS, 0)
    draw_tests(arguments.folder, arguments.cache / "node_modules", groups, first)
    command = [
        "eval",
        "screens",
        "--model",
        arguments.model,
        "--data",
        arguments.folder,
        "--out",
        arguments.out,
    ]
    command += ["--batch-size", arguments.batch_size]
    if arguments.zoom:
        command.append("--zoom")
    if arguments.limit is not None:
        command += ["--limit", arguments.limit]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "molmopoint", *map(str, command)], check=True)
    seconds = time.perf_counter() - start
    if arguments.card:
        metrics = json.loads((arguments.out / "screens" / "metrics.json").read_text(encoding="utf-8"))
        write_figures(arguments.card, [*tables(cells_of(metrics)), how_measured(seconds)])


def cells_of(metrics: Mapping[str, Any]) -> Cells:
    """The numbers of `metrics.json`."""
    return {(tuple(cell["view"]), tuple(cell["group"]), cell["metric"]): cell for cell in metrics["cells"]}


def tables(cells: Cells) -> Iterable[str]:
    """Groups of pages; kinds of questions about pages of seen kits; names that were trained, and others."""
    yield table("pages", cells, {group.name: (("group",), (group.name,)) for group in GROUPS})
    yield table(
        f"questions about pages of {_SEEN}",
        cells,
        {kind: (("group", "kind"), (_SEEN, kind)) for kind in KINDS},
    )
    yield table(
        "questions by names, all pages",
        cells,
        {name: (("names",), (name,)) for name in ("trained", "held out")},
    )


def table(title: str, cells: Cells, rows: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]) -> str:
    """A table in Markdown.

    Args:
        title: of its first column.
        cells: of the run.
        rows: view and group by name; those that were not scored are left out.
    """
    lines = [
        f"| {title} | number | {' | '.join(METRICS.values())} |",
        "| --- |" + " --- |" * (1 + len(METRICS)),
    ]
    for name, (view, group) in rows.items():
        if (view, group, "f1") not in cells:
            continue
        numbers = [_number(cells[view, group, metric]["value"]) for metric in METRICS]
        lines.append(f"| {name} | {cells[view, group, 'f1']['n']} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def how_measured(seconds: float) -> str:
    """Command, day, versions and machine."""
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    versions = f"molmopoint {molmopoint.__version__}, torch {torch.__version__}"
    machine = f"{platform.machine()}, threads: {torch.get_num_threads()}, {seconds:.0f} s"
    return (
        f"Measured with `python examples/evaluate_screens.py` on {day} ({versions}; {machine}), on pages\n"
        f"that were drawn from the seeds [{SEED}, group, page]. A point is right in a box of a target of "
        "its own; of questions without\n"
        "targets, an empty answer is right. Click: the first point lies in the box, of questions with one "
        "target, as in ScreenSpot."
    )


def write_figures(card: Path, parts: Iterable[str]) -> None:
    """Puts figures between the marks of a card.

    Raises:
        ValueError: the card has no marks.
    """
    text = card.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected {BEGIN} and {END} in {card}, got a card without them")
    card.write_text(before + "\n\n".join([BEGIN, *parts, END]) + after, encoding="utf-8")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
