"""AdamW in groups, each with its own peak, warm-up and clip.

With s the step from 1, w the warm-up, S all steps and f the floor, the rate of a group is `peak * s / w` for
s <= w, then `peak * (f + (1 - f) * (1 + cos(pi * (s - w) / (S - w))) / 2)`, and `f * peak` after S. Source:
public Molmo2 training code. The linear schedule goes from the peak at the first step behind the warm-up to `f
* peak` behind the last one.

Which group a parameter belongs to, and which ones train.

| group | parameters |
| --- | --- |
| vit | vision tower |
| connector | pooling and projector; the added rows of the input table and of an untied output table |
| llm | text model without those rows, its output rows and its adapters |
| point | grounding heads, and the map of ViT features into the text model |
| value | head of a reward model, and its separator |
| frozen | rows of the text model in the input table; if tied, they are its output rows too |

The tables have to be split first, by `split_output_rows`. Names are those of MolmoPoint, of native Molmo2
models and of grafts (where mergers of ViT patches are the connector), with or without the wrappers of PEFT, of
DDP and of compiled modules.

Source: public MolmoPoint training code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from molmopoint.errors import RecipeError
from molmopoint.training.recipe import GROUPS, Recipe
from molmopoint.training.vocabulary_rows import EMBEDDING, HEAD

FROZEN = "frozen"
"""What never trains."""

_RULES = (
    (rf"{EMBEDDING}\.added|{HEAD}\.added", "connector"),
    (rf"{EMBEDDING}\.(base|weight)", FROZEN),
    (r"visual\.(merger|deepstack_merger_list)", "connector"),
    (r"vision_tower|visual", "vit"),
    (r"point_predictor|build_vit_embedding", "point"),
    (r"connector|multi_modal_projector", "connector"),
    (rf"language_model|{HEAD}", "llm"),
    (r"value|separator", "value"),
)
_PATTERNS = tuple((re.compile(rf"(^|\.)({names})(\.|$)"), group) for names, group in _RULES)
_ADAPTER = re.compile(r"(^|\.)lora_")
_ADDED = re.compile(rf"({EMBEDDING}|{HEAD})\.added$")


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name was added by LoRA."""
    return _ADAPTER.search(name) is not None


def group_of(name: str) -> str:
    """Group of a parameter by its name: one of `GROUPS`, or "frozen".

    Raises:
        RecipeError: a name that no part of the model has.
    """
    for pattern, group in _PATTERNS:
        if pattern.search(name):
            return group
    raise RecipeError(
        f"expected a parameter of a MolmoPoint, a Molmo2 or a graft, got {name!r}; train one of these models"
    )


def freeze(model: nn.Module, recipe: Recipe) -> None:
    """Sets what trains.

    Never: the rows of the text model in the input table. Not: groups whose peak is 0; with `recipe.lora`
    everything of the text model but its adapters; with `recipe.heads_only` everything but the heads and the
    added rows. Parameters that cannot have a gradient, such as quantised
    ones, are left as they are.

    Raises:
        RecipeError: nothing is left to train, or `recipe.lora` for a model without adapters.
    """
    peaks = {group: getattr(recipe.groups, group).peak for group in GROUPS}
    has_adapters = any(is_adapter(name) for name, _ in model.named_parameters())
    trained = 0
    for name, parameter in model.named_parameters():
        group = group_of(name)
        has_rate = peaks.get(group, 0.0) > 0
        kept_by_lora = recipe.lora is not None and group == "llm" and not is_adapter(name)
        is_old = group != "point" and _ADDED.search(name) is None
        trains = has_rate and not kept_by_lora and not (recipe.heads_only and is_old)
        if parameter.is_floating_point():
            parameter.requires_grad_(trains)
            trained += trains
    if recipe.lora is not None and not has_adapters:
        raise RecipeError(
            "expected a model with the adapters of recipe.lora, got one without; add them before training"
        )
    if not trained:
        raise RecipeError(f"expected a group with a peak above 0, got {peaks}; set one of recipe.groups")


FUSED_DEVICES = ("cpu", "cuda", "xpu")
"""Where one kernel makes the whole update."""

_UNDECAYED = re.compile(r"norm|positional_embedding|patch_embedding|\.(base|added)$")
"""Names of norms, embeddings and vocabulary rows; biases are known by being vectors."""


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Arguments of the optimiser: the parameters that train, by group and by whether they decay.

    Each has, beside what AdamW knows, "name" (one of `GROUPS`) and "clip". Empty ones are left out.
    """
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (group_of(name), _decays(name, parameter))
            found.setdefault(key, []).append(parameter)

    groups = []
    for name in GROUPS:
        settings = getattr(recipe.groups, name)
        for decays in (True, False):
            parameters = found.get((name, decays))
            if parameters is None:
                continue
            groups.append(
                {
                    "name": name,
                    "params": parameters,
                    "lr": settings.peak,
                    "weight_decay": recipe.optimiser.weight_decay if decays else 0.0,
                    "clip": settings.clip,
                }
            )
    return groups


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim > 1 and _UNDECAYED.search(name) is None


def build_optimiser(model: nn.Module, recipe: Recipe) -> AdamW:
    """AdamW over `parameter_groups`; the rates are the peaks until a schedule is built on it."""
    groups = parameter_groups(model, recipe)
    fused = True
    for group in groups:
        for parameter in group["params"]:
            if isinstance(parameter, DTensor) or parameter.device.type not in FUSED_DEVICES:
                fused = False
    # None leaves the choice to torch, False would forbid its loops over many tensors too.
    return AdamW(groups, betas=recipe.optimiser.betas, eps=recipe.optimiser.eps, fused=fused or None)


def build_schedule(optimiser: Optimizer, recipe: Recipe, steps: int) -> LambdaLR:
    """Rates for `steps` steps; call `step` on it after each step of the optimiser."""
    falling = _linear if recipe.optimiser.shape == "linear" else _cosine
    factors = []
    for group in optimiser.param_groups:
        warmup = getattr(recipe.groups, group["name"]).warmup
        rising = round(warmup * steps) if warmup < 1 else round(warmup)
        factors.append(falling(rising, recipe.optimiser.floor, steps))
    return LambdaLR(optimiser, factors)


def _linear(rising: int, floor: float, steps: int) -> Callable[[int], float]:
    """Part of the peak after so many steps: up in `rising` of them, then down in a line to the floor."""

    def factor(done: int) -> float:
        if done < rising:
            return (done + 1) / rising
        left = max(steps - done, 0) / max(steps - rising, 1)
        return floor + (1 - floor) * left

    return factor


def _cosine(rising: int, floor: float, steps: int) -> Callable[[int], float]:
    """Part of the peak after so many steps: up in `rising` of them, then down along half a cosine to the
    floor.
    """

    def factor(done: int) -> float:
        step = done + 1
        if step <= rising:
            return step / rising
        if step >= steps:
            return floor
        way = (step - rising) / (steps - rising)
        return floor + (1 - floor) * (1 + math.cos(math.pi * way)) / 2

    return factor


def clip_groups(optimiser: Optimizer, *, together: bool = False) -> dict[str, Tensor]:
    """Scales the gradients of each group down to its own limit; nothing is sent to the host.

    Args:
        optimiser: over `parameter_groups`.
        together: scale all of them by the norm of everything, to the smallest limit.

    Returns:
        L2 norm of each group before, a float32 scalar on the device; 0 for a group without gradients. The
        same on all ranks.
    """
    members: dict[str, list[nn.Parameter]] = {}
    limits = {}
    for group in optimiser.param_groups:
        name = group["name"]
        limits[name] = group["clip"]
        with_gradient = [parameter for parameter in group["params"] if parameter.grad is not None]
        members.setdefault(name, []).extend(with_gradient)
    norms = {name: _norm(parameters) for name, parameters in members.items()}

    whole = torch.linalg.vector_norm(torch.stack(list(norms.values()))) if together else None
    for name, parameters in members.items():
        limit, norm = limits[name], norms[name]
        if whole is not None:
            limit, norm = min(limits.values()), whole
        for same_mesh in _by_mesh(parameters):
            clip_grads_with_norm_(same_mesh, limit, norm)
    return norms


def _by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Sharded parameters by mesh, and the others: no kernel takes both."""
    meshes: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        mesh = parameter.grad.device_mesh if isinstance(parameter.grad, DTensor) else None
        meshes.setdefault(mesh, []).append(parameter)
    return list(meshes.values())


def _norm(parameters: list[nn.Parameter]) -> Tensor:
    """L2 norm of their gradients, a float32 scalar."""
    parts = []
    for same_mesh in _by_mesh(parameters):
        gradients = [parameter.grad for parameter in same_mesh if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        parts.append(norm.float())
    if not parts:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(parts))
