"""The files of a Molmo2, seen and written as this library does it: points are coordinates as text.

What differs from transformers' own processor of the same files: pictures are turned as their EXIF entry says,
clips are looked at when the models were trained to (the last moment included), text of users is escaped,
earlier answers can be given as points, and each sample comes with the sizes and times that turn its answer
into pixels. Where no such rule applies, ids, pixels and tables are the native ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Molmo2ImageProcessor, Molmo2Processor, Molmo2VideoProcessor

from molmopoint.geometry import PointingMetadata
from molmopoint.processing.grounding_answers import NOTHING_THERE
from molmopoint.processing.history import EarlierPoints, fill_marks
from molmopoint.processing.processor import MolmoPointProcessor
from molmopoint.processing.text_points import TextAnswer, read_text_answer, text_list
from molmopoint.tokens import NO_SELECTION


class Molmo2PointingProcessor(MolmoPointProcessor):
    """Tokenizer, image processor and video processor of a Molmo2; used as `MolmoPointProcessor` is.

    There are no grounding tokens: `selection_ids` select nothing, and `pointing_metadata` holds sizes and
    times only that matter.
    """

    points_are_text = True

    def __init__(
        self,
        image_processor: Any = None,
        video_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_use_col_tokens: bool | None = True,
        use_single_crop_col_tokens: bool | None = None,
        use_single_crop_start_token: bool | None = True,
        video_use_col_tokens: bool | None = False,
        use_frame_special_tokens: bool | None = True,
    ) -> None:
        """Puts the parts together; arguments and their defaults are those of transformers' `Molmo2Processor`."""
        super().__init__(
            image_processor,
            video_processor,
            tokenizer,
            chat_template=chat_template,
            image_use_col_tokens=image_use_col_tokens,
            use_single_crop_col_tokens=use_single_crop_col_tokens,
            use_single_crop_start_token=use_single_crop_start_token,
            video_use_col_tokens=video_use_col_tokens,
            use_frame_special_tokens=use_frame_special_tokens,
            use_low_res_token_for_global_crops=False,
            patch_location=None,
        )

    def to_dict(self) -> dict[str, Any]:
        """What is saved: the native classes are named, for they read these files as well, and others know no
        others.
        """
        output = super().to_dict()
        output["processor_class"] = Molmo2Processor.__name__
        for part, native in (
            ("image_processor", Molmo2ImageProcessor),
            ("video_processor", Molmo2VideoProcessor),
        ):
            if part in output:
                output[part][f"{part}_type"] = native.__name__
        return output

    def read_answer(self, answer: Any, metadata: PointingMetadata, **kwargs: Any) -> TextAnswer:
        """Points of an answer, given as (T,) ids after the prompt or as text; they have no scores."""
        if not isinstance(answer, str):
            answer = self.tokenizer.decode(torch.as_tensor(answer).tolist(), skip_special_tokens=True)
        return read_text_answer(answer, metadata.image_sizes, metadata.timestamps)

    def check_places(self, num_patches: int, num_slots: int) -> None:
        """Accepts any number of places: none of them needs a name."""

    def _with_lists(
        self, prompt: str, earlier: Sequence[EarlierPoints], metadata: PointingMetadata
    ) -> tuple[str, list[int]]:
        def write(entry: EarlierPoints) -> str:
            if not len(entry.points):
                return NOTHING_THERE
            label = self.escape_user_text(entry.label)
            return text_list(entry.points, metadata.image_sizes, label, is_video=metadata.is_video)

        stretches, written = fill_marks(prompt, earlier, write)
        pieces = [stretches[0]]
        for answer, stretch in zip(written, stretches[1:], strict=True):
            pieces += [answer, stretch]
        return "".join(pieces), []

    def _placed(self, input_ids: Any, selections: Sequence[Sequence[int]]) -> np.ndarray:
        length = max(map(len, input_ids))
        return np.full((len(input_ids), length), NO_SELECTION, dtype=np.int64)
