"""How long judging stored answers takes: `python -m molmopoint.eval.speed.scoring`.

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
from rich.console import Console

from molmopoint.eval.benchmark import Item, Items, ParsedAnswer, score_items
from molmopoint.eval.benchmarks.synthetic import Synthetic, Truth
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.speed import report
from molmopoint.metrics.run_lengths import MaskIndex

SIZE = (1024, 1024)
MASKS = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@dataclass(frozen=True)
class Times:
    """Seconds and sizes.

    Attributes:
        items: judged.
        build: seconds to index all masks, made as arrays on the way.
        megabytes: of the index in memory.
        on_disk: megabytes of its file.
        judge: seconds for all items.
        summarise: seconds for the table with its intervals.
    """

    items: int
    build: float
    megabytes: float
    on_disk: float
    judge: float
    summarise: float


def measure(items: int, seed: int = 0) -> Times:
    """Indexes masks, judges answers and makes the table."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(100, 900, (items, MASKS, 2))
    start = time.perf_counter()
    index = MaskIndex.build(_masks(centres, rng))
    build = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "masks.npz")
        on_disk = (Path(folder) / "masks.npz").stat().st_size / 1e6
    made = tuple(
        Item(
            str(i),
            "?",
            truth=Truth(index, range(MASKS * i, MASKS * (i + 1))),
            categories={"kind": "all", "targets": "some", "pairs": "trained"},
        )
        for i in range(items)
    )
    noisy = centres + rng.normal(0, 30, centres.shape)
    answers = {item.item_id: ParsedAnswer(noisy[i], np.zeros(MASKS), np.arange(MASKS)) for i, item in enumerate(made)}
    start = time.perf_counter()
    scores = score_items(Synthetic(), made, answers, "mask")
    judged = time.perf_counter()
    summarise(Synthetic(), Items(made), scores, answers, "mask")
    return Times(items, build, index.num_bytes / 1e6, on_disk, judged - start, time.perf_counter() - judged)


def _masks(centres: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Ellipses; five masks per item."""
    width, height = SIZE
    for x, y in centres.reshape(-1, 2):
        mask = np.zeros((height, width), dtype=bool)
        a, b = rng.integers(20, 80, 2)
        rows, columns = np.ogrid[-b : b + 1, -a : a + 1]
        mask[int(y) - b : int(y) + b + 1, int(x) - a : int(x) + a + 1] = (columns / a) ** 2 + (rows / b) ** 2 <= 1
        yield mask


@app.command()
def scoring(items: Annotated[int, typer.Option(min=1, help="Items to judge.")] = 10_000) -> None:
    """Times judging stored answers."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(", ".join(f"{name} {value}" for name, value in report.machine("cpu").items()))
    times = measure(items)
    console.print(f"{times.items} items with {MASKS} masks of {SIZE[0]} x {SIZE[1]}")
    console.print(f"index: {times.build:.1f} s once, {times.megabytes:.1f} MB in memory, {times.on_disk:.1f} MB on disk")
    console.print(f"judging: {times.judge:.2f} s; table with intervals: {times.summarise:.2f} s")


if __name__ == "__main__":
    app(prog_name="python -m molmopoint.eval.speed.scoring")
