"""Weights in fewer bits, for models that would not fit otherwise.

The matrices in the blocks of the text model, nine tenths of a large model, are stored in 8 or 4 bits; all
else stays as it was loaded (`KEPT`). That is done when a model has been loaded, one matrix after the other
and on the device where it will be used. While a model is being loaded, torchao would keep only the first part
of tensors that are stored joined: keys, values and gates would be random.

| form | stored by | bits per weight | where |
| --- | --- | --- | --- |
| int8 | torchao, one scale per row | 8 | everywhere |
| int4 | torchao, one scale and zero per group of 32 to 128 | 4.25 to 5 | CPU, and CUDA in bfloat16 |
| nf4 | bitsandbytes, one scale per group of 64 | 4.1 | everywhere |
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from molmopoint.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

KEPT = (
    "vision_tower",
    "visual",
    "connector",
    "multi_modal_projector",
    "build_vit_embedding",
    "point_predictor",
    "multi_patch_pointer_head",
    "lm_head",
    "in_proj_a",
    "in_proj_b",
)
"""Modules that are never stored in fewer bits; `multi_modal_projector` is the connector of a Molmo2,
`visual` the ViT of a Qwen with its merger, `in_proj_a` and `in_proj_b` the gates of linear attention, one number per
head.

They are small, and where a point lies depends on them: the published run of the 8B that loses nothing in 4
bits leaves these out.
"""

_ADAPTERS = ("lora_A", "lora_B")
_GROUPS = (128, 64, 32)
"""Weights that share a scale in int4, the most that divide the width."""


@dataclass(frozen=True)
class Form:
    """A way of storing weights.

    Attributes:
        package: that does it.
        multiple: of which the width of every matrix must be one.
    """

    package: str
    multiple: int


FORMS = {"int8": Form("torchao", 1), "int4": Form("torchao", 32), "nf4": Form("bitsandbytes", 64)}
"""What `quantize` may be."""

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""What configs call the number of experts, of which there may be none."""

_FEED_FORWARD = ("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim")
"""What configs call the width between the two matrices of a block."""

_LINEAR_ATTENTION = ("key", "value")
"""Parts of linear attention with heads of their own."""

DTYPE = "bfloat16"
"""Precision of all else by default: whoever asks for fewer bits lacks memory."""


def check_quantize(quantize: str, arguments: Mapping[str, Any]) -> None:
    """Refuses what cannot be, before anything of a model is read. Loads no library.

    Args:
        quantize: name of a form.
        arguments: further arguments of `from_pretrained`.

    Raises:
        CheckpointError: there is no such form (the nearest is named), its package is missing, or the weights
            are to be stored in fewer bits by transformers as well.
    """
    if quantize not in FORMS:
        near = difflib.get_close_matches(str(quantize), FORMS, n=1)
        hint = f"did you mean {near[0]}?" if near else "int8 loses least, nf4 needs least"
        raise CheckpointError(f"expected quantize as one of {', '.join(FORMS)}, got {quantize!r}; {hint}")
    if arguments.get("quantization_config") is not None:
        raise CheckpointError(
            f"expected quantize or quantization_config, got both ({quantize!r} and one of transformers); "
            "leave one of them out"
        )
    package = FORMS[quantize].package
    if importlib.util.find_spec(package) is None:
        raise CheckpointError(
            f"expected the package {package} for quantize={quantize!r}, got none; "
            'pip install "molmopoint[quantize]"'
        )


def check_widths(config: Any, quantize: str, source: str) -> None:
    """Refuses models whose weights cannot be stored so, by their config alone.

    Args:
        config: of the model.
        quantize: name of a form.
        source: folder or hub id, for the message.

    Raises:
        CheckpointError: weights are stored in fewer bits already, there are experts, or a width is no multiple of
            what the form needs.
    """
    stored = getattr(config, "quantization_config", None)
    if stored is not None:
        method = stored.get("quant_method") if isinstance(stored, Mapping) else type(stored).__name__
        raise CheckpointError(
            f"expected a model in full precision at {source!r} for quantize={quantize!r}, got one that is "
            f"stored in fewer bits already ({method}); leave quantize out"
        )
    experts = _num_experts(config.get_text_config())
    if experts:
        raise CheckpointError(
            f"expected a model without experts for quantize={quantize!r}, got one with {experts} at {source!r}, whose "
            "matrices are stored together and would stay as they are; leave quantize out"
        )
    multiple = FORMS[quantize].multiple
    for name, width in _widths(config).items():
        if width % multiple:
            fitting = [form for form, needs in FORMS.items() if width % needs.multiple == 0]
            raise CheckpointError(
                f"expected widths that are multiples of {multiple} for quantize={quantize!r}, got "
                f"{name}={width} at {source!r}; use {' or '.join(fitting)}"
            )


def _num_experts(text: Any) -> int:
    """How many experts a text model has, by its config; 0 for none."""
    for name in _EXPERTS:
        count = getattr(text, name, None)
        if count:
            return int(count)
    return 0


def _widths(config: Any) -> dict[str, int]:
    """Widths of what goes into the matrices of a block and comes out of them, by name."""
    text = config.get_text_config()
    heads = text.num_attention_heads
    key_value_heads = getattr(text, "num_key_value_heads", None) or heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    widths = {
        "hidden_size": text.hidden_size,
        "num_attention_heads * head_dim": heads * head_width,
        "num_key_value_heads * head_dim": key_value_heads * head_width,
    }
    for name in _FEED_FORWARD:
        if hasattr(text, name):
            widths[name] = getattr(text, name)
    for part in _LINEAR_ATTENTION:
        count, width = f"linear_num_{part}_heads", f"linear_{part}_head_dim"
        if hasattr(text, count):
            widths[f"{count} * {width}"] = getattr(text, count) * getattr(text, width)
    return widths


def matrices(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """What is stored in fewer bits: the linear layers that `KEPT` does not name, with their names."""
    from torch import nn

    left_out = {*KEPT, *_ADAPTERS}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and left_out.isdisjoint(name.split(".")):
            yield name, module


def store_in_fewer_bits(model: nn.Module, quantize: str, device: torch.device | None = None) -> None:
    """Stores the matrices of a loaded model in fewer bits, one after the other; they cannot be trained or
    saved then.

    Args:
        model: in the precision in which it is to compute.
        quantize: name of a form, checked.
        device: where the model will be; all of it is moved there. None leaves every part where it is. Its
            attribute `stored_as` says the form from then on.

    Raises:
        CheckpointError: the package cannot do it on this device, or in this precision.
    """
    store = {"int8": _store_int8, "int4": _store_int4, "nf4": _store_nf4}[quantize]
    for name, layer in list(matrices(model)):
        place = layer.weight.device if device is None else device
        try:
            store(model, name, layer, place)
        except (ImportError, NotImplementedError, RuntimeError, ValueError, AssertionError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise CheckpointError(
                f"expected {FORMS[quantize].package} to store weights as {quantize} on {place}, got: {reason}; "
                "use another form, or update the package"
            ) from error
    model.stored_as = quantize  # type: ignore[assignment]  # a note of ours on somebody's module
    if device is not None:
        model.to(device)


def store_for_adapters(model: nn.Module, bits: int) -> None:
    """Stores the matrices of a loaded model in 4 bits (nf4) or 8 bits, so that adapters of PEFT can train upon
    them.

    Both are done by bitsandbytes, whose layers hand gradients on.

    Args:
        model: on the device where it will train.
        bits: 4 or 8.
    """
    store = {4: _store_nf4, 8: _store_llm_int8}[bits]
    for name, layer in list(matrices(model)):
        store(model, name, layer, layer.weight.device)
    # By these attributes PEFT knows what its adapters have to compute with.
    setattr(model, f"is_loaded_in_{bits}bit", True)


def _store_int8(model: nn.Module, name: str, layer: nn.Linear, device: torch.device) -> None:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(layer, Int8WeightOnlyConfig(version=2), device=device)


def _store_int4(model: nn.Module, name: str, layer: nn.Linear, device: torch.device) -> None:
    from torchao.quantization import Int4WeightOnlyConfig, quantize_

    group = next(size for size in _GROUPS if layer.in_features % size == 0)
    if device.type == "cpu":
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        quantize_(layer, PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False))
        return
    form = Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d")
    quantize_(layer, form, device=device)


def _store_nf4(model: nn.Module, name: str, layer: nn.Linear, device: torch.device) -> None:
    from bitsandbytes.nn import Linear4bit, Params4bit

    weight = layer.weight.data
    stored = Linear4bit(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=weight.dtype,
        quant_type="nf4",
        device="meta",
    )
    stored.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", module=stored)
    stored.bias = layer.bias
    model.set_submodule(name, stored.to(device))


def _store_llm_int8(model: nn.Module, name: str, layer: nn.Linear, device: torch.device) -> None:
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    has_bias = layer.bias is not None
    stored = Linear8bitLt(
        layer.in_features, layer.out_features, bias=has_bias, has_fp16_weights=False, device="meta"
    )
    stored.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    stored.bias = layer.bias
    model.set_submodule(name, stored.to(device))
