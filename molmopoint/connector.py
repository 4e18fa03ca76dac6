"""From ViT features to image tokens: gathering by the pooling table, attention pooling, projection.

Letters: N ViT patches of the call, G ViT patches per crop, T image tokens of the call, K slots per image
token, F width of the tapped ViT features, D width of the pooling attention, H text width.

What differs from the native adapter: no output projection, the pooling mask is honoured by every attention
backend because the one-query attention over at most a few slots is computed right here, and the ViT features
stay available for the subpatch head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.molmo2.modeling_molmo2 import Molmo2ImageProjectorMLP, Molmo2VisionModel

from molmopoint.config import MolmoPointConfig

CROPS_PER_PASS = 32
"""Crops that go through the ViT at a time outside training: bounds the activations of long clips."""

TOKENS_PER_PASS = 8192
"""Image tokens that are pooled at a time outside training: bounds the gathered copy of the ViT features."""

BYTES_PER_PASS = 2**24
"""Most bytes of one activation on a processor: it stays in the cache, and its memory is used again. Of larger
ones every new page has to be fetched from the system, which costs more than what is computed on it.
"""


@dataclass(frozen=True)
class VisualFeatures:
    """Everything the model sees of the pictures of a call; make it once, use it for several prompts.

    Attributes:
        vit_features: (N, F) tapped ViT features in compute dtype.
        image_features: (T, H) connector output of every image token.
        pooling: (T, K) rows of `vit_features`, -1 for an empty slot.
        num_image_rows: how many of the T table rows come from pictures; the rest come from clips.
        slots: (2,) pooling columns of pictures and of clips, before they were padded to K.
    """

    vit_features: Tensor
    image_features: Tensor
    pooling: Tensor
    num_image_rows: int
    slots: tuple[int, int]

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> VisualFeatures:
        """The same features on another device, in another floating dtype, or both."""
        return replace(
            self,
            vit_features=self.vit_features.to(device=device, dtype=dtype),
            image_features=self.image_features.to(device=device, dtype=dtype),
            pooling=self.pooling.to(device=device),
        )

    def repeat_rows(self, owners: Tensor, times: int) -> VisualFeatures:
        """The tables of a batch in which every row stands `times` times in a row; ViT features stay shared.

        Args:
            owners: (T,) batch row of every table row.
            times: copies of each row.
        """

        def repeated(part: Tensor, first: int) -> Tensor:
            entries = torch.arange(len(part), device=part.device).repeat(times) + first
            copy = torch.arange(times, device=part.device).repeat_interleave(len(part))
            return entries[(part.repeat(times) * times + copy).argsort(stable=True)]

        split = self.num_image_rows
        order = torch.cat([repeated(owners[:split], 0), repeated(owners[split:], split)])
        return replace(
            self,
            image_features=self.image_features[order],
            pooling=self.pooling[order],
            num_image_rows=split * times,
        )


class PoolingAttention(nn.Module):
    """One query per image token (the mean of its slots) attends to its K slots."""

    def __init__(self, config: MolmoPointConfig) -> None:
        super().__init__()
        adapter = config.adapter_config
        self.num_heads, self.head_dim = adapter.num_attention_heads, adapter.head_dim
        width = self.num_heads * self.head_dim
        self.q_proj = nn.Linear(config.vit_feature_dim, width, bias=adapter.attention_bias)
        self.k_proj = nn.Linear(config.vit_feature_dim, width, bias=adapter.attention_bias)
        self.v_proj = nn.Linear(config.vit_feature_dim, width, bias=adapter.attention_bias)
        if adapter.attention_pooling_out_layer:
            self.o_proj = nn.Linear(width, adapter.hidden_size, bias=adapter.attention_bias)
        self.masked = adapter.pooling_attention_mask

    def forward(self, slots: Tensor, mask: Tensor) -> Tensor:
        """Pools (T, K, F) slot features with their mask (T, K) to (T, D). Scores and softmax are float32."""
        count = mask.sum(1, keepdim=True).clamp(min=1)
        mean = slots.sum(1) / count.to(slots.dtype)
        heads = (self.num_heads, self.head_dim)
        query = self.q_proj(mean).unflatten(-1, heads)
        key = self.k_proj(slots).unflatten(-1, heads)
        value = self.v_proj(slots).unflatten(-1, heads)
        with torch.autocast(slots.device.type, enabled=False):
            scores = torch.einsum("thd,tkhd->thk", query.float(), key.float()) * self.head_dim**-0.5
            if self.masked:
                scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
            weights = scores.softmax(-1).to(value.dtype)
            pooled = torch.einsum("thk,tkhd->thd", weights, value).flatten(1)
        return self.o_proj(pooled) if hasattr(self, "o_proj") else pooled


class SlotPositions(nn.Module):
    """A learned bias per slot, added before pooling."""

    def __init__(self, num_slots: int, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_slots, width))

    def forward(self, slots: Tensor) -> Tensor:
        """Adds the first K biases to (T, K, F)."""
        return slots + self.bias[: slots.shape[1]].to(slots.dtype)


class Connector(nn.Module):
    """Pools the slots of every image token and projects them to the width of the text model."""

    def __init__(self, config: MolmoPointConfig) -> None:
        super().__init__()
        adapter = config.adapter_config
        if adapter.positional_embeddings:
            self.positional_embeddings = SlotPositions(adapter.positional_embeddings, config.vit_feature_dim)
        self.image_pooling_2d = PoolingAttention(config)
        self.image_projector = Molmo2ImageProjectorMLP(adapter)

    def forward(self, vit_features: Tensor, pooling: Tensor) -> Tensor:
        """Image features (T, H) of a pooling table (T, K) over ViT features (N, F)."""
        of_token = pooling.shape[1] * vit_features.shape[1] * vit_features.element_size()
        per_pass = _per_pass(TOKENS_PER_PASS, of_token, vit_features.device)
        if torch.is_grad_enabled() or len(pooling) <= per_pass:
            return self._pool(vit_features, pooling)
        return torch.cat([self._pool(vit_features, part) for part in pooling.split(per_pass)])

    def _pool(self, vit_features: Tensor, pooling: Tensor) -> Tensor:
        mask = pooling >= 0
        slots = functional.embedding(pooling.clamp(min=0), vit_features) * mask.unsqueeze(-1)
        if hasattr(self, "positional_embeddings"):
            slots = self.positional_embeddings(slots)
        return self.image_projector(self.image_pooling_2d(slots, mask))


class VisionTower(Molmo2VisionModel):
    """The native ViT, which hands out the outputs of the tapped layers; natively it could only keep those of
    all layers.
    """

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """Yes: transformers reads the source of this module, and takes the attention of the connector for
        that of the ViT.
        """
        return True

    def forward(self, pixels: Tensor, layers: list[int]) -> Tensor:
        """ViT features (N, F) of crops (crops, G, patch values): outputs of the tapped layers, concatenated
        in their order.
        """
        # Not those of `patch_embedding`: a quantised weight has another dtype, an offloaded one is nowhere
        # yet.
        hidden = self.patch_embedding(pixels.to(self.positional_embedding))
        hidden = hidden + self.positional_embedding.to(hidden.dtype)
        tapped = {}
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, None)
            if index in layers:
                tapped[index] = hidden
        return torch.cat([tapped[index].to(hidden.device) for index in layers], dim=-1).flatten(0, 1)

    @property
    def is_sharded(self) -> bool:
        """Whether every call gathers weights from other ranks, so that all ranks must call equally often."""
        # A DTensor by what it has: builds of torch without torch.distributed cannot import the class.
        return any(hasattr(parameter, "device_mesh") for parameter in self.layers.parameters())


def tapped_features(vision_tower: VisionTower, pixels: Tensor, layers: list[int]) -> Tensor:
    """ViT features (N, F) of crops (crops, G, patch values), a few crops at a time where that is possible.

    On a processor equal crops are seen once: of a picture that is no larger than a crop, the overview and the
    only tile are the same. A GPU would have to wait for the comparison.
    """
    if pixels.device.type != "cpu" or len(pixels) < 2:
        return _features_of(vision_tower, pixels, layers)
    firsts = _first_equal(pixels)
    distinct, places = firsts.unique(return_inverse=True)
    if len(distinct) == len(pixels):
        return _features_of(vision_tower, pixels, layers)
    features = _features_of(vision_tower, pixels[distinct], layers)
    return features.unflatten(0, (len(distinct), -1))[places].flatten(0, 1)


def _first_equal(crops: Tensor) -> Tensor:
    """(n,) number of the first crop that is equal to each of crops (n, G, patch values)."""
    known: dict[float, list[int]] = {}
    firsts = []
    # Crop by crop: the sum of all at once would make a copy of all in double precision.
    sums = [float(crop.sum(dtype=torch.float64)) for crop in crops]
    for number, total in enumerate(sums):
        same_sum = known.setdefault(total, [])
        first = next((other for other in same_sum if torch.equal(crops[other], crops[number])), number)
        if first == number:
            same_sum.append(number)
        firsts.append(first)
    return torch.tensor(firsts)


def _features_of(vision_tower: VisionTower, pixels: Tensor, layers: list[int]) -> Tensor:
    # The widest activation is that inside the perceptrons.
    width = vision_tower.config.intermediate_size * vision_tower.positional_embedding.element_size()
    per_pass = _per_pass(CROPS_PER_PASS, pixels.shape[1] * width, pixels.device)
    if torch.is_grad_enabled() or len(pixels) <= per_pass or vision_tower.is_sharded:
        return vision_tower(pixels, layers)
    return torch.cat([vision_tower(part, layers) for part in pixels.split(per_pass)])


def _per_pass(most: int, bytes_each: int, device: torch.device) -> int:
    """How many things go through at a time, of which each takes so many bytes."""
    if device.type != "cpu":
        return most
    return max(1, min(most, BYTES_PER_PASS // bytes_each))


def join_tables(images: Tensor | None, videos: Tensor | None, first_frame_patch: int) -> Tensor:
    """One pooling table (T, K) from those of pictures and clips; the narrower one is padded with empty slots.

    Args:
        images: (T_i, K_i) or None.
        videos: (T_v, K_v) or None, counting from the first frame.
        first_frame_patch: ViT patches of all picture crops; frames come after them.
    """
    if videos is None or images is None:
        table = images if videos is None else videos
        if table is None:
            raise ValueError("expected a pooling table of pictures or clips, got neither")
        return table.long()
    videos = torch.where(videos >= 0, videos + first_frame_patch, videos)
    width = max(images.shape[1], videos.shape[1])
    padded = [
        functional.pad(table.long(), (0, width - table.shape[1]), value=-1) for table in (images, videos)
    ]
    return torch.cat(padded)
