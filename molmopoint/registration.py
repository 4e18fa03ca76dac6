"""Makes the classes of this library known to the Auto classes of transformers."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoVideoProcessor,
)
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor

from molmopoint.config import MolmoPointConfig
from molmopoint.graft.config import GraftConfig
from molmopoint.graft.network import GraftForConditionalGeneration
from molmopoint.graft.processor import GraftProcessor
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
from molmopoint.processing.processor import stored_model_type


@cache
def register() -> None:
    """Registers config, model and processors with the Auto classes; the second call does nothing.

    Released MolmoPoint repositories name `Molmo2Processor` in their files, as those of Molmo2 do. The native
    class of that name would fill the overview of a picture with tokens that can be chosen, and answers would
    point at things twice. So from now on `Molmo2Processor.from_pretrained`, which `AutoProcessor` and
    `pipeline` call, makes a `MolmoPointProcessor` of files that lie beside the config of a MolmoPoint; all
    other files it reads as before.
    """
    AutoConfig.register(MolmoPointConfig.model_type, MolmoPointConfig, exist_ok=True)
    AutoModelForImageTextToText.register(MolmoPointConfig, MolmoPointForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(MolmoPointConfig, MolmoPointProcessor, exist_ok=True)
    AutoConfig.register(GraftConfig.model_type, GraftConfig, exist_ok=True)
    AutoModelForImageTextToText.register(GraftConfig, GraftForConditionalGeneration, exist_ok=True)
    AutoProcessor.register(GraftConfig, GraftProcessor, exist_ok=True)
    AutoImageProcessor.register(
        MolmoPointConfig, image_processor_classes={"torchvision": MolmoPointImageProcessor}, exist_ok=True
    )
    AutoVideoProcessor.register(MolmoPointConfig, MolmoPointVideoProcessor, exist_ok=True)
    Molmo2Processor.from_pretrained = classmethod(_processor_of_files)


def _processor_of_files(
    cls: type[Molmo2Processor], pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any
) -> Any:
    """The processor of a folder or repository: that of a MolmoPoint if it holds one, else the native one."""
    kwargs |= dict(zip(_POSITIONAL, args, strict=False))
    if (
        cls is Molmo2Processor
        and stored_model_type(pretrained_model_name_or_path, **kwargs) == MolmoPointConfig.model_type
    ):
        return MolmoPointProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
    return super(Molmo2Processor, cls).from_pretrained(pretrained_model_name_or_path, **kwargs)


_POSITIONAL = ("cache_dir", "force_download", "local_files_only", "token", "revision")
"""Arguments of `from_pretrained` behind the first, in their order."""
