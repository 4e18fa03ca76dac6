"""The work of `molmopoint eval` and `molmopoint score`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from molmopoint.backends.options import fill_template
from molmopoint.cli import console
from molmopoint.cli.console import INTERRUPTED, NO_MODEL, OK, SOME_FAILED, USAGE
from molmopoint.errors import CheckpointError, EvaluationError, MolmoPointError
from molmopoint.eval.benchmark import Asking, Benchmark, Need
from molmopoint.eval.reports.console import comparison_table, published_table, summary_table
from molmopoint.eval.reports.gallery import write_gallery
from molmopoint.eval.reports.summary import read_run
from molmopoint.eval.runner.data import Data, choose, open_data
from molmopoint.eval.runner.evaluate import Place, predict, score, stored, write_report
from molmopoint.eval.runner.predict import Profile
from molmopoint.eval.runner.records import Prediction
from molmopoint.eval.runner.registry import benchmark_names, find_benchmark
from molmopoint.eval.stored.forms import check_stored, read_stored
from molmopoint.files import is_file, remove_leftovers
from molmopoint.files.lock import alone_in

STEERABLE = ("drawn", "text", "none")
"""Ways of telling the point that a question of Point-Bench refers to."""

_EMBEDDED: Mapping[Need, str] = {"points": "nano", "scores": "nano-reward"}
"""Models to begin with."""


def list_benchmarks() -> int:
    """Names, titles, rules and data sets on stdout."""
    paper = console.findings()
    for name in benchmark_names():
        benchmark = find_benchmark(name)
        rules = f"  [dim]rules: {', '.join(benchmark.rules)}[/]" if len(benchmark.rules) > 1 else ""
        kind = "  [dim]reward[/]" if benchmark.needs == "scores" else ""
        paper.print(f"[bold]{name}[/]  {escape(benchmark.title)}{kind}{rules}")
    return OK


def rule_of(benchmark: Benchmark, rule: str | None) -> str:
    """The rule to judge by.

    Raises:
        EvaluationError: the benchmark has no such rule.
    """
    if rule is None:
        return benchmark.rules[0]
    if rule not in benchmark.rules:
        raise EvaluationError(f"expected one of the rules of {benchmark.name}, {', '.join(benchmark.rules)}, got {rule!r}")
    return rule


@dataclass
class Judging:
    """What both commands do with answers.

    Attributes:
        rule: of judging; None for the benchmark's first.
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

    def report(
        self, benchmark: Benchmark, data: Data, folder: Path, predictions: Mapping[str, Prediction], about: Mapping[str, Any]
    ) -> int:
        """Judges, writes the files of the run, and prints the table."""
        summary, scores = score(
            benchmark, data, predictions, rule_of(benchmark, self.rule), ref_compat=self.ref_compat, segmenter=self._drawing()
        )
        if not scores:
            raise EvaluationError(
                f"expected answers to items of {benchmark.name}, got none of its {len(data.items.found)} ids; "
                "check that --data is what the answers are about"
            )
        write_report(folder, summary, scores, data, about, predictions=predictions)
        write_gallery(folder / "gallery.html", benchmark, data.items, scores, predictions, summary)
        paper = console.findings()
        paper.print(summary_table(summary))
        if self.published:
            paper.print(published_table(summary))
        if self.baseline is not None:
            paper.print(comparison_table(read_run(self.baseline), read_run(folder)))
        paper.print(f"[dim]{escape(str(folder / 'gallery.html'))}[/]")
        return SOME_FAILED if summary.coverage.failed else OK

    def _drawing(self) -> Any:
        """The segmenter, if one is wanted."""
        if self.segmenter is None:
            return None
        from molmopoint.segmentation import load_segmenter

        return load_segmenter(self.segmenter)


@dataclass
class EvalCommand(Judging):
    """One call of `eval`; `run` does everything and returns the exit code."""

    tasks: Sequence[str] = ()
    model: str | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    data: str | None = None
    out: Path = Path("evaluation")
    limit: int | None = None
    batch_size: int = 8
    changes: Mapping[str, int | str | None] = field(default_factory=dict)
    profile: bool = False

    def run(self) -> int:
        """Every benchmark in turn; a benchmark that cannot be read ends the command before any model is loaded."""
        with contextlib.ExitStack() as locks:
            return self._run(locks)

    def _run(self, locks: contextlib.ExitStack) -> int:
        place = Place.from_environment()
        try:
            benchmarks = self._benchmarks()
            for name in sorted({benchmark.name for benchmark in benchmarks}):
                part = f"-{place.rank}" if place.rank else ""
                locks.enter_context(alone_in(self.out / name, "an evaluation", error=EvaluationError, part=part))
                remove_leftovers(self.out / name)
            read = []
            for benchmark in benchmarks:
                profile = Profile()
                with profile.phase("read and index"):
                    asking, rule = self._asking(benchmark), rule_of(benchmark, self.rule)
                    read.append((benchmark, open_data(benchmark, self.data, self.out, asking=asking, rule=rule), profile))
        except (MolmoPointError, OSError) as error:
            console.complain(error)
            return USAGE
        try:
            with console.quiet_stdout():
                asked = self._load(benchmarks)
        except (CheckpointError, OSError, ImportError, RuntimeError, ValueError) as error:
            console.complain(f"the model {self._name(benchmarks)!r} could not be loaded: {error}")
            return NO_MODEL
        try:
            return max([self._evaluate(asked, benchmark, data, profile, place) for benchmark, data, profile in read], default=OK)
        except KeyboardInterrupt:
            console.complain("interrupted; the same command goes on where it was")
            return INTERRUPTED
        except (MolmoPointError, OSError) as error:
            console.complain(error)
            return USAGE
        finally:
            _leave(place)

    def _benchmarks(self) -> list[Benchmark]:
        if not self.tasks:
            raise EvaluationError("expected one or more benchmarks, got none; `molmopoint eval --list` tells the names")
        found = [find_benchmark(name) for name in self.tasks]
        if len({benchmark.needs for benchmark in found}) > 1:
            names = ", ".join(f"{benchmark.name} wants {benchmark.needs}" for benchmark in found)
            raise EvaluationError(f"expected benchmarks for one kind of model, got several kinds ({names}); call the command once for each")
        for benchmark in found:
            rule_of(benchmark, self.rule)
            self._check_changes(benchmark)
        if self.data not in (None, "fixture") and len(found) > 1:
            raise EvaluationError("expected one benchmark with --data FOLDER, got several; call the command once for each")
        return found

    def _check_changes(self, benchmark: Benchmark) -> None:
        """Refuses settings that would change nothing."""
        theirs: tuple[str, ...] = ("orders",)
        if benchmark.needs == "points":
            named = ("template",) if benchmark.asking.template is not None else ()
            theirs = ("max_crops", "max_new_tokens", "single", *named, *benchmark.settings)
        if self.changes.get("steerable") not in (None, *STEERABLE):
            raise EvaluationError(f"expected --steerable with one of {', '.join(STEERABLE)}, got {self.changes['steerable']!r}")
        if (template := self.changes.get("template")) is not None:
            fill_template(str(template), "cups")
        given = [name for name, value in self.changes.items() if value is not None and name not in theirs]
        if given:
            options = ", ".join("--" + name.replace("_", "-") for name in given)
            ours = ", ".join("--" + name.replace("_", "-") for name in theirs)
            raise EvaluationError(f"expected of {ours} for {benchmark.name}, which wants {benchmark.needs}, got {options}; leave it out")

    def _name(self, benchmarks: Sequence[Benchmark]) -> str:
        return self.model or _EMBEDDED[benchmarks[0].needs]

    def _load(self, benchmarks: Sequence[Benchmark]) -> Any:
        """A model of the kind that the benchmarks need.

        Raises:
            CheckpointError: there is none of that name, or it is of the other kind.
        """
        from transformers.utils import logging

        from molmopoint.pipeline import load
        from molmopoint.reward import load_reward
        from molmopoint.reward.settings import AUTHORS_CONFIG_FILE, CONFIG_FILE

        logging.disable_progress_bar()
        local = os.environ.get("LOCAL_RANK")
        device = self.device or (f"cuda:{local}" if local is not None and _has_gpu() else None)
        name, rewards = self._name(benchmarks), benchmarks[0].needs == "scores"
        if not rewards and any(is_file(Path(name).expanduser() / file) for file in (CONFIG_FILE, AUTHORS_CONFIG_FILE)):
            raise CheckpointError(f"expected a model that points for {benchmarks[0].name}, got the reward model in {name}; choose another")
        with console.notes().status(f"Loading {escape(name)} ..."):
            return (load_reward if rewards else load)(name, dtype=self.dtype, device_map=device, revision=self.revision)

    def _evaluate(self, asked: Any, benchmark: Benchmark, data: Data, profile: Profile, place: Place) -> int:
        folder = self.out / benchmark.name
        self._predict(asked, benchmark, data, folder, place, profile)
        _wait_for_all(place)
        if place.rank:
            return OK
        with profile.phase("judge and report"):
            chosen = {item.item_id for item in choose(data.items.found, self.limit)}
            predictions = {item_id: prediction for item_id, prediction in stored(folder).items() if item_id in chosen}
            code = self.report(benchmark, data, folder, predictions, {"profile": profile.to_dict(), "model": self._name([benchmark])})
        if self.profile:
            for phase, seconds in profile.to_dict().items():
                console.notes().print(f"  {phase:<18}{seconds:9.2f} s")
        return code

    def _predict(self, asked: Any, benchmark: Benchmark, data: Data, folder: Path, place: Place, profile: Profile) -> None:
        notes = console.notes()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        wanted = choose(data.items.found, self.limit)[place.rank :: place.world]
        hidden = not notes.is_terminal or place.rank > 0
        with Progress(*columns, console=notes, transient=True, disable=hidden) as progress, console.quiet_stdout():
            bar = progress.add_task(benchmark.name, total=len(wanted))
            predict(
                asked,
                benchmark,
                data,
                folder,
                asking=self._asking(benchmark),
                model=self._model(asked, benchmark),
                limit=self.limit,
                batch_size=self.batch_size,
                place=place,
                profile=profile,
                progress=lambda done: progress.advance(bar, done),
            )

    def _asking(self, benchmark: Benchmark) -> Asking:
        return replace(benchmark.asking, **{name: value for name, value in self.changes.items() if value is not None})

    def _model(self, asked: Any, benchmark: Benchmark) -> dict[str, Any]:
        """What the manifest says about the model: whatever changes answers."""
        commit = getattr(asked.model.config, "_commit_hash", None)
        about = {
            "model": self._name([benchmark]),
            "revision": commit or self.revision,
            "dtype": str(asked.model.dtype).removeprefix("torch."),
        }
        if benchmark.needs == "scores":
            settings = asked.model.settings
            about |= {"layout": settings.layout, "attention": settings.attention, "max_responses": asked.max_responses}
        return about


@dataclass
class ScoreCommand(Judging):
    """One call of `score`; `run` does everything and returns the exit code."""

    task: str = ""
    predictions: Path = Path()
    form: str = "ours"
    coords: str | None = None
    data: str | None = None
    out: Path = Path("evaluation")

    def run(self) -> int:
        """Reads, judges, reports."""
        try:
            benchmark = find_benchmark(self.task)
            rule_of(benchmark, self.rule)
            check_stored(self.predictions, benchmark, self.form)
            folder = self.out / benchmark.name
            data = open_data(benchmark, self.data, self.out, with_media=False)
            missing = [each.item_id for each in data.items.missing]
            predictions = read_stored(self.predictions, data.items.found, benchmark, form=self.form, coords=self.coords, missing=missing)
            folder.mkdir(parents=True, exist_ok=True)
            return self.report(benchmark, data, folder, predictions, {"predictions": str(self.predictions), "form": self.form})
        except (MolmoPointError, OSError) as error:
            console.complain(error)
            return USAGE


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


def _wait_for_all(place: Place) -> None:
    """Until every process has answered its share; the first one then judges."""
    if place.world == 1:
        return
    from torch import distributed

    if not distributed.is_initialized():
        # Shares take different times; nothing is wrong as long as the processes live.
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
    distributed.barrier()


def _leave(place: Place) -> None:
    """Ends what `_wait_for_all` began; left to the end of the process, its threads abort it now and then."""
    if place.world == 1:
        return
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
