"""Scores a model on unseen pages: `python examples/evaluate_screens.py --model runs/nano-screens --folder runs/screens-test`.

What is scored, and from which seeds, is told in `screens/scoring.py`. Pages are drawn once and kept in --folder. `--part 0.2` scores the
first fifth of every group.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch
from screens.scoring import GROUPS, SEED, draw_group, score, table_of

import molmopoint


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="zoo name, hub id or folder")
    parser.add_argument("--folder", type=Path, required=True, help="test pages live here")
    parser.add_argument("--cache", type=Path, default=Path("runs/npm"), help="where `train_screens.py fetch` put kits and icons")
    parser.add_argument("--groups", nargs="*", help="names of the groups to score; all of them by default")
    parser.add_argument("--part", type=float, default=1.0, help="part of the pages of each group")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--out", type=Path, help="also write the scores as JSON here")
    arguments = parser.parse_args()
    pointer = molmopoint.load(arguments.model)
    report: dict = {"model": arguments.model, "seed": SEED, "part": arguments.part, "scores": {}}
    for group in GROUPS:
        if arguments.groups and group.name not in arguments.groups:
            continue
        pages = draw_group(arguments.folder, group, arguments.cache / "node_modules")
        pages = pages[: max(1, round(arguments.part * len(pages)))]
        start = time.perf_counter()
        scored = score(pointer, pages, arguments.batch_size)
        table = table_of(scored)
        report["scores"][group.name] = {"pages": len(pages), "seconds": round(time.perf_counter() - start, 1), "table": table}
        print(f"{group.name}, {len(pages)} pages")
        for name, row in table.items():
            print(
                f"  {name:15} "
                + "  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{value:5}" for key, value in row.items())
            )
    report["machine"] = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    report["versions"] = {"molmopoint": molmopoint.__version__, "torch": torch.__version__}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
