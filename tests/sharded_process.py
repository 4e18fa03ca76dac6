"""One of two processes that shard tiny models under gloo: `python tests/sharded_process.py RANK FOLDER`.

Rank 0 writes what it found into FOLDER/found.json; `test_sharding.py` starts both and reads it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny import Rows, random_model, tiny_config
from tiny_training import ANSWER, conversation, row, training_batch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from molmopoint.training.optimiser import build_optimiser, clip_groups, freeze
from molmopoint.training.recipe import Groups, GroupSettings, Lora, Recipe
from molmopoint.training.sharding import mixed_precision, shard, shard_as_launched
from molmopoint.training.vocabulary_rows import split_output_rows

RANKS = 2


RECIPE = Recipe(groups=Groups(*(GroupSettings(1e-3, clip=clip) for clip in (0.1, 0.2, 0.3, 0.4))))
ADAPTERS = replace(RECIPE, lora=Lora())


def tied_model() -> nn.Module:
    return random_model(1, text_config=tiny_config().text_config.to_dict() | {"tie_word_embeddings": True})


def prepared(model: nn.Module, recipe: Recipe = RECIPE) -> nn.Module:
    """As the trainer prepares a model: vocabulary tables in two parts, base embeddings frozen."""
    split_output_rows(model)
    freeze(model, recipe)
    return model


def adapted_model() -> nn.Module:
    import peft

    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=4, target_modules=r".*language_model.*(q_proj|o_proj|up_proj)", init_lora_weights=False
    )
    return prepared(peft.get_peft_model(random_model(1), settings), ADAPTERS)


def checkpointed_model() -> nn.Module:
    model = random_model(1)
    model.gradient_checkpointing_enable()
    return prepared(model)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: random_model(1),
    "tied": tied_model,
    "prepared": lambda: prepared(random_model(1)),
    "tied and prepared": lambda: prepared(tied_model()),
    "without ViT": lambda: prepared(
        random_model(1), replace(RECIPE, groups=replace(RECIPE.groups, vit=GroupSettings(0)))
    ),
    "adapted": adapted_model,
    "checkpointed": checkpointed_model,
}


def batches() -> list[list[dict[str, Any]]]:
    """For two micro-steps one batch per rank: pictures with points on one of them, text without either on the
    other.
    """
    config = random_model().config
    samples = Rows(config, 3).prompts([["image"], ["image"]], words=[0, 0])
    ids = torch.randint(3, 90, (2, 12), generator=torch.Generator().manual_seed(0))
    text = {"input_ids": ids, "shift_labels": ids.roll(-1, 1), "loss_weights": torch.full(ids.shape, 0.3)}
    points = []
    for sample, answer in zip(samples, ANSWER, strict=True):
        points.append(
            training_batch(config, [row(config, sample, [conversation(config, [20, 30], answer)])], [sample])
        )
    return [[points[0], text], [text, points[1]]]


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad
            found[name] = (grad.full_tensor() if isinstance(grad, DTensor) else grad).clone()
    return found


def backward(model: nn.Module, steps: list[dict[str, Any]], divisor: float) -> float:
    """The summed loss of some micro-batches."""
    total = 0.0
    for batch in steps:
        loss = model(**batch, num_items_in_batch=torch.tensor(divisor)).loss
        loss.backward()
        total += float(loss)
    return total


def largest_difference(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative to the norm of the expected tensor, with a floor for tensors that are nothing but rounding."""
    assert ours.keys() == expected.keys(), set(ours) ^ set(expected)
    floor = 1e-3 * float(torch.stack([tensor.norm() for tensor in expected.values()]).max())
    return max(
        float((ours[name] - tensor).norm()) / max(float(tensor.norm()), floor)
        for name, tensor in expected.items()
    )


def examine(make: Callable[[], nn.Module], rank: int) -> dict[str, Any]:
    """One model, whole with the batches of both ranks and sharded with those of this one."""
    steps = batches()
    divisor = sum(
        float(batch["loss_weights"][batch["shift_labels"] != -100].sum()) for step in steps for batch in step
    )
    whole, sharded = make().train(), make().train()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    loss = backward(whole, [batch for step in steps for batch in step], divisor)

    shard(sharded)
    gathered = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True))
    # FSDP averages over ranks, so the loss of each is multiplied by their number.
    part = torch.tensor(backward(sharded, [step[rank] for step in steps], divisor / RANKS) / RANKS)
    dist.all_reduce(part)
    found = {
        "losses": [loss, float(part)],
        "gradients": largest_difference(gradients(sharded), gradients(whole)),
        "frozen": sorted(
            name for name, parameter in sharded.named_parameters() if not parameter.requires_grad
        ),
        "without_gradient": sorted(
            name for name, p in sharded.named_parameters() if p.requires_grad and p.grad is None
        ),
        "state_equal": gathered.keys() == before.keys()
        and all(bool((gathered[name] == before[name]).all()) for name in before),
    }
    return found | shards(sharded) | clip_and_step(whole, sharded)


def shards(model: nn.Module) -> dict[str, Any]:
    """What is gathered together, and how the parameters are divided."""
    parameters = list(model.parameters())
    return {
        "units": units(model),
        "sharded": all(isinstance(parameter, DTensor) for parameter in parameters),
        "by_rows": all(
            len(p.placements) == 1 and p.placements[0].is_shard(0)
            for p in parameters
            if isinstance(p, DTensor)
        ),
        "held": sum(p.to_local().numel() for p in parameters if isinstance(p, DTensor)),
        "whole": sum(parameter.numel() for parameter in parameters),
    }


def units(model: nn.Module) -> list[str]:
    return sorted(name for name, module in model.named_modules() if isinstance(module, FSDPModule))


def clip_and_step(whole: nn.Module, sharded: nn.Module) -> dict[str, Any]:
    """Norms by group before clipping, and how far clipped gradients and stepped parameters are apart."""
    optimisers = [build_optimiser(model, RECIPE) for model in (whole, sharded)]
    norms = [{name: float(norm) for name, norm in clip_groups(optimiser).items()} for optimiser in optimisers]
    clipped = largest_difference(gradients(sharded), gradients(whole))
    for optimiser in optimisers:
        optimiser.step()
    stepped = {
        name: parameter.full_tensor()
        for name, parameter in sharded.named_parameters()
        if isinstance(parameter, DTensor)
    }
    return {
        "norms": norms,
        "clipped": clipped,
        "stepped": largest_difference(stepped, dict(whole.named_parameters())),
    }


def units_of_accelerate() -> dict[str, list[list[str]]]:
    """What accelerate wraps, beside what we wrap. Its own switch needs a GPU, the function behind it does
    not.
    """
    from accelerate import Accelerator
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    accelerator = Accelerator(cpu=True)
    accelerator.state.fsdp_plugin = plugin
    found = {}
    for name in ("plain", "tied", "prepared", "adapted"):
        ours = MODELS[name]()
        shard_as_launched(ours, accelerator)
        assert fsdp2_prepare_model(accelerator, ours) is ours
        found[name] = [units(ours), units(fsdp2_prepare_model(accelerator, MODELS[name]()))]
    return found


def half_precision(rank: int) -> dict[str, Any]:
    """Loss and dtypes with products in bfloat16, beside those in float32."""
    batch = batches()[rank][rank]
    losses = []
    for policy in (None, mixed_precision(torch.bfloat16)):
        model: Any = random_model(1).train()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.5)
        shard(model, mixed_precision=policy)
        out = model(**batch, num_items_in_batch=torch.tensor(1001.0))
        out.loss.backward()
        losses.append(float(out.loss))
    weights = batch["loss_weights"][batch["shift_labels"] != -100]
    dtypes = {str(parameter.grad.dtype) for parameter in model.parameters()}
    return {
        "losses": losses,
        "divisor": float(torch.stack(list(out.loss_sums.values())).sum() / out.loss),
        "weight_sums": [float(weights.sum()), float(out.weight_sum)],
        "dtypes": sorted(dtypes | {str(out.loss.dtype)}),
    }


def main(rank: int, folder: Path) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS), MASTER_ADDR="127.0.0.1", MASTER_PORT="0"
    )
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=RANKS)
    found: dict[str, Any] = {name: examine(make, rank) for name, make in MODELS.items()}
    found["half"] = half_precision(rank)
    found["accelerate"] = units_of_accelerate()
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
