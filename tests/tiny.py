"""A tiny MolmoPoint that runs in milliseconds, and hand-made rows for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from molmopoint.config import MolmoPointConfig
from molmopoint.modeling import MolmoPointForConditionalGeneration

PATCHES_PER_CROP = 25
PIXELS_PER_PATCH = 14 * 14 * 3
END_OF_TURN = 2


def tiny_config(**overrides: Any) -> MolmoPointConfig:
    """Crops of 5 by 5 ViT patches, pooled 2 by 2: border windows have empty slots, as at released size."""
    fields: dict[str, Any] = {
        "text_config": {
            "vocab_size": 96, "additional_vocab_size": 32, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048,
        },
        "vision_config": {
            "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2,
            "head_dim": 12, "image_size": [70, 70], "patch_size": 14,
        },
        "adapter_config": {"vision_feature_layer": [2, 1], "hidden_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2,
                           "head_dim": 12, "intermediate_size": 40, "text_hidden_size": 32},
        "patch_embed_dim": 16,
    }  # fmt: skip
    return MolmoPointConfig(**{**fields, **overrides})


def random_model(seed: int = 0, **overrides: Any) -> MolmoPointForConditionalGeneration:
    """A tiny model with weights far enough from zero that its choices differ, and with a liking for points."""
    torch.manual_seed(seed)
    model = MolmoPointForConditionalGeneration(tiny_config(**overrides)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=1.0 if "embed" in name else 0.25)
        model.lm_head.weight[model.config.patch_token_id] *= 3
    return model


def pooling_table(first_patch: int, side: int = 5, window: int = 2) -> Tensor:
    """(tokens, window ** 2) patches of one crop, windows padded with empty slots at the right and the bottom."""
    grid = torch.arange(side * side).view(side, side) + first_patch
    missing = -side % window
    grid = torch.nn.functional.pad(grid, (0, missing, 0, missing), value=-1)
    return grid.unfold(0, window, window).unfold(1, window, window).reshape(-1, window * window)


class Rows:
    """Builds prompts: each row is a list of "image" and "clip" (two frames), followed by words."""

    def __init__(self, config: MolmoPointConfig, seed: int = 0) -> None:
        self.config, self.random = config, torch.Generator().manual_seed(seed)

    def picture(self) -> tuple[list[int], Tensor, Tensor]:
        """Ids, crops (global and one tile), and the table of one picture."""
        c, tokens = self.config, 9
        low = (
            [c.low_res_image_start_token_id]
            + [c.image_non_indexable_patch_id] * tokens
            + [c.image_end_token_id]
        )
        rows = ([c.image_patch_id] * 3 + [c.image_col_id]) * 3
        ids = [*low, c.image_start_token_id, *rows, c.image_end_token_id]
        return ids, self._crops(2), torch.cat([pooling_table(0), pooling_table(PATCHES_PER_CROP)])

    def clip(self, window: int = 3) -> tuple[list[int], Tensor, Tensor]:
        """Ids, two frames, and their table with wider windows than those of pictures."""
        c = self.config
        tables = [pooling_table(i * PATCHES_PER_CROP, window=window) for i in range(2)]
        frame = [c.frame_start_token_id] + [c.image_patch_id] * len(tables[0]) + [c.frame_end_token_id]
        return [5, *frame, 6, *frame], self._crops(2), torch.cat(tables)

    def words(self, count: int) -> list[int]:
        return torch.randint(3, 90, (count,), generator=self.random).tolist()

    def prompts(
        self, rows: Sequence[Sequence[str]], words: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """One sample per row, each with its ids and its visual parts."""
        samples = []
        for i, parts in enumerate(rows):
            seen = [self.picture() if part == "image" else self.clip() for part in parts]
            ids = [END_OF_TURN] + [token for tokens, _, _ in seen for token in tokens]
            samples.append(
                {
                    "ids": ids + self.words(6 if words is None else words[i]),
                    "parts": list(zip(parts, seen, strict=True)),
                }
            )
        return samples

    def _crops(self, count: int) -> Tensor:
        return torch.rand(count, PATCHES_PER_CROP, PIXELS_PER_PATCH, generator=self.random) * 2 - 1


def batch_of(
    samples: Sequence[dict[str, Any]], config: MolmoPointConfig, side: str = "left"
) -> dict[str, Any]:
    """Model inputs of samples made by `Rows.prompts`, padded."""
    length = max(len(s["ids"]) for s in samples)
    inputs: dict[str, list[Tensor]] = {}
    ids, mask = (
        torch.zeros(len(samples), length, dtype=torch.long),
        torch.zeros(len(samples), length, dtype=torch.long),
    )
    for i, sample in enumerate(samples):
        n = len(sample["ids"])
        place = slice(length - n, None) if side == "left" else slice(0, n)
        ids[i, place], mask[i, place] = torch.tensor(sample["ids"]), 1
        for kind, (_, crops, table) in sample["parts"]:
            pixels, pooling = (
                ("pixel_values", "image_token_pooling")
                if kind == "image"
                else ("pixel_values_videos", "video_token_pooling")
            )
            first = sum(len(c) for c in inputs.get(pixels, ())) * PATCHES_PER_CROP
            inputs.setdefault(pixels, []).append(crops)
            inputs.setdefault(pooling, []).append(torch.where(table >= 0, table + first, -1))
    types = torch.isin(ids, torch.tensor(config.vision_token_ids)).long() * mask
    visual = {name: torch.cat(parts) for name, parts in inputs.items()}
    return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": types, **visual}
