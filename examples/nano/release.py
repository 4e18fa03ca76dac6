"""After every few stages: weights in 16 bit and all files of the released layout, ready for `molmopoint.load`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.files import write_files
from nano.form_training import Sight
from nano.pointing import build_model
from nano.running import load_checkpoint
from nano.settings import Settings


def release(folder: Path, start: Path, target: Path, settings: Settings, tokenizer: PreTrainedTokenizerFast) -> dict:
    """Writes the model of the latest stage in `folder` to `target`; returns the progress of its training.

    The weights are stored in bfloat16, the precision of the matrix products they were trained with. Files are written
    beside the target and moved, so that a reader never meets half a model.

    Args:
        folder: of the run.
        start: model whose sight the stage of forms trained; what that stage left alone comes from there.
        target: folder to write to.
        settings: of the run.
        tokenizer: written beside the weights.
    """
    model, progress = _latest(folder, start, settings)
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


def _latest(folder: Path, start: Path, settings: Settings) -> tuple[Any, dict]:
    forms, clips, points = (folder / f"{stage}.safetensors" for stage in ("forms", "clip", "point"))
    model: Any = build_model(settings)
    if forms.exists():
        model.load_state_dict(MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32).state_dict())
        return model, load_checkpoint(forms, {"sight": Sight(model)})
    if clips.exists():
        return model, load_checkpoint(clips, {"averaged": model})
    return model, load_checkpoint(points, {"model": model}) if points.exists() else {"step": 0}
