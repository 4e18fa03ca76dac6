"""From a trained reward model to a folder that `load_reward` reads: head and adapters beside the name of the base."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from molmopoint.files import write_text_whole
from molmopoint.reward import RewardModel
from molmopoint.training.recipe import Recipe

CARD = """---
library_name: molmopoint
tags: [reward-model, molmopoint]
---

# {base}, as a reward model

{base} with a value head, trained with `molmopoint finetune-reward`: it reads a prompt, a picture or clip, and all answers in one pass
and gives every answer a score. Scores compare the answers of one list and mean nothing across lists.

```python
import molmopoint

judge = molmopoint.load_reward("this folder or repository")
print(judge.score("What is in the picture?", ["A cat.", "A dog."], images="picture.jpg"))
```

## Data

{data}

## Training

{steps} optimiser steps. The recipe:

```json
{recipe}
```

## Scores

On the held-out part, every list in two orders, as written and turned round. The checkpoint was chosen by its score on this same part, so
the score after training is a little too good.

{scores}

Licence: that of the model it was made from and of the data; to be filled in by whoever publishes it.
"""


def export_reward(model: RewardModel, processor: Any, folder: Path, card: str, *, base: str | Path, recipe: Recipe) -> None:
    """Writes a trained reward model: with adapters what was trained alone, else all of it.

    Args:
        model: as trained, in one piece.
        processor: written where all of the model is.
        folder: where the model goes.
        card: text of its README.md.
        base: what the training started from; of a folder the way there from the new one is kept.
        recipe: of the run.
    """
    if recipe.lora is None:
        model.save_pretrained(folder, processor, merged=True)
    else:
        model.base = os.path.relpath(base, folder) if Path(base).is_dir() else str(base)
        model.save_pretrained(folder)
    write_text_whole(folder / "README.md", card)
