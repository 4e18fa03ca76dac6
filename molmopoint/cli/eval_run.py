"""The work of `molmopoint eval` and `molmopoint score`: messages and exit codes around
`molmopoint.eval.evaluation`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from molmopoint.cli import console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.cli.evaluation_checks import option_name
from molmopoint.errors import CheckpointError, EvaluationError, MolmoPointError
from molmopoint.eval.benchmark import Benchmark
from molmopoint.eval.benchmarks import benchmark_names, find_benchmark
from molmopoint.eval.evaluation import Evaluation, EvaluationResult, Shard, score_run
from molmopoint.eval.predictions.readers import check_stored, read_stored
from molmopoint.eval.predictions.records import Prediction
from molmopoint.eval.reports.comparison import comparison_table, read_run
from molmopoint.eval.reports.published import published_table
from molmopoint.eval.reports.tables import summary_table
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.models import EMBEDDED, identity_of, load_model
from molmopoint.eval.runner.run_folder import locked
from molmopoint.eval.runner.settings import changed_settings, check_rule


def list_benchmarks() -> int:
    """Names, titles, rules and data sets on stdout."""
    paper = console.findings()
    for name in benchmark_names():
        benchmark = find_benchmark(name)
        rules = f"  [dim]rules: {', '.join(benchmark.rules)}[/]" if len(benchmark.rules) > 1 else ""
        kind = "  [dim]reward[/]" if benchmark.needs == "scores" else ""
        paper.print(f"[bold]{name}[/]  {escape(benchmark.title)}{kind}{rules}")
    return OK


@dataclass
class Scoring:
    """What both commands do with answers.

    Attributes:
        rule: of scoring; None for the benchmark's first.
        ref_compat: repeat the reference's flaws.
        published: show published numbers.
        baseline: folder of a run to compare with.
        segmenter: name or folder of a SAM 2 that adds J&F to tracking benchmarks.
    """

    rule: str | None = None
    ref_compat: bool = False
    published: bool = False
    baseline: Path | None = None
    segmenter: str | None = None

    def show(self, result: EvaluationResult) -> int:
        """Prints the tables of a run; the exit code."""
        assert result.folder is not None, "both commands keep what they write"
        paper = console.findings()
        paper.print(summary_table(result.summary))
        if self.published:
            paper.print(published_table(result.summary))
        if self.baseline is not None:
            paper.print(comparison_table(read_run(self.baseline), read_run(result.folder)))
        paper.print(f"[dim]{escape(str(result.folder / 'gallery.html'))}[/]")
        return SOME_FAILED if result.summary.coverage.failed else OK

    def load_segmenter(self) -> Any:
        """The segmenter, if one is wanted."""
        if self.segmenter is None:
            return None
        from molmopoint.segmentation import load_segmenter

        return load_segmenter(self.segmenter)


@dataclass
class EvalCommand(Scoring):
    """One call of `eval`; `run` does everything and returns the exit code."""

    tasks: Sequence[str] = ()
    model: str | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    compile_steps: bool = False
    data: str | None = None
    out: Path = Path("evaluation")
    limit: int | None = None
    batch_size: int = 8
    changes: Mapping[str, int | str | None] = field(default_factory=dict)
    profile: bool = False

    def run(self) -> int:
        """Every benchmark in turn; one that cannot be read ends the command before any model is loaded."""
        with contextlib.ExitStack() as locks:
            return self._run(locks)

    def _run(self, locks: contextlib.ExitStack) -> int:
        shard = Shard.from_environment()
        try:
            benchmarks = self._benchmarks()
            for name in sorted({benchmark.name for benchmark in benchmarks}):
                locks.enter_context(locked(self.out / name, shard.rank))
            evaluations = [self._prepare(benchmark, shard) for benchmark in benchmarks]
        except (MolmoPointError, OSError) as error:
            console.complain(error)
            return USAGE
        name = self.model or EMBEDDED[benchmarks[0].needs]
        try:
            model = self._load(name, benchmarks[0])
        except (CheckpointError, OSError, ImportError, RuntimeError, ValueError) as error:
            console.complain(f"the model {name!r} could not be loaded: {error}")
            return NO_MODEL
        try:
            return max([self._evaluate(evaluation, model, name) for evaluation in evaluations], default=OK)
        except KeyboardInterrupt:
            console.complain("interrupted; the same command goes on where it was")
            return INTERRUPTED
        except (MolmoPointError, OSError) as error:
            console.complain(error)
            return USAGE
        finally:
            shard.leave()

    def _benchmarks(self) -> list[Benchmark]:
        found = [find_benchmark(name) for name in self.tasks]
        if len({benchmark.needs for benchmark in found}) > 1:
            names = ", ".join(f"{benchmark.name} wants {benchmark.needs}" for benchmark in found)
            raise EvaluationError(
                f"expected benchmarks for one kind of model, got several kinds ({names}); call the command "
                "once for each"
            )
        for benchmark in found:
            check_rule(benchmark, self.rule)
            changed_settings(benchmark, self.changes, option_name)
        if self.data not in (None, "fixture") and len(found) > 1:
            raise EvaluationError(
                "expected one benchmark with --data FOLDER, got several; call the command once for each"
            )
        return found

    def _prepare(self, benchmark: Benchmark, shard: Shard) -> Evaluation:
        return Evaluation.prepare(
            benchmark,
            self.out,
            data=self.data,
            changes=self.changes,
            rule=self.rule,
            limit=self.limit,
            batch_size=self.batch_size,
            ref_compat=self.ref_compat,
            shard=shard,
        )

    def _load(self, name: str, benchmark: Benchmark) -> Any:
        from transformers.utils import logging

        logging.disable_progress_bar()
        with console.quiet_stdout(), console.notes().status(f"Loading {escape(name)} ..."):
            return load_model(
                name,
                benchmark,
                revision=self.revision,
                dtype=self.dtype,
                device=self.device,
                quantize=self.quantize,
                compile_steps=self.compile_steps,
            )

    def _evaluate(self, evaluation: Evaluation, model: Any, name: str) -> int:
        """Predicts, waits for the other processes, and in the first one scores and shows."""
        identity = identity_of(model, evaluation.benchmark, name, self.revision)
        self._predict(evaluation, model, identity)
        shard = evaluation.shard
        shard.wait_for_all()
        if shard.rank:
            return OK
        evaluation.segmenter = self.load_segmenter()
        result = evaluation.report(name)
        code = self.show(result)
        if evaluation.settings.zoom:
            console.notes().print(f"  {cost_of(result.predictions.values())}")
        if self.profile:
            for phase, seconds in evaluation.profile.to_dict().items():
                console.notes().print(f"  {phase:<18}{seconds:9.2f} s")
        return code

    def _predict(self, evaluation: Evaluation, model: Any, identity: Mapping[str, Any]) -> None:
        """Behind a bar on stderr."""
        notes = console.notes()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        hidden = not notes.is_terminal or evaluation.shard.rank > 0
        with (
            Progress(*columns, console=notes, transient=True, disable=hidden) as progress,
            console.quiet_stdout(),
        ):
            bar = progress.add_task(evaluation.benchmark.name, total=evaluation.num_items)
            evaluation.predict(model, identity, on_progress=lambda done: progress.advance(bar, done))


def cost_of(predictions: Iterable[Prediction]) -> str:
    """What looking again costs, for people: looks and seconds of the model for an answer."""
    answered = [each for each in predictions if each.error is None]
    number = max(len(answered), 1)
    looks = sum(each.looks for each in answered) / number
    seconds = sum(each.latency or 0.0 for each in answered) / number
    return f"zoom: {looks:.1f} looks and {seconds:.2f} s an answer"


@dataclass
class ScoreCommand(Scoring):
    """One call of `score`; `run` does everything and returns the exit code."""

    task: str = ""
    predictions: Path = Path()
    form: str = "ours"
    coords: str | None = None
    data: str | None = None
    out: Path = Path("evaluation")

    def run(self) -> int:
        """Reads, scores, reports."""
        try:
            return self.show(self._score())
        except (MolmoPointError, OSError) as error:
            console.complain(error)
            return USAGE

    def _score(self) -> EvaluationResult:
        benchmark = find_benchmark(self.task)
        rule = check_rule(benchmark, self.rule)
        check_stored(self.predictions, benchmark, self.form)
        folder = self.out / benchmark.name
        data = open_data(benchmark, self.data, self.out, with_media=False)
        predictions = read_stored(
            self.predictions,
            data.items.found,
            benchmark,
            form=self.form,
            coords=self.coords,
            missing=[each.item_id for each in data.items.missing],
        )
        folder.mkdir(parents=True, exist_ok=True)
        return score_run(
            benchmark,
            data,
            predictions,
            rule,
            folder=folder,
            about=lambda: {"predictions": str(self.predictions), "form": self.form},
            ref_compat=self.ref_compat,
            segmenter=self.load_segmenter(),
        )


class _Rate(TextColumn):
    """Items per second, or seconds per item where they are slow."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Any) -> Any:
        from rich.text import Text

        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")
