"""How long scoring stored answers takes: `python -m molmopoint.eval.speed.scoring`.

Items of the size of PixMo-Points: a megapixel picture, five masks, five points. Indexing is timed apart,
because it happens once.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from molmopoint.eval.benchmark import Item, Items, ParsedAnswer, score_items
from molmopoint.eval.benchmarks.synthetic import Synthetic, Truth
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.speed import report
from molmopoint.metrics.run_lengths import MaskIndex

SIZE = (1024, 1024)
MASKS = 5

app = report.new_app()


@dataclass(frozen=True)
class Times:
    """Seconds and sizes.

    Attributes:
        items: scored.
        build: seconds to index all masks, made as arrays on the way.
        megabytes: of the index in memory.
        on_disk: megabytes of its file.
        score: seconds for all items.
        summarise: seconds for the table with its intervals.
    """

    items: int
    build: float
    megabytes: float
    on_disk: float
    score: float
    summarise: float


def measure(items: int, seed: int = 0) -> Times:
    """Indexes masks, scores answers and makes the table."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(100, 900, (items, MASKS, 2))
    start = time.perf_counter()
    index = MaskIndex.build(_masks(centres, rng))
    build = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "masks.npz")
        on_disk = (Path(folder) / "masks.npz").stat().st_size / 1e6
    noisy = centres + rng.normal(0, 30, centres.shape)
    categories = {"kind": "all", "targets": "some", "pairs": "trained"}
    made, answers = [], {}
    for i in range(items):
        truth = Truth(index, range(MASKS * i, MASKS * (i + 1)))
        made.append(Item(str(i), "?", truth=truth, categories=categories))
        answers[str(i)] = ParsedAnswer(noisy[i], np.zeros(MASKS), np.arange(MASKS))
    start = time.perf_counter()
    scores = score_items(Synthetic(), made, answers, "mask")
    scored = time.perf_counter()
    summarise(Synthetic(), Items(tuple(made)), scores, answers, "mask")
    done = time.perf_counter()
    return Times(items, build, index.num_bytes / 1e6, on_disk, scored - start, done - scored)


def _masks(centres: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Ellipses; five masks per item."""
    width, height = SIZE
    for x, y in centres.reshape(-1, 2):
        mask = np.zeros((height, width), dtype=bool)
        a, b = rng.integers(20, 80, 2)
        rows, columns = np.ogrid[-b : b + 1, -a : a + 1]
        left, top = int(x) - a, int(y) - b
        ellipse = (columns / a) ** 2 + (rows / b) ** 2 <= 1
        mask[top : top + 2 * b + 1, left : left + 2 * a + 1] = ellipse
        yield mask


@app.command()
def scoring(items: Annotated[int, typer.Option(min=1, help="Items to score.")] = 10_000) -> None:
    """Times scoring stored answers."""
    console = report.console()
    report.print_facts(console, report.machine("cpu"))
    times = measure(items)
    console.print(f"{times.items} items with {MASKS} masks of {SIZE[0]} x {SIZE[1]}")
    sizes = f"{times.megabytes:.1f} MB in memory, {times.on_disk:.1f} MB on disk"
    console.print(f"index: {times.build:.1f} s once, {sizes}")
    console.print(f"scoring: {times.score:.2f} s; table with intervals: {times.summarise:.2f} s")


if __name__ == "__main__":
    app(prog_name="python -m molmopoint.eval.speed.scoring")
