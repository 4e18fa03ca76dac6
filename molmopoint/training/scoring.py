"""How well the model points on held-out examples, asked in the middle of training.

Every expression is asked as a user would ask it and answered by `generate`. A point is right if it lies in
the mask of a target, or near a target point where there are no masks; each target counts once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.tensor import DTensor

from molmopoint.backends import Backend
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointingResult, stated_number
from molmopoint.data.records import Record, to_pixels
from molmopoint.errors import MolmoPointError
from molmopoint.metrics import MatchScores, match_nearby, match_points
from molmopoint.points import Points
from molmopoint.training.precision import autocast
from molmopoint.training.recipe import Scoring
from molmopoint.training.run_checkpoints import standard_error
from molmopoint.training.sources import Source
from molmopoint.training.trees import read_media

SCORES = ("point_f1", "count_accuracy", "over_count", "under_count", "precision", "recall", "point_f1_error")
"""Names of the scores, each from 0 to 1 and averaged over expressions; for over_count and under_count less is
better.

point_f1_error is the standard error of point_f1.
"""

_NEED_MORE = ("track_start_end", "track_from_point")
"""Styles whose requests name more than a label."""


@dataclass(frozen=True, eq=False)
class Question:
    """One expression to ask.

    Attributes:
        record: with its prompt and targets.
        request: its pictures and prompt.
        masks: of the targets, each (height, width); None where only points are known.
    """

    record: Record
    request: Request
    masks: tuple[np.ndarray, ...] | None = None


def prompt_of(record: Record) -> str:
    """How a user would ask for what a row points at: its (first) prompt, or the plainest sentence with its
    label.
    """
    if record.prompt is not None or record.prompts:
        return record.prompt or record.prompts[0]
    if record.style == "track":
        return f"Track {record.label}"
    return (
        f"How many {record.label} are there?"
        if "count" in (record.style or "")
        else f"Point to {record.label}"
    )


def can_be_scored(record: Record) -> bool:
    """Whether a row is one request for points that a plain sentence can make."""
    return record.is_pointing and not record.turns and record.style not in _NEED_MORE


class HeldOutScore:
    """Scores of a model on held-out examples.

    Args:
        sources: examples to ask, by the prefix of their scores; "" for the user's own.
        backend: of the model.
        settings: how many, how near, how long.
        dtype: of the products, as in training.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        backend: Backend,
        settings: Scoring,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings = settings
        self.backend = backend
        self.options = AnswerOptions(max_new_tokens=settings.max_new_tokens)
        self.dtype = dtype
        self.plans = {
            prefix: (source, _plan(source, settings.examples)) for prefix, source in sources.items()
        }

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Means over all expressions, of all processes; the model is left in the mode it was in."""
        sharded = any(isinstance(parameter, DTensor) for parameter in model.parameters())
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._precision(model), _own_settings(model):
                backend = self.backend.with_model(model)
                scores: dict[str, float] = {}
                for prefix in self.plans:
                    for name, value in self._scores(backend, prefix, sharded).items():
                        scores[f"{prefix}{name}"] = value
                return scores
        finally:
            model.train(was_training)

    def _scores(self, backend: Backend, prefix: str, sharded: bool) -> dict[str, float]:
        source, plan = self.plans[prefix]
        # Sharded ranks gather weights together, so they must all make the same passes: each asks everything.
        rank, ranks = (
            (distributed.get_rank(), distributed.get_world_size()) if _parallel() and not sharded else (0, 1)
        )
        matches: list[MatchScores] = []
        for batch in self._batches(backend, source, plan[rank::ranks]):
            results = backend.answer([question.request for question in batch], self.options)
            for question, result in zip(batch, results, strict=True):
                matches.append(self._match(question, result))
        if ranks > 1:
            parts: list[Any] = [None] * ranks
            distributed.all_gather_object(parts, matches)
            matches = [match for part in parts for match in part]
        return summarise(matches)

    def _batches(
        self, backend: Backend, source: Source, plan: Sequence[tuple[int, int]]
    ) -> Iterator[list[Question]]:
        """Questions in batches of rows whose pictures are pooled alike; broken examples are left out."""
        waiting: dict[int, list[Question]] = {}
        for index, number in plan:
            try:
                question = _question(backend, source, index, number)
            except (MolmoPointError, OSError):
                continue  # the training data's own checks name it
            width = question.request.metadata.num_slots
            batch = waiting.setdefault(width, [])
            batch.append(question)
            if len(batch) == self.settings.batch_size:
                yield waiting.pop(width)
        yield from waiting.values()

    def _match(self, question: Question, result: PointingResult) -> MatchScores:
        """An answer against what is right."""
        record = question.record
        number = stated_number(result.text)
        if record.style == "count" and number is not None:
            wanted = len(record.points or ())
            return MatchScores(min(number, wanted), number, wanted)
        if question.masks is not None:
            return match_points(result.points.xy, question.masks)
        return match_record(result.points, record, result.metadata, self.settings.tolerance)

    @contextlib.contextmanager
    def _precision(self, model: nn.Module) -> Iterator[None]:
        device = next(model.parameters()).device.type
        with autocast(device, self.dtype):
            yield


def _question(backend: Backend, source: Source, index: int, number: int) -> Question:
    """One expression of an example.

    Raises:
        ProcessingError: its picture or clip is missing or broken.
    """
    example = source.example(index)
    number %= len(example.records)
    record = example.records[number]
    request = backend.requests.build_request(read_media(backend, example), prompt_of(record))
    masks = None if example.masks is None else example.masks[number]
    return Question(record, request, masks)


@contextlib.contextmanager
def _own_settings(model: Any) -> Iterator[None]:
    """Gives back what the checkpoint says about beams and penalties, which a backend takes away; it is saved
    as it came.
    """
    stored = model.generation_config
    try:
        yield
    finally:
        model.generation_config = stored


def match_record(points: Points, record: Record, metadata: Any, tolerance: float) -> MatchScores:
    """Points against the targets of a row, which are right within `tolerance` times the longer side of their
    picture.

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
        group = (
            metadata.timestamps[np.abs(metadata.timestamps[None] - group[:, None]).argmin(axis=1)]
            if len(group)
            else group
        )
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
    every = [
        (i, j) for i, group in enumerate(groups) for j, record in enumerate(group) if can_be_scored(record)
    ]
    chosen = np.linspace(0, len(every) - 1, min(examples, len(every))).round().astype(int) if every else []
    return [every[i] for i in chosen]


def _parallel() -> bool:
    return distributed.is_available() and distributed.is_initialized()
