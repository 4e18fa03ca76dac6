"""Families of hosts: how each sees pictures, counts positions, and runs its text model.

What a host has to give: image tokens that each stand for the same number of ViT patches, the features of both,
and a text model that runs on embeddings.

Letters: B rows, S tokens per row, T image tokens of the call, K ViT patches behind an image token, N ViT
patches of the call, H text width, F width of the ViT features, J pictures of the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from molmopoint.attention import CACHE, AttentionMask
from molmopoint.connector import VisualFeatures
from molmopoint.errors import CheckpointError
from molmopoint.rows import RowLayout


@dataclass(frozen=True)
class GraftFeatures(VisualFeatures):
    """What a host sees of the pictures of a call.

    Attributes:
        deep: (T, H) each, what is added to image tokens behind the first layers of the text model.
        grids: (J, 4) rows and columns of image tokens of each picture's overview, then of its canvas.
    """

    deep: tuple[Tensor, ...]
    grids: Tensor

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> GraftFeatures:
        """The same features on another device, in another floating dtype, or both."""
        moved: Any = super().to(device, dtype)
        deep = tuple(part.to(device=device, dtype=dtype) for part in self.deep)
        return replace(moved, deep=deep, grids=self.grids.to(device=device))

    def repeat_rows(self, owners: Tensor, times: int) -> GraftFeatures:
        """The tables of a batch in which every row stands `times` times in a row; ViT features stay shared.

        Args:
            owners: (T,) batch row of every image token.
            times: copies of each row.
        """
        counts = tokens_of(self.grids)  # (J,)
        firsts = (counts.cumsum(0) - counts).clamp(max=max(len(owners) - 1, 0))
        order = _repeated(owners, times)
        return replace(
            self,
            image_features=self.image_features[order],
            pooling=self.pooling[order],
            num_image_rows=self.num_image_rows * times,
            deep=tuple(part[order] for part in self.deep),
            grids=self.grids[_repeated(owners[firsts], times)],
        )


def _repeated(owners: Tensor, times: int) -> Tensor:
    """(n * times,) entries of rows that stand `times` times in a row each; `owners` (n,) are their rows."""
    entries = torch.arange(len(owners), device=owners.device).repeat(times)
    copy = torch.arange(times, device=owners.device).repeat_interleave(len(owners))
    return entries[(owners.repeat(times) * times + copy).argsort(stable=True)]


def tokens_of(grids: Tensor) -> Tensor:
    """(J,) image tokens of pictures with these grids (J, 4)."""
    return grids.unflatten(1, (2, 2)).prod(2).sum(1)


class Host(ABC):
    """How a family of hosts is used. Holds nothing: the core network and its config are given."""

    title: ClassVar[str]
    """Name of the family for people."""

    packs: ClassVar[bool] = True
    """Whether tokens can be kept from seeing others of their row: packing and message trees need it."""

    @abstractmethod
    def slots(self, config: Any) -> int:
        """K.

        Raises:
            CheckpointError: image tokens of such a host do not stand for whole ViT patches.
        """

    @abstractmethod
    def vit_width(self, config: Any) -> int:
        """F."""

    def tile_patches(self, config: Any) -> int:
        """ViT patches along a side of a tile; 0 where pictures are seen whole."""
        return 0

    @abstractmethod
    def see(self, core: Any, pixels: Tensor, pooling: Tensor, grids: Tensor) -> GraftFeatures:
        """What the host sees.

        Args:
            core: its network below the vocabulary.
            pixels: (N, 1, patch values), or (tiles, ViT patches, patch values).
            pooling: (T, K) ViT patches of each image token.
            grids: (J, 4) of the pictures.
        """

    @abstractmethod
    def blank(self, core: Any, config: Any) -> tuple[Tensor, Tensor]:
        """Pixels and grids of the smallest picture, for passes in which every weight has to take part."""

    def positions(self, positions: Tensor, examples: Tensor, layout: RowLayout, grids: Tensor) -> Tensor:
        """Positions as the text model counts them, (B, S) or (axes, B, S).

        Args:
            positions: (B, S) counted by tokens, restarting with each example and each branch.
            examples: (B, S) packed example of each token.
            layout: where the image tokens are.
            grids: (J, 4) of the pictures, in the order of their tokens.
        """
        return positions

    def shift(self, token_positions: Tensor, positions: Tensor) -> Tensor:
        """(B,) what has to be added to positions counted by tokens behind the prompt.

        Args:
            token_positions: (B, S) counted by tokens.
            positions: of `positions`.
        """
        last = positions[..., -1] if positions.ndim == 2 else positions[0, :, -1]
        return last - token_positions[:, -1]

    def step_positions(self, positions: Tensor) -> Tensor:
        """Positions of new text as the text model counts them, from those counted by places (B, 1)."""
        return positions

    def run(
        self,
        core: Any,
        embeddings: Tensor,
        mask: AttentionMask,
        positions: Tensor,
        cache: Any,
        *,
        deep: tuple[Tensor, ...] = (),
        places: Tensor | None = None,
    ) -> Tensor:
        """States (B, S, H) behind the final norm.

        Args:
            core: the network below the vocabulary.
            embeddings: (B, S, H), with what is seen in them.
            mask: used as given.
            positions: as `positions` gives them.
            cache: keys and values so far, or None.
            deep: (T, H) each, of the image tokens, row by row.
            places: (B, S) True at image tokens.
        """
        given: dict[str, Any] = {CACHE: cache, "use_cache": cache is not None}
        output = core.language_model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, **given
        )
        return output.last_hidden_state


class QwenHost(Host):
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, 2 x 2 ViT patches merged into an image token,
    positions of three axes, and (Qwen3-VL) features that enter behind several layers.
    """

    title = "Qwen-VL"

    def slots(self, config: Any) -> int:
        """K."""
        vision = config.vision_config
        merge = int(vision.spatial_merge_size)
        if merge < 1 or int(vision.patch_size) < 1:
            raise CheckpointError(
                f"expected one or more ViT patches behind an image token, got spatial_merge_size {merge}; take the "
                "released config.json"
            )
        return merge**2

    def vit_width(self, config: Any) -> int:
        """F."""
        vision = config.vision_config
        return vision.embed_dim if config.model_type == "qwen2_vl" else vision.hidden_size

    def see(self, core: Any, pixels: Tensor, pooling: Tensor, grids: Tensor) -> GraftFeatures:
        """See `Host`; ViT features in the order of the pixels."""
        visual = core.visual
        merge = visual.spatial_merge_size
        sides = grids[:, 2:] * merge  # (J, 2)
        grids_thw = torch.cat([torch.ones_like(sides[:, :1]), sides], 1)
        output = core.get_image_features(pixels.flatten(0, 1), grids_thw, return_dict=True)
        vit_features = output.last_hidden_state  # (N, F)
        if hasattr(visual, "fullatt_block_indexes"):
            vit_features = _out_of_windows(visual, vit_features, grids_thw)
        deep = []
        for layer in getattr(output, "deepstack_features", None) or ():
            deep.append(layer if isinstance(layer, Tensor) else torch.cat(list(layer)))  # or by picture
        return GraftFeatures(
            vit_features=vit_features,
            image_features=torch.cat(list(output.pooler_output)),
            pooling=pooling,
            num_image_rows=len(pooling),
            slots=(pooling.shape[1], 0),
            deep=tuple(deep),
            grids=grids,
        )

    def blank(self, core: Any, config: Any) -> tuple[Tensor, Tensor]:
        """One image token's patches, all grey."""
        vision = config.vision_config
        values = 3 * vision.temporal_patch_size * vision.patch_size**2
        weight = next(core.visual.parameters())
        patches = torch.zeros(self.slots(config), 1, values, device=weight.device, dtype=core.dtype)
        return patches, torch.tensor([[0, 0, 1, 1]], device=weight.device)

    def positions(self, positions: Tensor, examples: Tensor, layout: RowLayout, grids: Tensor) -> Tensor:
        """(3, B, S): time, row and column. Text counts on behind the longer side of a picture.

        Pictures stand in the trunk of an example, so all of its branches begin behind them.
        """
        counts = tokens_of(grids)  # (J,)
        saved = counts - grids[:, 2:].max(1).values  # (J,) places that a picture takes up less than tokens
        picture = torch.repeat_interleave(torch.arange(len(grids), device=grids.device), counts)  # (T,)
        inner = torch.arange(len(picture), device=grids.device) - (counts.cumsum(0) - counts)[picture]
        is_last = inner == counts[picture] - 1
        savings = torch.zeros_like(positions)
        rows, columns = layout.rows, layout.columns
        savings[rows[is_last], columns[is_last]] = saved[picture[is_last]]
        before = savings.cumsum(1) - savings  # (B, S) of the pictures of the row that end before
        starts = torch.ones_like(examples, dtype=torch.bool)
        starts[:, 1:] = examples[:, 1:] != examples[:, :-1]
        before = before - torch.where(starts, before, 0).cummax(1).values  # of those of the example alone
        by_text = positions - before
        axes = by_text.expand(3, -1, -1).clone()
        first = by_text[rows, columns] - inner  # (T,) position of the picture's first token
        width = grids[picture, 3]
        axes[0, rows, columns] = first
        axes[1, rows, columns] = first + inner // width
        axes[2, rows, columns] = first + inner % width
        return axes

    def step_positions(self, positions: Tensor) -> Tensor:
        """(3, B, 1): text has one position on all axes."""
        return positions.expand(3, -1, -1)

    def run(
        self,
        core: Any,
        embeddings: Tensor,
        mask: AttentionMask,
        positions: Tensor,
        cache: Any,
        *,
        deep: tuple[Tensor, ...] = (),
        places: Tensor | None = None,
    ) -> Tensor:
        """See `Host`."""
        given: dict[str, Any] = {CACHE: cache, "use_cache": cache is not None}
        if deep:
            given |= {"visual_pos_masks": places, "deepstack_visual_embeds": list(deep)}
        output = core.language_model(
            inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, **given
        )
        return output.last_hidden_state


class LinearQwenHost(QwenHost):
    """Qwen3.5: layers of linear attention read a row from left to right, so nothing in it can be hidden."""

    title = "Qwen3.5"
    packs = False


class InternHost(Host):
    """InternVL: tiles of one size and an overview behind them, squares of ViT patches shuffled into an image
    token, positions counted by tokens.
    """

    title = "InternVL"

    def slots(self, config: Any) -> int:
        """K."""
        side, patches = self._sides(config)
        vision = config.vision_config
        is_square = len({*vision.image_size}) == len({*vision.patch_size}) == 1
        if side < 1 or side * config.downsample_ratio != 1 or patches % side or not is_square:
            raise CheckpointError(
                f"expected whole squares of ViT patches behind an image token, got downsample_ratio "
                f"{config.downsample_ratio} on tiles of {patches} patches along a side; take the released config.json"
            )
        if (
            not isinstance(config.vision_feature_layer, int)
            or config.vision_feature_select_strategy != "default"
        ):
            raise CheckpointError(
                "expected features of one layer without its class token, got vision_feature_layer "
                f"{config.vision_feature_layer} and {config.vision_feature_select_strategy!r}; take the released "
                "config.json"
            )
        return side**2

    def vit_width(self, config: Any) -> int:
        """F."""
        return config.vision_config.hidden_size

    def tile_patches(self, config: Any) -> int:
        """ViT patches along a side of a tile."""
        return self._sides(config)[1]

    def see(self, core: Any, pixels: Tensor, pooling: Tensor, grids: Tensor) -> GraftFeatures:
        """See `Host`; tiles were given the form (tiles, ViT patches, values), with their numbers in order."""
        config = core.config
        height, width = config.vision_config.image_size
        tiles = pixels.reshape(len(pixels), 3, height, width)
        layer = config.vision_feature_layer
        output = core.get_image_features(tiles, return_dict=True, output_hidden_states=layer != -1)
        states = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
        return GraftFeatures(
            vit_features=states[:, 1:].flatten(0, 1),
            image_features=output.pooler_output.flatten(0, 1),
            pooling=pooling,
            num_image_rows=len(pooling),
            slots=(pooling.shape[1], 0),
            deep=(),
            grids=grids,
        )

    def blank(self, core: Any, config: Any) -> tuple[Tensor, Tensor]:
        """One grey tile."""
        side, patches = self._sides(config)
        height, width = config.vision_config.image_size
        weight = next(core.vision_tower.parameters())
        shape = (1, patches**2, 3 * height * width // patches**2)
        pixels = torch.zeros(shape, device=weight.device, dtype=core.dtype)
        return pixels, torch.tensor([[0, 0, patches // side, patches // side]], device=weight.device)

    @staticmethod
    def _sides(config: Any) -> tuple[int, int]:
        """ViT patches along a side of an image token, and of a tile."""
        vision = config.vision_config
        ratio = config.downsample_ratio
        side = round(1 / ratio) if 0 < ratio <= 1 else 0
        return side, vision.image_size[0] // vision.patch_size[0]


HOSTS: Mapping[str, Host] = {
    "qwen2_vl": QwenHost(),
    "qwen2_5_vl": QwenHost(),
    "qwen3_vl": QwenHost(),
    "qwen3_vl_moe": QwenHost(),
    "qwen3_5": LinearQwenHost(),
    "qwen3_5_moe": LinearQwenHost(),
    "internvl": InternHost(),
}
"""Families by the model type of the host's config."""

_REFUSED = {
    "llava_next": "it shrinks features bilinearly, so no whole ViT patches lie behind an image token",
    "llava_onevision": "it shrinks features bilinearly, so no whole ViT patches lie behind an image token",
    "gemma3": "its pictures see each other in both directions, which is not written here",
    "gemma4": "its pictures see each other in both directions, which is not written here",
    "mistral3": "it breaks rows of pictures with tokens, which is not written here",
    "molmo2": 'it has grounding heads already in its family; load "allenai/MolmoPoint-8B"',
    "molmo_point": "it has grounding heads already",
    "molmo_point_graft": "it has grounding heads already",
}
"""Why some model types are no hosts."""


def host_of(model_type: str) -> Host:
    """How hosts of a model type are used.

    Raises:
        CheckpointError: they cannot have grounding heads.
    """
    if model_type in HOSTS:
        return HOSTS[model_type]
    reason = _REFUSED.get(model_type, "nobody has written how it sees and counts positions")
    raise CheckpointError(
        f"expected a host of the types {', '.join(HOSTS)}, got {model_type!r}: {reason}; choose one of these"
    )


def check_host(config: Any) -> None:
    """Refuses a host that cannot have grounding heads, by its config alone.

    Raises:
        CheckpointError: it is of another family, its image tokens stand for no whole ViT patches, or it is
            stored in fewer bits.
    """
    host = host_of(config.model_type)
    host.slots(config)
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        raise CheckpointError(
            "expected a host in full precision, got one whose config says that it is stored in fewer bits; take "
            "its released weights"
        )


def _out_of_windows(visual: nn.Module, vit_features: Tensor, grids_thw: Tensor) -> Tensor:
    """ViT features (N, F) in the order of the pixels; Qwen2.5-VL hands them out window by window."""
    from transformers.vision_utils import get_vision_window_index

    settings: Any = visual
    order, _ = get_vision_window_index(
        grids_thw,
        spatial_merge_size=settings.spatial_merge_size,
        window_size=settings.window_size,
        patch_size=settings.patch_size,
    )
    merged = vit_features.unflatten(0, (-1, settings.spatial_merge_size**2))  # (T, K, F)
    return merged[torch.argsort(order.to(merged.device))].flatten(0, 1)
