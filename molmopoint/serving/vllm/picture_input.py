"""Pictures on their way into vLLM: this library's own image processor behind vLLM's interface.

Pixels, tables and tokens are those that `Pointer` makes, so answers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import MultiModalDataParser
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdateDetails,
)

from molmopoint.config import MolmoPointConfig
from molmopoint.errors import MolmoPointError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.image_processor import crop_layout

PLACEHOLDER = "<|image|>"
_OPTIONS = frozenset({"max_crops"})
"""Settings that a request may have."""


@lru_cache(maxsize=4)
def processor_of(source: str, revision: str | None = None) -> MolmoPointProcessor:
    """The processor of a folder or repository, loaded once per process."""
    return MolmoPointProcessor.from_pretrained(source, revision=revision)


class PictureInfo(BaseProcessingInfo):
    """What vLLM asks about pictures of this model."""

    def get_hf_config(self) -> MolmoPointConfig:
        """The config, in this library's form."""
        return self.ctx.get_hf_config(MolmoPointConfig)

    def get_hf_processor(self, **kwargs: object) -> MolmoPointProcessor:
        """The processor, whatever settings the request has."""
        return processor_of(self.ctx.model_config.model, self.ctx.model_config.revision)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """One picture: all image tokens of a request see each other, and vLLM joins those of one picture only."""
        return {"image": 1}

    def get_data_parser(self) -> MultiModalDataParser:
        """Takes what vLLM takes for pictures."""
        return MultiModalDataParser()

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int] | None:
        """Tokens of a picture at most."""
        return {"image": len(self.span(torch.tensor(self._largest().grid)))}

    def largest_size(self) -> tuple[int, int]:
        """(width, height) in pixels of a picture with the most tokens."""
        rows, columns = self._largest().tiling
        side = self._side()
        return columns * side, rows * side

    def span(self, grid: Tensor) -> list[int]:
        """Token ids that stand for a picture with this grid (4,)."""
        processor = self.get_hf_processor()
        text = processor.replace_image_token({"image_grids": grid.unsqueeze(0)}, image_idx=0)
        return processor.tokenizer.encode(text, add_special_tokens=False)

    def _side(self) -> int:
        return int(self.get_hf_processor().image_processor.size["height"])

    def _largest(self) -> Any:
        """The layout with the most image tokens."""
        image: Any = self.get_hf_processor().image_processor
        most, side = int(image.max_crops), self._side()
        margins = (int(image.overlap_margins[0]), int(image.overlap_margins[1]))
        window = (int(image.pooling_size[0]), int(image.pooling_size[1]))
        layouts = []
        for rows in range(1, most + 1):
            height, width = rows * side, (most // rows) * side
            layouts.append(crop_layout(height, width, most, side, int(image.patch_size), margins, window))
        return max(layouts, key=lambda layout: len(layout.pooling))


class PictureDummies(BaseDummyInputsBuilder[PictureInfo]):
    """Pictures to measure memory with."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """A prompt with so many pictures."""
        return PLACEHOLDER * mm_counts.get("image", 0)

    def get_dummy_mm_data(
        self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The largest pictures."""
        width, height = self.info.largest_size()
        count = mm_counts.get("image", 0)
        return {"image": self._get_dummy_images(width=width, height=height, num_images=count)}


class PictureProcessor(BaseMultiModalProcessor[PictureInfo]):
    """Turns pictures into tensors, and placeholders of a prompt into image tokens."""

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> BatchFeature:
        """Tensors of pictures that are not in vLLM's cache.

        Raises:
            ValueError: a picture or a setting cannot be used; vLLM answers 400.
        """
        data, kwargs, passed = self._get_hf_mm_inputs(mm_items, hf_kwargs)
        if not data:
            return self._finalize_hf_mm_data(data, kwargs, passed)
        settings = {name: value for name, value in kwargs.items() if name != "truncation"}
        unknown = sorted(settings.keys() - _OPTIONS)
        if unknown:
            raise ValueError(f"expected no processor settings but max_crops, got {', '.join(unknown)}")
        try:
            made = self._process(list(data["images"]), settings)
        except MolmoPointError as error:
            raise ValueError(str(error)) from error
        return self._finalize_hf_mm_data(data, kwargs, passed, made)

    def _postprocess_prompt(self, prompt: list[int]) -> list[int]:
        """Every row starts with the same token, which chat templates leave out."""
        processor = self.info.get_hf_processor()
        opening = processor.tokenizer.convert_tokens_to_ids(processor.opening)
        return prompt if prompt[:1] == [opening] else [opening, *prompt]

    def _process(self, pictures: Sequence[Any], settings: Mapping[str, Any]) -> BatchFeature:
        """Crops and tables of pictures, each with numbers of its own."""
        processor = self.info.get_hf_processor()
        out = processor.image_processor.preprocess(pictures, return_tensors="pt", **settings)
        grids = out["image_grids"]  # (pictures, 4)
        num_rows = grids[:, :2].prod(1) + grids[:, 2:].prod(1)
        table = out["image_token_pooling"]
        for count in num_rows.tolist():
            processor.check_places(count, table.shape[1])
        patches = out["image_num_crops"] * out["pixel_values"].shape[1]
        offsets = (patches.cumsum(0) - patches).repeat_interleave(num_rows).unsqueeze(1)
        spans = [self.info.span(grid) for grid in grids]
        tokens: list[int] = []
        for span in spans:
            tokens += span
        return BatchFeature(
            {
                "pixel_values": out["pixel_values"],
                "pooling": torch.where(table >= 0, table - offsets, -1),
                "num_crops": out["image_num_crops"],
                "num_rows": num_rows,
                "grid": grids,
                "image_tokens": torch.tensor(tokens),
                "num_image_tokens": torch.tensor([len(span) for span in spans]),
            }
        )

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        """How tensors are cut into those of single pictures."""
        none = torch.empty(0, dtype=torch.long)

        def by(sizes: str) -> MultiModalFieldConfig:
            return MultiModalFieldConfig.flat_from_sizes("image", hf_inputs.get(sizes, none))

        def each() -> MultiModalFieldConfig:
            return MultiModalFieldConfig.batched("image", keep_on_cpu=True)

        return {
            "pixel_values": by("num_crops"),
            "pooling": by("num_rows"),
            "num_crops": each(),
            "num_rows": each(),
            "grid": each(),
            "image_tokens": by("num_image_tokens"),
            "num_image_tokens": each(),
        }

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> list[PromptReplacement]:
        """Image tokens in place of placeholders; vision tokens among them get their embedding from the encoder."""
        config = self.info.get_hf_config()
        target = self.info.get_hf_processor().tokenizer.convert_tokens_to_ids(PLACEHOLDER)

        def span(index: int) -> PromptUpdateDetails:
            grid = out_mm_kwargs["image"][index]["grid"].data
            return PromptUpdateDetails.select_token_ids(self.info.span(grid), list(config.vision_token_ids))

        return [PromptReplacement(modality="image", target=[target], replacement=span)]
