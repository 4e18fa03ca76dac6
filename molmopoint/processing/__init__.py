"""From what people bring (pictures, clips, text) to what the model reads, and back."""

from molmopoint.processing.image_processor import MolmoPointImageProcessor
from molmopoint.processing.molmo2_processor import Molmo2PointingProcessor
from molmopoint.processing.pictures import load_picture
from molmopoint.processing.processor import MolmoPointProcessor
from molmopoint.processing.video_processor import MolmoPointVideoProcessor

__all__ = [
    "Molmo2PointingProcessor",
    "MolmoPointImageProcessor",
    "MolmoPointProcessor",
    "MolmoPointVideoProcessor",
    "load_picture",
]
