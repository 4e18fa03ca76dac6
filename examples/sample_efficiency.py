"""How many pictures does it take to learn to point? `python examples/sample_efficiency.py STAGE --folder
runs/efficiency`.

The paper's claim in small: on one frozen vision transformer, the same new decoder learns to answer with
grounding tokens and, as its twin, with coordinates written as text, one token per digit. Same network,
scenes, questions, order and number of steps. Stages:

    check   what answers without any learning score: one random object must stay below 0.3
    start   scenes and the vision transformer of nano's dense stage, which has never pointed
    search  three learning rates for each format, by runs whose seed is used for nothing else
    arms    both formats at every number of pictures and with every seed, then the ablations of grounding tokens
    report  table, plot and all figures

Every stage goes on where it was stopped, also inside a run; runs that are complete are skipped. With
--format, two processes share the work. Every run has its log, runs/NAME.jsonl. Where there is more time or a
larger machine: --sizes, --seeds, --steps, --vit-steps, the same ones in every stage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from efficiency.answers import FORMATS, Format
from efficiency.arm import Workshop, run_once
from efficiency.data import baselines
from efficiency.plan import Plan, arm_runs, search_runs
from efficiency.report import plot, read_results, table_of
from nano.cache import draw_shard
from nano.dense import train_dense
from nano.files import build_tokenizer, write_files
from nano.loop import read_progress
from nano.pointing import Examples
from transformers import PreTrainedTokenizerFast


def open_workshop(folder: Path, plan: Plan) -> Workshop:
    """The data of a folder; nano's tokenizer is made where it is missing."""
    path = folder / "tokenizer"
    if not path.exists():
        write_files(path, build_tokenizer())
    examples = Examples(PreTrainedTokenizerFast.from_pretrained(path), plan.settings(), overview=False)
    return Workshop(folder, plan, examples)


def make_start(folder: Path, plan: Plan) -> None:
    """Everything before the arms; parts that are there are not made again."""
    settings = plan.settings()
    for index in range(plan.vit_shards):
        draw_shard(folder / "cache", index, settings)
    largest = max(*plan.sizes, plan.search_size)
    # The dense stage has seen none of the shards that the arms learn from.
    for index in range(plan.vit_shards, plan.vit_shards + -(-largest // settings.shard_scenes)):
        draw_shard(folder / "scenes", index, settings, most_objects=plan.most_objects)
    dense = folder / "vit.safetensors"
    if not dense.exists() or read_progress(dense)["step"] < plan.vit_steps:
        train_dense(folder, settings, plan.vit_steps)


def best_rate(results: Sequence[dict[str, Any]], format: Format, plan: Plan) -> float:
    """The rate whose search run had the highest F1 on the search scenes; of equal ones the lowest.

    Raises:
        ValueError: the search of this format is not complete.
    """
    wanted = {"role": "search", "format": format, "steps": plan.search_steps, "size": plan.search_size}
    scores: dict[float, float] = {}
    for result in results:
        if wanted.items() <= result.items():
            scores[result["rate"]] = result["search_f1"]
    if missing := set(plan.rates) - set(scores):
        raise ValueError(
            f"expected a search run of {format} for the rates {sorted(missing)}, got none; run the stage "
            "`search` first"
        )
    return max(plan.rates, key=lambda rate: (scores[rate], -rate))


def run_stage(stage: str, folder: Path, formats: Sequence[Format], plan: Plan) -> None:
    """Makes the runs of `search` or `arms`, until it is asked to stop."""
    shop = open_workshop(folder, plan)
    for format in formats:
        searching = stage == "search"
        runs = (
            search_runs(format, plan)
            if searching
            else arm_runs(format, best_rate(read_results(folder), format, plan), plan)
        )
        for run in runs:
            if run_once(run, shop) is None:
                return


def write_report(folder: Path, plan: Plan, out: Path) -> None:
    """`results.json`, `f1_by_examples.png`, and the table on the screen; runs of another length are left out."""
    steps = {"arm": plan.steps, "search": plan.search_steps}
    results = [result for result in read_results(folder) if result["steps"] == steps[result["role"]]]
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plot(results, plan, out / "f1_by_examples.png")
    print(table_of(results, plan))


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The published plan, with what the command line says otherwise."""
    changes: dict[str, Any] = {}
    for name in ("sizes", "seeds", "steps", "search_steps", "vit_steps"):
        value = getattr(arguments, name)
        if value:
            changes[name] = tuple(value) if isinstance(value, list) else value
    return replace(Plan(), **changes)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, or words in its place."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=("check", "start", "search", "arms", "report"))
    parser.add_argument(
        "--folder", type=Path, required=True, help="scenes, checkpoints, logs and results live here"
    )
    parser.add_argument("--format", choices=FORMATS, help="only the runs of this format")
    parser.add_argument("--out", type=Path, default=Path("examples/efficiency"), help="where `report` writes")
    parser.add_argument("--sizes", type=int, nargs="+", help="numbers of pictures")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="of the order of the pictures and of new weights"
    )
    parser.add_argument("--steps", type=int, help="optimiser steps of a run")
    parser.add_argument(
        "--search-steps", type=int, help="optimiser steps of a run that chooses a learning rate"
    )
    parser.add_argument("--vit-steps", type=int, help="optimiser steps of the dense stage")
    return parser.parse_args(words)


def main() -> None:
    """Runs one stage."""
    arguments = parse()
    plan = plan_of(arguments)
    if arguments.stage == "check":
        print(json.dumps(baselines(plan), indent=1))
    elif arguments.stage == "start":
        make_start(arguments.folder, plan)
    elif arguments.stage == "report":
        write_report(arguments.folder, plan, arguments.out)
    else:
        formats = FORMATS if arguments.format is None else (arguments.format,)
        run_stage(arguments.stage, arguments.folder, formats, plan)


if __name__ == "__main__":
    main()
