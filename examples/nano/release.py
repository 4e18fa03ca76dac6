"""Last stage: weights in 16 bit and all files of the released layout, ready for `molmopoint.load`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from nano.files import write_files
from nano.pointing import build_model
from nano.running import load_checkpoint
from nano.settings import Settings


def release(folder: Path, target: Path, settings: Settings, tokenizer: PreTrainedTokenizerFast) -> dict:
    """Writes the model of the latest stage in `folder` to `target`; returns the progress of its training.

    The weights are stored in bfloat16, the precision of the matrix products they were trained with. Files are written
    beside the target and moved, so that a reader never meets half a model.
    """
    model: Any = build_model(settings)
    stages = (("clip.safetensors", "averaged"), ("point.safetensors", "model"))
    done = [(folder / file, name) for file, name in stages if (folder / file).exists()]
    progress = load_checkpoint(done[0][0], {done[0][1]: model}) if done else {"step": 0}
    beside = target.with_name(target.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(beside)
    write_files(beside, tokenizer)
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(beside.iterdir()):
        path.chmod(0o644)
        if path.name == "README.md" and (target / path.name).exists():
            path.unlink()  # the card there is written by hand
        else:
            path.replace(target / path.name)
    beside.rmdir()
    return progress
