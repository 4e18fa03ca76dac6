"""Makes the classes of this library known to the Auto classes of transformers."""

from __future__ import annotations

from functools import cache

from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoVideoProcessor

from molmopoint.config import MolmoPointConfig
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor


@cache
def register() -> None:
    """Registers config, model and processors with the Auto classes; the second call does nothing.

    Released repositories name `Molmo2Processor` in their files, which `AutoProcessor` resolves to the native class. Use
    `molmopoint.load` or `MolmoPointProcessor.from_pretrained` for them.
    """
    AutoConfig.register(MolmoPointConfig.model_type, MolmoPointConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MolmoPointConfig, MolmoPointForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(MolmoPointConfig, MolmoPointProcessor, exist_ok=True)
    AutoImageProcessor.register(MolmoPointConfig, image_processor_classes={"torchvision": MolmoPointImageProcessor}, exist_ok=True)
    AutoVideoProcessor.register(MolmoPointConfig, MolmoPointVideoProcessor, exist_ok=True)
