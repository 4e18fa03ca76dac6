"""Families that answer with a map: one pass gives every image token of a picture a probability.

Regions of high probability are the points, best first. There is always an answer, and nothing is decoded. A family
says how a picture is seen and a row is written (`HostRequests`), and what its maps are (`MapBackend.score_maps`).

Letters: P image tokens of one picture, n points.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn, cast

import numpy as np
from torch import Tensor

from molmopoint.backends.hosts import HostBackend, HostRequests
from molmopoint.backends.media import RequestMedia
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.regions import Region, RegionValue, find_regions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointDistributions, PointingResult
from molmopoint.decoding import Answer
from molmopoint.errors import NumericalError, ProcessingError
from molmopoint.generation.faults import message_of
from molmopoint.geometry import NO_LOCATION, PointingMetadata
from molmopoint.points import Point, Points
from molmopoint.processing.rows import Row


@dataclass(frozen=True, eq=False)
class MapRequest(Request):
    """A request whose answer is there at once.

    Attributes:
        answered: the result, once there is one; for readers of a stream.
    """

    answered: list[PointingResult] = field(default_factory=list, repr=False)


class MapRequests(HostRequests):
    """Makes rows of a family that answers with places alone."""

    answer_start: str = ""
    """Beginning of the answer, which is given."""

    def question(self, *_: Any, **__: Any) -> NoReturn:
        """Refuses.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(_no_words(self.title))

    def _request(self, prompt: str, row: Row, media: RequestMedia, features: Any) -> Request:
        return MapRequest(prompt, row, media, self.answer_start, features)


class MapBackend(HostBackend):
    """See `Backend`.

    Attributes:
        region_value: what regions are ranked by, and the score of their points.
    """

    pointing_template: ClassVar[str] = "{}"
    region_value: RegionValue = "mean"

    @abstractmethod
    def score_maps(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """(P,) probabilities of the image tokens of each request."""

    def complete_count(self, text: str, template: str | None = None) -> NoReturn:
        """Refuses.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(_no_words(self.title))

    def complete_question(self, text: str) -> NoReturn:
        """Refuses.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(_no_words(self.title))

    def check_options(self, options: AnswerOptions, *, clips: bool = False) -> None:
        """See `Backend`; nothing is drawn by chance either."""
        super().check_options(options, clips=clips)
        sampling = options.sampling
        if sampling.get("do_sample") or (sampling.get("num_beams") or 1) > 1:
            raise ProcessingError(
                f"expected no sampling and no beams with a {self.title}, which decodes nothing, got "
                f"{', '.join(sampling)}; leave them out"
            )

    def answer(self, requests: Sequence[Request], options: AnswerOptions, **_: Any) -> list[PointingResult]:
        """See `Backend`: one pass, and nothing is decoded.

        Raises:
            NumericalError: the model computed numbers that are not finite.
            ProcessingError: an option asks for what this model does not have.
        """
        self.check_options(options)
        with self._without_gradients():
            maps = self.score_maps(requests)
        results = []
        for number, (request, scores) in enumerate(zip(requests, maps, strict=True)):
            if not np.isfinite(scores).all():
                raise NumericalError(message_of("the map of scores", self.model.dtype, number, len(requests)))
            result = self._result(request, scores, options)
            cast(MapRequest, request).answered[:] = [result]
            results.append(result)
        return results

    def read_answer(
        self, ids: Tensor, metadata: PointingMetadata, answer_start: str, probabilities: Tensor | None = None
    ) -> Answer:
        """Refuses: places are in the map, and not in what is written.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(
            f"expected the answer of a model that writes places, got that of a {self.title}"
        )

    def events(self, request: Request, options: AnswerOptions) -> MapEvents:
        """See `Backend`; all points come at once."""
        return MapEvents(cast(MapRequest, request).answered)

    def _result(self, request: Request, scores: np.ndarray, options: AnswerOptions) -> PointingResult:
        """The best regions of a map (P,) as points; one of them where no number is asked for."""
        metadata = request.metadata
        grid = metadata.patch_maps[0].shape
        regions = find_regions(scores.reshape(grid), self.region_value)[: options.point_limit or 1]
        result = PointingResult(
            points=points_of(regions, metadata, request.prompt),
            text=request.prompt,
            raw_text=request.answer_start,
            prompt=request.prompt,
            truncated=False,
            invalid=0,
            image_sizes=tuple(metadata.image_sizes),
            metadata=metadata,
            displayed=request.media.displayed,
            distributions=PointDistributions(
                patch=np.repeat(scores[None], len(regions), axis=0),  # (n, P)
                subpatch=np.ones((len(regions), 1), dtype=np.float32),
            ),
            notes=request.media.notes,
        )
        return result.at_least(options.min_score)

    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> NoReturn:
        raise AssertionError("nothing is generated")

    def _limits(self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int) -> NoReturn:
        raise AssertionError("nothing is generated")


class MapEvents:
    """Gives the points of an answer when it is there.

    Args:
        answered: holds the result in the end.
    """

    def __init__(self, answered: list[PointingResult]) -> None:
        self._answered = answered

    def push(self, token: int) -> Iterator[str | Point]:
        """Nothing: no token is written."""
        return iter(())

    def finish(self) -> Iterator[str | Point]:
        """The words, then the points."""
        for result in self._answered:
            yield result.text
            yield from result.points


def points_of(regions: Sequence[Region], metadata: PointingMetadata, label: str) -> Points:
    """Regions as points in pixels, numbered by rank; a triple names the image token at the centre."""
    rows, cols = metadata.patch_maps[0].shape
    width, height = metadata.image_sizes[0]
    count = len(regions)
    x = np.array([region.x for region in regions])
    y = np.array([region.y for region in regions])
    row = np.minimum((y * rows).astype(int), rows - 1)
    col = np.minimum((x * cols).astype(int), cols - 1)
    cells = row * cols + col
    return Points(
        object_id=np.arange(1, count + 1),
        group=np.zeros(count, dtype=np.int64),
        x=x * width,
        y=y * height,
        score=np.array([region.value for region in regions]),
        triples=np.stack([cells, np.zeros_like(cells), np.full_like(cells, NO_LOCATION)], axis=1),
        image_sizes=metadata.image_sizes,
        labels=[label] * count,
    )


def _no_words(title: str) -> str:
    return (
        f"expected a request to point for a {title}, which answers with places alone, got a question; ask another "
        "model, such as a Molmo2, for words and counts"
    )
