"""Low-rank adapters on the text model: put in, merged, saved alone, and read back.

The adapters are put inside the model, which keeps its class: `generate`, saving and the trainer see the model
they know. Files have the form of PEFT. Reading plain adapters to merge them needs no PEFT; training with them
does.

Adapters of the released layers, in which queries, keys and values are one matrix, and up and gate another,
become adapters of the native ones, exactly: (B A) of a fused layer is its rows, so each part has all of A and
its own rows of B.

Letters: r rank, R rows of a layer, C its columns.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from molmopoint.errors import CheckpointError, RecipeError
from molmopoint.saving import save_whole

ADAPTER_NAME = "default"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_RELEASED_LAYER = re.compile(r"^(?P<model>.*?)transformer\.blocks\.(?P<number>\d+)\.(?P<layer>[\w.]+)$")
_PARTS = {
    "self_attn.att_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.attn_out": ("self_attn.o_proj",),
    "mlp.ff_proj": ("mlp.up_proj", "mlp.gate_proj"),
    "mlp.ff_out": ("mlp.down_proj",),
}
"""Native layers of a released one, in the order of their rows."""
_PLAIN = {
    "use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none", "lora_bias": False,
    "fan_in_fan_out": False, "megatron_config": None,
}  # fmt: skip
"""Settings of PEFT that adapters must have to be merged here."""


class _AdaptedLayer(Protocol):
    """A layer with adapters of PEFT."""

    def merge(self, safe_merge: bool = False) -> None: ...

    def get_base_layer(self) -> nn.Module: ...


def put_adapters(
    model: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, dropout: float
) -> None:
    """Puts adapters on the linear layers of the text model that have these names; at first they change
    nothing.

    What trains otherwise is left as it was.

    Args:
        model: a MolmoPoint or a Molmo2; the vision tower and the connector, which have layers of the same
            names, get none.
        targets: last parts of the names, such as "q_proj".
        rank: of the added matrices.
        alpha: the update is scaled by alpha / rank.
        dropout: on the input of the adapters.

    Raises:
        RecipeError: PEFT is missing, or the text model has no layer of such a name.
    """
    peft = _peft()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _is_text_layer(name)
    ]
    known = sorted({name.rpartition(".")[2] for name in names})
    if missing := [target for target in targets if target not in known]:
        raise RecipeError(
            f"lora.targets: expected layers of the text model ({', '.join(known)}), got {missing[0]!r}; "
            "correct the recipe"
        )
    chosen = [name for name in names if name.rpartition(".")[2] in targets]
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=chosen, bias="none"
    )
    _inject(model, config)


def merge_adapters(model: nn.Module) -> None:
    """Adds the adapters to the weights they belong to and takes them out; a model without adapters stays as
    it is.
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "merge")
    ]
    for name, layer in layers:
        adapted = cast(_AdaptedLayer, layer)
        adapted.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, adapted.get_base_layer())
    if layers and hasattr(model, "peft_config"):
        del model.peft_config


def save_adapters(model: Any, folder: Path) -> None:
    """Writes the adapters alone, in the form of PEFT, with names relative to the model."""
    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
        if ".lora_" in name
    }
    config = model.peft_config[ADAPTER_NAME]

    def write(target: str) -> None:
        named = {_PREFIX + name.replace(f".{ADAPTER_NAME}", ""): tensor for name, tensor in tensors.items()}
        save_file(named, str(Path(target) / WEIGHTS_FILE))
        config.save_pretrained(target)

    save_whole(folder, write)


def load_adapters(model: nn.Module, folder: Path) -> None:
    """Puts stored adapters into a model, to be trained further.

    Raises:
        RecipeError: PEFT is missing.
        CheckpointError: the files are broken, or do not fit the model.
    """
    peft = _peft()
    read_config(folder)
    config, read = peft.LoraConfig.from_pretrained(str(folder)), _read_tensors(folder)
    stored = _native(read, model, folder)
    if stored.keys() != read.keys():
        config.target_modules = {name.partition(".lora_")[0] for name in stored}
    tensors = {name.replace(".lora_A.", f".lora_A.{ADAPTER_NAME}.").replace(".lora_B.", f".lora_B.{ADAPTER_NAME}."): tensor
               for name, tensor in stored.items()}  # fmt: skip
    _inject(model, config)
    own = {name for name, _ in model.named_parameters() if ".lora_" in name}
    if own != set(tensors):
        raise _unfit(folder, sorted(own ^ set(tensors))[0])
    model.load_state_dict(tensors, strict=False)


@torch.no_grad()
def merge_stored_adapters(model: nn.Module, folder: Path) -> None:
    """Adds stored adapters to the weights they belong to, in float32. Needs no PEFT.

    Raises:
        CheckpointError: the files are broken or do not fit the model, or these are no plain low-rank
            adapters.
    """
    config = read_config(folder)
    tensors, modules = _native(_read_tensors(folder), model, folder), dict(model.named_modules())
    for name in [name for name in tensors if name.endswith(".lora_A.weight")]:
        layer = name.removesuffix(".lora_A.weight")
        down, up, module = tensors[name], tensors.get(f"{layer}.lora_B.weight"), modules.get(layer)
        if (
            up is None
            or not isinstance(module, nn.Linear)
            or module.weight.shape != (up.shape[0], down.shape[1])
        ):
            raise _unfit(folder, layer)
        update = (up.float() @ down.float()) * (config["lora_alpha"] / config["r"])
        module.weight.copy_(module.weight.float() + update.to(module.weight.device))


def read_config(folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says of plain low-rank adapters.

    Raises:
        CheckpointError: there is no such file, or it is that of other adapters.
    """
    file = folder / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"expected the settings of adapters in {file}, got: {error}; copy the folder again"
        ) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"expected the settings of adapters in {file}, got {type(config).__name__}; copy the folder again"
        )
    if odd := [name for name, value in _PLAIN.items() if config.get(name, value) != value]:
        raise CheckpointError(
            f"expected plain adapters in {folder}, got {odd[0]}={config[odd[0]]!r}; merge them with PEFT "
            "and save the whole model"
        )
    for name in ("r", "lora_alpha"):
        value: object = config.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise CheckpointError(
                f"expected a number above 0 as {name} in {file}, got {value!r}; copy the folder again"
            )
    return config


def _native(tensors: dict[str, Tensor], model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Adapters of native layers, those of released ones taken apart; all others stay as they are.

    Raises:
        CheckpointError: a released layer that the model has not, or of other sizes.
    """
    native: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.partition(".lora_")
        found = _RELEASED_LAYER.match(layer)
        if found is None:
            native[name] = tensor
            continue
        parts = _PARTS.get(found["layer"], ())
        names = [f"{found['model']}language_model.layers.{found['number']}.{part}" for part in parts]
        native |= _taken_apart(tensor, kind, names, model, folder, layer)
    return native


def _taken_apart(
    tensor: Tensor, kind: str, names: Sequence[str], model: nn.Module, folder: Path, layer: str
) -> dict[str, Tensor]:
    """A (r, C) for each part as it is, B (R, r) by the rows of the parts."""
    modules = dict(model.named_modules())
    linear = [modules.get(name) for name in names]
    rows = [module.weight.shape[0] for module in linear if isinstance(module, nn.Linear)]
    is_down = kind == "A.weight"
    if not names or len(rows) != len(names) or tensor.ndim != 2 or (not is_down and sum(rows) != len(tensor)):
        raise _unfit(folder, layer)
    pieces = [tensor] * len(names) if is_down else tensor.split(rows)
    return {f"{name}.lora_{kind}": piece for name, piece in zip(names, pieces, strict=True)}


def _inject(model: nn.Module, config: Any) -> None:
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    _peft().inject_adapter_in_model(config, model, ADAPTER_NAME)
    for (
        name,
        parameter,
    ) in model.named_parameters():  # PEFT froze all others; what trains is for the caller to say
        parameter.requires_grad_(trains.get(name.replace(".base_layer", ""), parameter.requires_grad))


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Adapters by the name of their layer in the model."""
    try:
        return {
            name.removeprefix(_PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS_FILE).items()
        }
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"expected whole adapters in {folder / WEIGHTS_FILE}, got: {error}; copy the folder again"
        ) from error


def _unfit(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"expected adapters of this model in {folder}, got others, for instance at {name}; load them on "
        "their own base"
    )


def _is_text_layer(name: str) -> bool:
    return re.search(r"(^|\.)language_model\.", name) is not None


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise RecipeError(
            'expected peft to train with lora, got no such package; pip install "molmopoint[train]"'
        ) from error
    return peft
