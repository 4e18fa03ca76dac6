"""What costs most in each phase, by part of the model.

Parts are timed by hooks on modules and by wrapping a few functions, for the time of the measurement only;
nothing in the library knows of it. A part's time is without the parts inside it, and what no part claims is
named as the rest. Clocks instead of a profiler, because recording every tensor operation would multiply the
cost of small ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from molmopoint.eval.speed import phases
from molmopoint.eval.speed.forced_answers import answer
from molmopoint.eval.speed.phases import Plan
from molmopoint.eval.speed.subjects import Subject, picture
from molmopoint.eval.speed.timing import Setting, now
from molmopoint.generation import loop
from molmopoint.generation.rules import DecodingRules
from molmopoint.processing import image_processor

REST = "everything else"
LARGEST = 3

MODULES = (
    ("model.vision_tower.patch_embedding", "ViT patch embedding"),
    ("model.vision_tower.layers.*.self_attn", "ViT attention"),
    ("model.vision_tower.layers.*.mlp", "ViT perceptrons"),
    ("model.vision_tower.layers.*.layer_norm*", "ViT norms"),
    ("model.connector.image_pooling_2d", "connector pooling"),
    ("model.connector.image_projector", "connector projection"),
    ("model.language_model.embed_tokens", "token embedding"),
    ("model.language_model.rotary_emb*", "text rotary tables"),
    ("model.language_model.layers.*.self_attn", "text attention"),
    ("model.language_model.layers.*.mlp", "text perceptrons"),
    ("model.language_model.layers.*.*_layernorm", "text norms"),
    ("model.language_model.norm", "text norms"),
    ("model.build_vit_embedding", "slot embedding"),
    ("model.point_predictor.norm", "pointing norm"),
    ("model.point_predictor.patch", "patch head"),
    ("model.point_predictor.subpatch", "subpatch head"),
    ("model.point_predictor.location", "location head"),
    ("lm_head", "vocabulary head"),
)
"""Pattern of module names -> part."""

FUNCTIONS: tuple[tuple[Any, str, str], ...] = (
    (DecodingRules, "choose", "choice under the rules"),
    (DecodingRules, "advance", "state of the rules"),
    (loop._Answer, "append", "answer buffers"),
    (image_processor, "picture_to_tensor", "reading pixels"),
    (image_processor, "stretch", "resizing"),
    (image_processor, "cut_into_patches", "cutting and normalising"),
    (image_processor, "crop_layout", "tables"),
)
"""Owner, name, part."""


class PartClock:
    """Exclusive seconds per part, from nested starts and stops."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[tuple[str, float]] = []
        self._inside: list[float] = []

    def start(self, part: str) -> None:
        """A part begins."""
        self._open.append((part, now(self.setting)))
        self._inside.append(0.0)

    def stop(self) -> None:
        """The part that began last ends."""
        part, started = self._open.pop()
        spent = now(self.setting) - started
        self.seconds[part] += spent - self._inside.pop()
        if self._inside:
            self._inside[-1] += spent


@contextmanager
def watched(model: nn.Module, clock: PartClock) -> Iterator[None]:
    """Within, the clock is told of every part."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            part = _part_of(name)
            if part is not None:
                before = module.register_forward_pre_hook(
                    lambda _module, _inputs, part=part: clock.start(part)
                )
                after = module.register_forward_hook(lambda _module, _inputs, _output: clock.stop())
                stack.callback(before.remove)
                stack.callback(after.remove)
        for owner, name, part in FUNCTIONS:
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, _timed(original, part, clock))
        yield


def largest_costs(subject: Subject, setting: Setting, plan: Plan) -> list[dict[str, Any]]:
    """The three largest parts of each phase, for one row and the first picture size.

    Returns:
        One entry per phase: `phase`, `milliseconds`, and `parts`, a list of `part`, `milliseconds` and
            `share`.
    """
    setting.activate()
    seen = phases.seen_prompt(subject, plan, 1)
    image = picture(*plan.prompt_size)
    vision = phases.vision_runs(subject, setting, plan)["vision"]
    works: dict[str, Callable[[], object]] = {
        "preprocessing": lambda: subject.image_processor(
            [image], max_crops=subject.max_crops[0], return_tensors="pt"
        ),
        "vision": vision,
        "prefill": lambda: answer(subject, setting, seen, 0, pointing=True),
        "decode": lambda: answer(subject, setting, seen, plan.steps, pointing=True),
    }
    found = {phase: _parts(subject, setting, work) for phase, work in works.items()}
    for part, seconds in found["decode"].items():
        # A decode run starts with a prefill, which is taken off again.
        of_prompt = found["prefill"].get(part, 0.0)
        found["decode"][part] = max(0.0, seconds - of_prompt) / plan.steps
    return [_entry(phase, seconds) for phase, seconds in found.items()]


def _parts(subject: Subject, setting: Setting, work: Callable[[], object]) -> dict[str, float]:
    """Seconds per part of the second of two runs."""
    work()
    clock = PartClock(setting)
    with watched(subject.model, clock):
        clock.start(REST)
        work()
        clock.stop()
    return dict(clock.seconds)


def _entry(phase: str, seconds: dict[str, float]) -> dict[str, Any]:
    total = sum(seconds.values())
    parts = []
    for part in sorted(seconds, key=lambda part: -seconds[part])[:LARGEST]:
        share = seconds[part] / total if total else 0.0
        parts.append({"part": part, "milliseconds": seconds[part] * 1e3, "share": share})
    return {"phase": phase, "milliseconds": total * 1e3, "parts": parts}


def _part_of(name: str) -> str | None:
    """The part that a module belongs to by its dotted name."""
    pieces = name.split(".")
    for pattern, part in MODULES:
        wanted = pattern.split(".")
        # A star stands for (the rest of) one piece.
        if len(pieces) == len(wanted) and all(map(fnmatchcase, pieces, wanted)):
            return part
    return None


def _timed(function: Callable[..., Any], part: str, clock: PartClock) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        clock.start(part)
        try:
            return function(*args, **kwargs)
        finally:
            clock.stop()

    return wrapped
