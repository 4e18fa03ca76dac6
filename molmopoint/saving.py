"""Writing a model under its released names, whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from molmopoint.config import MolmoPointConfig
from molmopoint.files import filled_whole, write_text_whole

SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
"""Weight files of an earlier save, which would contradict a new one."""

CARD = """---
library_name: molmopoint
pipeline_tag: image-text-to-text
tags: [pointing, grounding, molmopoint]
---

# A MolmoPoint model

A vision-language model that points with grounding tokens: a token chooses an image token, one of its ViT patches, and a cell
inside it.

| part | size |
| --- | --- |
| ViT | {vit_layers} layers of width {vit_width}, crops of {crop} px |
| text model | {text_layers} layers of width {text_width}, vocabulary {vocabulary} |
| pointing | width {pointing}, {locations} location cells per ViT patch |

```python
import molmopoint

pointer = molmopoint.load("this folder or repository")
print(pointer.point("picture.jpg", "the red circles").points)
```

Data, training, scores, licence and limits: to be filled in by whoever publishes this model.
"""


def save_whole(directory: str | os.PathLike[str], write: Callable[[str], Any]) -> None:
    """Lets `write` fill a folder beside the target, then moves its files into place; a failed save leaves
    nothing behind.

    Args:
        directory: the target; made if it is not there. Weight files of an earlier save are removed.
        write: fills the folder whose path it is given.
    """
    target = Path(directory)
    with filled_whole(target) as beside:
        write(str(beside))
        written = sorted(path.name for path in beside.iterdir())
    if any(SHARD.fullmatch(name) for name in written):
        for old in target.iterdir():
            if SHARD.fullmatch(old.name) and old.name not in written:
                old.unlink()


def write_card(directory: str | os.PathLike[str], config: MolmoPointConfig) -> None:
    """Writes a model card, unless the folder has one."""
    card = Path(directory) / "README.md"
    if card.exists():
        return
    write_text_whole(
        card,
        CARD.format(
            vit_layers=config.vision_config.num_hidden_layers,
            vit_width=config.vision_config.hidden_size,
            crop=config.crop_size[0],
            text_layers=config.text_config.num_hidden_layers,
            text_width=config.text_config.hidden_size,
            vocabulary=config.extended_start,
            pointing=config.patch_embed_dim,
            locations=config.num_locations,
        ),
    )
