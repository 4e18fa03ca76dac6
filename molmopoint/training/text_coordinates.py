"""Text coordinates as a family of fine-tuning: how native Molmo2 checkpoints see pictures, are taught and are understood.

Requests, styles, message trees, packing and token weights are those of MolmoPoint. Only the point lists differ: they are text, so
rows have no selections.

    family = TextFamily(Molmo2PointingProcessor.from_pretrained("allenai/Molmo2-4B"))
    seen = family.see(example)
    conversations = format_tree(example.records, seen.metadata, rng, rules)        seen.metadata is a TextCoordinates
    row = family.row(seen, conversations, max_length=4096)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from molmopoint.errors import ProcessingError
from molmopoint.points import Points
from molmopoint.processing import Molmo2PointingProcessor, MolmoPointProcessor
from molmopoint.processing.grounding_answers import TURN_END, TURN_START, Style
from molmopoint.processing.rows import Row
from molmopoint.processing.text_points import read_text_answer, text_answer, text_tracks
from molmopoint.tokens import IMAGE_PLACEHOLDER, LOW_RES_PATCH, VIDEO_PLACEHOLDER, VISION_TOKENS
from molmopoint.training.families import Seen, look_at
from molmopoint.training.formatting import Conversation
from molmopoint.training.molmo2 import NO_PATCH_TOKEN
from molmopoint.training.sources import Example
from molmopoint.training.trees import tree_row

_NEEDED = (*(name for name in VISION_TOKENS if name != LOW_RES_PATCH), IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, TURN_START, TURN_END)


@dataclass(frozen=True, eq=False)
class TextCoordinates:
    """What turns points into text and back, for one sample; stands where MolmoPoint has its `PointingMetadata`.

    Attributes:
        image_sizes: (width, height) of each picture as displayed, or one entry for a clip.
        timestamps: (T,) seconds of the frames of a clip, ascending; None for pictures.

    Raises:
        ProcessingError: not one size for a clip, or a clip without frames.
    """

    image_sizes: tuple[tuple[int, int], ...]
    timestamps: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.timestamps is None:
            return
        timestamps = np.asarray(self.timestamps, dtype=np.float64).reshape(-1)
        if len(self.image_sizes) != 1 or not len(timestamps):
            raise ProcessingError(
                f"expected one (width, height) and one or more frame times for a clip, got {len(self.image_sizes)} and {len(timestamps)}"
            )
        object.__setattr__(self, "timestamps", timestamps)

    def points(
        self,
        group: np.ndarray,
        xy: np.ndarray,
        label: str,
        style: Style,
        *,
        thousandths: np.ndarray | None = None,
        pictures: Sequence[int] = (),
    ) -> tuple[str]:
        """The answer that points at all of (n,) groups and (n, 2) pixels; points of a clip move to the nearest frame."""
        text = text_answer(self._frames(group), xy, self.image_sizes, label, style, thousandths=thousandths, pictures=pictures)
        return (text,)

    def tracks(self, group: np.ndarray, xy: np.ndarray, objects: Sequence[Any], label: str) -> tuple[str]:
        """The answer that tracks n objects at (n,) seconds, equal where it is the same one."""
        return (text_tracks(self._frames(group), xy, objects, self.image_sizes, label),)

    def read(self, text: str) -> Points:
        """Points of an answer, in pixels."""
        return read_text_answer(text, self.image_sizes, self.timestamps).points

    def _frames(self, group: np.ndarray) -> np.ndarray:
        """Times of the frames nearest to times, the first one on ties; pictures as they are."""
        if self.timestamps is None:
            return group
        return self.timestamps[np.abs(self.timestamps[None] - group[:, None]).argmin(axis=1)]


class TextFamily:
    """Native Molmo2: points are text. See `families.Family`.

    Args:
        processor: of the checkpoint, the one that `molmopoint.load` reads.
        crops_per_image: tiles of a picture beside its overview; None as the processor says.

    Raises:
        ProcessingError: its tokenizer lacks a special token.
    """

    patch_token_id = NO_PATCH_TOKEN

    def __init__(self, processor: Molmo2PointingProcessor, crops_per_image: int | None = None) -> None:
        known = processor.tokenizer.get_vocab()
        if missing := [name for name in _NEEDED if name not in known]:
            raise ProcessingError(f"expected the tokenizer of a Molmo2, got one without {', '.join(missing)}; load the model's own")
        self.processor: MolmoPointProcessor = processor
        self.crops_per_image = crops_per_image

    def see(self, example: Example) -> Seen:
        """The pictures or the clip of an example as model input.

        Raises:
            ProcessingError: a picture or clip is missing or broken.
        """
        seen = look_at(self.processor, example, self.crops_per_image)
        known = seen.metadata
        return Seen(seen.trunk, None if known is None else TextCoordinates(tuple(known.image_sizes), known.timestamps))

    def row(self, seen: Seen, conversations: Sequence[Conversation], max_length: int) -> Row:
        """A training row of the conversations about the pictures; branches that do not fit are left out."""
        return tree_row(seen.trunk, conversations, self.processor.chat, max_length=max_length)

    def read(self, ids: Sequence[int], seen: Seen) -> tuple[Points, str]:
        """Points of an answer in pixels, and its text."""
        text = self.processor.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Points.empty() if seen.metadata is None else seen.metadata.read(text), text
