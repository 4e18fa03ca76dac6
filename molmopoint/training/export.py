"""From a trained model to a folder that anybody can load: adapters merged, tables whole, processor and card
beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from molmopoint.adapters import merge_adapters, save_adapters
from molmopoint.saving import save_whole
from molmopoint.training.recipe import Recipe
from molmopoint.training.recipe_files import recipe_to_dict
from molmopoint.training.vocabulary_rows import join_output_rows

_CARD = """---
library_name: molmopoint
{header}
---

# {title}

{about}

```python
import molmopoint

{usage}
```

## Data

{data}

## Training

{steps} optimiser steps. The recipe:

```json
{recipe}
```

## Scores

{scored} The checkpoint was chosen by its score on this same part, so
the score after training is a little too good.

{scores}

Licence: that of the model it was made from and of the data; to be filled in by whoever publishes it.
"""


def export_model(
    model: Any,
    processor: Any,
    folder: Path,
    card: str,
    *,
    adapter: Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Writes a trained model in the released layout; files appear when all of them are written.

    Args:
        model: as trained, with split tables and maybe adapters; its adapters are merged and its tables joined
            by this.
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


def model_card(
    *,
    title: str,
    header: str,
    about: str,
    usage: str,
    data: str,
    recipe: Recipe,
    steps: int,
    scored: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> str:
    """The README.md of a trained model.

    Args:
        title: of the page.
        header: lines for the hub about kind and tags, in YAML.
        about: what it is.
        usage: lines of Python behind the import.
        data: what was trained on; no paths of this machine.
        recipe: of the run.
        steps: optimiser steps.
        scored: how the scores were measured.
        before: scores of the model before training.
        after: and after it.
    """
    return _CARD.format(
        title=title,
        header=header,
        about=about,
        usage=usage,
        data=data,
        steps=steps,
        recipe=json.dumps(recipe_to_dict(recipe), indent=2),
        scored=scored,
        scores=_score_table(before, after),
    )


def _score_table(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """A table of scores in Markdown."""
    names = {**before, **after}
    if not names:
        return "Nothing was held out."
    lines = ["| score | before | after |", "| --- | --- | --- |"]
    for name in names:
        lines.append(f"| {name} | {_number(before.get(name))} | {_number(after.get(name))} |")
    return "\n".join(lines)


def _number(score: float | None) -> str:
    return "-" if score is None else f"{score:.3f}"
