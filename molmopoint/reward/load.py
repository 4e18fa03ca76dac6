"""One call from a name to something that judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from molmopoint.reward.judge import MAX_RESPONSES, Judge
from molmopoint.reward.model import RewardModel
from molmopoint.reward.settings import Attention, Layout


def load_reward(
    name_or_path: str | Path,
    *,
    layout: Layout | None = None,
    attention: Attention | None = None,
    base: str | Path | None = None,
    max_responses: int = MAX_RESPONSES,
    max_length: int | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    **kwargs: Any,
) -> Judge:
    """A reward model with its processor, ready to judge.

    Args:
        name_or_path: a name of the zoo, an id on the hub such as "yinuoy/MR2-Molmo2-4B-RM", or a folder: ours, or one of the authors'
            (merged, or adapters with head and config).
        layout: read the model with another layout than it was stored with; the authors' files name none, and get "assistant".
        attention: the same for who sees whom.
        base: the model below the adapters, where a folder of adapters names none that can be found from here.
        max_responses: longer lists are judged in chunks of so many that share an answer.
        max_length: tokens of a row at most; the positions of the model by default.
        dtype: of the backbone, as in transformers; bfloat16 on a GPU and float32 on the CPU by default. The head is always float32.
        device_map: one device ("cuda:1"), or as in transformers. By default the GPU if there is one, else the CPU.
        revision: branch, tag or commit on the hub.
        attn_implementation: as in transformers; SDPA by default.
        **kwargs: further arguments of `from_pretrained`, such as `local_files_only`.

    Raises:
        CheckpointError: there is no such model, it is no reward model, or its files do not fit each other.
    """
    model, processor = RewardModel.from_pretrained(
        name_or_path,
        layout=layout,
        attention=attention,
        base=base,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        attn_implementation=attn_implementation,
        **kwargs,
    )
    return Judge(model, processor, max_responses=max_responses, max_length=max_length)
