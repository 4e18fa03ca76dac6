"""Throughput and parity of a MolmoPoint on vLLM against this library's own network, on a GPU.

Not run yet: it was written on a machine without one. Run each part in an environment with the extra "vllm":

    python examples/measure_vllm.py own --out own.json
    python examples/measure_vllm.py engine --out engine.json
    python examples/measure_vllm.py engine --eager --out eager.json       # without CUDA graphs
    python examples/measure_vllm.py compare own.json engine.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import molmopoint
from molmopoint.backends.result import PointingResult
from molmopoint.data.synthetic import sample_scene

SIZES = (1, 4, 16, 64, 256)
"""Requests at a time."""


def questions(count: int) -> tuple[list[Any], list[str]]:
    """Pictures of synthetic scenes and what to point at."""
    pictures, prompts = [], []
    for seed in range(count):
        scene = sample_scene(np.random.default_rng(seed))
        pictures.append(scene.image)
        prompts.append(scene.queries[0].prompt)
    return pictures, prompts


def measure(arguments: argparse.Namespace) -> None:
    """Times batches of every size, and writes points and scores of the largest."""
    options: dict[str, Any] = {}
    if arguments.what == "engine":
        settings = {"max_model_len": 8192, "max_num_seqs": max(SIZES), "enforce_eager": arguments.eager}
        options = {"engine": "vllm", "engine_options": settings}
    pointer = molmopoint.load(arguments.model, dtype="bfloat16", **options)
    pictures, prompts = questions(max(SIZES))
    list(pointer.point_batch(pictures[:4], prompts[:4], batch_size=4, max_new_tokens=64))  # warms up
    rates, results = {}, []
    for size in SIZES:
        start = time.perf_counter()
        results = list(
            pointer.point_batch(
                pictures[:size], prompts[:size], batch_size=min(size, arguments.batch), max_new_tokens=64
            )
        )
        rates[size] = size / (time.perf_counter() - start)
        print(f"{arguments.what}: {size} requests at a time, {rates[size]:.2f} a second", flush=True)
    found = []
    for result in results:
        assert isinstance(result, PointingResult), result
        found.append({"xy": result.points.xy.tolist(), "score": result.points.score.tolist()})
    arguments.out.write_text(json.dumps({"rates": rates, "results": found}), encoding="utf-8")


def compare(arguments: argparse.Namespace) -> None:
    """Says how many answers are the same, and how far scores differ."""
    first, second = (json.loads(path.read_text(encoding="utf-8"))["results"] for path in arguments.files)
    same, furthest = 0, 0.0
    for one, other in zip(first, second, strict=True):
        if np.shape(one["xy"]) != np.shape(other["xy"]) or not np.allclose(one["xy"], other["xy"]):
            continue
        same += 1
        apart = np.abs(np.subtract(one["score"], other["score"]))
        furthest = max(furthest, float(apart.max(initial=0.0)))
    print(f"{same} of {len(first)} answers have the same points; scores differ by at most {furthest:.4f}")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="what", required=True)
    for name in ("own", "engine"):
        part = parts.add_parser(name)
        part.add_argument("--model", default="allenai/MolmoPoint-8B")
        part.add_argument("--out", type=Path, required=True)
        part.add_argument(
            "--batch", type=int, default=256 if name == "engine" else 16, help="requests per call"
        )
        part.add_argument("--eager", action="store_true", help="without CUDA graphs")
    part = parts.add_parser("compare")
    part.add_argument("files", type=Path, nargs=2)
    arguments = parser.parse_args()
    (compare if arguments.what == "compare" else measure)(arguments)


if __name__ == "__main__":
    main()
