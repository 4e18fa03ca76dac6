"""Trains the embedded model from nothing, on one processor core: `python examples/train_nano.py STAGE --folder runs/nano`.

Stages, in this order; every stage resumes from its checkpoint:

    cache   draws scenes (can run beside the others; later shards are picked up as they appear)
    vit     the vision transformer, with dense labels
    point   the whole model, with questions
    release writes weights, tokenizer and processor files to --target
    card    writes the model card to --target, with the scores that `evaluate_nano.py --out` measured
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nano.cache import draw_shard, shard_paths
from nano.card import write_card
from nano.dense import train_dense
from nano.files import build_tokenizer, write_files
from nano.pointing import Examples, train_pointing
from nano.release import release
from nano.running import read_progress
from nano.settings import Settings
from nano.validation import validate
from transformers import PreTrainedTokenizerFast


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("cache", "vit", "point", "release", "card"))
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints, logs and drawn scenes live here")
    parser.add_argument("--steps", type=int, default=6000, help="optimiser steps of the stage")
    parser.add_argument("--shards", type=int, nargs=2, default=(0, 16), help="first shard to draw, and the one to stop before")
    parser.add_argument("--target", type=Path, default=Path("checkpoints/nano"), help="where `release` writes")
    parser.add_argument("--scores", type=Path, help="scores for `card`")
    parser.add_argument("--remarks", default="", help="a sentence about the run for `card`: machine, hours, deviations")
    arguments = parser.parse_args()
    settings = Settings()
    if arguments.stage == "cache":
        for index in range(*arguments.shards):
            draw_shard(arguments.folder / "cache", index, settings)
    elif arguments.stage == "card":
        done = {name: read_progress(arguments.folder / f"{name}.safetensors")["step"] for name in ("vit", "point")}
        scenes = settings.shard_scenes * len(shard_paths(arguments.folder / "cache"))
        facts = {"vit_steps": done["vit"], "point_steps": done["point"], "scenes": scenes, "remarks": arguments.remarks}
        write_card(arguments.target, arguments.scores, settings, facts)
    elif arguments.stage == "vit":
        train_dense(arguments.folder, settings, arguments.steps)
    else:
        tokenizer_folder = arguments.folder / "tokenizer"
        if not tokenizer_folder.exists():
            write_files(tokenizer_folder, build_tokenizer())
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
        if arguments.stage == "point":
            train_pointing(arguments.folder, settings, Examples(tokenizer, settings), arguments.steps, check=validate)
        else:
            release(arguments.folder, arguments.target, settings, tokenizer)


if __name__ == "__main__":
    main()
