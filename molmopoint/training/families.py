"""What differs between the model families that are fine-tuned: how answers are written and read.

MolmoPoint answers with grounding tokens, Molmo2 with coordinates as text. The rest of training knows only `Family`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from molmopoint.decoding import read_answer
from molmopoint.points import Points
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.grounding_answers import grounding_token_ids
from molmopoint.processing.pictures import load_picture
from molmopoint.processing.rows import Row
from molmopoint.training.formatting import Conversation
from molmopoint.training.sources import Example
from molmopoint.training.trees import media_of, tree_row


@dataclass(frozen=True, eq=False)
class Seen:
    """The visual input of an example.

    Attributes:
        trunk: its tokens and pixels.
        metadata: what turns points into targets and back, `PointingMetadata` or its like; None for text rows.
    """

    trunk: Row
    metadata: Any


class Family(Protocol):
    """How a family of models looks at pictures, writes answers and is understood."""

    processor: MolmoPointProcessor
    patch_token_id: int
    """Id whose selections count over a packed row."""

    def see(self, example: Example) -> Seen:
        """The pictures or the clip of an example as model input."""
        ...

    def row(self, seen: Seen, conversations: Sequence[Conversation], max_length: int) -> Row:
        """A training row of the conversations about them."""
        ...

    def read(self, ids: Sequence[int], seen: Seen) -> tuple[Points, str]:
        """Points and text of an answer's ids, as `generate` returns them, without the end of the turn."""
        ...


class GroundingFamily:
    """MolmoPoint: points are grounding tokens.

    Args:
        processor: of the checkpoint.
        crops_per_image: tiles of a picture beside its overview; None as the processor says.
    """

    def __init__(self, processor: MolmoPointProcessor, crops_per_image: int | None = None) -> None:
        self.processor = processor
        self.crops_per_image = crops_per_image
        self.patch_token_id = grounding_token_ids(processor.tokenizer)[0]
        self.extended_start = processor.extended_start

    def see(self, example: Example) -> Seen:
        """The pictures or the clip of an example as model input.

        Raises:
            ProcessingError: a picture or clip is missing or broken.
        """
        return look_at(self.processor, example, self.crops_per_image)

    def row(self, seen: Seen, conversations: Sequence[Conversation], max_length: int) -> Row:
        """A training row of the conversations about the pictures; branches that do not fit are left out."""
        return tree_row(seen.trunk, conversations, self.processor.chat, max_length=max_length)

    def read(self, ids: Sequence[int], seen: Seen) -> tuple[Points, str]:
        """Points of an answer in pixels, and its text."""
        text = self.decode(list(ids))
        if seen.metadata is None:
            return Points.empty(), text
        return read_answer(torch.tensor(np.asarray(ids, dtype=np.int64)), seen.metadata, self.extended_start, self.decode).points, text

    def decode(self, ids: list[int]) -> str:
        """Text of plain or extended ids, without special tokens."""
        return self.processor.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def look_at(processor: MolmoPointProcessor, example: Example, crops_per_image: int | None) -> Seen:
    """The pictures or the clip of an example, seen as `molmopoint.load` sees them.

    Args:
        processor: of the checkpoint.
        example: rows on the same pictures or clip.
        crops_per_image: tiles of a picture beside its overview; None as the processor says.

    Raises:
        ProcessingError: a picture or clip is missing or broken.
    """
    pictures = [load_picture(picture) for picture in example.pictures]
    settings: dict[str, Any] = {} if crops_per_image is None or not pictures else {"max_crops": crops_per_image}
    output = processor(
        text=[processor.chat.media_text(*media_of(example.records[0]))],
        images=[pictures] if pictures else None,
        videos=None if example.clip is None else [str(example.clip)],
        return_tensors="pt",
        return_pointing_metadata=True,
        **settings,
    )
    has_visual = bool(pictures) or example.clip is not None
    return Seen(Row.from_processor(output), output["pointing_metadata"][0] if has_visual else None)
