"""What a checkpoint may say about decoding: which tokens begin, end and pad an answer.

A `generation_config.json` can switch on beams, several answers, penalties, banned words, other stops or
limits. Answers that hold points have rules of their own, and whoever asks chooses the rest, so nothing else
of such a file counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import GenerationConfig

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_UNSAID = {*_TOKENS, "transformers_version", "_from_model_config", "_commit_hash"}
"""Fields that change nothing, or that are taken."""


def tokens_alone(stored: GenerationConfig, vocabulary: int) -> tuple[GenerationConfig, tuple[str, ...]]:
    """The begin, end and padding tokens of a stored generation config, and the names of the fields that were
    left out.

    Args:
        stored: of a checkpoint.
        vocabulary: V + A of its model; ids that are no rows of its tables are left out as well.
    """
    given = {name: getattr(stored, name, None) for name in _TOKENS}
    valid = {name: _valid_ids(value, vocabulary) for name, value in given.items()}
    unset, usual = GenerationConfig().to_dict(), GenerationConfig._get_default_generation_params()
    normal = {name: (unset.get(name), usual.get(name, False)) for name in stored.to_dict()}
    changed = {name for name, value in stored.to_dict().items() if value not in normal[name]}
    ignored = (changed - _UNSAID) | {name for name in _TOKENS if given[name] != valid[name]}
    return GenerationConfig(**valid), tuple(sorted(ignored))


def _valid_ids(value: Any, vocabulary: int) -> int | list[int] | None:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [token_id for token_id in value if _valid_ids(token_id, vocabulary) is not None] or None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocabulary:
        return None
    return value
