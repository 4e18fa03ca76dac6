"""From what people bring (pictures, clips, text) to what the model reads, and back."""

from molmopoint.processing.grounding_answers import write_answer
from molmopoint.processing.image_processor import MolmoPointImageProcessor
from molmopoint.processing.message_tree import LossWeighting, MessageTree, build_row
from molmopoint.processing.molmo2_processor import Molmo2PointingProcessor
from molmopoint.processing.pictures import load_picture
from molmopoint.processing.processor import MolmoPointProcessor
from molmopoint.processing.rows import Row, collate, pack
from molmopoint.processing.text_points import read_text_answer
from molmopoint.processing.video_processor import MolmoPointVideoProcessor

__all__ = [
    "LossWeighting",
    "MessageTree",
    "Molmo2PointingProcessor",
    "MolmoPointImageProcessor",
    "MolmoPointProcessor",
    "MolmoPointVideoProcessor",
    "Row",
    "build_row",
    "collate",
    "load_picture",
    "pack",
    "read_text_answer",
    "write_answer",
]
