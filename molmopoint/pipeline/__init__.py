"""What most people call: `load` a model, then `point`, `count`, `stream`.

Other names than `load` are imported when they are first used, and `load` itself imports the libraries of
models when it knows that there is such a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from molmopoint.lazy import lazy_names
from molmopoint.pipeline.load import load

if TYPE_CHECKING:
    from molmopoint.backends.media import EncodedImage
    from molmopoint.backends.result import PointingResult
    from molmopoint.pipeline.pointer import Pointer
    from molmopoint.pipeline.streaming import AnswerStream
    from molmopoint.pipeline.track_result import TrackingResult

__all__ = ["AnswerStream", "EncodedImage", "Pointer", "PointingResult", "TrackingResult", "load"]

_HOMES = {
    "AnswerStream": "streaming",
    "EncodedImage": "pointer",
    "Pointer": "pointer",
    "PointingResult": "pointer",
    "TrackingResult": "track_result",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
