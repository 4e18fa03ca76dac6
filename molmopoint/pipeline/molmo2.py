"""Molmo2 behind `Pointer`: transformers' own network, which writes coordinates as text.

The network is given embeddings of the prompt with visual features already in their places. So pictures and clips mix in a batch,
which the native forward refuses, a clip goes through the ViT a few frames at a time, and what was encoded once is used again.

Letters: N crops or frames, G ViT patches per crop, P image tokens, K slots, H text width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList

from molmopoint.connector import CROPS_PER_PASS
from molmopoint.errors import CheckpointError
from molmopoint.generation.faults import StopAtFault, WordsWatch
from molmopoint.generation.loop import PIXELS
from molmopoint.pipeline.answers import PointLimit, TextAnswerReader
from molmopoint.pipeline.family import ModelFamily
from molmopoint.pipeline.options import AnswerOptions
from molmopoint.pipeline.requests import Request
from molmopoint.pipeline.result import PointingResult
from molmopoint.pipeline.streaming import TextEventReader
from molmopoint.pipeline.visual import VisualInput
from molmopoint.processing import MolmoPointProcessor


class Molmo2Family(ModelFamily):
    """See `ModelFamily`.

    Raises:
        CheckpointError: the tokenizer has another token for image patches than the model.
    """

    def __init__(self, model: Any, processor: MolmoPointProcessor) -> None:
        if processor.image_token_ids[0] != model.config.image_patch_id:
            raise CheckpointError(
                f"expected a tokenizer in which <im_patch> is {model.config.image_patch_id}, as in the model's config, got "
                f"{processor.image_token_ids[0]}; load both from the same folder"
            )
        super().__init__(model, processor)
        self._reader = TextAnswerReader(processor.tokenizer, self.eos_token_ids)

    def encode(self, visual: VisualInput) -> Tensor:
        """Features (P, H) of the image tokens of pictures or a clip, on the model's device."""
        pixels, table = (visual.pixels[name] for name in (PIXELS[2:] if visual.metadata.is_video else PIXELS[:2]))
        parts = _frames_at_a_time(pixels, table) if visual.metadata.is_video else [(pixels, table)]
        with torch.inference_mode():
            return torch.cat([self._see(*part) for part in parts])

    def events(self, request: Request, options: AnswerOptions) -> TextEventReader:
        """Reads the answer to one request token by token.

        Raises:
            NotImplementedError: beam search, whose answer is only known at the end.
        """
        if options.sampling.get("num_beams", 1) > 1:
            raise NotImplementedError("a stream with beam search: its answer is only known at the end; call `point` or `ask` instead")
        return self._reader.event_reader(request, options)

    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        prompt = {name: batch[name] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
        seen = [self.encode(r.visual) if r.features is None else r.features for r in requests if r.visual.pixels]
        if not seen:
            return prompt
        embeddings = self.model.get_input_embeddings()(prompt["input_ids"])
        places = (prompt["input_ids"] == self.model.config.image_patch_id).to(embeddings.device)
        # The native network adds what it sees to the embedding of the placeholder.
        embeddings[places] += torch.cat(seen).to(embeddings)
        return {**prompt, "inputs_embeds": embeddings}

    def _generate(self, **arguments: Any) -> Any:
        watch = WordsWatch()
        arguments["logits_processor"] = LogitsProcessorList([watch, *arguments.get("logits_processor", ())])
        arguments["stopping_criteria"] = StoppingCriteriaList([*arguments.get("stopping_criteria", ()), StopAtFault(watch)])
        output = super()._generate(**arguments)
        watch.check(arguments.get("inputs_embeds"), self.model.dtype)
        return output

    def _limits(self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> dict[str, Any]:
        if options.point_limit is None:
            return {}
        if options.sampling.get("num_beams", 1) > 1:
            raise NotImplementedError("a limit on the number of points with beam search: beams change rows; leave one of the two out")
        starts = [request.answer_start for request in requests]
        limit = PointLimit(self.processor.tokenizer, self._reader.decode, options.point_limit, prompt_length, starts)
        return {"logits_processor": LogitsProcessorList([limit])}

    def _read(self, output: Any, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> list[PointingResult]:
        return self._reader.read(output, requests, prompt_length, options)

    def _see(self, pixels: Tensor, table: Tensor) -> Tensor:
        """Features (P, H) of crops or frames (N, G, patch values) and their table (P, K)."""
        # The native call only cuts its result by the grids; one grid of all tokens leaves it whole.
        grids = torch.tensor([[len(table), 1, 0, 0]])
        given = self.on_device({"pixel_values": pixels, "image_token_pooling": table})
        return self.model.get_image_features(**given, image_grids=grids).pooler_output[0]


def _frames_at_a_time(pixels: Tensor, table: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some frames of a clip and their part of its table, which then counts from their first ViT patch.

    The native ViT keeps the states of all its layers, so the memory it takes follows the frames of a call.
    """
    tokens, patches = len(table) // len(pixels), pixels.shape[1]
    for start in range(0, len(pixels), CROPS_PER_PASS):
        frames = pixels[start : start + CROPS_PER_PASS]
        rows = table[start * tokens : (start + len(frames)) * tokens]
        yield frames, torch.where(rows >= 0, rows - start * patches, -1)
