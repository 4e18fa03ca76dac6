"""Scores a model on unseen synthetic scenes: `python examples/evaluate_nano.py [--model nano] [--out scores.json]`.

Scene i is drawn from the named seed [20260, i], so everyone scores the same pictures and questions. A point is right if
it lies in the visible mask of a target that no other point was matched with; a question whose answer is "there are none"
counts 1 for an empty answer and 0 otherwise. F1 is averaged over questions. Questions that name a pair of colour and
shape that was never trained are part of the total and shown apart as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import molmopoint
from molmopoint.data.synthetic import Query, Scene, sample_scene
from molmopoint.metrics import MatchScores, match_points

SEED = 20_260
NUM_SCENES = 300


def groups_of(query: Query) -> list[str]:
    """The rows of the table a question counts in."""
    names = ["all", query.kind, "held-out pairs" if query.held_out else "trained pairs"]
    return [*names, "nothing there"] if not query.targets else names


def table_of(scores: Iterable[tuple[Query, MatchScores]]) -> dict[str, dict[str, float]]:
    """Mean F1, precision, recall and exact count by group."""
    by_group: dict[str, list[MatchScores]] = defaultdict(list)
    for query, match in scores:
        for name in groups_of(query):
            by_group[name].append(match)
    order = ["all", "colour", "shape", "both", "size", "position", "count", "nothing there", "trained pairs", "held-out pairs"]
    return {
        name: {
            "questions": len(by_group[name]),
            "f1": float(np.mean([m.f1 for m in by_group[name]])),
            "precision": float(np.mean([m.precision for m in by_group[name]])),
            "recall": float(np.mean([m.recall for m in by_group[name]])),
            "exact_count": float(np.mean([m.exact_count for m in by_group[name]])),
        }
        for name in order
        if name in by_group
    }


def evaluate(pointer: Any, scenes: list[Scene], batch_size: int) -> dict[str, dict[str, float]]:
    """Asks every question of every scene."""
    asked = [(scene, query) for scene in scenes for query in scene.queries]
    answers = pointer.point_batch([scene.image for scene, _ in asked], [query.prompt for _, query in asked], batch_size=batch_size)
    return table_of(
        (query, match_points(result.points.xy, [target.mask for target in query.targets]))
        for (_, query), result in zip(asked, answers, strict=True)
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--scenes", type=int, default=NUM_SCENES)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--out", type=Path, help="also write the scores as JSON here")
    arguments = parser.parse_args()
    start = time.perf_counter()
    pointer = molmopoint.load(arguments.model)
    scenes = [sample_scene(np.random.default_rng([SEED, i])) for i in range(arguments.scenes)]
    table = evaluate(pointer, scenes, arguments.batch_size)
    for name, row in table.items():
        print(f"{name:15} " + "  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{value:5}" for key, value in row.items()))
    report = {
        "model": arguments.model,
        "seed": SEED,
        "scenes": arguments.scenes,
        "scores": table,
        "seconds": round(time.perf_counter() - start, 1),
        "machine": {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"molmopoint": molmopoint.__version__, "torch": torch.__version__, "transformers": transformers.__version__},
    }
    print(json.dumps({key: report[key] for key in ("seed", "scenes", "seconds", "machine", "versions")}))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
