"""What a benchmark is: where its data lies, how it asks, how an answer is scored, what its table looks like.

A benchmark is one class in one file of `benchmarks/`. The runner, stored predictions, reports and the gallery
know nothing about single benchmarks; they use only what stands here.

    items = benchmark.read(folder)              # every item, and what is missing and why
    result = pointer.point(item.images, item.prompt, **benchmark.generation.point_options())
    scores = benchmark.score(item, ParsedAnswer(...), rule="official")        # {"correct": 1.0}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.video import SampleMode

CUT_LIST = "coordinates as text without their closing quote are no points"
"""A flaw of the reference, in videos and tracks: an answer that was cut loses all of its list."""

Need = Literal["points", "scores"]
"""What a benchmark asks a model for: to point, or to score responses."""

ItemScores = dict[str, float]
"""Numbers of one item, by metric."""


@dataclass(frozen=True)
class DatasetSource:
    """Where the data is published.

    Attributes:
        repo: data set on the hub; None for data that is made here or published elsewhere.
        revision: pinned commit; None where nobody could look it up, which every report says.
        patterns: files of the repository that are needed.
        note: what has to be fetched from elsewhere, such as videos, and how the folder must look.
        licence: as the publisher names it.
        address: of data that is published elsewhere, to be fetched by hand.
    """

    repo: str | None
    revision: str | None = None
    patterns: tuple[str, ...] = ()
    note: str = ""
    licence: str = ""
    address: str = ""


@dataclass(frozen=True)
class GenerationSettings:
    """How the model is asked.

    Attributes:
        max_new_tokens: of an answer; 0 where responses are scored and nothing is written.
        single: exactly one point.
        max_crops: per picture; None as the processor says, or `min_crops`.
        min_crops: crops per picture where `max_crops` is None and the processor says fewer.
        template: prompt template of benchmarks that only name things; None as the item's prompt is, sent as
            `"{}"`.
        fps: frames per second of clips; in mode `fps` the lowest rate.
        max_frames: of clips.
        sample_mode: which frames of clips: `uniform_last_frame`, or `fps`, the highest rate up to 10 frames a
            second that is a multiple of `fps` and divides that of the clip, without the last moment. See
            `molmopoint.video.sample_times`.
        orders: in how many orders responses are scored; None for as many as there are responses.
        steerable: of Point-Bench, how a question tells the point it refers to; see there.
        zoom: look again at native pixels around the likeliest places of large pictures.
        picture_area: width times height that pictures are brought to before the model sees them; None leaves them
            as they are.
    """

    max_new_tokens: int
    single: bool = False
    max_crops: int | None = None
    template: str | None = None
    fps: float = 2.0
    max_frames: int = 384
    orders: int | None = None
    sample_mode: SampleMode = "uniform_last_frame"
    min_crops: int | None = None
    steerable: Literal["none", "text", "drawn"] | None = None
    zoom: bool = False
    picture_area: int | None = None

    def point_options(self) -> dict[str, Any]:
        """Arguments of `Pointer.point` and `Pointer.point_batch`."""
        return {
            "template": self.template or "{}",
            "max_new_tokens": self.max_new_tokens,
            "single": self.single,
            "max_crops": self.max_crops,
            "zoom": self.zoom,
        }


@dataclass(frozen=True)
class VideoSegment:
    """A video, or a part of one, to ask about.

    Attributes:
        path: a video file or a folder of frames.
        start: seconds; None from the beginning.
        end: seconds; None to the end.
        frames_per_second: of a folder of frames.
    """

    path: Path
    start: float | None = None
    end: float | None = None
    frames_per_second: float | None = None


@dataclass(frozen=True, eq=False)
class Item:
    """One question of a benchmark.

    Attributes:
        item_id: stable, made from the content ("counting/0012.jpg#3"), never from the position in the data.
        prompt: what is asked, ready to be sent.
        images: files of the pictures; empty for clips.
        clip: the clip; None for pictures.
        truth: what the benchmark needs to score an answer; for nobody else's eyes.
        categories: value per way of grouping, such as {"group": "CAD", "ui_type": "icon"}; several values
            where an item is in several groups.
        cluster: items of one cluster are not independent (same picture, same video); intervals resample
            clusters.
        image_sizes: (width, height) of the displayed pictures or of the clip, where the data says so.
        responses: to the prompt, to be scored; empty where the model answers itself.
        phrase: what the prompt says, without the form for Molmo; families with a form of their own are asked with
            it. None where the prompt has no such form.
    """

    item_id: str
    prompt: str
    images: tuple[Path, ...] = ()
    clip: VideoSegment | None = None
    truth: Any = None
    categories: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    cluster: str = ""
    image_sizes: tuple[tuple[int, int], ...] = ()
    responses: tuple[str, ...] = ()
    phrase: str | None = None


@dataclass(frozen=True)
class Missing:
    """An item that cannot be asked or scored. It is counted and listed, never dropped.

    Attributes:
        item_id: of the item.
        reason: short, the same words for the same fault, so that reasons can be counted ("no mask file").
        detail: file name or message.
    """

    item_id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Items:
    """What reading a folder gives.

    Attributes:
        found: items in a fixed order.
        missing: the others; `len(found) + len(missing)` is the size of the benchmark as it lies there.
        warnings: faults that were mended by a rule, by kind ("mask of another size than its picture": 3).
    """

    found: tuple[Item, ...]
    missing: tuple[Missing, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredPass:
    """One look of a reward model at all responses of an item. Letter: N responses.

    Attributes:
        order: (N,) the response in each slot, counted from 0 as the data has them.
        scores: (N,) by response, not by slot; higher is better.
    """

    order: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class ParsedAnswer:
    """What a model said about an item, whoever stored it.

    Attributes:
        xy: (n, 2) float64, pixels of the displayed original; no NaN (such points are counted in `invalid`).
        group: (n,) float64, number of the picture from 0, or seconds of the clip.
        object_id: (n,) int64, -1 where the model gave none.
        text: the answer in words.
        truncated: cut by the limit of tokens.
        invalid: points that name no place.
        image_sizes: (width, height) the pixels belong to.
        passes: scores of the item's responses, in each order they were shown in.
        closed: points of lists of coordinates as text that have their closing quote; None where all have it.
    """

    xy: np.ndarray
    group: np.ndarray
    object_id: np.ndarray
    text: str = ""
    truncated: bool = False
    invalid: int = 0
    image_sizes: tuple[tuple[int, int], ...] = ()
    passes: tuple[ScoredPass, ...] = ()
    closed: int | None = None

    def __len__(self) -> int:
        return len(self.xy)

    def as_reference_reads(self) -> ParsedAnswer:
        """Without the points of a list that was cut before its closing quote, of which the reference reads
        nothing.
        """
        kept = slice(self.closed)
        return replace(self, xy=self.xy[kept], group=self.group[kept], object_id=self.object_id[kept])


@dataclass(frozen=True, eq=False)
class ShownTarget:
    """Something to point at, as the gallery draws it.

    Attributes:
        rings: outlines, each (v, 2) pixels; what lies inside of an odd number of them belongs to the target.
        group: number of the picture from 0, or seconds of the clip.
        point: (x, y) pixels where an annotator pointed, or None.
    """

    rings: tuple[np.ndarray, ...] = ()
    group: float = 0.0
    point: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class ShownTruth:
    """The right answer to an item, as the gallery draws it.

    Attributes:
        targets: what to point at; empty where the right answer is no point.
        count: the right number of points; None where it does not matter, or nobody knows.
        size: (width, height) that the pixels belong to; None if those of the displayed picture.
    """

    targets: tuple[ShownTarget, ...] = ()
    count: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class View:
    """A way of grouping items in the table.

    Attributes:
        category: key of `Item.categories`; several keys are crossed (("group", "ui_type")).
        macro: also report the mean over the groups.
        order: groups in the order of the table; others follow by name.
    """

    category: tuple[str, ...]
    macro: bool = False
    order: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A number of the table.

    Attributes:
        name: key of what `score` returns.
        kind: "binary" gets a Wilson interval, "mean" a bootstrap over clusters.
        title: in tables.
        given: name of another 0/1 key; only items where it is 1 count (recall over answered ones and the
            like).
    """

    name: str
    kind: Literal["binary", "mean"]
    title: str = ""
    given: str | None = None


class Benchmark(ABC):
    """A benchmark; see the module.

    Attributes:
        name: on the command line.
        needs: a model that points, or one that scores responses.
        title: as its authors write it, with the paper.
        version: of this file's rules; raise it when scores may change.
        source: where the data is.
        generation: how the model is asked.
        rules: ways of scoring, the default first; one name if there is only one.
        headline: (metric, category of the macro mean or None for the mean over all items) of the one number
            people quote; see `headline_of` where rules differ in it.
        metrics: of the table, the headline first.
        views: groupings of the table.
        shares: numbers of `score` whose means stand below the table.
        expects_one: whether more than one point is reported as a fault of the answer.
        flaws: names of the reference's flaws that `ref_compat` repeats.
        own_settings: fields of `GenerationSettings` that only this benchmark knows.
    """

    name: ClassVar[str]
    needs: ClassVar[Need] = "points"
    title: ClassVar[str]
    version: ClassVar[int] = 1
    source: ClassVar[DatasetSource]
    generation: ClassVar[GenerationSettings]
    rules: ClassVar[tuple[str, ...]]
    headline: ClassVar[tuple[str, str | None]]
    metrics: ClassVar[tuple[Metric, ...]]
    views: ClassVar[tuple[View, ...]] = ()
    shares: ClassVar[tuple[str, ...]] = ()
    expects_one: ClassVar[bool] = False
    flaws: ClassVar[tuple[str, ...]] = ()
    own_settings: ClassVar[tuple[str, ...]] = ()

    def headline_of(self, rule: str) -> tuple[str, str | None]:
        """The headline by one rule."""
        return self.headline

    @abstractmethod
    def read(self, folder: Path) -> Items:
        """Every item of the data in its published layout, masks included; pictures and clips are not opened.

        Items name the files of their pictures whether they are there or not: the runner sorts out those that
        are missing, and stored answers are scored without them.

        Args:
            folder: as downloaded.

        Raises:
            EvaluationError: the folder is not this benchmark's; the message says which files were expected.
        """

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Writes a few made items in the published layout, with the faults that the real data has.

        With it the whole path can be tried without a download: `molmopoint eval NAME --data fixture`.

        Args:
            folder: new and empty.
            rng: decides everything that is drawn by chance.

        Raises:
            EvaluationError: the benchmark has no made items.
        """
        raise EvaluationError(f"expected made items for {self.name}, got none; pass a folder with --data")

    def apply_settings(self, items: Items, settings: GenerationSettings, rule: str, folder: Path) -> Items:
        """The items as they are asked with some settings, where these change a prompt or a picture.

        Args:
            items: of `read`.
            settings: how the model is asked.
            rule: one of `rules`, by which the answers will be scored.
            folder: of the data.

        Raises:
            EvaluationError: the data does not have what a setting needs.
        """
        return items

    @abstractmethod
    def score(self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False) -> ItemScores:
        """Numbers of one item, by metric name. A pure function; needs no picture.

        Args:
            item: of this benchmark.
            answer: to it. An item whose model or media failed does not come here; it is wrong.
            rule: one of `rules`.
            ref_compat: repeat the reference's flaws, named in `flaws`.
        """

    def score_together(  # noqa: B027 - most benchmarks score every item alone
        self,
        items: Sequence[Item],
        answers: Mapping[str, ParsedAnswer],
        scores: dict[str, ItemScores],
        rule: str,
    ) -> None:
        """Adds numbers to `scores` that take several items, such as "all pairs of a question right".

        Args:
            items: that were asked.
            answers: by item id; items whose model or media failed have none.
            scores: what `score` said, by item id.
            rule: one of `rules`.
        """

    def shown_truth(self, item: Item) -> ShownTruth | None:
        """What the gallery draws as the right answer, and measures distances to; None where nothing can be
        drawn.

        It has no part in scoring. `molmopoint.eval.outlines` makes outlines of boxes and masks.
        """
        return None


def score_items(
    benchmark: Benchmark,
    items: Sequence[Item],
    answers: Mapping[str, ParsedAnswer],
    rule: str,
    *,
    ref_compat: bool = False,
) -> dict[str, ItemScores]:
    """Numbers of every item, by id; an item without an answer is scored with an empty one."""
    nothing = ParsedAnswer(np.empty((0, 2)), np.empty(0), np.empty(0, dtype=np.int64))
    scores = {}
    for item in items:
        answer = answers.get(item.item_id, nothing)
        scores[item.item_id] = benchmark.score(item, answer, rule, ref_compat=ref_compat)
    return scores
