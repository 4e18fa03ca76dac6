"""What vLLM calls in each of its processes, before it looks at a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

ARCHITECTURE = "MolmoPointForConditionalGeneration"
NETWORK = "molmopoint.serving.vllm.network:MolmoPointForVLLM"


def register() -> None:
    """Entry point of `vllm.general_plugins`. May be called any number of times."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.transformers_utils.model_arch_config_convertor import MODEL_ARCH_CONFIG_CONVERTORS

    from molmopoint.registration import register as register_with_transformers
    from molmopoint.serving.vllm.engine_config import EngineChecks, MolmoPointShape

    register_with_transformers()
    MODEL_ARCH_CONFIG_CONVERTORS["molmo_point"] = MolmoPointShape
    MODELS_CONFIG_MAP[ARCHITECTURE] = EngineChecks
    ModelRegistry.register_model(ARCHITECTURE, NETWORK)
    _keep_pixels()


def _keep_pixels() -> None:
    """Lets pixels of our pictures reach the workers where the prompt's keys and values are in the prefix cache.

    vLLM drops them there, since its models need a picture once. Points are chosen among features of the
    picture, which a worker may have dropped from its bounded memory and then computes again.
    """
    from vllm.v1.core.sched import output

    strip = output.strip_covered_mm_data
    if getattr(strip, "keeps_pixels_of_molmopoint", False):
        return
    output.strip_covered_mm_data = _strip_but_ours(strip)


def _strip_but_ours(strip: Callable[..., Any]) -> Callable[..., Any]:
    def strip_but_ours(mm_features: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        """The same for the pictures of other models."""
        is_ours = any(feature.data is not None and "pooling" in feature.data for feature in mm_features)
        return mm_features if is_ours else strip(mm_features, *args, **kwargs)

    strip_but_ours.keeps_pixels_of_molmopoint = True  # type: ignore[attr-defined]
    return strip_but_ours
