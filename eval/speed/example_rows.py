"""Examples of a mixture as training rows: real layouts, real trees and real packing; ids and pixels are made
up.

Letters: P image tokens, K slots per image token, G ViT patches per crop.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from molmopoint.config import MolmoPointConfig
from molmopoint.eval.speed.mix import TOKENS_PER_POINT, Drawn
from molmopoint.eval.speed.prompts import WORD, picture_ids
from molmopoint.processing import MolmoPointImageProcessor
from molmopoint.processing.grounding_answers import EncodedText
from molmopoint.processing.image_processor import CropLayout, crop_layout
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, join_pooling
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION
from molmopoint.training.packing import ExampleSize

FRAME_WINDOW = 3
"""Rows and columns of ViT patches of a frame that make one image token."""
FRAME_FRAME = 5
"""Tokens of a frame beside its image tokens: time, start and end."""
END = 2
"""Id that ends an answer."""


class RowMaker:
    """Makes training rows of drawn examples for one model.

    Args:
        config: of the model.
        processor: supplies tiling and pooling of pictures.
    """

    def __init__(self, config: MolmoPointConfig, processor: MolmoPointImageProcessor) -> None:
        self.config = config
        self.crop_size = int(processor.size["height"])
        self.patch_size = int(processor.patch_size)
        self.side = self.crop_size // self.patch_size
        self.margins = (int(processor.overlap_margins[0]), int(processor.overlap_margins[1]))
        self.window = (int(processor.pooling_size[0]), int(processor.pooling_size[1]))
        self._noise = torch.rand(160, self.side**2, 3 * self.patch_size**2, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def layout(self, size: tuple[int, int], max_crops: int) -> CropLayout:
        """Crops and image tokens of a picture of (width, height)."""
        width, height = size
        return crop_layout(height, width, max_crops, self.crop_size, self.patch_size, self.margins, self.window)

    def size(self, drawn: Drawn) -> ExampleSize:
        """Tokens and crops of an example as one tree."""
        layouts = [self.layout(size, drawn.max_crops) for size in drawn.pictures]
        visual = sum(len(picture_ids(self.config, list(layout.grid))) for layout in layouts)
        visual += drawn.frames * (FRAME_FRAME + (self.side // FRAME_WINDOW) ** 2)
        text = sum(prompt + answer for prompt, answer in drawn.expressions)
        return ExampleSize(1 + visual + text, sum(layout.num_crops for layout in layouts) + drawn.frames)

    def row(self, drawn: Drawn) -> Row:
        """An example as one tree."""
        trunk = self._trunk(drawn)
        branches = [[Turn(_words(prompt), self._answer(answer, trunk, drawn.points))] for prompt, answer in drawn.expressions]
        return build_row(MessageTree(trunk, branches), END)

    def rows_of_expressions(self, drawn: Drawn) -> list[Row]:
        """An example as one row per expression, each with the pictures."""
        return [self.row(replace(drawn, expressions=(each,))) for each in drawn.expressions]

    def _trunk(self, drawn: Drawn) -> Row:
        ids: list[int] = [WORD]
        tables, counts = [], []
        for size in drawn.pictures:
            layout = self.layout(size, drawn.max_crops)
            ids += picture_ids(self.config, list(layout.grid))
            tables.append(layout.pooling)
            counts.append(layout.num_crops * self.side**2)
        if drawn.frames:
            table = self._frame_table(drawn.frames)
            of_frame = [self.config.image_patch_id] * (len(table) // drawn.frames)
            frame = [WORD] * (FRAME_FRAME - 2) + [self.config.frame_start_token_id, *of_frame, self.config.frame_end_token_id]
            ids += frame * drawn.frames
            tables.append(table)
            counts.append(drawn.frames * self.side**2)
        tokens = torch.tensor(ids)
        types = torch.isin(tokens, torch.tensor(self.config.vision_token_ids)).long()
        if not tables:
            return Row(tokens, types)
        return Row(tokens, types, self._noise[: sum(counts) // self.side**2], join_pooling(tables, counts))

    def _frame_table(self, frames: int) -> Tensor:
        """(P, K) ViT patches of the image tokens of some frames."""
        grid = torch.arange(self.side**2).view(self.side, self.side)
        used = self.side - self.side % FRAME_WINDOW
        table = grid[:used, :used].unfold(0, FRAME_WINDOW, FRAME_WINDOW).unfold(1, FRAME_WINDOW, FRAME_WINDOW).reshape(-1, FRAME_WINDOW**2)
        return (torch.arange(frames).view(-1, 1, 1) * self.side**2 + table).flatten(0, 1)

    def _answer(self, length: int, trunk: Row, pointing: bool) -> EncodedText:
        """Words, or as many points as fit and one more patch token, spread over the image tokens that can be
        chosen.
        """
        if not pointing or trunk.pooling is None:
            return _words(length)
        can_be_chosen = np.flatnonzero(self._indexable(trunk))
        count = max(0, (length - 2) // TOKENS_PER_POINT)
        chosen = can_be_chosen[np.linspace(0, len(can_be_chosen) - 1, count).astype(int)]
        config, word = self.config, WORD
        triple = [config.patch_token_id, config.subpatch_token_id, config.location_token_id, word]
        ids = [word, *triple * count, config.patch_token_id]
        selections = [NO_SELECTION, *(s for patch in chosen for s in (int(patch), 0, 4, NO_SELECTION)), NO_MORE_POINTS]
        return EncodedText(np.array(ids), np.array(selections))

    def _indexable(self, trunk: Row) -> np.ndarray:
        """Per image token of the trunk whether a point may choose it."""
        ids = trunk.input_ids.numpy()
        image = np.isin(ids, (self.config.image_patch_id, self.config.image_non_indexable_patch_id))
        return ids[image] == self.config.image_patch_id


def _words(count: int) -> EncodedText:
    return EncodedText(np.full(count, WORD), np.full(count, NO_SELECTION))
