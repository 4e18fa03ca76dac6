"""How full packed rows are, and how much faster they train: `python -m molmopoint.eval.speed.packing`.

Fill is counted from sizes, at the released geometry and the published limits (16 384 tokens and 128 crops per
row, 48 examples waiting). Where most examples are clips, 128 crops are full long before the tokens are; 192
are counted too.

Throughput is the time of forward and backward pass per labelled token of a small model, on the same examples
laid out in three ways:

- packed: message trees, several in a row;
- trees: one message tree per row, rows in the order of the data, padded to the longest of their batch;
- expressions: one expression per row, its pictures encoded again for each, padded in the same way.

The step of the optimiser is left out. A batch of the last two has as many rows as a packed row has trees on
average.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from molmopoint.eval.speed import report
from molmopoint.eval.speed.example_rows import MIXTURES, DrawnExample, RowMaker, draw
from molmopoint.eval.speed.subjects import Subject, build, large_config
from molmopoint.eval.speed.timing import Setting, Timings, interleave, paired_ratio, seconds_of
from molmopoint.processing import MolmoPointImageProcessor
from molmopoint.processing.rows import IGNORED, Row, collate, pack
from molmopoint.training.packing import ExampleSize, Packer, PackingLimits

RELEASED = PackingLimits(16384, 128, pool_size=48, crop_weight=30)
"""Rows of the published fine-tuning."""
MORE_CROPS = 192
LEAST_FILL = 0.95
LEAST_GAIN = 3.0
SMALL_SCALE = 0.25
"""Of lengths and frames for the measured model, whose pictures have about a quarter of the released
tokens."""
SMALL = PackingLimits(4096, 128, pool_size=24, crop_weight=7.5)
"""Rows of the measured model."""

app = report.new_app()


@dataclass(frozen=True)
class Fill:
    """How full rows are.

    Attributes:
        rows: measured.
        examples: in them.
        tokens: share of the places for tokens that are used.
        crops: share of the places for crops that are used.
        longest_wait: most examples that came while one waited.
    """

    rows: int
    examples: int
    tokens: float
    crops: float
    longest_wait: int


def packs_of(
    sizes: Sequence[ExampleSize], limits: PackingLimits, *, flush: bool
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Numbers of the examples of each row, and the longest wait of one of them.

    Args:
        sizes: of the examples.
        limits: of a row.
        flush: whether the pool is emptied at the end.
    """
    packer = Packer(limits)

    def taken(*, last: bool = False) -> Iterator[tuple[tuple[int, ...], int]]:
        while True:
            since = {waiting.key: waiting.since for waiting in packer.pool}
            keys = packer.take(flush=last)
            if keys is None:
                return
            yield keys, max(packer.clock - since[key] for key in keys)

    for number, size in enumerate(sizes):
        packer.add(number, size)
        yield from taken()
    if flush:
        yield from taken(last=True)


def measure_fill(sizes: Sequence[ExampleSize], limits: PackingLimits) -> Fill:
    """Fill of the rows that a long run makes of examples: what waits at the end is not counted."""
    rows = examples = tokens = crops = longest_wait = 0
    for keys, wait in packs_of(sizes, limits, flush=False):
        rows += 1
        examples += len(keys)
        tokens += sum(sizes[number].tokens for number in keys)
        crops += sum(sizes[number].crops for number in keys)
        longest_wait = max(longest_wait, wait)
    return Fill(
        rows=rows,
        examples=examples,
        tokens=tokens / (rows * limits.max_tokens),
        crops=crops / (rows * limits.max_crops),
        longest_wait=longest_wait,
    )


def count_fills(draws: int) -> list[dict[str, Any]]:
    """Fill for every mixture, at the published limits and with more crops."""
    maker = RowMaker(large_config(), MolmoPointImageProcessor())
    found = []
    for mixture in MIXTURES:
        rng = np.random.default_rng(0)
        sizes = [maker.size(draw(rng, mixture)) for _ in range(draws)]
        for limits in (RELEASED, replace(RELEASED, max_crops=MORE_CROPS)):
            fill = measure_fill(sizes, limits)
            found.append(
                {
                    "mixture": mixture,
                    "max_crops": limits.max_crops,
                    **vars(fill),
                    "holds": fill.tokens >= LEAST_FILL,
                }
            )
    return found


def batches_by_layout(
    maker: RowMaker, drawn: Sequence[DrawnExample], limits: PackingLimits
) -> dict[str, list[list[Row]]]:
    """Name of the layout -> rows of each batch; every layout has the same examples."""
    sizes = [maker.size(each) for each in drawn]
    packs = [keys for keys, _ in packs_of(sizes, limits, flush=True)]
    rows = max(1, round(len(drawn) / len(packs)))
    trees = [maker.row(each) for each in drawn]
    packed = []
    for keys in packs:
        of_row = [trees[number] for number in keys]
        packed.append([pack(of_row, maker.config.patch_token_id)])
    expressions: list[Row] = []
    for each in drawn:
        expressions += maker.rows_of_expressions(each)
    return {
        "packed": packed,
        "trees": [trees[i : i + rows] for i in range(0, len(trees), rows)],
        "expressions": [expressions[i : i + rows] for i in range(0, len(expressions), rows)],
    }


def train_pass(subject: Subject, setting: Setting, batches: Sequence[Sequence[Row]]) -> Timings:
    """Seconds of forward and backward pass over some batches, per labelled token."""
    setting.activate()
    labelled = describe(batches)["labelled"]
    seconds = 0.0
    for rows in batches:
        batch = {name: tensor.to(setting.device) for name, tensor in collate(rows, pad_token_id=0).items()}

        def step(batch: dict[str, Any] = batch) -> None:
            subject.model(**batch).loss.backward()

        seconds += seconds_of(step, setting)
        subject.model.zero_grad(set_to_none=True)
    return {"labelled token": seconds / labelled}


def describe(batches: Sequence[Sequence[Row]]) -> dict[str, Any]:
    """Rows, tokens with padding, crops and labelled tokens of a layout."""
    padded = used = crops = labelled = 0
    for rows in batches:
        padded += len(rows) * max(map(len, rows))
        for row in rows:
            used += len(row)
            labelled += int((row.shift_labels != IGNORED).sum())
            if row.pixel_values is not None:
                crops += len(row.pixel_values)
    return {
        "batches": len(batches),
        "rows": sum(map(len, batches)),
        "tokens": padded,
        "padding": 1 - used / padded,
        "crops": crops,
        "labelled": labelled,
    }


def measure_throughput(
    subject: Subject, setting: Setting, limits: PackingLimits, examples: int, repeats: int
) -> dict[str, Any]:
    """All layouts of data of one's own, in turns.

    What they hold, seconds per labelled token, and the gain of packed rows over the others.
    """
    rng = np.random.default_rng(0)
    maker = RowMaker(subject.model.config, subject.image_processor)
    drawn = [draw(rng, MIXTURES[0], SMALL_SCALE) for _ in range(examples)]
    batches = batches_by_layout(maker, drawn, limits)
    subject.model.train()
    runs = {name: partial(train_pass, subject, setting, made) for name, made in batches.items()}
    values = interleave(runs, repeats, warm_up=0)
    seconds = {name: measured["labelled token"] for name, measured in values.items()}
    layouts = {}
    for name, made in batches.items():
        milliseconds = 1e3 * float(np.median(seconds[name]))
        layouts[name] = {**describe(made), "milliseconds": milliseconds}
    return {
        "layouts": layouts,
        "gain": {
            name: paired_ratio(seconds[name], seconds["packed"]).to_dict()
            for name in ("trees", "expressions")
        },
        "limit": LEAST_GAIN,
        "seconds": {name: list(measured) for name, measured in seconds.items()},
    }


@app.command()
def packing(
    model: Annotated[str, typer.Option(help="Model whose throughput is measured.")] = "nano",
    change: Annotated[
        str,
        typer.Option(
            "--set", help="Changes of the setting, such as device=cuda,dtype=bfloat16,clock=processor."
        ),
    ] = "",
    examples: Annotated[int, typer.Option(min=8, help="Examples whose throughput is measured.")] = 64,
    row_tokens: Annotated[
        int, typer.Option(min=512, help="Tokens of a packed row of the measured model.")
    ] = SMALL.max_tokens,
    repeats: Annotated[int, typer.Option(min=1, help="Turns.")] = 3,
    draws: Annotated[int, typer.Option(min=100, help="Examples whose fill is counted.")] = 10_000,
    json_output: report.JsonOutput = False,
) -> None:
    """Counts how full packed rows are, and times training on packed and unpacked rows."""
    try:
        setting = Setting().changed(change) if change else Setting()
        subject = build(model, setting)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with contextlib.redirect_stdout(sys.stderr):
        limits = replace(SMALL, max_tokens=row_tokens)
        document = examine(subject, setting, limits, examples=examples, repeats=repeats, draws=draws)
    if json_output:
        report.print_json(document)
    else:
        print_tables(document)


def examine(
    subject: Subject, setting: Setting, limits: PackingLimits, *, examples: int, repeats: int, draws: int
) -> dict[str, Any]:
    """Both measurements."""
    return {
        "machine": report.machine(setting.device),
        "setting": setting.to_dict(),
        "fill": count_fills(draws),
        "throughput": {
            "model": subject.name,
            **measure_throughput(subject, setting, limits, examples, repeats),
        },
    }


def print_tables(document: dict[str, Any]) -> None:
    """Both measurements for people."""
    console = report.console()
    report.print_facts(console, document["machine"] | document["setting"])
    filled = Table(
        "mixture", "crops of a row", "rows", "examples", "tokens filled", "crops filled", "longest wait"
    )
    for fill in document["fill"]:
        counts = [str(fill[key]) for key in ("max_crops", "rows", "examples")]
        shares = [f"{fill[key]:.1%}" for key in ("tokens", "crops")]
        filled.add_row(fill["mixture"], *counts, *shares, str(fill["longest_wait"]))
    console.print(
        f"\nrows of {RELEASED.max_tokens} tokens, {RELEASED.pool_size} examples waiting; wanted "
        f"{LEAST_FILL:.0%} of tokens"
    )
    console.print(filled)
    throughput = document["throughput"]
    names = ("layout", "batches", "rows", "tokens", "padding", "crops", "labelled", "ms per labelled token")
    table = Table(*names, title=throughput["model"])
    for name, layout in throughput["layouts"].items():
        table.add_row(
            name,
            str(layout["batches"]),
            str(layout["rows"]),
            str(layout["tokens"]),
            f"{layout['padding']:.0%}",
            str(layout["crops"]),
            str(layout["labelled"]),
            f"{layout['milliseconds']:.3g}",
        )
    console.print(table)
    for name, gain in throughput["gain"].items():
        console.print(f"packed over {name}: {gain['median']:.2f} ({gain['low']:.2f} to {gain['high']:.2f})")


if __name__ == "__main__":
    app(prog_name="python -m molmopoint.eval.speed.packing")
