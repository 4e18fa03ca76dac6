"""The front door: a prompt, answers, and what it is about in; scores, ranks and choices out."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from molmopoint.errors import ProcessingError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.reward.model import RewardModel
from molmopoint.reward.orders import chunks, combine, orders
from molmopoint.reward.prompts import Prompt, check_answers
from molmopoint.reward.rows import RewardRow, RowBuilder, collate

MAX_RESPONSES = 4
"""Answers of one list at most; published models were evaluated with two and with four."""


@dataclass(frozen=True, eq=False)
class _Request:
    """One prompt: rows to run, and which answers stand in which of their lists; equal answers that are judged alone stand once.

    Attributes:
        rows: to run.
        lists: of all rows.
        judged: number, in the lists, of each answer.
    """

    rows: list[RewardRow]
    lists: list[list[int]]
    judged: list[int]


class Judge:
    """A reward model and its processor as one thing that judges. `molmopoint.load_reward` makes one.

    A score says how good an answer is **within its list**: scores of different prompts or calls cannot be compared, and no threshold
    tells good answers from bad ones. Text is literal: what looks like a special token stays text.

    A prompt is text, or chat messages that end with the user's. It is about pictures (`images`: one or a list) or one clip (`videos`),
    given beside the prompt or as parts of the messages.

    Args:
        model: on its device; it is put in evaluation mode.
        processor: of its backbone.
        max_responses: longer lists are judged in chunks of so many that share an answer.
        max_length: tokens of a row at most, pictures and all answers included; the positions of the model by default.

    Raises:
        ProcessingError: `max_responses` below 2.
    """

    def __init__(
        self, model: RewardModel, processor: MolmoPointProcessor, *, max_responses: int = MAX_RESPONSES, max_length: int | None = None
    ) -> None:
        if max_responses < 2:
            raise ProcessingError(f"expected max_responses of 2 or more, got {max_responses}; chunks of a list share one answer")
        self.model = model.eval()
        self.processor = processor
        self.max_responses = max_responses
        self.builder = RowBuilder(processor, model.settings, max_length or model.config.text_config.max_position_embeddings)

    def __repr__(self) -> str:
        name = self.model.base or self.model.config.name_or_path or type(self.model).__name__
        return f"Judge({name!r}, layout={self.model.settings.layout!r}, attention={self.model.settings.attention!r})"

    def score(
        self, prompt: Prompt, responses: Sequence[str], images: Any = None, videos: Any = None, *, permutations: int = 1, **media: Any
    ) -> list[float]:
        """Scores of all answers, higher is better.

        Args:
            prompt: text or messages.
            responses: the answers; one alone has a score too, but nothing to compare it with.
            images: a picture or a list of them.
            videos: a clip: a file, or frames with their times (`molmopoint.video.Clip`).
            permutations: judge the list in so many orders, of which the cyclic shifts come first, and average. Scores then have mean zero.
            **media: settings of the processor, such as `max_crops` or `num_frames`.

        Returns:
            One score per answer. Of lists longer than `max_responses`, what an answer scores above the first one.

        Raises:
            ProcessingError: no answers, an empty one or one that is no text; a picture or clip is missing or broken; or prompt and answers
                are longer than the model reads. Nothing is ever cut.
        """
        return self._answer([self._request(prompt, responses, images, videos, permutations, media)], 1)[0]

    def rank(
        self, prompt: Prompt, responses: Sequence[str], images: Any = None, videos: Any = None, *, permutations: int = 1, **media: Any
    ) -> list[int]:
        """Rank of every answer: how many are better, so 0 is the best, and equal scores have equal ranks. Arguments as in `score`."""
        scores = np.array(self.score(prompt, responses, images, videos, permutations=permutations, **media))
        return (scores[None, :] > scores[:, None]).sum(1).tolist()

    def best(
        self, prompt: Prompt, responses: Sequence[str], images: Any = None, videos: Any = None, *, permutations: int = 1, **media: Any
    ) -> int:
        """Index of the best answer, the first of several. Arguments as in `score`."""
        return int(np.argmax(self.score(prompt, responses, images, videos, permutations=permutations, **media)))

    def compare(
        self, prompt: Prompt, a: str, b: str, images: Any = None, videos: Any = None, *, permutations: int = 2, **media: Any
    ) -> bool:
        """Whether answer `a` is better than `b`, judged in both orders. Arguments as in `score`."""
        first, second = self.score(prompt, [a, b], images, videos, permutations=permutations, **media)
        return first > second

    def score_batch(
        self,
        prompts: Iterable[Prompt],
        responses: Iterable[Sequence[str]],
        images: Iterable[Any] | None = None,
        videos: Iterable[Any] | None = None,
        *,
        batch_size: int = 8,
        permutations: int = 1,
        **media: Any,
    ) -> list[list[float]]:
        """Scores of the answers to many prompts, which may differ in everything; the scores of each are those it has alone.

        Args:
            prompts: one per request.
            responses: the answers to each.
            images: what each is about, None for nothing; or None for all.
            videos: the same for clips.
            batch_size: prompts per run of the model.
            permutations: as in `score`.
            **media: as in `score`.

        Raises:
            ProcessingError: as in `score`, with the number of the request; or there are more of one thing than of another.
        """
        columns = [prompts, responses, *(each for each in (images, videos) if each is not None)]
        if any(isinstance(each, str) for each in columns):
            raise ProcessingError("expected prompts and answers of several requests, got one text; use `score` for one prompt")
        requests = iter(self._requests(columns, images is not None, permutations, media))
        scores: list[list[float]] = []
        while batch := list(islice(requests, batch_size)):
            scores += self._answer(batch, batch_size)
        return scores

    def _requests(self, columns: Sequence[Iterable[Any]], has_images: bool, permutations: int, media: dict[str, Any]) -> Iterable[_Request]:
        try:
            for number, (prompt, answers, *about) in enumerate(zip(*columns, strict=True)):
                images, videos = (about[0] if has_images else None), (about[-1] if len(about) > has_images else None)
                try:
                    yield self._request(prompt, answers, images, videos, permutations, media)
                except ProcessingError as error:
                    raise ProcessingError(f"request {number}: {error}") from error
        except ValueError as error:
            if "zip()" not in str(error):
                raise
            raise ProcessingError(f"expected as many lists of answers, images and videos as prompts: {error}") from error

    def _request(
        self, prompt: Prompt, responses: Sequence[str], images: Any, videos: Any, permutations: int, media: dict[str, Any]
    ) -> _Request:
        """The rows of one prompt: one, unless its lists do not fit into one."""
        answers = check_answers(responses)
        if permutations < 1:
            raise ProcessingError(f"expected permutations of 1 or more, got {permutations}")
        apart = self.model.settings.attention == "block"
        unique = list(dict.fromkeys(answers)) if apart else answers
        lists = [[number] for number in range(len(unique))] if apart else self._lists(len(answers), permutations)
        part = self.builder.prompt(prompt, images, videos, **media)
        rows, done = [], 0
        while done < len(lists):
            row, count = self.builder.longest_row(part, unique, lists[done:])
            rows.append(row)
            done += count
        return _Request(rows, lists, [unique.index(answer) for answer in answers] if apart else list(range(len(answers))))

    def _lists(self, count: int, permutations: int) -> list[list[int]]:
        """Which answers are judged together, in which order."""
        if count > MAX_RESPONSES:
            warnings.warn(
                f"expected at most {MAX_RESPONSES} answers, with which reward models were evaluated, got more; "
                f"they are judged in chunks of at most {self.max_responses} that share the first answer",
                stacklevel=4,
            )
        return [[chunk[i] for i in order] for chunk in chunks(count, self.max_responses) for order in orders(len(chunk), permutations)]

    def _answer(self, requests: Sequence[_Request], batch_size: int) -> list[list[float]]:
        """Runs all rows, and puts the scores of each request together."""
        rows = [row for request in requests for row in request.rows]
        flat = [scores for start in range(0, len(rows), batch_size) for scores in self._run(rows[start : start + batch_size])]
        results, of_rows = [], iter(flat)
        for request in requests:
            lists, judged = request.lists, request.judged
            values = np.concatenate([next(of_rows)[: len(row.response_positions)] for row in request.rows])
            if self.model.settings.attention == "causal":
                values = combine(len(judged), lists, np.split(values, np.cumsum([len(each) for each in lists])[:-1]))
            results.append(values[judged].tolist())
        return results

    def _run(self, rows: Sequence[RewardRow]) -> np.ndarray:
        """(rows, answers) float64."""
        batch = collate(rows, self.processor.tokenizer.pad_token_id)
        with torch.inference_mode():
            device = self.model.backbone.device
            scores = self.model(**{name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}).scores
        return scores.double().cpu().numpy()
