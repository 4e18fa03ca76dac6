"""Every number of the comparison, in one place, and the runs that it consists of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nano.settings import Settings

from efficiency.answers import ABLATIONS, Ablation, Format


@dataclass(frozen=True)
class Plan:
    """What is trained on what.

    Attributes:
        sizes: numbers of pictures.
        questions: about each of them, in one message tree.
        most_objects: scenes have 3 objects to so many.
        seeds: of the order of the pictures and of new weights.
        steps: optimiser steps of an arm, whatever its size.
        batch: pictures per step.
        text_layers: blocks of the decoder.
        warmup: steps of linear warm-up of an arm.
        score_every: steps between looks at the search scenes; the best weights of all looks are the result of
            a run.
        rates: peak learning rates that are tried for each format.
        search_size: pictures of the runs that choose the rate, and of the ablations.
        search_steps: optimiser steps of the former.
        search_seed: their seed, used for nothing else.
        search_scenes: scenes that choose rates and weights; nothing is reported of them.
        val_scenes: unseen scenes that the table is about.
        val_questions: questions about each scene of either kind.
        many_scenes: unseen scenes that are asked only for 4 to 6 targets: whether a model knows when to end a
            list.
        vit_steps: optimiser steps of the dense stage, which makes the vision transformer of all arms.
        vit_shards: shards of drawn scenes of any number of objects that it sees.
        save_minutes: between checkpoints of a run.
    """

    sizes: tuple[int, ...] = (256, 1024, 4096)
    questions: int = 6
    most_objects: int = 6
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int = 3200
    batch: int = 8
    text_layers: int = 3
    warmup: int = 100
    score_every: int = 200
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    search_size: int = 1024
    search_steps: int = 1000
    search_seed: int = 99
    search_scenes: int = 100
    val_scenes: int = 200
    val_questions: int = 2
    many_scenes: int = 100
    vit_steps: int = 5000
    vit_shards: int = 8
    save_minutes: float = 3.0

    def settings(self) -> Settings:
        """Nano's recipe with a smaller decoder, and with the questions of the trees."""
        return replace(
            Settings(), text_layers=self.text_layers, cached_queries=self.questions, branches=self.questions
        )

    def arm_settings(self) -> Settings:
        """The same with the numbers of an arm's loop."""
        return replace(self.settings(), warmup=self.warmup, save_minutes=self.save_minutes)


@dataclass(frozen=True)
class Run:
    """What sets a run apart.

    Attributes:
        format: of the answers.
        size: number of pictures.
        seed: of their order and of new weights.
        rate: peak learning rate.
        steps: optimiser steps.
        ablation: what is left out.
        role: "arm" (a figure of the table) or "search" (helps to choose a rate).
    """

    format: Format
    size: int
    seed: int
    rate: float
    steps: int
    ablation: Ablation = "none"
    role: str = "arm"

    @property
    def name(self) -> str:
        """Stem of its files."""
        what = self.format if self.ablation == "none" else f"{self.format}_{self.ablation.replace(' ', '-')}"
        return f"{self.role}_{what}_{self.size}_seed{self.seed}_rate{self.rate:g}_steps{self.steps}"


def search_runs(format: Format, plan: Plan) -> list[Run]:
    """The runs that choose the learning rate of a format."""
    return [
        Run(format, plan.search_size, plan.search_seed, rate, plan.search_steps, role="search")
        for rate in plan.rates
    ]


def arm_runs(format: Format, rate: float, plan: Plan) -> list[Run]:
    """The runs of a format, first seeds first, then its ablations."""
    runs: list[Run] = []
    for seed in plan.seeds:
        runs += [Run(format, size, seed, rate, plan.steps) for size in plan.sizes]
    if format == "grounding":
        for ablation in ABLATIONS:
            runs += [Run(format, plan.search_size, seed, rate, plan.steps, ablation) for seed in plan.seeds]
    return runs
