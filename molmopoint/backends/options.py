"""Options of one call, checked before any work is done.

What the model is sent for what a person types.

A request is sent as it is, a noun phrase is wrapped in a sentence. `template` overrides the choice: `"{}"`
sends anything verbatim.

The default sentence, "Point to {}", is that of the examples on the cards of the released models ("Point to
the boats"), and the one that the embedded model was trained on. It is not among the 43 sentences that the
published training draws from, which are longer; one of those, `ABSENCE_TEMPLATE`, allows the model to say
that there is nothing to point at.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

from molmopoint.backends.zoom import Zoom, zoom_of
from molmopoint.errors import ProcessingError

POINTING_TEMPLATE = "Point to {}"
"""Form of a request that only names what to find; no full stop, as on the cards of the released models."""

ABSENCE_TEMPLATE = "Point to {}\nPlease say 'There are none.' if it is not in the image."
"""Form for things that may be absent; a sentence of the published training, so released models know it (the
embedded one does not).
"""

COUNTING_TEMPLATE = "How many {} are there?"
"""Form of a request to count; models answer it by pointing first."""

REQUEST_VERBS = frozenset(
    {
        "point", "find", "locate", "show", "count", "click", "where", "which", "what", "who", "how", "tap", "touch", "press",
        "select", "choose", "pick", "mark", "highlight", "label", "identify", "detect", "list", "name", "give", "describe",
        "tell", "track", "follow", "look", "search", "spot", "indicate", "is", "are", "does", "do", "can", "could", "please",
    }
)  # fmt: skip
"""First words that make a text a request of its own."""

_SENTENCE_ENDS = (".", "?", "!")
_SLOT = "{}"


def complete_prompt(text: str, template: str | None = None, *, default: str = POINTING_TEMPLATE) -> str:
    """The request that is sent for a text.

    Args:
        text: what the person typed; surrounding blanks are dropped unless a template is given.
        template: where the text goes, as in `"Click on {}"`; the text is then put in untouched.
        default: the template of a noun phrase when none is given.

    Raises:
        ProcessingError: the text is empty or no Unicode, or the template has no single `{}`.

    >>> complete_prompt("the red circles")
    'Point to the red circles'
    >>> complete_prompt("Where is the exit?")
    'Where is the exit?'
    >>> complete_prompt("exit", template="Click on {}.")
    'Click on exit.'
    """
    if not isinstance(text, str):
        raise ProcessingError(
            f"expected the prompt as text, got {type(text).__name__}; pictures come first, then the prompt"
        )
    if not text.strip():
        raise ProcessingError(
            "expected a prompt such as 'the red circles', got an empty one; say what to point at"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ProcessingError(
            f"expected a prompt of Unicode text, got half of a character ({error}); decode it as UTF-8"
        ) from error
    if template is not None:
        return fill_template(template, text)
    text = text.strip()
    return text if is_request(text) else fill_template(default, text)


def is_request(text: str) -> bool:
    """Whether a text is a sentence of its own: it ends like one, or starts with one of `REQUEST_VERBS`.

    >>> is_request("find the cup"), is_request("the cup"), is_request("pointed arches")
    (True, False, False)
    """
    words = text.split(maxsplit=1)
    if not words:
        return False
    first = words[0].lower().rstrip(",:;").removesuffix("'s")
    return text.rstrip().endswith(_SENTENCE_ENDS) or first in REQUEST_VERBS


def fill_template(template: str, text: str) -> str:
    """Puts the text in place of the template's `{}`; other braces, in either, mean nothing.

    Raises:
        ProcessingError: the template is no text, or has not exactly one `{}`.
    """
    if not isinstance(template, str) or template.count(_SLOT) != 1:
        raise ProcessingError(
            f"expected a template with one {{}} for the prompt, such as 'Point to {{}}', got {template!r}; "
            "use template='{}' to send the prompt exactly as typed"
        )
    return template.replace(_SLOT, text)


DEFAULT_MAX_NEW_TOKENS = 2048
"""Tokens of an answer: enough for about four hundred points."""

_MOST_TOKENS = 100_000
"""More than any model here has positions: an answer ends before, and what is set aside for it stays small."""

_COLDEST = 1e-6
"""Temperatures below it are 0: divided by them logits would leave the range of a float, and the choice would be
anyone's.
"""

_SAMPLING_HINTS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"}
)
"""Arguments that mean nothing without sampling: whoever gives one wants to sample."""

_LARGEST, _SMALLEST = sys.float_info.max, sys.float_info.min

_RANGES = {
    "temperature": (0.0, _LARGEST),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "typical_p": (0.0, 1.0),
    "epsilon_cutoff": (0.0, 1.0),
    "eta_cutoff": (0.0, 1.0),
    "repetition_penalty": (_SMALLEST, _LARGEST),
    "max_time": (0.0, _LARGEST),
}
"""Smallest and largest value of the numbers that transformers checks late, or not at all."""

_COUNTS = ("top_k", "no_repeat_ngram_size")
"""Whole numbers of the same kind; 0 is for none."""

_OURS = frozenset(
    {
        "max_length", "min_length", "max_new_tokens", "num_return_sequences", "return_dict_in_generate", "output_scores",
        "output_logits", "output_attentions", "output_hidden_states", "eos_token_id", "pad_token_id", "bos_token_id", "use_cache",
    }
)  # fmt: skip
"""Generation arguments that the pipeline sets itself; a result has one answer of one form."""

_CALLED_ELSEWHERE = {
    "conf": "min_score",
    "confidence": "min_score",
    "score_threshold": "min_score",
    "threshold": "min_score",
}
"""Names that detectors have for an option of ours, and too far from it to be taken for misspelt."""


@dataclass(frozen=True)
class AnswerOptions:
    """How one request is answered.

    Attributes:
        max_new_tokens: length limit of the answer; an answer it cuts has `truncated` set.
        max_points: most points of the answer, None for no limit.
        single: exactly one point, as screen benchmarks need it.
        max_crops: most crops per picture; None for the checkpoint's own number. More crops see smaller
            things.
        template: where the prompt goes, `"{}"` to send it exactly as typed; see
            `molmopoint.backends.options`.
        sampling: arguments of `generate`, such as `temperature` or `top_p`; greedy without.
        allow_urls: fetch pictures from addresses of the web, from public hosts alone.
        min_score: points with a lower score are left out of the result; None for no limit.
        calibrated: scores are chances that points are right, by the map that the checkpoint ships; `min_score`
            is on their scale then.
        zoom: look again at native pixels around the likeliest places; True for the usual options.
    """

    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    max_points: int | None = None
    single: bool = False
    max_crops: int | None = None
    template: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    allow_urls: bool = False
    min_score: float | None = None
    calibrated: bool = False
    zoom: bool | Zoom = False

    def __post_init__(self) -> None:
        for name, value in (
            ("max_new_tokens", self.max_new_tokens),
            ("max_points", self.max_points),
            ("max_crops", self.max_crops),
        ):
            optional = name != "max_new_tokens"
            if value is None and optional:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ProcessingError(
                    f"expected {name} to be a whole number of 1 or more{' or None' * optional}, got {value!r}"
                )
            object.__setattr__(self, name, int(value))  # of NumPy, perhaps
        for name in ("single", "allow_urls", "calibrated"):
            if not isinstance(getattr(self, name), bool):
                raise ProcessingError(f"expected {name} to be True or False, got {getattr(self, name)!r}")
        if self.min_score is not None:
            is_number = isinstance(self.min_score, Real) and not isinstance(self.min_score, bool)
            if not is_number or not 0 <= self.min_score <= 1:
                raise ProcessingError(
                    f"expected min_score to be a number in 0..1 or None, got {self.min_score!r}"
                )
            object.__setattr__(self, "min_score", float(self.min_score))
        if zoom_of(self.zoom) is not None and self.calibrated:
            raise ProcessingError(
                "expected zoom or calibrated=True, got both; calibrations are fitted on scores of a single look"
            )
        object.__setattr__(self, "sampling", _checked_sampling(self.sampling))

    @classmethod
    def of(cls, **options: Any) -> AnswerOptions:
        """Options as they arrive as keywords of a call; what is no field of ours is a sampling argument."""
        own = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        return cls(**own, sampling=options)

    @property
    def looks_again(self) -> Zoom | None:
        """How the picture is looked at again; None where one look is all."""
        return zoom_of(self.zoom)

    def for_one_look(self) -> AnswerOptions:
        """The same for each look of an answer with zoom: points are left out by their score at the end."""
        if self.looks_again is None:
            return self
        return replace(self, zoom=False, min_score=None)

    @property
    def point_limit(self) -> int | None:
        """Most points of the answer; None for no limit."""
        if self.single:
            return 1
        return None if self.max_points is None else min(self.max_points, _MOST_TOKENS)

    def generate_arguments(self) -> dict[str, Any]:
        """Keywords for `model.generate` that every family knows."""
        return {"do_sample": False, **self.sampling, "max_new_tokens": min(self.max_new_tokens, _MOST_TOKENS)}


def question_options(options: Mapping[str, Any]) -> AnswerOptions:
    """Options of a plain question, from the keywords of a call.

    Raises:
        TypeError: an option that is for points.
    """
    for name in ("max_points", "single", "template", "min_score", "calibrated", "zoom"):
        if name in options:
            raise TypeError(
                f"unexpected option {name!r} for a plain question, which is sent as it is; use `point` to "
                "point"
            )
    return AnswerOptions.of(**options, template="{}")


def refuse_zoom(options: AnswerOptions) -> None:
    """Refuses to look again at a clip.

    Raises:
        ProcessingError: the options ask for it.
    """
    if options.looks_again is not None:
        raise ProcessingError(
            "expected zoom=False for a clip, got zoom: a clip is looked at frame by frame, each a single crop; "
            "leave zoom out, or take a frame as a picture"
        )


def _checked_sampling(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Sampling arguments without misspelt ones; a temperature of 0 means greedy."""
    checked = dict(sampling)
    for name in checked:
        _check_name(name)
    _check_numbers(checked)
    if not isinstance(checked.get("do_sample", False), bool):
        raise ProcessingError(f"expected do_sample to be True or False, got {checked['do_sample']!r}")
    if checked.get("temperature", 1.0) < _COLDEST:
        checked = {name: value for name, value in checked.items() if name not in _SAMPLING_HINTS} | {
            "do_sample": False
        }
    if _SAMPLING_HINTS & checked.keys():
        checked.setdefault("do_sample", True)
    return checked


def _check_numbers(sampling: dict[str, Any]) -> None:
    """Refuses sampling arguments that are no numbers or out of range; those of NumPy become plain ones."""
    for name, (low, top) in _RANGES.items():
        value = sampling.get(name)
        if value is None:
            continue
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not is_number or value < low or not value <= top:  # NaN is nowhere
            fitting = f"above 0, at most {top:g}" if low else f"in 0..{top:g}"
            raise ProcessingError(f"expected {name} to be a number {fitting}, got {value!r}")
        sampling[name] = float(value)
    for name in _COUNTS:
        value = sampling.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
            raise ProcessingError(f"expected {name} to be a whole number of 0 or more, got {value!r}")
        sampling[name] = int(value)


def _check_name(name: str) -> None:
    """Refuses an argument that `generate` does not know, or that is ours.

    Raises:
        TypeError: such a name; the nearest one is told.
    """
    if name in _SAMPLING_HINTS:
        return
    if name in _OURS:
        raise TypeError(f"{name} is set by the pipeline; call `model.generate` itself to change it")
    from transformers import GenerationConfig  # here, because it takes seconds to import

    known = {field for field in vars(GenerationConfig()) if not field.startswith("_")} - _OURS
    if name in known:
        return
    if name in _CALLED_ELSEWHERE:
        raise TypeError(f"unexpected option {name!r}; here it is {_CALLED_ELSEWHERE[name]}")
    near = difflib.get_close_matches(name, [*known, *AnswerOptions.__dataclass_fields__, "history"], n=1)
    hint = (
        f"; did you mean {near[0]}?"
        if near
        else "; see `help(molmopoint.pipeline.Pointer.point)` for the options"
    )
    raise TypeError(f"unexpected option {name!r}{hint}")
