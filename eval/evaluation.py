"""Evaluating a model on a benchmark: predict, score, report. `molmopoint eval` is a thin layer on what stands
here.

    result = molmopoint.evaluate("nano", "synthetic", limit=50)
    result.score                  # the number people quote, 0..1
    print(result.table())         # all numbers with their intervals

Each part can be repeated alone, because everything between them is on the disk:

OUT/TASK/manifest.json            settings; another run with others is refused
OUT/TASK/predictions[.RANK].jsonl answers, appended to
OUT/TASK/items.jsonl              numbers per item
OUT/TASK/metrics.json             all numbers, settings, versions, coverage
OUT/TASK/table.md, table.csv      for people, for spreadsheets
OUT/TASK/gallery.html             pictures with answers, to look at
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Benchmark, GenerationSettings, ItemScores
from molmopoint.eval.benchmarks import find_benchmark
from molmopoint.eval.predictions.records import Prediction, PredictionWriter, read_folder
from molmopoint.eval.reports.gallery import write_gallery
from molmopoint.eval.reports.summary import Summary
from molmopoint.eval.reports.tables import headline_line, markdown
from molmopoint.eval.runner import run_folder
from molmopoint.eval.runner.data import BenchmarkData, choose, open_data
from molmopoint.eval.runner.models import check_model, identity_of, load_model, name_of, weights_digest
from molmopoint.eval.runner.predictor import OnProgress, Predictor, Profile
from molmopoint.eval.runner.reward_predictor import ResponseScorer, RewardPredictor
from molmopoint.eval.runner.scoring import score_predictions, write_report
from molmopoint.eval.runner.settings import (
    changed_settings,
    check_rule,
    check_zoom,
    manifest_settings,
    with_crops,
)
from molmopoint.pipeline import Pointer
from molmopoint.version import __version__


@dataclass(frozen=True)
class Shard:
    """This process among those that share the items.

    Attributes:
        rank: from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def from_environment(cls) -> Shard:
        """As torchrun and accelerate set it."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def wait_for_all(self) -> None:
        """Until every process has answered its share; the first one then scores."""
        if self.world == 1:
            return
        from torch import distributed

        if not distributed.is_initialized():
            # Shares take different times; nothing is wrong as long as the processes live.
            distributed.init_process_group("gloo", timeout=timedelta(days=7))
        distributed.barrier()

    def leave(self) -> None:
        """Ends what `wait_for_all` began; left to the end of the process, its threads abort it now and then."""
        if self.world == 1:
            return
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """What a run comes to.

    Attributes:
        benchmark: that was run.
        summary: all numbers with their intervals, coverage, rule.
        item_scores: numbers of every scored item, by its id.
        predictions: the answers, by item id.
        data: the items.
        folder: with the files of the run; None where nothing was kept.
    """

    benchmark: Benchmark
    summary: Summary
    item_scores: Mapping[str, ItemScores]
    predictions: Mapping[str, Prediction]
    data: BenchmarkData
    folder: Path | None = None

    @property
    def score(self) -> float:
        """The one number people quote, 0..1; `summary.headline` also has its interval and its rule."""
        return self.summary.headline.value

    @property
    def scores(self) -> dict[str, float]:
        """Every metric over all items, 0..1; NaN where no item has it."""
        return {cell.metric: cell.value for cell in self.summary.cells if not cell.view}

    def table(self) -> str:
        """All numbers with their intervals, as Markdown."""
        return markdown(self.summary)

    def __str__(self) -> str:
        return f"{self.summary.title}: {headline_line(self.summary)}"


def evaluate(
    model: Any,
    benchmark: str | Path | Benchmark,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    rule: str | None = None,
    ref_compat: bool = False,
    settings: Mapping[str, Any] | None = None,
    segmenter: Any = None,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    quantize: str | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationResult:
    """Runs a model on a benchmark; the same path as `molmopoint eval`.

    Several processes (`torchrun`) share the items; each gets the whole result, and the first one writes the
    report.

    Args:
        model: a `Pointer`, a reward model for reward benchmarks, or a name of the zoo, hub id or folder of
            one.
        benchmark: its name, the path of a Python file with one, or a `Benchmark`.
        data: folder in the published layout, or "fixture" for a few made items; by default the hub.
        out: folder of the run, which gets one for the benchmark in it; the same call goes on there where it
            was interrupted. None keeps nothing.
        limit: items at most, the same ones every time.
        batch_size: pictures per run of the model.
        rule: of scoring; by default the benchmark's first.
        ref_compat: repeat the known flaws of the reference.
        settings: fields of `GenerationSettings` instead of the benchmark's own, such as {"max_crops": 8}.
        segmenter: what `molmopoint.load_segmenter` returns, for J&F beside the scores of tracking benchmarks.
        revision: of a model given by name: branch, tag or commit on the hub.
        dtype: of a model given by name: float32, bfloat16, float16 or auto.
        device: of a model given by name, such as "cuda:1"; by default a GPU if there is one.
        quantize: of a model given by name: fewer bits for its weights, as in `molmopoint.load`.
        on_progress: is told how many more items are done.

    Raises:
        EvaluationError: the data, the folder or a setting cannot be used, or the model is of the other kind.
        CheckpointError: the model cannot be loaded.
    """
    if not isinstance(benchmark, Benchmark):
        benchmark = find_benchmark(str(benchmark))
    shard = Shard.from_environment()
    if out is None and shard.world > 1:
        raise EvaluationError("expected a folder in `out` that all processes share, got none; pass out=...")
    with contextlib.ExitStack() as stack:
        place = Path(out or stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(run_folder.locked(place / benchmark.name, shard.rank))
        stack.callback(shard.leave)
        evaluation = Evaluation.prepare(
            benchmark,
            place,
            data=data,
            changes=settings,
            rule=rule,
            limit=limit,
            batch_size=batch_size,
            ref_compat=ref_compat,
            segmenter=segmenter,
            shard=shard,
        )
        if isinstance(model, str | Path):
            name = str(model)
            model = load_model(
                name, benchmark, revision=revision, dtype=dtype, device=device, quantize=quantize
            )
            identity = identity_of(model, benchmark, name, revision)
        else:
            identity = identity_of(model, benchmark, name_of(model))
            if out is not None:
                identity["weights"] = weights_digest(model)
        evaluation.predict(model, identity, on_progress)
        shard.wait_for_all()
        result = evaluation.report(identity["model"])
    return result if out is not None else replace(result, folder=None)


@dataclass
class Evaluation:
    """One benchmark, read and ready for a model; `prepare` makes it.

    Attributes:
        benchmark: whose items are asked.
        data: the items.
        folder: of the run, OUT/TASK.
        settings: how to ask.
        rule: of scoring.
        limit: items at most; see `choose`.
        batch_size: items per run of the model.
        ref_compat: repeat the reference's flaws.
        segmenter: what `molmopoint.load_segmenter` returns, or None.
        shard: of this process.
        profile: is told where the time goes.
    """

    benchmark: Benchmark
    data: BenchmarkData
    folder: Path
    settings: GenerationSettings
    rule: str
    limit: int | None = None
    batch_size: int = 8
    ref_compat: bool = False
    segmenter: Any = None
    shard: Shard = field(default_factory=Shard)
    profile: Profile = field(default_factory=Profile)

    @classmethod
    def prepare(
        cls,
        benchmark: Benchmark,
        out: Path,
        *,
        data: str | Path | None = None,
        changes: Mapping[str, Any] | None = None,
        rule: str | None = None,
        **options: Any,
    ) -> Evaluation:
        """Reads the data; no model is needed yet.

        Args:
            benchmark: whose items are asked.
            out: folder of the run, which gets one for the benchmark.
            data: see `open_data`.
            changes: fields of `GenerationSettings` instead of the benchmark's own.
            rule: of scoring; by default the benchmark's first.
            options: the other attributes.

        Raises:
            EvaluationError: there is no such data, rule or setting.
        """
        profile = Profile()
        with profile.phase("read and index"):
            settings = changed_settings(benchmark, changes or {})
            rule = check_rule(benchmark, rule)
            items = open_data(benchmark, data, out, settings=settings, rule=rule)
            check_zoom(settings, items.items.found)
        return cls(benchmark, items, out / benchmark.name, settings, rule, profile=profile, **options)

    @property
    def num_items(self) -> int:
        """Of this process's share."""
        return len(choose(self.data.items.found, self.limit)[self.shard.rank :: self.shard.world])

    def predict(self, model: Any, identity: Mapping[str, Any], on_progress: OnProgress | None = None) -> None:
        """Asks every item of this process's share that has no answer yet.

        Args:
            model: one that points, or for reward benchmarks one that scores responses.
            identity: what `manifest.json` says about it; see `identity_of`.
            on_progress: is told of every batch, first of the items that were done before.

        Raises:
            EvaluationError: the folder holds answers made under other settings, or the model is of the other
                kind.
        """
        predict(
            model,
            self.benchmark,
            self.data,
            self.folder,
            settings=self.settings,
            identity=identity,
            limit=self.limit,
            batch_size=self.batch_size,
            shard=self.shard,
            profile=self.profile,
            on_progress=on_progress,
        )

    def report(self, model: str) -> EvaluationResult:
        """Scores the answers of all processes, and writes the report if this process is the first one.

        Args:
            model: its name.

        Raises:
            EvaluationError: there is no answer.
        """
        with self.profile.phase("judge and report"):
            chosen = {item.item_id for item in choose(self.data.items.found, self.limit)}
            stored = read_folder(self.folder)
            predictions = {item_id: each for item_id, each in stored.items() if item_id in chosen}
            return score_run(
                self.benchmark,
                self.data,
                predictions,
                self.rule,
                folder=self.folder,
                about=lambda: {"profile": self.profile.to_dict(), "model": model},
                ref_compat=self.ref_compat,
                segmenter=self.segmenter,
                write=not self.shard.rank,
            )


def score_run(
    benchmark: Benchmark,
    data: BenchmarkData,
    predictions: Mapping[str, Prediction],
    rule: str,
    *,
    folder: Path,
    about: Callable[[], Mapping[str, Any]] = dict,
    ref_compat: bool = False,
    segmenter: Any = None,
    write: bool = True,
) -> EvaluationResult:
    """Scores predictions and writes the report and the gallery of a run.

    Args:
        benchmark: the items'.
        data: the items.
        predictions: by item id.
        rule: of scoring.
        folder: of the run.
        about: more for `metrics.json`, asked for when everything is scored.
        ref_compat: repeat the reference's flaws.
        segmenter: see `score_predictions`.
        write: whether anything is written.

    Raises:
        EvaluationError: no item has an answer.
    """
    summary, scores = score_predictions(
        benchmark, data, predictions, rule, ref_compat=ref_compat, segmenter=segmenter
    )
    if not scores:
        raise EvaluationError(
            f"expected answers to items of {benchmark.name}, got none of its {len(data.items.found)} ids; "
            "check that --data is what the answers are about"
        )
    if write:
        write_report(folder, summary, scores, data, about(), predictions=predictions)
        write_gallery(folder / "gallery.html", benchmark, data.items, scores, predictions, summary)
    return EvaluationResult(benchmark, summary, scores, predictions, data, folder)


def predict(
    model: Pointer | ResponseScorer,
    benchmark: Benchmark,
    data: BenchmarkData,
    folder: Path,
    *,
    settings: GenerationSettings,
    identity: Mapping[str, Any],
    limit: int | None = None,
    batch_size: int = 8,
    shard: Shard | None = None,
    profile: Profile | None = None,
    on_progress: OnProgress | None = None,
) -> None:
    """Asks every item of this process's share that has no answer yet.

    Args:
        model: one that points, or for reward benchmarks one that scores responses.
        benchmark: the items'.
        data: the items.
        folder: of the run; claimed for these settings.
        settings: how to ask, the benchmark's own or changed.
        identity: name, revision, precision: what `manifest.json` says about the model.
        limit: items at most; see `choose`.
        batch_size: items per run of the model.
        shard: of this process.
        profile: is told where the time goes.
        on_progress: is told of every batch, first of the items that were done before.

    Raises:
        EvaluationError: the folder holds answers made under other settings, or the model is of the other
            kind.
    """
    check_model(model, benchmark)
    settings = with_crops(settings, model)
    shard = shard or Shard()
    profile = profile or Profile()
    about = {
        "library": __version__,
        "origin": data.origin,
        "items": len(data.items.found),
        "world": shard.world,
    }
    run_folder.claim(folder, manifest_settings(benchmark, settings, data, identity), about)
    wanted = choose(data.items.found, limit)[shard.rank :: shard.world]
    left = run_folder.unanswered(folder, wanted)
    if on_progress is not None:
        on_progress(len(wanted) - len(left))
    kind: Any = RewardPredictor if benchmark.needs == "scores" else Predictor
    predictor = kind(
        model,
        benchmark.name,
        benchmark.version,
        settings,
        batch_size=batch_size,
        rank=shard.rank,
        profile=profile,
    )
    name = "predictions.jsonl" if shard.world == 1 else f"predictions.{shard.rank}.jsonl"
    with PredictionWriter(folder / name) as writer:
        for batch in predictor.predict(left):
            with profile.phase("write"):
                writer.write(batch)
            if on_progress is not None:
                on_progress(len(batch))
