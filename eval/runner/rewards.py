"""Has a reward model score the responses of a benchmark's items, in every order, and writes it down as soon as it is there.

A judge is anything with `score(prompt, responses, images=None, videos=None)`, one number per response, higher is better;
`molmopoint.load_reward` gives one. With `score_batch` as well, several calls go through the model together; with `score_orders_batch`,
all orders of an item do, so that its pictures are read once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Asking, Benchmark, Item
from molmopoint.eval.passes import ScoredPass, orders_of
from molmopoint.eval.runner.predict import FAULTS, Profile, cut_clip, failed_prediction
from molmopoint.eval.runner.records import Prediction
from molmopoint.video import Clip as Frames


class Scorer(Protocol):
    """What scores responses."""

    def score(self, prompt: Any, responses: Sequence[str], images: Any = None, videos: Any = None) -> Sequence[float]:
        """A finite number per response, higher is better.

        Args:
            prompt: what they answer.
            responses: in the order they are shown in.
            images: paths of the pictures the prompt is about, or None.
            videos: path of the video file the prompt is about, or its frames and times as a `molmopoint.video.Clip`, in a list; or None.
        """
        ...


def check_judge(asked: Any, benchmark: Benchmark) -> None:
    """Refuses a model of the wrong kind.

    Raises:
        EvaluationError: the benchmark wants scores and the model only points, or the other way round.
    """
    if benchmark.needs == "scores" and not callable(getattr(asked, "score", None)):
        raise EvaluationError(
            f"expected a reward model for {benchmark.name}, got {type(asked).__name__}, which scores no responses; "
            "load one with molmopoint.load_reward, or with --model in the command line"
        )
    if benchmark.needs == "points" and not callable(getattr(asked, "point_batch", None)):
        raise EvaluationError(
            f"expected a model that points for {benchmark.name}, got {type(asked).__name__}, which does not; load one with molmopoint.load"
        )


@dataclass(frozen=True)
class _Call:
    """One pass over one item."""

    item: Item
    order: tuple[int, ...]

    @property
    def responses(self) -> list[str]:
        return [self.item.responses[i] for i in self.order]


class RewardAsker:
    """Has items of one benchmark scored.

    Args:
        judge: the reward model.
        task: name of the benchmark.
        version: of its file.
        asking: how many orders, and how many frames of folders of frames.
        batch_size: passes per run of the model, if it takes several; an item's passes stay together, and clips go one item at a time.
        rank: of this process.
        profile: is told where the time goes.
    """

    def __init__(
        self,
        judge: Scorer,
        task: str,
        version: int,
        asking: Asking,
        *,
        batch_size: int = 8,
        rank: int = 0,
        profile: Profile | None = None,
    ) -> None:
        self.judge = judge
        self.task, self.version = task, version
        self.asking = asking
        self.batch_size = batch_size
        self.rank = rank
        self.profile = profile or Profile()

    def ask(self, items: Sequence[Item]) -> Iterator[list[Prediction]]:
        """Scores in batches of one kind of media, pictures first. An item that fails is answered with its error."""
        for kind in (lambda item: item.clip is None and item.images, lambda item: item.clip is not None, _is_text):
            for batch in self._batches([item for item in items if kind(item)]):
                yield self._answers(batch)

    def _batches(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        batch: list[Item] = []
        passes = 0
        for item in items:
            more = len(self._calls(item))
            if batch and (passes + more > self.batch_size or item.clip is not None):
                yield batch
                batch, passes = [], 0
            batch.append(item)
            passes += more
        if batch:
            yield batch

    def _calls(self, item: Item) -> list[_Call]:
        return [_Call(item, order) for order in orders_of(item.item_id, len(item.responses), self.asking.orders)]

    def _answers(self, items: Sequence[Item]) -> list[Prediction]:
        """Of one batch; if it fails as a whole, of its items one by one."""
        start = time.perf_counter()
        of_items = [self._calls(item) for item in items]
        calls = [call for of_item in of_items for call in of_item]
        try:
            with self.profile.phase("model"):
                scored = [_checked(call, scores) for call, scores in zip(calls, self._scores(items, of_items), strict=True)]
        except FAULTS as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            if len(items) > 1:
                return [answer for item in items for answer in self._answers([item])]
            return [failed_prediction(self._common(items[0]), error, time.perf_counter() - start)]
        latency = round((time.perf_counter() - start) / len(items), 6)
        passes: dict[str, list[ScoredPass]] = {}
        for call, each in zip(calls, scored, strict=True):
            passes.setdefault(call.item.item_id, []).append(each)
        return [Prediction(**self._common(item), passes=tuple(passes[item.item_id]), latency=latency) for item in items]

    def _scores(self, items: Sequence[Item], of_items: Sequence[Sequence[_Call]]) -> list[Sequence[float]]:
        """Of each call of each item, by slot."""
        media = {item.item_id: media_of(item, self.asking) for item in items}
        if (in_orders := getattr(self.judge, "score_orders_batch", None)) is not None:
            orders = [[call.order for call in calls] for calls in of_items]
            scored = in_orders([item.prompt for item in items], [item.responses for item in items], orders, **_columns(media.values()))
            return [scores for of_item in scored for scores in of_item]
        calls = [call for of_item in of_items for call in of_item]
        if (batched := getattr(self.judge, "score_batch", None)) is not None:
            of_calls = _columns(media[call.item.item_id] for call in calls)
            return batched([call.item.prompt for call in calls], [call.responses for call in calls], **of_calls)
        return [self.judge.score(call.item.prompt, call.responses, **media[call.item.item_id]) for call in calls]

    def _common(self, item: Item) -> dict[str, Any]:
        return {"item_id": item.item_id, "task": self.task, "task_version": self.version, "rank": self.rank, "prompt": item.prompt}


def _is_text(item: Item) -> bool:
    return item.clip is None and not item.images


def media_of(item: Item, asking: Asking) -> dict[str, Any]:
    """What `Scorer.score` gets of an item: `images` and `videos`. A file is opened by the model; a part of one, or frames, here."""
    clip = item.clip
    if clip is None:
        return {"images": list(item.images) or None, "videos": None}
    whole_file = not clip.path.is_dir() and clip.start is None and clip.end is None
    return {"images": None, "videos": [clip.path if whole_file else Frames(*cut_clip(clip, asking))]}


def _columns(media: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """`images` and `videos` of several."""
    rows = list(media)
    return {name: [each[name] for each in rows] for name in ("images", "videos")}


def _checked(call: _Call, scores: Any) -> ScoredPass:
    """Scores by response.

    Raises:
        EvaluationError: there is not one finite number per response.
    """
    numbers = [float(score) for score in scores]
    if len(numbers) != len(call.order) or not all(map(math.isfinite, numbers)):
        raise EvaluationError(f"expected {len(call.order)} finite scores, one per response, got {numbers}; the reward model is at fault")
    by_response = dict(zip(call.order, numbers, strict=True))
    return ScoredPass(call.order, tuple(by_response[i] for i in range(len(numbers))))
