"""Sharding a model over processes with FSDP2: which modules gather their weights together.

Units, each gathered when it is called and freed afterwards:

    every block of the text model, every block of the ViT, the connector
    the token table, and the head; one unit where they share a matrix
    the root: all that is left, the grounding heads among it

The grounding heads stay in the root, which is gathered once per step: the model calls parts of them by other
methods than `forward`, which gathers nothing, and at 8B the whole root is 18 M of 8 678 M parameters.
accelerate makes the same units from the model's `_no_split_modules`.

Source of the rule: public Molmo2 training code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy


def mixed_precision(dtype: torch.dtype, reduce_dtype: torch.dtype = torch.float32) -> MixedPrecisionPolicy:
    """Products in `dtype`, sharded weights as they are, gradients summed over processes in `reduce_dtype`.

    Inputs and outputs keep their dtype: half precision would round loss weights, the divisor of the loss and
    the loss itself.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy

    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=reduce_dtype, cast_forward_inputs=False)


def sharding_units(model: nn.Module) -> list[list[nn.Module]]:
    """Modules that gather their weights together, inner units before outer ones; without the root, which is
    the last.

    Args:
        model: MolmoPoint or native Molmo2, with or without adapters of PEFT.

    Raises:
        MolmoPointError: the model does not say what its blocks are.
    """
    whole: Any = model
    classes = set(getattr(whole, "_no_split_modules", None) or ())
    blocks = [[module] for module in model.modules() if _class_name(module) in classes]
    if not blocks:
        raise MolmoPointError(
            f"expected a model with blocks that its _no_split_modules name, got {type(model).__name__} with "
            f"{sorted(classes)}; "
            "shard a MolmoPoint or Molmo2 model"
        )
    table, head = whole.get_input_embeddings(), whole.get_output_embeddings()
    if {id(parameter) for parameter in table.parameters()} & {
        id(parameter) for parameter in head.parameters()
    }:
        return [*blocks, [table, head]]
    return [*blocks, [table], [head]]


def shard(
    model: nn.Module,
    mesh: DeviceMesh | None = None,
    mixed_precision: MixedPrecisionPolicy | None = None,
    *,
    reshard_after_forward: bool = True,
) -> None:
    """Shards the parameters in place; build the optimiser afterwards.

    The same seed or the same file must have given every process the same weights. Gradients are averaged over
    processes: a loss whose divisor counts all of them is multiplied by their number.

    Args:
        model: with the same weights on every process.
        mesh: of one dimension to shard over all its processes; of two to keep copies along the first and
            shard along the second. None is all processes.
        mixed_precision: see the function of that name; None computes in the dtype of the weights.
        reshard_after_forward: free the weights of a block between forward and backward pass: less memory, one
            more gathering.

    Raises:
        MolmoPointError: no process group, a model that is sharded already, or one without known blocks.
    """
    import torch.distributed as dist
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not (dist.is_available() and dist.is_initialized()):
        raise MolmoPointError(
            "expected a process group to shard over, got none; start with torchrun or accelerate launch, or "
            "call "
            "torch.distributed.init_process_group first"
        )
    if any(isinstance(module, FSDPModule) for module in model.modules()):
        raise MolmoPointError("expected a whole model, got one that is sharded already; shard it once")
    options: dict[str, Any] = {"mesh": mesh}
    if mixed_precision is not None:
        options["mp_policy"] = mixed_precision
    *units, last = sharding_units(model)
    for unit in units:
        fully_shard(unit, reshard_after_forward=reshard_after_forward, **options)
    # The backward pass begins where the forward pass ends, with the head.
    fully_shard(last, reshard_after_forward=False, **options)
    fully_shard(model, **options)


def shard_as_launched(model: nn.Module, accelerator: Accelerator) -> None:
    """Shards a model where `accelerate launch` asked for FSDP2; elsewhere, and a second time, it does
    nothing.

    Call it before the optimiser is made. `accelerator.prepare` then takes the model as it is. Left to itself
    it would round the weights and the divisor of the loss to bfloat16, and it knows tied tables only as long
    as they are whole.

    Args:
        model: with the same weights on every process: `fsdp_cpu_ram_efficient_loading` has to be false.
        accelerator: of the trainer.
    """
    from torch.distributed.fsdp import FSDPModule

    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None or plugin.fsdp_version != 2 or isinstance(model, FSDPModule):
        return
    policy = mixed_precision(torch.bfloat16) if accelerator.mixed_precision == "bf16" else None
    shard(model, mixed_precision=policy, reshard_after_forward=plugin.reshard_after_forward)


def _class_name(module: nn.Module) -> str:
    """Name of the module's class; activation checkpointing of torch puts a wrapper around blocks."""
    return type(getattr(module, "_checkpoint_wrapped_module", module)).__name__
