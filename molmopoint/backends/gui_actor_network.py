"""The networks of the GUI-Actor line: Qwen hosts of transformers with a pointer head.

A host sees the picture and the request, and reads an answer that is given: `click(...)` with one pointer token
in it. The head compares the state at that token with the image tokens. So there is one pass, and nothing is
decoded.

Letters: B rows, S tokens, P image tokens of one picture, Q pointers of a row, H width of the text model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming
from transformers.modeling_outputs import BaseModelOutputWithPooling

from molmopoint.heads import RegionHead

HEAD = "multi_patch_pointer_head"
"""Name of the head in every checkpoint."""


@dataclass(frozen=True, eq=False)
class PictureFeatures:
    """What a host sees of one picture.

    Attributes:
        image: (P, H) as it enters the text model.
        deep: (P, H) each, what is added behind the first layers of the text model; empty for hosts without.
        grid: (1, 3) frames, and rows and columns of ViT patches.
    """

    image: Tensor
    deep: tuple[Tensor, ...]
    grid: Tensor


class _WithPointer:
    """What the head adds to a host."""

    def add_head(self, config: Any) -> None:
        """Makes the head."""
        self.multi_patch_pointer_head = RegionHead(config.text_config.hidden_size)

    def look(self: Any, pixel_values: Tensor, image_grid_thw: Tensor) -> PictureFeatures:
        """What the host sees of one picture (patches, values) with its grid (1, 3)."""
        seen = self.model.get_image_features(pixel_values, image_grid_thw, return_dict=True)
        deep = tuple(torch.cat(list(layer)) for layer in getattr(seen, "deepstack_features", None) or ())
        return PictureFeatures(torch.cat(list(seen.pooler_output)), deep, image_grid_thw)

    def pointer_logits(
        self: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        pictures: Sequence[PictureFeatures],
        pointer_id: int,
    ) -> list[Tensor]:
        """Logits (Q, P) of each row's image tokens for its pointers.

        Args:
            input_ids: (B, S), padded on the right.
            attention_mask: (B, S).
            pictures: one per row.
            pointer_id: the pointer token.
        """
        places = (input_ids == self.config.image_token_id).int()  # (B, S)
        grids = torch.cat([picture.grid for picture in pictures])  # (B, 3)
        positions, _ = self.model.get_rope_index(
            input_ids, mm_token_type_ids=places, image_grid_thw=grids, attention_mask=attention_mask
        )  # (3, B, S)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions,
            mm_encoder_outputs={"image": _joined(pictures)},
            use_cache=False,
        )
        rows = zip(output.last_hidden_state, input_ids == pointer_id, pictures, strict=True)
        return [self.multi_patch_pointer_head(picture.image, states[at]) for states, at, picture in rows]


def _joined(pictures: Sequence[PictureFeatures]) -> BaseModelOutputWithPooling:
    """Pictures of several rows in the form in which hosts take what was seen."""
    joined: Any = BaseModelOutputWithPooling(
        pooler_output=tuple(picture.image for picture in pictures)  # type: ignore[arg-type]  # as hosts give it
    )
    layers = zip(*(picture.deep for picture in pictures), strict=True)
    joined.deepstack_features = [tuple(layer) for layer in layers]
    return joined


class Qwen2VLForConditionalGenerationWithPointer(_WithPointer, Qwen2VLForConditionalGeneration):
    """GUI-Actor on Qwen2-VL; the class has the name that its checkpoints state."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.add_head(config)
        self.post_init()


class Qwen2_5_VLForConditionalGenerationWithPointer(  # as checkpoints state it
    _WithPointer, Qwen2_5_VLForConditionalGeneration
):
    """GUI-Actor and V2P on Qwen2.5-VL."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.add_head(config)
        self.post_init()


class Qwen3VLForConditionalGenerationWithPointer(_WithPointer, Qwen3VLForConditionalGeneration):
    """The same head on Qwen3-VL, as FocusUI has it, which looks at all image tokens here."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.add_head(config)
        self.post_init()


NETWORKS = {
    "qwen2_vl": Qwen2VLForConditionalGenerationWithPointer,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGenerationWithPointer,
    "qwen3_vl": Qwen3VLForConditionalGenerationWithPointer,
}
"""Networks by the model type of their host."""


def _register_old_names() -> None:
    """Checkpoints of the two older hosts have the names of transformers 4.51."""
    for network in (
        Qwen2VLForConditionalGenerationWithPointer,
        Qwen2_5_VLForConditionalGenerationWithPointer,
    ):
        renamed: list[WeightConverter | WeightRenaming] = [
            WeightRenaming(source_patterns=r"^visual", target_patterns="model.visual"),
            WeightRenaming(
                source_patterns=r"^model(?!\.(language_model|visual))", target_patterns="model.language_model"
            ),
        ]
        register_checkpoint_conversion_mapping(network.__name__, renamed, overwrite=True)


_register_old_names()
