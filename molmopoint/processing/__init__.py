"""From what people bring (pictures, clips, text) to what the model reads, and back."""

from molmopoint.processing.image import MolmoPointImageProcessor
from molmopoint.processing.pictures import load_picture
from molmopoint.processing.processor import MolmoPointProcessor
from molmopoint.processing.video import MolmoPointVideoProcessor

__all__ = ["MolmoPointImageProcessor", "MolmoPointProcessor", "MolmoPointVideoProcessor", "load_picture"]
