"""What one request may ask for; checked in the process that takes requests, so that a bad one gets 400."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from molmopoint.errors import ProcessingError
from molmopoint.serving.vllm.point_options import PointOptions

if TYPE_CHECKING:
    import torch
    from vllm.config import VllmConfig
    from vllm.sampling_params import SamplingParams
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState


class RequestChecks(LogitsProcessor):
    """Changes no logits; vLLM asks logits processors whether it may take a request."""

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        super().__init__(vllm_config, req_states)

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses what points do not have.

        Raises:
            ValueError: vLLM answers 400 with its message.
        """
        for name, reason in _REFUSED.items():
            value: Any = getattr(sampling_params, name, None)
            if value is not None and value is not False:
                raise ValueError(f"expected no {name}, got {value!r:.80}: {reason}")
        try:
            PointOptions.of(sampling_params.extra_args)
        except ProcessingError as error:
            raise ValueError(str(error)) from error

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """There is nothing to do for a request."""
        return False

    def apply_staged_writes(self) -> None:
        """There is nothing to write."""

    def apply(self, logits: torch.Tensor, context: LogitsContext) -> torch.Tensor:
        """(B, V) as they are."""
        return logits


_REFUSED = {
    "structured_outputs": "the grammar of points decides which tokens may come; leave it out",
    "prompt_logprobs": "grounding tokens of a prompt have no probability; leave it out",
    "thinking_token_budget": "the model does not think; leave it out",
    "repetition_detection": "point lists repeat by their nature; use max_points",
}
"""Fields of sampling parameters that a pointing model does not have, and why."""
