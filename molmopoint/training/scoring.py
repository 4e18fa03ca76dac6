"""How well the model points on held-out examples, asked in the middle of training.

Every expression is asked as a user would ask it and answered by `generate`. A point is right if it lies in the mask of a target,
or near a target point where there are no masks; each target counts once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from molmopoint.data.records import Record, to_pixels
from molmopoint.errors import MolmoPointError
from molmopoint.generation.settings import tokens_alone
from molmopoint.metrics import MatchScores, match_nearby, match_points
from molmopoint.points import Points
from molmopoint.processing.rows import Row, collate
from molmopoint.training.families import Family, Seen
from molmopoint.training.recipe import Scoring
from molmopoint.training.run_checkpoints import standard_error
from molmopoint.training.sources import Source
from molmopoint.training.trees import media_of

SCORES = ("point_f1", "count_accuracy", "over_count", "under_count", "precision", "recall", "point_f1_error")
"""Names of the scores, each from 0 to 1 and averaged over expressions; for over_count and under_count less is better.

point_f1_error is the standard error of point_f1.
"""

_NEED_MORE = ("track_start_end", "track_from_point")
"""Styles whose requests name more than a label."""

_NUMBER = re.compile(r"\A\s*+(\d{1,18})\s*+(?:\.\s*+)?\Z")


@dataclass(frozen=True, eq=False)
class Question:
    """One expression to ask.

    Attributes:
        record: with its prompt and targets.
        row: pictures and prompt, up to where the answer begins.
        seen: the pictures.
        masks: of the targets, each (height, width); None where only points are known.
    """

    record: Record
    row: Row
    seen: Seen
    masks: tuple[np.ndarray, ...] | None = None


def prompt_of(record: Record) -> str:
    """How a user would ask for what a row points at: its (first) prompt, or the plainest sentence with its label."""
    if record.prompt is not None or record.prompts:
        return record.prompt or record.prompts[0]
    if record.style == "track":
        return f"Track {record.label}"
    return f"How many {record.label} are there?" if "count" in (record.style or "") else f"Point to {record.label}"


def can_be_scored(record: Record) -> bool:
    """Whether a row is one request for points that a plain sentence can make."""
    return record.is_pointing and not record.turns and record.style not in _NEED_MORE


class HeldOutScore:
    """Scores of a model on held-out examples.

    Args:
        sources: examples to ask, by the prefix of their scores; "" for the user's own.
        family: of the model.
        settings: how many, how near, how long.
        dtype: of the products, as in training.
    """

    def __init__(self, sources: Mapping[str, Source], family: Family, settings: Scoring, dtype: torch.dtype = torch.float32) -> None:
        self.settings = settings
        self.family = family
        self.dtype = dtype
        self.plans = {prefix: (source, _plan(source, settings.examples)) for prefix, source in sources.items()}

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Means over all expressions, of all processes; the model is left in the mode it was in."""
        sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._precision(model):
                return {f"{prefix}{name}": value for prefix in self.plans for name, value in self._scores(model, prefix, sharded).items()}
        finally:
            model.train(was_training)

    def _scores(self, model: nn.Module, prefix: str, sharded: bool) -> dict[str, float]:
        source, plan = self.plans[prefix]
        # Sharded ranks gather weights together, so they must all make the same passes: each asks everything.
        rank, ranks = (distributed.get_rank(), distributed.get_world_size()) if _parallel() and not sharded else (0, 1)
        matches = [match for batch in self._batches(source, plan[rank::ranks]) for match in self._ask(model, batch)]
        if ranks > 1:
            parts: list[Any] = [None] * ranks
            distributed.all_gather_object(parts, matches)
            matches = [match for part in parts for match in part]
        return summarise(matches)

    def _batches(self, source: Source, plan: Sequence[tuple[int, int]]) -> Iterator[list[Question]]:
        """Questions in batches of rows whose pictures are pooled alike; broken examples are left out."""
        waiting: dict[int, list[Question]] = {}
        for index, number in plan:
            try:
                question = self._question(source, index, number)
            except (MolmoPointError, OSError):
                continue  # the training data's own checks name it
            width = 0 if question.seen.trunk.pooling is None else question.seen.trunk.pooling.shape[1]
            batch = waiting.setdefault(width, [])
            batch.append(question)
            if len(batch) == self.settings.batch_size:
                yield waiting.pop(width)
        yield from waiting.values()

    def _question(self, source: Source, index: int, number: int) -> Question:
        example = source.example(index)
        number %= len(example.records)
        record = example.records[number]
        seen = self.family.see(example)
        (prompt,) = self.family.processor.chat.prompts([prompt_of(record)], *media_of(record))
        masks = None if example.masks is None else example.masks[number]
        ids = torch.from_numpy(prompt.ids)
        row = replace(
            seen.trunk,
            input_ids=torch.cat([seen.trunk.input_ids, ids]),
            mm_token_type_ids=torch.cat([seen.trunk.mm_token_type_ids, torch.zeros_like(ids)]),
        )
        return Question(record, row, seen, masks)

    def _ask(self, model: Any, batch: Sequence[Question]) -> list[MatchScores]:
        """Answers of a batch against what is right."""
        tokenizer = self.family.processor.tokenizer
        inputs = collate([question.row for question in batch], tokenizer.pad_token_id, "left")
        del inputs["selection_ids"]  # nothing is selected before there is an answer
        device = next(model.parameters()).device
        with _own_settings(model):
            sequences = model.generate(
                **{name: tensor.to(device) for name, tensor in inputs.items()},
                do_sample=False,
                max_new_tokens=self.settings.max_new_tokens,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        answers = sequences[:, inputs["input_ids"].shape[1] :].tolist()
        return [self._match(question, _up_to(ids, tokenizer.eos_token_id)) for question, ids in zip(batch, answers, strict=True)]

    def _match(self, question: Question, ids: list[int]) -> MatchScores:
        points, text = self.family.read(ids, question.seen)
        if question.record.style == "count" and (found := _NUMBER.match(text)):
            wanted = len(question.record.points or ())
            return MatchScores(min(int(found[1]), wanted), int(found[1]), wanted)
        if question.masks is not None:
            return match_points(points.xy, question.masks)
        return match_record(points, question.record, question.seen.metadata, self.settings.tolerance)

    @contextlib.contextmanager
    def _precision(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            yield


@contextlib.contextmanager
def _own_settings(model: Any) -> Iterator[None]:
    """Generates as `Pointer` does, whatever the checkpoint says about beams and penalties; it is saved as it came."""
    stored, text = model.generation_config, model.config.get_text_config()
    model.generation_config, _ = tokens_alone(stored, text.vocab_size + getattr(text, "additional_vocab_size", 0))
    try:
        yield
    finally:
        model.generation_config = stored


def match_record(points: Points, record: Record, metadata: Any, tolerance: float) -> MatchScores:
    """Points against the targets of a row, which are right within `tolerance` times the longer side of their picture.

    Targets of a clip count at the time of the frame nearest to them.

    Args:
        points: of an answer.
        record: with the targets.
        metadata: of its pictures or clip: `image_sizes` and `timestamps`.
        tolerance: part of the longer side.
    """
    group, xy = to_pixels(record, metadata.image_sizes, clip=True)
    sides = np.array([max(size) for size in metadata.image_sizes], dtype=np.float64)
    if metadata.timestamps is not None:
        group = metadata.timestamps[np.abs(metadata.timestamps[None] - group[:, None]).argmin(axis=1)] if len(group) else group
        radius = np.full(len(xy), sides[0])
    else:
        radius = sides[group]
    return match_nearby(points.xy, xy, tolerance * radius, group=points.group, target_group=group)


def summarise(matches: Sequence[MatchScores]) -> dict[str, float]:
    """Mean of each score over expressions and the standard error of the first; without any, nothing."""
    if not matches:
        return {}
    columns = {
        "point_f1": [match.f1 for match in matches],
        "count_accuracy": [match.exact_count for match in matches],
        "over_count": [match.num_points > match.num_targets for match in matches],
        "under_count": [match.num_points < match.num_targets for match in matches],
        "precision": [match.precision for match in matches],
        "recall": [match.recall for match in matches],
    }
    means = {name: float(np.mean(values)) for name, values in columns.items()}
    return {**means, "point_f1_error": standard_error(columns["point_f1"])}


def _plan(source: Source, examples: int) -> list[tuple[int, int]]:
    """Example and expression of up to `examples` pointing rows, spread evenly over the source."""
    groups = getattr(source, "groups", None)
    if groups is None:  # every scene costs drawing, and one question of each is the most varied choice
        return [(index, index) for index in range(min(examples, len(source)))]
    every = [(i, j) for i, group in enumerate(groups) for j, record in enumerate(group) if can_be_scored(record)]
    chosen = np.linspace(0, len(every) - 1, min(examples, len(every))).round().astype(int) if every else []
    return [every[i] for i in chosen]


def _up_to(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _parallel() -> bool:
    return distributed.is_available() and distributed.is_initialized()
