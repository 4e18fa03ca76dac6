"""What vLLM asks of a model's config, and what of an engine's settings is refused when it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.model_executor.models.config import VerifyAndUpdateConfig
from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

from molmopoint.serving.vllm.versions import EngineError, check_versions

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig

REQUEST_CHECKS = "molmopoint.serving.vllm.request_checks:RequestChecks"


class MolmoPointShape(ModelArchConfigConvertorBase):
    """Sizes of a MolmoPoint."""

    def get_vocab_size(self) -> int:
        """Rows that vLLM keeps for tokens: those of the tables, and places, of which a prompt has fewer than
        tokens.
        """
        return self.hf_config.extended_start + self.hf_text_config.max_position_embeddings

    def is_mm_prefix_lm(self, supports_multimodal: bool = True) -> bool:
        """Image tokens see each other in both directions."""
        return supports_multimodal


class EngineChecks(VerifyAndUpdateConfig):
    """Settings that a pointing model cannot have."""

    @staticmethod
    def verify_and_update_model_config(model_config: ModelConfig) -> None:
        """Checks what is installed, before a worker starts.

        Raises:
            EngineError: a version that does not fit.
        """
        check_versions()

    @staticmethod
    def verify_and_update_config(vllm_config: VllmConfig) -> None:
        """Refuses what would give other points, or none; and has every request checked when it arrives.

        Raises:
            EngineError: what to leave out, and why.
        """
        check_versions()
        for is_wrong, expected in _faults(vllm_config):
            if is_wrong:
                raise EngineError(expected)
        model = vllm_config.model_config
        model.logits_processors = [*(model.logits_processors or []), REQUEST_CHECKS]
        vllm_config.scheduler_config.disable_chunked_mm_input = True


def _faults(vllm_config: Any) -> list[tuple[bool, str]]:
    """Pairs of whether a setting is wrong, and what to say of it."""
    parallel = vllm_config.parallel_config
    return [
        (
            not vllm_config.use_v2_model_runner,
            "expected vLLM's model runner V2, which keeps the state of points, got V1; unset "
            "VLLM_USE_V2_MODEL_RUNNER=0 and whatever else makes vLLM choose V1 (its log says what)",
        ),
        (
            vllm_config.speculative_config is not None,
            "expected no speculative decoding, got some: drafts know nothing of places; leave it out",
        ),
        (
            parallel.pipeline_parallel_size > 1,
            f"expected one pipeline stage, got {parallel.pipeline_parallel_size}; use tensor parallelism, which "
            "splits every layer, or data parallelism",
        ),
        (
            getattr(parallel, "decode_context_parallel_size", 1) > 1,
            "expected no context parallelism, got some: keys of patches are read from one cache; leave it out",
        ),
        (
            getattr(parallel, "enable_batch_sharded_sampling", False),
            "expected no batch-sharded sampling, got some: places are chosen by every worker; leave it out",
        ),
        (
            str(vllm_config.cache_config.cache_dtype).startswith("fp8"),
            "expected keys and values in the dtype of the model, got an fp8 cache, in which keys of patches "
            "would tie; leave --kv-cache-dtype out",
        ),
        (
            vllm_config.lora_config is not None,
            "expected no LoRA adapters, got some; merge them with `molmopoint finetune` or peft first",
        ),
    ]
