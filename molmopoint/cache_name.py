"""What transformers calls the cache of keys and values: `past_key_values` up to 5.23, `cache` from 5.24 on.

Our own forward passes take either name; calls into transformers use the one it knows: `layer(hidden, **{CACHE: cache})`.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Final

from transformers import Cache
from transformers.models.molmo2.modeling_molmo2 import Molmo2TextModel

CACHE: Final = "cache" if "cache" in inspect.signature(Molmo2TextModel.forward).parameters else "past_key_values"


def either(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, whichever of its two names it was passed under; the older one is told to be deprecated where it is.

    Raises:
        ValueError: two different caches.
    """
    if cache is not None and past_key_values is not None and cache is not past_key_values:
        raise ValueError("expected one cache, got two; `cache` and `past_key_values` are names of the same argument")
    if past_key_values is not None and CACHE == "cache":
        tell_deprecated()
    return past_key_values if cache is None else cache


@functools.cache
def tell_deprecated() -> None:
    """Says that the older name goes away: once, and past filters, because after its removal calls with it fail."""
    message = FutureWarning("`past_key_values` is deprecated and will be removed in transformers 5.40; pass the cache as `cache`")
    warnings.showwarning(message, FutureWarning, __file__, inspect.currentframe().f_lineno)  # type: ignore[union-attr]
