"""The two forms of an answer, grounding tokens and text coordinates, and the switches of the ablations.

A form turns an example (a cached question with its points) into tokens, and generated tokens back into
points. Nothing else differs between the arms: scenes, questions, their order, the network and its start are
the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from nano.cells import picture_metadata, picture_triples
from torch import Tensor

from molmopoint.decoding import read_answer
from molmopoint.generation.rules import DecodingRules
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing.grounding_answers import NOTHING_THERE, EncodedText, encode_answer, write_answer
from molmopoint.processing.text_points import read_text_answer, text_answer
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION

Format = Literal["grounding", "text"]
Ablation = Literal["none", "no sorting", "no rotary", "no no-more-points"]
FORMATS: tuple[Format, ...] = get_args(Format)
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)[1:]


@dataclass(frozen=True)
class AnswerForm:
    """How answers are written and read.

    Attributes:
        format: grounding tokens or text coordinates.
        ablation: what is left out of grounding tokens. Without sorting, points come in the order of the data
            (from the lowest object to the topmost), and no patch is masked, neither in training nor in
            decoding. Without rotary, queries and keys of the patch head are not rotated. Without
            no-more-points, a list ends with the text behind its last point; the class stays in the softmax
            but is never a target.
        tokenizer: of the model.
    """

    format: Format
    ablation: Ablation
    tokenizer: Any

    def __post_init__(self) -> None:
        if self.format == "text" and self.ablation != "none":
            raise ValueError(
                f"expected no ablation of text coordinates, got {self.ablation!r}; ablate the grounding "
                "format"
            )

    def configure(self, model: MolmoPointForConditionalGeneration) -> None:
        """Sets what the ablation changes in the network, before it is trained."""
        if self.ablation == "no sorting":
            model.config.mask_patches = "inference"
        if self.ablation == "no rotary":
            model.config.token_prediction_rotary = "none"
            model.model.point_predictor.patch.rotary_theta = None

    def write(self, question: dict) -> EncodedText:
        """The answer of a cached question (its points (n, 2) as parts of width and height) as tokens."""
        points, label, style = question["points"], question["label"], question["style"]
        if self.format == "text":
            parts = np.asarray(points, dtype=np.float64).reshape(-1, 2)
            text = text_answer(np.zeros(len(parts), dtype=int), parts, [(1, 1)], label, style)
            return encode_answer([text], self.tokenizer)
        triples = picture_triples(points, overview=False)
        if not len(triples):
            return encode_answer([NOTHING_THERE], self.tokenizer)
        encoded = encode_answer(write_answer(triples, label, style), self.tokenizer)
        if self.ablation == "no sorting":
            places = (encoded.selections != NO_SELECTION) & (encoded.selections != NO_MORE_POINTS)
            encoded.selections[places] = triples.ravel()
        if self.ablation == "no no-more-points":
            kept = encoded.selections != NO_MORE_POINTS
            return EncodedText(encoded.ids[kept], encoded.selections[kept])
        return encoded

    def read(self, answer: Tensor, size: tuple[int, int], extended_start: int) -> np.ndarray:
        """(n, 2) pixels that generated ids (T,), cut at the end of the answer, point at in a picture of
        (width, height).
        """
        if self.format == "text":
            text = self.tokenizer.decode(answer[answer < extended_start])
            return read_text_answer(text, [size]).points.xy
        return read_answer(
            answer, picture_metadata(size, overview=False), extended_start, self.tokenizer.decode
        ).points.xy

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Inside, `generate` keeps the rules of this form: without sorting, any patch may follow any other."""
        if self.ablation != "no sorting":
            yield
            return
        ordered = DecodingRules._first_patch
        DecodingRules._first_patch = _any_patch
        try:
            yield
        finally:
            DecodingRules._first_patch = ordered


def _any_patch(self: DecodingRules, slots: Tensor) -> Tensor:
    return torch.zeros_like(self.patch)
