"""Options of one call, checked before any work is done."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import GenerationConfig

from molmopoint.errors import ProcessingError

DEFAULT_MAX_NEW_TOKENS = 2048
"""Tokens of an answer: enough for about four hundred points."""

_SAMPLING_HINTS = frozenset({"temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"})
"""Arguments that mean nothing without sampling: whoever gives one wants to sample."""

_TOPS = {"temperature": sys.float_info.max, "top_p": 1.0, "min_p": 1.0}
"""Largest value of the arguments that transformers checks late, or not at all."""

_OURS = frozenset(
    {
        "max_length", "min_length", "max_new_tokens", "num_return_sequences", "return_dict_in_generate", "output_scores",
        "output_logits", "output_attentions", "output_hidden_states", "eos_token_id", "pad_token_id", "bos_token_id", "use_cache",
    }
)  # fmt: skip
"""Generation arguments that the pipeline sets itself; a result has one answer of one form."""


@dataclass(frozen=True)
class AnswerOptions:
    """How one request is answered.

    Attributes:
        max_new_tokens: length limit of the answer; an answer it cuts has `truncated` set.
        max_points: most points of the answer, None for no limit.
        single: exactly one point, as screen benchmarks need it.
        max_crops: most crops per picture; None for the checkpoint's own number. More crops see smaller things.
        template: where the prompt goes, `"{}"` to send it exactly as typed; see `molmopoint.pipeline.prompts`.
        sampling: arguments of `generate`, such as `temperature` or `top_p`; greedy without.
        allow_urls: fetch pictures from addresses of the web, from public hosts alone.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    max_points: int | None = None
    single: bool = False
    max_crops: int | None = None
    template: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    allow_urls: bool = False

    def __post_init__(self) -> None:
        for name, value in (("max_new_tokens", self.max_new_tokens), ("max_points", self.max_points), ("max_crops", self.max_crops)):
            optional = name != "max_new_tokens"
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ProcessingError(f"expected {name} to be a whole number of 1 or more{' or None' * optional}, got {value!r}")
        for name in ("single", "allow_urls"):
            if not isinstance(getattr(self, name), bool):
                raise ProcessingError(f"expected {name} to be True or False, got {getattr(self, name)!r}")
        object.__setattr__(self, "sampling", _checked_sampling(self.sampling))

    @classmethod
    def of(cls, **options: Any) -> AnswerOptions:
        """Options as they arrive as keywords of a call; what is no field of ours is a sampling argument."""
        own = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        return cls(**own, sampling=options)

    @property
    def point_limit(self) -> int | None:
        """Most points of the answer; None for no limit."""
        return 1 if self.single else self.max_points

    def generate_arguments(self) -> dict[str, Any]:
        """Keywords for `model.generate` that every family knows."""
        return {"do_sample": False, **self.sampling, "max_new_tokens": self.max_new_tokens}


def question_options(options: Mapping[str, Any]) -> AnswerOptions:
    """Options of a plain question, from the keywords of a call.

    Raises:
        TypeError: an option that is for points.
    """
    for name in ("max_points", "single", "template"):
        if name in options:
            raise TypeError(f"unexpected option {name!r} for a plain question, which is sent as it is; use `point` to point")
    return AnswerOptions.of(**options, template="{}")


def _checked_sampling(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling arguments without misspelt ones; a temperature of 0 means greedy."""
    checked = dict(sampling)
    known = {name for name in vars(GenerationConfig()) if not name.startswith("_")} - _OURS
    for name in checked:
        if name in _OURS:
            raise TypeError(f"{name} is set by the pipeline; call `model.generate` itself to change it")
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *AnswerOptions.__dataclass_fields__, "history"], n=1)
            hint = f"; did you mean {near[0]}?" if near else "; see `help(molmopoint.pipeline.Pointer.point)` for the options"
            raise TypeError(f"unexpected option {name!r}{hint}")
    for name, top in _TOPS.items():
        value = checked.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= top):
            raise ProcessingError(f"expected {name} to be a number in 0..{top:g}, got {value!r}")
    if checked.get("temperature") == 0:
        checked = {name: value for name, value in checked.items() if name not in _SAMPLING_HINTS} | {"do_sample": False}
    if _SAMPLING_HINTS & checked.keys():
        checked.setdefault("do_sample", True)
    return checked
