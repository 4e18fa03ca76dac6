"""The vision tower of a new model: a plain ViT of timm, under the names and in the shapes of the native
Molmo2 tower.

The tower is patches, positions and pre-norm blocks, nothing else. What timm can do beyond that either folds
into these weights without changing what the blocks compute (LayerScale, missing biases), or is refused by
name. Everything behind the deepest tapped block (later blocks, final norm, pooling head) is left out.

Letters: D width of the ViT, p side of a ViT patch in pixels, G patches per side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import timm
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from timm.layers.attention import Attention
from timm.layers.layer_scale import LayerScale
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from molmopoint.checkpoints.part import Part
from molmopoint.errors import CheckpointError
from molmopoint.files import is_folder
from molmopoint.load_checks import WEIGHTS_FILE, reading_part

TOWER = "model.vision_tower."
ACTIVATIONS = {
    "GELU": "gelu",
    "GELUTanh": "gelu_pytorch_tanh",
    "QuickGELU": "quick_gelu",
    "SiLU": "silu",
    "ReLU": "relu",
}
"""Class of an activation in timm or torch -> what transformers calls it."""


def load_vit(source: str | Path) -> nn.Module:
    """A pretrained ViT from a folder or repository in the layout of timm, from safetensors only.

    Args:
        source: a local folder with `config.json` and `model.safetensors`, or an id on the hub such as
            "timm/vit_so400m_patch14_siglip_378.v2_webli".

    Raises:
        CheckpointError: there is no such ViT, its files cannot be read, or there are no safetensors.
    """
    if is_folder(folder := Path(source)):
        missing = [name for name in ("config.json", WEIGHTS_FILE) if not (folder / name).is_file()]
        if missing:
            raise CheckpointError(
                f"expected a ViT saved by timm in {folder}, got no {' and no '.join(missing)}; save it as "
                "safetensors"
            )
        with reading_part(source, "a ViT of timm"):
            return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    with reading_part(source, "a ViT of timm"):
        try:
            hf_hub_download(str(source), WEIGHTS_FILE)
        except EntryNotFoundError as error:
            raise CheckpointError(
                f"expected {WEIGHTS_FILE} in {source}, got none; take a repository of timm with safetensors"
            ) from error
        return timm.create_model(f"hf-hub:{source}", pretrained=True, num_classes=0)


def vision_part(vit: nn.Module, layers: Sequence[int], crop_size: int | None = None) -> Part:
    """The config fields of the whole ViT, which `MolmoPointConfig` trims, and the float32 tensors of the
    blocks that are left.

    Args:
        vit: a `VisionTransformer` of timm.
        layers: tapped blocks, negative ones counted from the end.
        crop_size: side in pixels of the crops the model will see; None for the grid the ViT was trained on.
            For another grid the positions are resized bicubically in float32, as timm does it.

    Raises:
        CheckpointError: a ViT that the tower cannot represent, tapped blocks it has not, or a crop that is no
            whole number of patches.
    """
    if type(vit) is not VisionTransformer:
        raise CheckpointError(
            f"expected a plain VisionTransformer of timm, got {type(vit).__name__}; the tower has no "
            "windows, rotations or stages: "
            "take a plain ViT such as SigLIP 2"
        )
    depth = len(vit.blocks)
    if not layers or not all(-depth <= layer < depth for layer in layers):
        raise CheckpointError(
            f"expected vision_layers among the {depth} blocks of the ViT, got {list(layers)}; pass others"
        )
    # Sequential is annotated as holding any module; the class of each block is checked below.
    blocks = [cast(Block, block) for block in list(vit.blocks)[: max(layer % depth for layer in layers) + 1]]
    if reasons := list(
        dict.fromkeys(
            [*_unsupported_stem(vit), *(reason for block in blocks for reason in _unsupported_block(block))]
        )
    ):
        raise CheckpointError(
            f"expected a ViT of patches and pre-norm blocks alone, got one with {'; '.join(reasons)}; take "
            "another ViT"
        )
    shapes = {_shape(block) for block in blocks}
    if len(shapes) > 1:
        raise CheckpointError(
            f"expected blocks that are all alike, got {len(shapes)} kinds: {sorted(shapes)}; take another ViT"
        )
    heads, head_dim, mlp, eps, activation = shapes.pop()
    patch, grid = vit.patch_embed.patch_size[0], _grid(vit, crop_size)
    fields = {
        "hidden_size": vit.embed_dim, "intermediate_size": mlp, "num_hidden_layers": depth, "num_attention_heads": heads,
        "num_key_value_heads": heads, "head_dim": head_dim, "hidden_act": activation, "layer_norm_eps": eps,
        "image_size": [grid * patch, grid * patch], "patch_size": patch,
    }  # fmt: skip
    tensors = _stem(vit, grid)
    for index, block in enumerate(blocks):
        tensors |= {f"{TOWER}layers.{index}.{name}": tensor for name, tensor in _block(block).items()}
    return Part(fields, {name: tensor.detach().contiguous() for name, tensor in tensors.items()})


def pixel_normalisation(vit: nn.Module) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel, of values in [0, 1], that a ViT was trained with.

    Raises:
        CheckpointError: nothing says which.
    """
    settings: Mapping[str, Sequence[float]] = getattr(vit, "pretrained_cfg", None) or {}
    if not settings.get("mean") or not settings.get("std"):
        raise CheckpointError(
            "expected a ViT whose pretrained_cfg has mean and std of its pixels, got one without; make it "
            "by timm.create_model, "
            "or set vit.pretrained_cfg"
        )
    return list(settings["mean"]), list(settings["std"])


def _grid(vit: VisionTransformer, crop_size: int | None) -> int:
    """Patches per side of a crop."""
    patch, stored = vit.patch_embed.patch_size[0], vit.patch_embed.grid_size[0]
    if crop_size is None:
        return stored
    if crop_size < patch or crop_size % patch:
        raise CheckpointError(
            f"expected a crop_size that is a multiple of the patch size {patch}, got {crop_size}; pass "
            f"{stored * patch}"
        )
    return crop_size // patch


def _unsupported_stem(vit: VisionTransformer) -> Iterator[str]:
    """What stands before the blocks and has no place in the tower."""
    stem = vit.patch_embed
    if vit.cls_token is not None:
        yield "a class token, to which its patches attend"
    if vit.num_reg_tokens:
        yield f"{vit.num_reg_tokens} register tokens, to which its patches attend"
    if vit.pos_embed is None:
        yield "no learned positions"
    if not isinstance(vit.norm_pre, nn.Identity):
        yield "a norm before the blocks"
    if type(stem) is not PatchEmbed or not isinstance(stem.norm, nn.Identity):
        yield "a patch embedding that is more than one convolution"
    elif stem.proj.in_channels != 3 or len(set(stem.patch_size)) > 1 or len(set(stem.grid_size)) > 1:
        yield f"patches of {stem.proj.in_channels} x {stem.patch_size} on a grid of {stem.grid_size} instead of squares of RGB"


def _unsupported_block(block: Block) -> Iterator[str]:
    """What a block has and those of the tower have not."""
    if type(block) is not Block:
        yield f"block {type(block).__name__}"
        return
    parts: dict[str, tuple[nn.Module, tuple[type, ...]]] = {
        "attention": (block.attn, (Attention,)),
        "MLP": (block.mlp, (Mlp,)),
        "norm": (block.norm1, (nn.LayerNorm,)),
        "scale": (block.ls1, (LayerScale, nn.Identity)),
    }
    for what, (part, kinds) in parts.items():
        # Subclasses compute something else, except for norms, which timm gives a faster kernel.
        if not (isinstance(part, kinds) if what == "norm" else type(part) in kinds):
            yield f"{what} {type(part).__name__}"
    if type(block.attn) is not Attention or type(block.mlp) is not Mlp:
        return
    if not isinstance(block.attn.q_norm, nn.Identity):
        yield "norms of queries and keys"
    if block.attn.gate is not None:
        yield "gated attention"
    if not isinstance(block.attn.norm, nn.Identity) or not isinstance(block.mlp.norm, nn.Identity):
        yield "norms inside attention or MLP"
    if not isinstance(block.mlp.fc1, nn.Linear):
        yield "convolutions as MLP"
    if type(block.mlp.act).__name__ not in ACTIVATIONS:
        yield f"activation {type(block.mlp.act).__name__}"


def _shape(block: Block) -> tuple[int, int, int, float, str]:
    """Heads, head width, MLP width, epsilon of the norms, and activation, as transformers calls it."""
    attention, mlp, norm = _parts(block)
    tanh = isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "tanh"
    name = "gelu_pytorch_tanh" if tanh else ACTIVATIONS[type(mlp.act).__name__]
    return attention.num_heads, attention.head_dim, mlp.fc1.out_features, norm.eps, name


def _parts(block: Block) -> tuple[Any, Any, Any]:
    """Attention, MLP and first norm. Their classes were checked; as attributes of a module they could be
    anything.
    """
    return block.attn, block.mlp, block.norm1


def _stem(vit: VisionTransformer, grid: int) -> dict[str, Tensor]:
    """Positions (G * G, D) and the patch convolution (D, 3, p, p) as a linear layer (D, p * p * 3)."""
    stem = vit.patch_embed
    positions = cast(Tensor, vit.pos_embed).detach().float()
    positions = resample_abs_pos_embed(positions, [grid, grid], list(stem.grid_size), num_prefix_tokens=0)
    # Processors list the values of a patch by row, column, channel.
    weight = stem.proj.weight.float().permute(0, 2, 3, 1).flatten(1)
    return {
        f"{TOWER}positional_embedding": positions[0],
        f"{TOWER}patch_embedding.weight": weight,
        f"{TOWER}patch_embedding.bias": _bias(stem.proj),
    }


def _block(block: Block) -> dict[str, Tensor]:
    """Native name inside a block -> tensor; the scale of each branch is folded into its last layer."""
    attention, mlp, _ = _parts(block)
    tensors: dict[str, Tensor] = {}
    parts = zip("qkv", attention.qkv.weight.float().chunk(3), _bias(attention.qkv).chunk(3), strict=True)
    for name, weight, bias in parts:
        tensors |= {f"self_attn.{name}_proj.weight": weight, f"self_attn.{name}_proj.bias": bias}
    for name, layer, scale in (
        ("self_attn.o_proj", attention.proj, block.ls1),
        ("mlp.fc2", mlp.fc2, block.ls2),
    ):
        weight, bias = layer.weight.float(), _bias(layer)
        if isinstance(scale, LayerScale):
            weight, bias = scale.gamma.unsqueeze(1) * weight, scale.gamma * bias
        tensors |= {f"{name}.weight": weight, f"{name}.bias": bias}
    tensors |= {"mlp.fc1.weight": mlp.fc1.weight.float(), "mlp.fc1.bias": _bias(mlp.fc1)}
    for index, norm in enumerate((block.norm1, block.norm2), start=1):
        tensors |= {
            f"layer_norm{index}.{name}": cast(Tensor, getattr(norm, name)).float()
            for name in ("weight", "bias")
        }
    return tensors


def _bias(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Its bias in float32; zeros where it has none, which is the same."""
    return (
        layer.weight.new_zeros(layer.weight.shape[0], dtype=torch.float32)
        if layer.bias is None
        else layer.bias.float()
    )
