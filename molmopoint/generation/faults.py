"""Numbers that are not finite: found while an answer is generated, told when it ends.

A flag per row stays on the device. It is read with what is read anyway, so no step waits for it; a row whose
flag is set has ended.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from molmopoint.errors import NumericalError
from molmopoint.heads import GroundingState

WORDS, PATCHES, SLOTS, CELLS = 1, 2, 3, 4
"""What a row chose among when its numbers were not finite; 0 stands for no fault."""

_STAGES = {
    WORDS: "the text model (logits of words)",
    PATCHES: "the choice of a patch",
    SLOTS: "the choice of a subpatch",
    CELLS: "the choice of a location",
}


def finite(scores: Tensor) -> Tensor:
    """Scores (B, n) that can be sampled from: what is no number is as unlikely as what is masked. Nobody
    reads the choice then.
    """
    lowest = torch.finfo(scores.dtype).min
    return scores.nan_to_num(nan=lowest, posinf=lowest, neginf=lowest)


def check_faults(faults: Tensor, state: GroundingState, dtype: torch.dtype) -> None:
    """Refuses answers of which a row was chosen among numbers that are not finite.

    Args:
        faults: (B,) one of the constants of this module, or 0.
        state: what the prompts kept; it tells whether the numbers were wrong already in what was seen.
        dtype: of the model.

    Raises:
        NumericalError: there is such a row; the first one is told.
    """
    found = faults.tolist()
    row = next((row for row, fault in enumerate(found) if fault), None)
    if row is None:
        return
    stage = _STAGES[found[row]]
    if not bool(torch.isfinite(state.vit_features).all()):
        stage = "the vision tower"
    elif not bool(torch.isfinite(state.image_features).all()):
        stage = "the connector between vision tower and text model"
    raise NumericalError(message_of(stage, dtype, row, len(found)))


def message_of(stage: str, dtype: torch.dtype, row: int, rows: int) -> str:
    """What a user is told, and what to do."""
    name = str(dtype).removeprefix("torch.")
    where = f" in row {row} of {rows}" if rows > 1 else ""
    advice = "the weights are damaged: check the checkpoint, or save it again"
    if dtype == torch.float16:
        advice = "they are too large for float16, or the weights are damaged: load the model with dtype=torch.bfloat16 or torch.float32"
    return f"expected finite numbers from {stage}, got some that are not{where}, computed in {name}; {advice}"


class WordsWatch(LogitsProcessor):
    """The same for a network of transformers whose answers are words alone; put it before all other
    processors.

    Attributes:
        faults: (B,) as above, once there was a step.
    """

    def __init__(self) -> None:
        self.faults: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The scores (B, V) without what is no number, so that they can be sampled from."""
        broken = ~torch.isfinite(scores.amax(-1))
        self.faults = broken if self.faults is None else self.faults | broken
        lowest = torch.finfo(scores.dtype).min
        return scores.nan_to_num(nan=lowest, posinf=lowest, neginf=-torch.inf)  # what is banned stays banned

    def check(self, embeddings: Tensor | None, dtype: torch.dtype) -> None:
        """Refuses answers that were chosen among numbers that are not finite.

        Args:
            embeddings: (B, S, H) of the prompts, with what was seen in its places.
            dtype: of the model.

        Raises:
            NumericalError: there are some.
        """
        found = [] if self.faults is None else self.faults.tolist()
        if not any(found):
            return
        seen = embeddings is None or bool(torch.isfinite(embeddings).all())
        stage = _STAGES[WORDS] if seen else "the vision tower or the embeddings"
        raise NumericalError(message_of(stage, dtype, found.index(True), len(found)))


class StopAtFault(StoppingCriteria):
    """Ends the rows that a `WordsWatch` has found something in."""

    def __init__(self, watch: WordsWatch) -> None:
        self._watch = watch

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """(B,) True where a row ends."""
        faults = self._watch.faults
        if faults is None or len(faults) != len(input_ids):  # beams are asked about in twice their number
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        return faults
