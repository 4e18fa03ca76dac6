"""What `generate` returns on request, beside the ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils.generic import ModelOutput

from molmopoint.heads import GroundingState

UNSET: Any = None
"""Default that `ModelOutput` asks for; every field is given."""


@dataclass
class GroundedGenerateOutput(ModelOutput):
    """Answers with the probabilities of every selection.

    Attributes:
        sequences: (B, S + new) prompt and answer as extended ids.
        selection_probabilities: (B, new) float32 probability of each selection under the masks in force at
            temperature 1; NaN where a token selects nothing.
        patch_distributions: one (B, P + 1) float16 tensor per new token, the last column no-more-points; None
            where no row could select a patch.
        subpatch_distributions: one (B, K) float16 tensor per new token; None where no row selected a slot.
        absent: with `single_point` (B,) float32, the probability that no-more-points would have been the
            first choice if it were allowed; None without.
        hidden_states: with `output_hidden_states=True` one tuple per new token, of layers + 1 tensors (B, S,
            H) for the first and (B, 1, H) for each later one, as in `MolmoPointOutput`.
        attentions: with `output_attentions=True` one tuple per new token, of one tensor (B, heads, S or 1,
            keys) per layer.
        cache: keys and values of the text model; also readable as `past_key_values`.
        grounding_state: what the prompts kept.
    """

    sequences: Tensor = UNSET
    selection_probabilities: Tensor = UNSET
    patch_distributions: tuple[Tensor | None, ...] = UNSET
    subpatch_distributions: tuple[Tensor | None, ...] = UNSET
    absent: Tensor | None = None
    hidden_states: tuple[tuple[Tensor | None, ...], ...] | None = None
    attentions: tuple[tuple[Tensor, ...], ...] | None = None
    cache: Cache = UNSET
    grounding_state: GroundingState = UNSET

    @property
    def past_key_values(self) -> Cache:
        """The cache."""
        return self.cache

    def patch_distribution(self, row: int, step: int) -> Tensor:
        """(P,) float32: over the row's own image tokens, as the PATCH token at new-token index `step` chose
        from it.
        """
        return _row_of(self.patch_distributions, row, step, "PATCH")[
            : int(self.grounding_state.num_patches[row])
        ].float()

    def subpatch_distribution(self, row: int, step: int) -> Tensor:
        """(K,) float32: over the row's own slots, as the SUBPATCH token at new-token index `step` chose from
        it.
        """
        return _row_of(self.subpatch_distributions, row, step, "SUBPATCH")[
            : int(self.grounding_state.num_slots[row])
        ].float()


def _row_of(distributions: tuple[Tensor | None, ...], row: int, step: int, kind: str) -> Tensor:
    found = distributions[step]
    if found is None:
        raise ValueError(
            f"expected a step at which the row selects with a {kind} token, got step {step}; read them off "
            "`sequences`"
        )
    return found[row]
