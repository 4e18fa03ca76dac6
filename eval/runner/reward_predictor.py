"""Predicts scores of the responses to a benchmark's prompts with a reward model, in several orders.

A reward model is anything with `score(prompt, responses, images=None, videos=None)`, one number per response,
higher is better; `molmopoint.load_reward` gives one. With `score_batch` as well, several calls go through the
model together; with `score_orders_batch`, all orders of an item do, so that its pictures are read once.

A model that reads all responses together may like some slots better than others. So every item is scored
several times, each response standing in each slot once, and the order of every pass is kept with its scores.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import GenerationSettings, Item, ScoredPass
from molmopoint.eval.datasets.videos import read_frames
from molmopoint.eval.predictions.records import Prediction
from molmopoint.eval.runner.predictor import FAULTS, Profile, failed_prediction
from molmopoint.video import Clip

Order = tuple[int, ...]
"""(N,) the response in each slot, counted from 0 as the data has them."""


class ResponseScorer(Protocol):
    """What scores responses."""

    def score(
        self, prompt: Any, responses: Sequence[str], images: Any = None, videos: Any = None
    ) -> Sequence[float]:
        """A finite number per response, higher is better.

        Args:
            prompt: what they answer.
            responses: in the order they are shown in.
            images: paths of the pictures the prompt is about, or None.
            videos: path of the video file the prompt is about, or its frames and times as a
                `molmopoint.video.Clip`, in a list; or None.
        """
        ...


def orders_of(item_id: str, num_responses: int, passes: int | None = None) -> list[Order]:
    """Orders for the responses of an item, the same ones every time.

    The first one is drawn by chance, so that no habit of the data's authors (the better response first) tells
    anything. Those after it are its rotations, so that N passes put every response into every slot once: both
    orders of a pair. Then come other orders with their rotations, as long as there are new ones.

    Args:
        item_id: decides the draw.
        num_responses: N.
        passes: how many; None for N of them.
    """
    count = num_responses if passes is None else passes
    return list(islice(_all_orders(item_id, num_responses), count))


def _all_orders(item_id: str, num_responses: int) -> Iterator[Order]:
    seed = int.from_bytes(hashlib.sha256(item_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    seen: set[Order] = set()
    while len(seen) < math.factorial(num_responses):
        first = tuple(int(i) for i in rng.permutation(num_responses))
        if first in seen:
            continue
        for shift in range(num_responses):
            order = first[shift:] + first[:shift]
            seen.add(order)
            yield order


class RewardPredictor:
    """Has a reward model score the responses of one benchmark's items.

    Args:
        scorer: the reward model.
        task: name of the benchmark.
        version: of its rules.
        settings: how many orders, and how many frames of folders of frames.
        batch_size: passes per run of the model, if it takes several; an item's passes stay together, and
            clips go one item at a time.
        rank: of this process.
        profile: is told where the time goes.
    """

    def __init__(
        self,
        scorer: ResponseScorer,
        task: str,
        version: int,
        settings: GenerationSettings,
        *,
        batch_size: int = 8,
        rank: int = 0,
        profile: Profile | None = None,
    ) -> None:
        self.scorer = scorer
        self.task = task
        self.version = version
        self.settings = settings
        self.batch_size = batch_size
        self.rank = rank
        self.profile = profile or Profile()

    def predict(self, items: Sequence[Item]) -> Iterator[list[Prediction]]:
        """Scores in batches of one kind of media: pictures, clips, text. An item that fails has its error."""
        about_pictures = [item for item in items if item.clip is None and item.images]
        about_clips = [item for item in items if item.clip is not None]
        about_text = [item for item in items if item.clip is None and not item.images]
        for of_one_kind in (about_pictures, about_clips, about_text):
            for batch in self._batches(of_one_kind):
                yield self._predictions(batch)

    def _batches(self, items: Sequence[Item]) -> Iterator[list[Item]]:
        batch: list[Item] = []
        passes = 0
        for item in items:
            more = len(self._orders(item))
            is_full = passes + more > self.batch_size or item.clip is not None
            if batch and is_full:
                yield batch
                batch = []
                passes = 0
            batch.append(item)
            passes += more
        if batch:
            yield batch

    def _orders(self, item: Item) -> list[Order]:
        return orders_of(item.item_id, len(item.responses), self.settings.orders)

    def _predictions(self, items: Sequence[Item]) -> list[Prediction]:
        """Of one batch; if it fails as a whole, of its items one by one."""
        start = time.perf_counter()
        try:
            with self.profile.phase("model"):
                passes = self._passes(items)
        except FAULTS as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                torch.cuda.empty_cache()
            if len(items) == 1:
                return [failed_prediction(self._common(items[0]), error, time.perf_counter() - start)]
            predictions = []
            for item in items:
                predictions += self._predictions([item])
            return predictions
        latency = round((time.perf_counter() - start) / len(items), 6)
        predictions = []
        for item, of_item in zip(items, passes, strict=True):
            predictions.append(Prediction(**self._common(item), passes=of_item, latency=latency))
        return predictions

    def _passes(self, items: Sequence[Item]) -> list[tuple[ScoredPass, ...]]:
        """The passes of each item."""
        orders = [self._orders(item) for item in items]
        scores = self._scores(items, orders)
        wanted = sum(map(len, orders))
        if len(scores) != wanted:
            raise EvaluationError(
                f"expected scores of {wanted} passes, got {len(scores)}; the reward model is at fault"
            )
        passes = []
        done = 0
        for of_item in orders:
            by_slot = scores[done : done + len(of_item)]
            done += len(of_item)
            passes.append(tuple(map(_checked, of_item, by_slot)))
        return passes

    def _scores(self, items: Sequence[Item], orders: Sequence[Sequence[Order]]) -> list[Sequence[float]]:
        """(N,) scores by slot of every order of every item, one after the other."""
        media = [media_of(item, self.settings) for item in items]
        score_orders = getattr(self.scorer, "score_orders_batch", None)
        if score_orders is not None:
            prompts = [item.prompt for item in items]
            responses = [item.responses for item in items]
            scores: list[Sequence[float]] = []
            for of_item in score_orders(prompts, responses, orders, **_columns(media)):
                scores += of_item
            return scores
        prompts, responses, of_calls = [], [], []
        for item, of_item, its_media in zip(items, orders, media, strict=True):
            for order in of_item:
                prompts.append(item.prompt)
                responses.append([item.responses[i] for i in order])
                of_calls.append(its_media)
        score_batch = getattr(self.scorer, "score_batch", None)
        if score_batch is not None:
            return score_batch(prompts, responses, **_columns(of_calls))
        calls = zip(prompts, responses, of_calls, strict=True)
        return [self.scorer.score(prompt, texts, **its_media) for prompt, texts, its_media in calls]

    def _common(self, item: Item) -> dict[str, Any]:
        return {
            "item_id": item.item_id,
            "task": self.task,
            "task_version": self.version,
            "rank": self.rank,
            "prompt": item.prompt,
        }


def media_of(item: Item, settings: GenerationSettings) -> dict[str, Any]:
    """What `ResponseScorer.score` gets of an item: `images` and `videos`.

    A file is opened by the model; a part of one, or frames, here.
    """
    clip = item.clip
    if clip is None:
        return {"images": list(item.images) or None, "videos": None}
    is_whole_file = not clip.path.is_dir() and clip.start is None and clip.end is None
    video = clip.path if is_whole_file else Clip(*read_frames(clip, settings))
    return {"images": None, "videos": [video]}


def _columns(media: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """`images` and `videos` of several."""
    rows = list(media)
    return {name: [each[name] for each in rows] for name in ("images", "videos")}


def _checked(order: Order, scores: Any) -> ScoredPass:
    """Scores by response, from those by slot.

    Raises:
        EvaluationError: there is not one finite number per response.
    """
    by_slot = [float(score) for score in scores]
    if len(by_slot) != len(order) or not all(map(math.isfinite, by_slot)):
        raise EvaluationError(
            f"expected {len(order)} finite scores, one per response, got {by_slot}; the reward model is at "
            "fault"
        )
    by_response = dict(zip(order, by_slot, strict=True))
    return ScoredPass(order, tuple(by_response[i] for i in range(len(by_slot))))
