"""Names of the special tokens, selections, and the ids that stand for concrete places.

Letters: P image tokens of a row, K slots per image token, L location cells per ViT patch.

Inside the library a grounding token is a pair: a plain token id (PATCH, SUBPATCH or LOCATION) and a
selection, the index it chose. The extended vocabulary folds both into one id; it exists only at the border,
in what `generate` returns and in text (`<POINT_n>` is the text of id `start + n`). Its layout depends on P
and K, so an extended id means nothing without the input it was generated for.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from molmopoint.errors import CheckpointError, GroundingError

NO_SELECTION = -1
"""Selection of a token that selects nothing."""

NO_MORE_POINTS = -2
"""Selection of the PATCH token that ends a point list."""

IMAGE_START, IMAGE_END, IMAGE_PATCH, IMAGE_COL = "<im_start>", "<im_end>", "<im_patch>", "<im_col>"
LOW_RES_START, LOW_RES_PATCH = "<low_res_im_start>", "<im_low>"
FRAME_START, FRAME_END = "<frame_start>", "<frame_end>"
IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER = "<|image|>", "<|video|>"
POINTS_PREFIX = "<|points|>"
PATCH, SUBPATCH, LOCATION = "<|token_index|>", "<|vit_index|>", "<|vit_loc|>"

RELEASED_TOKENS = (
    IMAGE_START, IMAGE_END, IMAGE_PATCH, IMAGE_COL, LOW_RES_START, IMAGE_PLACEHOLDER, LOW_RES_PATCH,
    FRAME_START, FRAME_END, VIDEO_PLACEHOLDER, POINTS_PREFIX, PATCH, SUBPATCH, LOCATION,
)  # fmt: skip
"""The additional special tokens in the order of their ids, the first one right after the base vocabulary."""

VISION_TOKENS = (
    IMAGE_PATCH, IMAGE_COL, IMAGE_START, LOW_RES_START, FRAME_START, IMAGE_END, FRAME_END, LOW_RES_PATCH,
)  # fmt: skip
"""Tokens of type 1: they see each other in both directions."""


_CELLS = re.compile(r"([1-9][0-9]?)x\1")
"""How location cells are stated; there are fewer than a hundred along a side."""


def cells_per_side(patch_location: str | None) -> int:
    """Location cells along a side of a ViT patch, from how released files state them: "3x3", or None for no
    cells.

    Raises:
        CheckpointError: it says something else.

    >>> cells_per_side("3x3")
    3
    """
    if not patch_location:
        return 0
    written = _CELLS.fullmatch(patch_location) if isinstance(patch_location, str) else None
    if written is None:
        raise CheckpointError(
            f'expected patch_location as cells along both sides, such as "3x3", or none, got {patch_location!r:.80}; '
            "correct it in the config"
        )
    return int(written[1])


LIST_OPENING = ' coords="'
"""Text right before the first point of a list."""


def point_text(n: int) -> str:
    """Text form of the n-th id of the extended vocabulary."""
    return f"<POINT_{n}>"


class Kind(enum.IntEnum):
    """What a token chooses; the order is the order inside a grounding triple."""

    TEXT = 0
    PATCH = 1
    SUBPATCH = 2
    LOCATION = 3


@dataclass(frozen=True)
class ExtendedVocabulary:
    """Layout of the extended ids of one row: patches, no-more-points, slots, locations.

    Attributes:
        start: first extended id, V + A.
        num_patches: P, image tokens of the row, those of global crops included.
        num_slots: K, columns of the row's pooling table.
        num_locations: L, cells per ViT patch; 0 for models without a location head.
    """

    start: int
    num_patches: int
    num_slots: int
    num_locations: int

    @property
    def size(self) -> int:
        """How many extended ids the row has, no-more-points included."""
        return self.num_patches + 1 + self.num_slots + self.num_locations

    def encode(self, kind: Kind, selection: int) -> int:
        """The extended id of one grounding token.

        Raises:
            GroundingError: the selection is not one of this row's.
        """
        if kind is Kind.PATCH and selection == NO_MORE_POINTS:
            return self.start + self.num_patches
        first, count = self._segment(kind)
        if not 0 <= selection < count:
            raise GroundingError(
                f"expected a {kind.name.lower()} in 0..{count - 1}, got {selection}; "
                "selections count within one row, so take them from the metadata of the same input"
            )
        return self.start + first + selection

    def decode(self, token_id: int) -> tuple[Kind, int]:
        """Kind and selection of any token id; plain ids are (TEXT, -1).

        Raises:
            GroundingError: the id lies beyond the row's extended vocabulary.
        """
        n = int(token_id) - self.start
        if n < 0:
            return Kind.TEXT, NO_SELECTION
        if n == self.num_patches:
            return Kind.PATCH, NO_MORE_POINTS
        for kind in (Kind.PATCH, Kind.SUBPATCH, Kind.LOCATION):
            first, count = self._segment(kind)
            if first <= n < first + count:
                return kind, n - first
        raise GroundingError(
            f"expected an id below {self.start + self.size} ({self.num_patches} patches, {self.num_slots} "
            "slots, "
            f"{self.num_locations} locations), got {token_id}; decode an answer with the metadata of the "
            "same input"
        )

    def _segment(self, kind: Kind) -> tuple[int, int]:
        """Offset of the kind's first id after `start`, and how many ids it has."""
        slots = self.num_patches + 1
        return {
            Kind.TEXT: (0, 0),
            Kind.PATCH: (0, self.num_patches),
            Kind.SUBPATCH: (slots, self.num_slots),
            Kind.LOCATION: (slots + self.num_slots, self.num_locations),
        }[kind]
