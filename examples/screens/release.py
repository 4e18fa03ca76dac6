"""After the second stage: weights in 16 bit and all files of the released layout, ready for `molmopoint.load`."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from nano.running import load_checkpoint
from transformers import PreTrainedTokenizerFast

from screens.files import write_files
from screens.pointing import build_model
from screens.settings import ScreenSettings


def release(folder: Path, target: Path, settings: ScreenSettings) -> dict:
    """Writes the model of a run to `target`, whole or not at all; returns the progress of its training."""
    model = build_model(settings)
    progress = load_checkpoint(folder / "point.safetensors", {"model": model})
    beside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(beside)  # type: ignore[arg-type]
    write_files(beside, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"))
    for path in beside.iterdir():
        path.chmod(0o644)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(beside.iterdir()):
        path.replace(target / path.name)
    beside.rmdir()
    return progress
