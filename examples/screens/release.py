"""After the second stage: weights in 16 bit and all files of the released layout, ready for
`molmopoint.load`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from nano.loop import load_checkpoint
from nano.pointing import build_model
from transformers import PreTrainedTokenizerFast

from molmopoint.files import filled_whole
from screens.files import screens_config, write_files
from screens.settings import ScreenSettings


def release(folder: Path, target: Path, settings: ScreenSettings) -> dict:
    """Writes the model of a run to `target`, whole or not at all; returns the progress of its training."""
    model = build_model(screens_config(settings))
    progress = load_checkpoint(folder / "point.safetensors", {"model": model})
    with filled_whole(target) as beside:
        model.to(torch.bfloat16).save_pretrained(beside)  # type: ignore[arg-type]
        write_files(beside, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"))
        for path in beside.iterdir():
            path.chmod(0o644)
    return progress
