"""What transformers calls the cache of keys and values: `past_key_values` up to 5.23, `cache` from 5.24 on.

Our own forward passes take either name; calls into transformers use the one it knows: `layer(hidden, **{CACHE: cache})`.
"""

from __future__ import annotations

import inspect
from typing import Final

from transformers import Cache
from transformers.models.molmo2.modeling_molmo2 import Molmo2TextModel

CACHE: Final = "cache" if "cache" in inspect.signature(Molmo2TextModel.forward).parameters else "past_key_values"


def either(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, whichever of its two names it was passed under.

    Raises:
        ValueError: two different caches.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError("expected one cache, got two; `cache` and `past_key_values` are names of the same argument")
    return past_key_values if cache is None else cache
