"""Scores a model on unseen synthetic scenes and clips: `python examples/evaluate_nano.py [--model nano]
[--out scores.json]`.

Scene i is drawn from the named seed [20260, i], so everyone scores the same pictures and questions. A point
is right if it lies in the visible mask of a target that no other point was matched with; a question whose
answer is "there are none" counts 1 for an empty answer and 0 otherwise. F1 is averaged over questions.
Questions that name a pair of colour and shape that was never trained are part of the total and shown apart as
well.

Clip i, 8 frames at 2 a second, is drawn from [20261, i]; how its answers are scored is told in
`nano/clip_scores.py`. Every second request for tracks names the rate. `--clips 0` leaves the clips out,
`--scenes 0` the pictures.
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
from nano.clip_scores import score_answer, table_of_clips

import molmopoint
from molmopoint.data.synthetic import Query, Scene, SyntheticClip, sample_clip, sample_scene
from molmopoint.metrics import MatchScores, match_points

SEED = 20_260
NUM_SCENES = 300
CLIP_SEED = 20_261
NUM_CLIPS = 200
CLIP_FPS = 2


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
    order = [
        "all",
        "colour",
        "shape",
        "both",
        "size",
        "position",
        "count",
        "nothing there",
        "trained pairs",
        "held-out pairs",
    ]
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
    answers = pointer.point_batch(
        [scene.image for scene, _ in asked], [query.prompt for _, query in asked], batch_size=batch_size
    )
    return table_of(
        (query, match_points(result.points.xy, [target.mask for target in query.targets]))
        for (_, query), result in zip(asked, answers, strict=True)
    )


def evaluate_clips(pointer: Any, clips: list[SyntheticClip]) -> dict[str, dict[str, dict[str, float]]]:
    """Asks every question of every clip, by style of the request."""
    scores, tracks = [], 0
    for clip in clips:
        for query in clip.queries:
            tracks += query.style == "track"
            request = query.request(CLIP_FPS if tracks % 2 else None)
            answer = pointer.point_video(clip.frames, request, timestamps=clip.timestamps.tolist())
            scores.append((query, score_answer(clip, query, answer.points)))
    return table_of_clips(scores)


def show(table: dict[str, dict[str, float]], width: int = 15) -> None:
    """Prints a table, a line per group of questions."""
    for name, row in table.items():
        numbers = (
            f"{key} {value:.3f}" if isinstance(value, float) else f"{value:5}" for key, value in row.items()
        )
        print(f"{name:{width}} " + "  ".join(numbers), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--scenes", type=int, default=NUM_SCENES)
    parser.add_argument("--clips", type=int, default=NUM_CLIPS)
    parser.add_argument("--batch-size", type=int, default=25)
    parser.add_argument("--out", type=Path, help="also write the scores as JSON here")
    arguments = parser.parse_args()
    pointer = molmopoint.load(arguments.model)
    start = time.perf_counter()
    scenes = [sample_scene(np.random.default_rng([SEED, i])) for i in range(arguments.scenes)]
    table = evaluate(pointer, scenes, arguments.batch_size) if scenes else {}
    show(table)
    of_scenes = time.perf_counter() - start
    clips = [sample_clip(np.random.default_rng([CLIP_SEED, i]), fps=CLIP_FPS) for i in range(arguments.clips)]
    of_clips = evaluate_clips(pointer, clips) if clips else {}
    for style, rows in of_clips.items():
        print(f"clips, {style}")
        show(rows)
    report = {
        "model": arguments.model,
        "seed": SEED,
        "scenes": arguments.scenes,
        "scores": table,
        "seconds": round(of_scenes, 1),
        "clips": {
            "seed": CLIP_SEED,
            "clips": arguments.clips,
            "scores": of_clips,
            "seconds": round(time.perf_counter() - start - of_scenes, 1),
        },
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "molmopoint": molmopoint.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    print(json.dumps({key: report[key] for key in ("seed", "scenes", "seconds", "machine", "versions")}))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
