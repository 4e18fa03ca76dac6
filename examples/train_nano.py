"""Trains the embedded model from nothing, on one processor core: `python examples/train_nano.py STAGE
--folder runs/nano`.

Stages, in this order; every stage resumes from its checkpoint:

    cache       draws scenes (can run beside the others; later shards are picked up as they appear)
    vit         the vision transformer, with dense labels
    point       the whole model, with questions about pictures
    release     writes weights, tokenizer and processor files to --target
    clip-cache  draws clips, and what the vision transformer of --start sees in them (beside the next one, as `cache`)
    clip        the model of --start but its vision transformer, with questions about clips and, still, about pictures
    release     again
    form-cache  draws forms without names (beside the next one, as `cache`)
    forms       vision transformer and connector of --start, with forms to tell apart; says of known scenes what it said before
    release     again
    card        writes the model card to --target, with the scores that `evaluate_nano.py --out` measured
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nano.cache import draw_shard
from nano.clip_cache import SHARDS as CLIP_SHARDS
from nano.clip_cache import draw_clip_shards
from nano.clip_examples import ClipExamples
from nano.clip_training import train_clips
from nano.dense import train_dense
from nano.files import build_tokenizer, write_files
from nano.form_training import train_forms
from nano.forms import draw_form_shard
from nano.loop import read_progress
from nano.pointing import Examples, train_pointing
from nano.release import release, write_card
from nano.settings import Settings
from nano.validation import validate, validate_clips
from transformers import PreTrainedTokenizerFast

from molmopoint.modeling import MolmoPointForConditionalGeneration


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stage",
        choices=("cache", "vit", "point", "clip-cache", "clip", "form-cache", "forms", "release", "card"),
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="checkpoints, logs and drawn scenes live here"
    )
    parser.add_argument("--steps", type=int, default=6000, help="optimiser steps of the stage")
    parser.add_argument(
        "--shards", type=int, nargs=2, default=(0, 16), help="first shard to draw, and the one to stop before"
    )
    parser.add_argument(
        "--target", type=Path, default=Path("checkpoints/nano"), help="where `release` writes"
    )
    parser.add_argument(
        "--start", type=Path, default=Path("checkpoints/nano"), help="model that the later stages start from"
    )
    parser.add_argument("--scores", type=Path, help="scores for `card`")
    parser.add_argument(
        "--remarks", default="", help="a sentence about the run for `card`: machine, hours, deviations"
    )
    arguments = parser.parse_args()
    settings = Settings()
    run = {
        "cache": draw,
        "vit": train_vit,
        "point": train_point,
        "clip-cache": draw_clips,
        "clip": train_clip,
        "form-cache": draw_unnamed,
        "forms": train_sight,
        "release": write,
        "card": card,
    }
    run[arguments.stage](arguments, settings)


def draw(arguments: argparse.Namespace, settings: Settings) -> None:
    """Scenes."""
    for index in range(*arguments.shards):
        draw_shard(arguments.folder / "cache", index, settings)


def train_vit(arguments: argparse.Namespace, settings: Settings) -> None:
    """The first stage."""
    train_dense(arguments.folder, settings, arguments.steps)


def train_point(arguments: argparse.Namespace, settings: Settings) -> None:
    """The second stage."""
    examples = Examples(tokenizer_of(arguments.folder), settings)

    def check(model: MolmoPointForConditionalGeneration) -> dict[str, float]:
        return validate(model, examples)

    train_pointing(arguments.folder, settings, examples, arguments.steps, check)


def draw_clips(arguments: argparse.Namespace, settings: Settings) -> None:
    """Clips."""
    draw_clip_shards(arguments.folder / "clips", range(*arguments.shards), settings, arguments.start)


def train_clip(arguments: argparse.Namespace, settings: Settings) -> None:
    """The third stage."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.start)
    of_clips = ClipExamples(tokenizer, settings)
    of_scenes = Examples(tokenizer, settings)

    def check(model: MolmoPointForConditionalGeneration) -> dict[str, float]:
        return validate_clips(model, of_clips) | validate(model, of_scenes)

    train_clips(arguments.folder, arguments.start, settings, (of_clips, of_scenes), arguments.steps, check)


def draw_unnamed(arguments: argparse.Namespace, settings: Settings) -> None:
    """Forms."""
    for index in range(*arguments.shards):
        draw_form_shard(arguments.folder / "cache", index, settings)


def train_sight(arguments: argparse.Namespace, settings: Settings) -> None:
    """The stage of forms."""
    examples = Examples(PreTrainedTokenizerFast.from_pretrained(arguments.start), settings)

    def check(model: MolmoPointForConditionalGeneration) -> dict[str, float]:
        return validate(model, examples)

    train_forms(arguments.folder, arguments.start, settings, arguments.steps, check)


def write(arguments: argparse.Namespace, settings: Settings) -> None:
    """The files."""
    is_later = any((arguments.folder / f"{stage}.safetensors").exists() for stage in ("forms", "clip"))
    tokenizer = (
        PreTrainedTokenizerFast.from_pretrained(arguments.start)
        if is_later
        else tokenizer_of(arguments.folder)
    )
    release(arguments.folder, arguments.start, arguments.target, settings, tokenizer)


def card(arguments: argparse.Namespace, settings: Settings) -> None:
    """The card."""
    shards = list((arguments.folder / "clips").glob(CLIP_SHARDS))
    facts = {"clips": settings.shard_clips * len(shards), "remarks": arguments.remarks}
    for stage in ("clip", "forms"):
        facts[f"{stage}_steps"] = read_progress(arguments.folder / f"{stage}.safetensors")["step"]
    write_card(arguments.target, arguments.scores, settings, facts)


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of the run, made if it is not there yet."""
    place = folder / "tokenizer"
    if not place.exists():
        write_files(place, build_tokenizer())
    return PreTrainedTokenizerFast.from_pretrained(place)


if __name__ == "__main__":
    main()
