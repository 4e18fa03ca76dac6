"""From a trained model to a folder that anybody can load: adapters merged, tables whole, processor and card beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from molmopoint.adapters import merge_adapters, save_adapters
from molmopoint.saving import save_whole
from molmopoint.training.optimiser import join_output_rows
from molmopoint.training.run_data import RunData

_SHOWN = 12
"""Labels that a card names."""

CARD = """---
library_name: molmopoint
pipeline_tag: image-text-to-text
tags: [pointing, grounding, molmopoint]
---

# {base}, fine-tuned

{base}, fine-tuned with `molmopoint finetune`.

```python
import molmopoint

pointer = molmopoint.load("this folder or repository")
print(pointer.point("picture.jpg", "{example}").points)
```

## Data

{data}

## Training

{steps} optimiser steps. The recipe:

```json
{recipe}
```

## Scores

Measured on the held-out part with `generate`; a point is right if it lies within {tolerance:.0%} of the picture's longer side from
a target (inside its mask where there are masks). Means over expressions. The checkpoint was chosen by its score on this same part, so
the score after training is a little too good.

{scores}

Licence: that of the model it was made from and of the data; to be filled in by whoever publishes it.
"""


def export_model(
    model: Any, processor: Any, folder: Path, card: str, *, adapter: Path | None = None, dtype: torch.dtype | None = None
) -> None:
    """Writes a trained model in the released layout; files appear when all of them are written.

    Args:
        model: as trained, with split tables and maybe adapters; its adapters are merged and its tables joined by this.
        processor: of the model.
        folder: where the model goes.
        card: text of its README.md.
        adapter: where the adapters alone go, if there are any.
        dtype: of the stored weights; None keeps that of the model.
    """
    if adapter is not None:
        save_adapters(model, adapter)
    merge_adapters(model)
    join_output_rows(model)
    if dtype is not None:
        model.to(dtype)
    model.config.use_cache = True  # the trainer switches it off

    def write(target: str) -> None:
        (Path(target) / "README.md").write_text(card, encoding="utf-8")
        model.save_pretrained(target)
        processor.save_pretrained(target)

    save_whole(folder, write)


def score_table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """A table of scores in Markdown."""
    names = [*before, *(name for name in after if name not in before)]
    if not names:
        return "Nothing was held out."
    lines = ["| score | before | after |", "| --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {name} | {_number(before, name)} | {_number(after, name)} |" for name in names)])


def describe_data(name: str, data: RunData, replay: str | None) -> str:
    """Sentences about the data for the card."""
    shown = ", ".join(f"`{label}`" for label in data.labels[:_SHOWN]) + (", ..." if len(data.labels) > _SHOWN else "")
    sentences = [f"`{name}`: {data.rows} rows trained on, {data.held_out_rows} rows held out."]
    sentences += [f"Labels: {shown}."] if shown else []
    sentences += [f"Replayed beside it: `{replay}`."] if replay else []
    return " ".join(sentences)


def _number(scores: Mapping[str, float], name: str) -> str:
    return f"{scores[name]:.3f}" if name in scores else "-"
