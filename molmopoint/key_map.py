"""Names of the weights: one table between released checkpoints and this library, used in both directions.

Released files fuse some tensors that are separate here (query, key and value; the two halves of the gated
MLP) and split others that are one here (the embedding and output tables, cut into V base rows and A
additional rows). `to_released` and `from_released` are pure: they take any mapping of names to tensors, so
they serve weights, gradients and optimizer states. `released_converters` turns the same table into the rules
transformers reads released files with.

What may surprise: the two halves of `ff_proj` are first up, then gate, and the two tables of a pair differ in
length, so nothing here is ever "cut in half" except `ff_proj`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    ConversionOps,
    Split,
    WeightConverter,
    WeightRenaming,
)

from molmopoint.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

MODEL_TYPE = "molmo_point"
RELEASED_ADDITIONAL_ROWS = 128
"""A of every released model; used where no config says otherwise."""

TEXT, TEXT_LAYER = "model.transformer.", "model.transformer.blocks.#."
VIT, VIT_LAYER = "model.vit.", "model.vit.transformer.resblocks.#."
NATIVE_TEXT, NATIVE_TEXT_LAYER = "model.language_model.", "model.language_model.layers.#."
NATIVE_VIT, NATIVE_VIT_LAYER = "model.vision_tower.", "model.vision_tower.layers.#."
POOLING, PROJECTOR = "model.connector.image_pooling_2d.", "model.connector.image_projector."
POINTING = "model.point_predictor."

RENAMED = {
    TEXT + "ln_f": NATIVE_TEXT + "norm",
    TEXT_LAYER + "attn_norm": NATIVE_TEXT_LAYER + "input_layernorm",
    TEXT_LAYER + "ff_norm": NATIVE_TEXT_LAYER + "post_attention_layernorm",
    TEXT_LAYER + "self_attn.q_norm": NATIVE_TEXT_LAYER + "self_attn.q_norm",
    TEXT_LAYER + "self_attn.k_norm": NATIVE_TEXT_LAYER + "self_attn.k_norm",
    TEXT_LAYER + "self_attn.attn_out": NATIVE_TEXT_LAYER + "self_attn.o_proj",
    TEXT_LAYER + "mlp.ff_out": NATIVE_TEXT_LAYER + "mlp.down_proj",
    VIT + "patch_embedding": NATIVE_VIT + "patch_embedding",
    VIT_LAYER + "attention.wq": NATIVE_VIT_LAYER + "self_attn.q_proj",
    VIT_LAYER + "attention.wk": NATIVE_VIT_LAYER + "self_attn.k_proj",
    VIT_LAYER + "attention.wv": NATIVE_VIT_LAYER + "self_attn.v_proj",
    VIT_LAYER + "attention.wo": NATIVE_VIT_LAYER + "self_attn.o_proj",
    VIT_LAYER + "feed_forward.w1": NATIVE_VIT_LAYER + "mlp.fc1",
    VIT_LAYER + "feed_forward.w2": NATIVE_VIT_LAYER + "mlp.fc2",
    VIT_LAYER + "attention_norm": NATIVE_VIT_LAYER + "layer_norm1",
    VIT_LAYER + "ffn_norm": NATIVE_VIT_LAYER + "layer_norm2",
    POOLING + "wq": POOLING + "q_proj",
    POOLING + "wk": POOLING + "k_proj",
    POOLING + "wv": POOLING + "v_proj",
    POOLING + "wo": POOLING + "o_proj",
    PROJECTOR + "w1": PROJECTOR + "gate_proj",
    PROJECTOR + "w3": PROJECTOR + "up_proj",
    PROJECTOR + "w2": PROJECTOR + "down_proj",
    "model.connector.positional_embeddings": "model.connector.positional_embeddings",
    "model.build_vit_embedding": "model.build_vit_embedding",
    POINTING + "x_norm": POINTING + "norm",
    POINTING + "patch_q": POINTING + "patch.query",
    POINTING + "patch_k": POINTING + "patch.key",
    POINTING + "subpatch_q": POINTING + "subpatch.query",
    POINTING + "subpatch_k": POINTING + "subpatch.key",
    POINTING + "subpatch_loc_k": POINTING + "location.projection",
}
"""Released module -> native module; `#` is a layer number, and a weight or bias follows."""

RENAMED_PARAMETERS = {
    VIT + "positional_embedding": NATIVE_VIT + "positional_embedding",
    POINTING + "add_no_point_class_embed.vector": POINTING + "patch.no_more_points",
}
"""Released -> native name of the parameters that are neither a weight nor a bias."""


@dataclass(frozen=True)
class Regrouped:
    """Tensors that are joined along rows on one side and separate on the other. One of the two tuples has one
    name.

    Attributes:
        released: released names, in the order of their rows.
        native: native names, in the order of their rows.
        operation: builds what transformers does with them when it reads.
    """

    released: tuple[str, ...]
    native: tuple[str, ...]
    operation: Callable[[], ConversionOps]


QKV = tuple(f"{NATIVE_TEXT_LAYER}self_attn.{name}_proj" for name in "qkv")
REGROUPED = (
    Regrouped(
        (f"{TEXT}wte.embedding", f"{TEXT}wte.new_embedding"),
        (f"{NATIVE_TEXT}embed_tokens.weight",),
        Concatenate,
    ),
    Regrouped(
        ("lm_head.output_embeddings", "lm_head.new_output_embeddings"), ("lm_head.weight",), Concatenate
    ),
    Regrouped((f"{TEXT_LAYER}self_attn.att_proj.weight",), tuple(f"{name}.weight" for name in QKV), Split),
    Regrouped((f"{TEXT_LAYER}self_attn.att_proj.bias",), tuple(f"{name}.bias" for name in QKV), Split),
    Regrouped(
        (f"{TEXT_LAYER}mlp.ff_proj.weight",),
        (f"{NATIVE_TEXT_LAYER}mlp.up_proj.weight", f"{NATIVE_TEXT_LAYER}mlp.gate_proj.weight"),
        Chunk,
    ),
)


def to_released(tensors: Mapping[str, Tensor], config: PreTrainedConfig | None = None) -> dict[str, Tensor]:
    """The tensors under the names, and in the grouping, of released checkpoints.

    Args:
        tensors: native name -> tensor; weights, gradients or anything of the same shapes. Any subset, as long
            as tensors that are fused come together; `lm_head` may be missing.
        config: says how many rows are additional; without it 128.

    Returns:
        Released name -> tensor. Renamed tensors are the given ones; split and joined ones are copies, so that
        no two results share memory.

    Raises:
        CheckpointError: an unknown name, a fused tensor with a missing part, or a table of the wrong length.
    """

    def sizes(group: _Group) -> list[int]:
        rows = len(group.parts[0])
        additional = (
            RELEASED_ADDITIONAL_ROWS if config is None else config.get_text_config().additional_vocab_size
        )
        base = rows - additional if config is None else config.get_text_config().vocab_size
        if base < 1 or base + additional != rows:
            raise CheckpointError(
                f"expected {group.given[0]} with {max(base, 1)} + {additional} rows, got {rows}; pass the "
                "config these tensors belong to"
            )
        return [base, additional]

    return _convert(tensors, _TO_RELEASED, sizes)


def from_released(tensors: Mapping[str, Tensor], config: PreTrainedConfig | None = None) -> dict[str, Tensor]:
    """The tensors under the names, and in the grouping, of this library.

    Args:
        tensors: released name -> tensor, as for `to_released`.
        config: says how many rows of `att_proj` are queries; without it, as many as its `attn_out` has
            columns.

    Returns:
        Native name -> tensor, with copies where tensors were split or joined.

    Raises:
        CheckpointError: an unknown name, one table of a pair without the other, or sizes that do not fit.
    """

    def sizes(group: _Group) -> list[int]:
        rows = len(group.parts[0])
        if len(group.wanted) == 2:
            return [rows // 2, rows - rows // 2]
        queries, keys = _attention_rows(group, rows, tensors, config)
        if queries + 2 * keys != rows or keys < 1:
            raise CheckpointError(
                f"expected {group.given[0]} with {queries} + 2 * {keys} rows, got {rows}; pass the config "
                "these tensors belong to"
            )
        return [queries, keys, keys]

    return _convert(tensors, _FROM_RELEASED, sizes)


def released_converters() -> list[WeightRenaming | WeightConverter]:
    """The table as rules for transformers to read released files with; names that are native already pass
    unchanged.

    Saving does not use them backwards: transformers would cut the two unequal tables in half. See
    `to_released`.
    """
    rules: list[WeightRenaming | WeightConverter] = []
    for released, native in RENAMED.items():
        if released != native:
            rules.append(_renaming(f"{released}.", f"{native}."))
    rules += [_renaming(f"{released}$", native) for released, native in RENAMED_PARAMETERS.items()]
    # What is left of the layers is fused: it gets the native prefix here, and the converters see only the
    # part behind it.
    rules.append(_renaming(TEXT_LAYER, NATIVE_TEXT_LAYER))
    for group in REGROUPED:
        sources = [re.escape(name.rpartition("#.")[2]) for name in group.released]
        targets = [name.rpartition("#.")[2] for name in group.native]
        rules.append(WeightConverter(sources, targets, operations=[group.operation()]))
    return rules


def register_converters() -> None:
    """Tells transformers how to read released MolmoPoint files. Doing it again changes nothing."""
    register_checkpoint_conversion_mapping(MODEL_TYPE, released_converters(), overwrite=True)


@dataclass
class _Group:
    """Tensors that are regrouped together: their names before and after, and the parts found so far."""

    given: tuple[str, ...]
    wanted: tuple[str, ...]
    found: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parts(self) -> list[Tensor]:
        return [self.found[name] for name in self.given]


Names = tuple[str, ...]


class _Table:
    """One direction of the table, compiled: finds the row of a full name."""

    def __init__(
        self, renamed: Mapping[str, str], parameters: Mapping[str, str], groups: list[tuple[Names, Names]]
    ) -> None:
        self.targets = {
            f"{source}.{kind}": f"{target}.{kind}"
            for source, target in renamed.items()
            for kind in ("weight", "bias")
        }
        self.targets |= parameters
        self.groups = {name: group for group in groups for name in group[0]}

    def rename(self, name: str) -> str | None:
        """New name of a tensor that is only renamed, else None."""
        general, layer = _generalise(name)
        target = self.targets.get(general)
        return None if target is None else target.replace("#", layer)

    def group(self, name: str) -> tuple[Names, Names] | None:
        """Full names before and after of the tensors regrouped with this one, else None."""
        general, layer = _generalise(name)
        if general not in self.groups:
            return None
        given, wanted = self.groups[general]
        return tuple(n.replace("#", layer) for n in given), tuple(n.replace("#", layer) for n in wanted)


_TO_RELEASED = _Table(
    {native: released for released, native in RENAMED.items()},
    {native: released for released, native in RENAMED_PARAMETERS.items()},
    [(group.native, group.released) for group in REGROUPED],
)
_FROM_RELEASED = _Table(RENAMED, RENAMED_PARAMETERS, [(group.released, group.native) for group in REGROUPED])


def _convert(
    tensors: Mapping[str, Tensor], table: _Table, sizes: Callable[[_Group], list[int]]
) -> dict[str, Tensor]:
    """Renames what is only renamed and regroups the rest; `sizes` gives the rows of each part of a tensor to
    split.
    """
    result: dict[str, Tensor] = {}
    groups: dict[tuple[str, ...], _Group] = {}
    unknown: list[str] = []
    for name, tensor in tensors.items():
        target, names = table.rename(name), table.group(name)
        if target is not None:
            result[target] = tensor
        elif names is not None:
            groups.setdefault(names[0], _Group(*names)).found[name] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(
            f"expected names of MolmoPoint weights, got {len(unknown)} others: "
            f"{', '.join(sorted(unknown)[:4])}; "
            "they may be in the other naming already, or belong to adapters, which have files of their own"
        )
    for group in groups.values():
        result.update(_regroup(group, sizes))
    return result


def _regroup(group: _Group, sizes: Callable[[_Group], list[int]]) -> Iterator[tuple[str, Tensor]]:
    missing = [name for name in group.given if name not in group.found]
    if missing:
        raise CheckpointError(
            f"expected {' and '.join(group.given)} together to make {' and '.join(group.wanted)}, "
            f"got no {' and no '.join(missing)}; add what is missing or leave the others out"
        )
    if len(group.wanted) == 1:
        return iter([(group.wanted[0], torch.cat(group.parts))])
    # The copies keep safetensors, and whoever changes a tensor in place, from seeing one tensor through
    # another.
    return zip(group.wanted, (part.clone() for part in group.parts[0].split(sizes(group))), strict=True)


def _attention_rows(
    group: _Group, rows: int, tensors: Mapping[str, Tensor], config: PreTrainedConfig | None
) -> tuple[int, int]:
    """Rows of the queries, and of the keys or values, in a fused `att_proj`."""
    if config is not None:
        text = config.get_text_config()
        return text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    output = group.given[0].rpartition("att_proj")[0] + "attn_out.weight"
    if output not in tensors:
        raise CheckpointError(
            f"expected {output} beside {group.given[0]}, because its columns tell the queries from the "
            "keys; add it or pass a config"
        )
    queries = tensors[output].shape[1]
    return queries, (rows - queries) // 2


def _generalise(name: str) -> tuple[str, str]:
    """A name with `#` for its layer number, and the number."""
    number = re.search(r"(?<=\.)\d+(?=\.)", name)
    return (
        (name, "") if number is None else (f"{name[: number.start()]}#{name[number.end() :]}", number.group())
    )


def _renaming(released: str, native: str) -> WeightRenaming:
    """A rule for names that start with the released one; a trailing `$` makes it the whole name."""
    ending = "$" if released.endswith("$") else ""
    pattern = re.escape(released.removesuffix("$")).replace(r"\#", r"(\d+)")
    return WeightRenaming(f"^{pattern}{ending}", native.replace("#", r"\1"))
