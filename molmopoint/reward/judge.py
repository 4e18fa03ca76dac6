"""The front door: a prompt, answers, and what it is about in; scores, ranks and choices out.

Which answers are judged together, and in which order; and one score per answer from several lists.

In causal attention an answer is judged by those before it, so scores depend on the order. Judged in several
orders, each answer visits each place; the mean of every list is taken off first, because only differences
within a list mean something.

Long lists are judged in chunks that share one answer, the anchor: what an answer scores above the anchor of
its chunk can be compared across chunks.

One call from a name to something that judges.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmopoint.errors import ProcessingError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.rows import Row, collate
from molmopoint.reward.model import RewardModel
from molmopoint.reward.prompts import Prompt, check_answers
from molmopoint.reward.rows import RowBuilder
from molmopoint.reward.settings import Attention, Layout


def orders(count: int, wanted: int) -> list[list[int]]:
    """The first `wanted` of all orders of `count` answers, or all of them if there are fewer: as given, its
    cyclic shifts, then others.

    The others are drawn at random, the same ones every time.
    """
    wanted = min(wanted, math.factorial(min(count, 12)))
    found = [[(start + i) % count for i in range(count)] for start in range(min(count, wanted))]
    rng = random.Random(count)
    seen = {tuple(order) for order in found}
    while len(found) < wanted:
        order = rng.sample(range(count), count)
        if tuple(order) not in seen:
            seen.add(tuple(order))
            found.append(order)
    return found


def chunks(count: int, size: int) -> list[list[int]]:
    """Answers in chunks of at most `size`, of nearly equal length; the first answer, the anchor, stands in
    each of them.

    There are ceil((count - 1) / (size - 1)) chunks, one if all answers fit.
    """
    if count <= size:
        return [list(range(count))]
    parts = np.array_split(np.arange(1, count), math.ceil((count - 1) / (size - 1)))
    return [[0, *part.tolist()] for part in parts]


def combine(count: int, lists: Sequence[Sequence[int]], scores: Sequence[np.ndarray]) -> np.ndarray:
    """One score (count,) per answer.

    Args:
        count: of answers.
        lists: the answers of each list; every answer is in one of them.
        scores: (n,) of each list, in its order.

    Returns:
        The scores of a single list as they are. Of several lists the means, where each list was shifted to
        mean zero; if they do not hold the same answers, each was shifted so that the first answer, the
        anchor, scores zero.
    """
    if len(lists) == 1:
        return np.asarray(scores[0])[np.argsort(lists[0])]
    anchored = any(len(each) < count for each in lists)
    total, times = np.zeros(count), np.zeros(count)
    for each, values in zip(lists, scores, strict=True):
        places = np.asarray(each)
        total[places] += values - (values[list(each).index(0)] if anchored else values.mean())
        times[places] += 1
    return total / times


MAX_RESPONSES = 4
"""Answers of one list at most; published models were evaluated with two and with four."""


@dataclass(frozen=True)
class _View:
    """One set of scores that is wanted of a request.

    Attributes:
        order: which answer stands in which slot.
        lists: slots that are judged together.
    """

    order: Sequence[int]
    lists: list[list[int]]


_Wanted = Callable[[int], list[_View]]
"""What is wanted of so many answers."""


@dataclass(frozen=True, eq=False)
class _Request:
    """One prompt: rows to run, and how their scores become those that are wanted; equal answers that are
    judged alone stand once.

    Attributes:
        rows: to run.
        views: of the answers.
        judged: number, in the rows, of each answer that is judged alone; None where lists are judged.
    """

    rows: list[Row]
    views: list[_View]
    judged: list[int] | None


class Judge:
    """A reward model and its processor as one thing that judges. `molmopoint.load_reward` makes one.

    A score says how good an answer is **within its list**: scores of different prompts or calls cannot be
    compared, and no threshold
    tells good answers from bad ones. Text is literal: what looks like a special token stays text.

    A prompt is text, or chat messages that end with the user's. It is about pictures (`images`: one or a
    list) or one clip (`videos`), given beside the prompt or as parts of the messages.

    Args:
        model: on its device; it is put in evaluation mode.
        processor: of its backbone.
        max_responses: longer lists are judged in chunks of so many that share an answer.
        max_length: tokens of a row at most, pictures and all answers included; the positions of the model by
            default.

    Raises:
        ProcessingError: `max_responses` below 2.
    """

    def __init__(
        self,
        model: RewardModel,
        processor: MolmoPointProcessor,
        *,
        max_responses: int = MAX_RESPONSES,
        max_length: int | None = None,
    ) -> None:
        if max_responses < 2:
            raise ProcessingError(
                f"expected max_responses of 2 or more, got {max_responses}; chunks of a list share one answer"
            )
        self.model = model.eval()
        self.processor = processor
        self.max_responses = max_responses
        self.builder = RowBuilder(
            processor, model.settings, max_length or model.config.text_config.max_position_embeddings
        )

    def __repr__(self) -> str:
        name = self.model.base or self.model.config.name_or_path or type(self.model).__name__
        return f"Judge({name!r}, layout={self.model.settings.layout!r}, attention={self.model.settings.attention!r})"

    def score(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        images: Any = None,
        videos: Any = None,
        *,
        permutations: int = 1,
        **media: Any,
    ) -> list[float]:
        """Scores of all answers, higher is better.

        Args:
            prompt: text or messages.
            responses: the answers; one alone has a score too, but nothing to compare it with.
            images: a picture or a list of them.
            videos: a clip: a file, a folder of frames, or frames with their times (`molmopoint.video.Clip`).
            permutations: judge the list in so many orders, of which the cyclic shifts come first, and
                average. Scores then have mean zero.
            **media: settings of the processor, such as `max_crops` or `num_frames`; and `sampling_interval`,
                the seconds between the frames of a folder.

        Returns:
            One score per answer. Of lists longer than `max_responses`, what an answer scores above the first
            one.

        Raises:
            ProcessingError: no answers, an empty one or one that is no text; a picture or clip is missing or
                broken; or prompt and answers are longer than the model reads. Nothing is ever cut.
        """
        return self._answer(
            [self._request(prompt, responses, images, videos, partial(self._averaged, permutations), media)],
            1,
        )[0][0]

    def score_orders(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        orders: Sequence[Sequence[int]],
        images: Any = None,
        videos: Any = None,
        **media: Any,
    ) -> list[list[float]]:
        """Scores of the same answers in several orders, each for itself; what they are about is read once.

        Args:
            prompt: as in `score`.
            responses: as in `score`.
            orders: each says which answer stands first, second and so on.
            images: as in `score`.
            videos: as in `score`.
            **media: as in `score`.

        Returns:
            Per order the scores by place, as `score` gives them for the answers in this order.

        Raises:
            ProcessingError: as in `score`, there are no orders, or one lacks an answer.
        """
        return self._answer(
            [self._request(prompt, responses, images, videos, partial(self._apart, orders), media)], 1
        )[0]

    def rank(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        images: Any = None,
        videos: Any = None,
        *,
        permutations: int = 1,
        **media: Any,
    ) -> list[int]:
        """Rank of every answer: how many are better, so 0 is the best, and equal scores have equal ranks.
        Arguments as in `score`.
        """
        scores = np.array(self.score(prompt, responses, images, videos, permutations=permutations, **media))
        return (scores[None, :] > scores[:, None]).sum(1).tolist()

    def best(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        images: Any = None,
        videos: Any = None,
        *,
        permutations: int = 1,
        **media: Any,
    ) -> int:
        """Index of the best answer, the first of several. Arguments as in `score`."""
        return int(
            np.argmax(self.score(prompt, responses, images, videos, permutations=permutations, **media))
        )

    def compare(
        self,
        prompt: Prompt,
        a: str,
        b: str,
        images: Any = None,
        videos: Any = None,
        *,
        permutations: int = 2,
        **media: Any,
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
        """Scores of the answers to many prompts, which may differ in everything; the scores of each are those
        it has alone.

        Args:
            prompts: one per request.
            responses: the answers to each.
            images: what each is about, None for nothing; or None for all.
            videos: the same for clips.
            batch_size: prompts per run of the model.
            permutations: as in `score`.
            **media: as in `score`.

        Raises:
            ProcessingError: as in `score`, with the number of the request; or there are more of one thing
                than of another.
        """
        wanted = partial(self._averaged, permutations)
        asked = ((*request, wanted) for request in _together(prompts, responses, images, videos))
        return [scores for [scores] in self._answer_batches(asked, batch_size, media)]

    def score_orders_batch(
        self,
        prompts: Iterable[Prompt],
        responses: Iterable[Sequence[str]],
        orders: Iterable[Sequence[Sequence[int]]],
        images: Iterable[Any] | None = None,
        videos: Iterable[Any] | None = None,
        *,
        batch_size: int = 8,
        **media: Any,
    ) -> list[list[list[float]]]:
        """`score_orders` of many prompts; arguments are those of `score_batch`, and the orders of each
        request.

        Raises:
            ProcessingError: as in `score_batch` and `score_orders`.
        """
        asked = (
            (*request, partial(self._apart, given))
            for *request, given in _together(prompts, responses, images, videos, orders)
        )
        return self._answer_batches(asked, batch_size, media)

    def _answer_batches(
        self, asked: Iterator[tuple[Any, ...]], batch_size: int, media: dict[str, Any]
    ) -> list[list[list[float]]]:
        """Per request and view, the scores. `asked` has the arguments of each request but the media settings."""
        requests = self._requests(asked, media)
        scores: list[list[list[float]]] = []
        while batch := list(islice(requests, batch_size)):
            scores += self._answer(batch, batch_size)
        return scores

    def _requests(self, asked: Iterator[tuple[Any, ...]], media: dict[str, Any]) -> Iterator[_Request]:
        for number, (prompt, answers, images, videos, wanted) in enumerate(asked):
            try:
                yield self._request(prompt, answers, images, videos, wanted, media)
            except ProcessingError as error:
                raise ProcessingError(f"request {number}: {error}") from error

    def _request(
        self,
        prompt: Prompt,
        responses: Sequence[str],
        images: Any,
        videos: Any,
        wanted: _Wanted,
        media: dict[str, Any],
    ) -> _Request:
        """The rows of one prompt: one, unless its lists do not fit into one."""
        answers = check_answers(responses)
        views = wanted(len(answers))
        apart = self.model.settings.attention == "block"
        unique = list(dict.fromkeys(answers)) if apart else answers
        lists = [[number] for number in range(len(unique))]
        if not apart:
            lists = [[view.order[slot] for slot in slots] for view in views for slots in view.lists]
        part = self.builder.prompt(prompt, images, videos, **media)
        rows, done = [], 0
        while done < len(lists):
            row, count = self.builder.longest_row(part, unique, lists[done:])
            rows.append(row)
            done += count
        return _Request(rows, views, [unique.index(answer) for answer in answers] if apart else None)

    def _averaged(self, permutations: int, count: int) -> list[_View]:
        """One view of the answers as they are given: the mean over so many orders of each chunk."""
        if permutations < 1:
            raise ProcessingError(f"expected permutations of 1 or more, got {permutations}")
        return [
            _View(
                range(count),
                [
                    [chunk[i] for i in order]
                    for chunk in self._chunks(count)
                    for order in orders(len(chunk), permutations)
                ],
            )
        ]

    def _apart(self, given: Sequence[Sequence[int]], count: int) -> list[_View]:
        """A view of each order."""
        if not given:
            raise ProcessingError(f"expected one or more orders of {count} answers, got none")
        for order in given:
            if sorted(order) != list(range(count)):
                raise ProcessingError(
                    f"expected orders of {count} answers, each of 0 to {count - 1} once, got {list(order)}"
                )
        slots = self._chunks(count)
        return [_View(order, slots) for order in given]

    def _chunks(self, count: int) -> list[list[int]]:
        """Slots that are judged together."""
        if count > self.max_responses and self.model.settings.attention == "causal":
            warnings.warn(
                f"expected at most {self.max_responses} answers, got more; they are judged in chunks of at "
                f"most {self.max_responses} that "
                f"share the first answer. Published reward models were evaluated with up to {MAX_RESPONSES}",
                stacklevel=5,  # the line that asked this object
            )
        return chunks(count, self.max_responses)

    def _answer(self, requests: Sequence[_Request], batch_size: int) -> list[list[list[float]]]:
        """Runs all rows, and puts the scores of each view of each request together."""
        rows = [row for request in requests for row in request.rows]
        flat = [
            scores
            for start in range(0, len(rows), batch_size)
            for scores in self._run(rows[start : start + batch_size])
        ]
        of_rows = iter(flat)
        return [
            self._view(request, [next(of_rows)[: len(row.response_positions)] for row in request.rows])
            for request in requests
        ]

    def _view(self, request: _Request, scores: Sequence[np.ndarray]) -> list[list[float]]:
        """Scores by slot of each view, from those of the rows."""
        values = np.concatenate(scores)
        if request.judged is not None:
            by_answer = values[request.judged]
            return [by_answer[list(view.order)].tolist() for view in request.views]
        made, start = [], 0
        for view in request.views:
            ends = start + np.cumsum([len(slots) for slots in view.lists])
            parts = [values[end - len(slots) : end] for slots, end in zip(view.lists, ends, strict=True)]
            made.append(combine(len(view.order), view.lists, parts).tolist())
            start = int(ends[-1])
        return made

    def _run(self, rows: Sequence[Row]) -> np.ndarray:
        """(rows, answers) float64."""
        batch = collate(rows, self.processor.tokenizer.pad_token_id)
        with torch.inference_mode():
            device = self.model.backbone.device
            scores = self.model(
                **{name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            ).scores
        return scores.double().cpu().numpy()


def _together(
    prompts: Any, responses: Any, images: Any, videos: Any, *more: Any
) -> Iterator[tuple[Any, ...]]:
    """Prompt, answers, images, videos and more of each request.

    Raises:
        ProcessingError: one text instead of several, or more of one thing than of another.
    """
    given = [prompts, responses, images, videos, *more]
    if any(isinstance(each, str) for each in given):
        raise ProcessingError(
            "expected prompts and answers of several requests, got one text; use `score` for one prompt"
        )
    try:
        for row in zip(*(each for each in given if each is not None), strict=True):
            values = iter(row)
            yield tuple(None if each is None else next(values) for each in given)
    except ValueError as error:
        if "zip()" not in str(error):
            raise
        raise ProcessingError(
            f"expected as many lists of answers, images and videos as prompts: {error}"
        ) from error


def load_reward(
    name_or_path: str | Path,
    *,
    layout: Layout | None = None,
    attention: Attention | None = None,
    base: str | Path | None = None,
    max_responses: int = MAX_RESPONSES,
    max_length: int | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    **kwargs: Any,
) -> Judge:
    """A reward model with its processor, ready to judge.

    Args:
        name_or_path: a name of the zoo, an id on the hub such as "yinuoy/MR2-Molmo2-4B-RM", or a folder:
            ours, or one of the authors' (merged, or adapters with head and config).
        layout: read the model with another layout than it was stored with; the authors' files name none, and
            get "assistant".
        attention: the same for who sees whom.
        base: the model below the adapters, where a folder of adapters names none that can be found from here.
        max_responses: longer lists are judged in chunks of so many that share an answer.
        max_length: tokens of a row at most; the positions of the model by default.
        dtype: of the backbone, as in transformers; bfloat16 on a GPU and float32 on the CPU by default. The
            head is always float32.
        device_map: one device ("cuda:1"), or as in transformers. By default the GPU if there is one, else the
            CPU.
        revision: branch, tag or commit on the hub.
        attn_implementation: as in transformers; SDPA by default.
        **kwargs: further arguments of `from_pretrained`, such as `local_files_only`.

    Raises:
        CheckpointError: there is no such model, it is no reward model, or its files do not fit each other.
    """
    model, processor = RewardModel.from_pretrained(
        name_or_path,
        layout=layout,
        attention=attention,
        base=base,
        dtype=dtype,
        device_map=device_map,
        revision=revision,
        attn_implementation=attn_implementation,
        **kwargs,
    )
    return Judge(model, processor, max_responses=max_responses, max_length=max_length)
