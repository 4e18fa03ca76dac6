"""What most people call: `load` a model, then `point`, `count`, `stream`."""

from molmopoint.backends.media import EncodedImage
from molmopoint.backends.result import PointingResult
from molmopoint.pipeline.load import load
from molmopoint.pipeline.pointer import Pointer
from molmopoint.pipeline.streaming import AnswerStream
from molmopoint.pipeline.track_result import TrackingResult

__all__ = ["AnswerStream", "EncodedImage", "Pointer", "PointingResult", "TrackingResult", "load"]
