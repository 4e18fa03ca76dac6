"""What a person sees of a run."""

from __future__ import annotations

from typing import Any

from transformers import TrainerControl, TrainerState

from molmopoint.training.run_table import RunTable


class Run:
    """A run on a clock of its own: so many seconds for a step, an evaluation and a checkpoint."""

    def __init__(self, *, steps: int, every: int, scored: bool, start: int = 0) -> None:
        self.now = 0.0
        self.rows: list[str] = []
        self.every = every
        self.scored = scored
        self.table = RunTable(self.rows.append, every=every, scored=scored, clock=lambda: self.now)
        self.state = TrainerState(max_steps=steps, global_step=start, is_world_process_zero=True)

    def call(self, event: str, **more: Any) -> None:
        getattr(self.table, event)(None, self.state, TrainerControl(), **more)

    def make(self, steps: int, *, first: float = 1.0, step: float = 1.0, evaluation: float = 10.0) -> None:
        for number in range(steps):
            self.now += step if number else first
            self.state.global_step += 1
            self.call("on_step_end")
            self.call("on_log", logs={"loss": 2.0 / self.state.global_step})
            if self.scored and self.state.global_step % self.every == 0:
                self.now += evaluation
                self.call("on_log", logs={"score/point_f1": 0.5})
                scores = {
                    "score/point_f1": 0.5,
                    "score/count_accuracy": 0.25,
                    "score/point_f1_error": 0.1,
                    "epoch": 1.0,
                }
                self.call("on_evaluate", metrics=scores)
                self.now += 5.0
                self.call("on_save")


def test_one_aligned_row_per_evaluation():
    run = Run(steps=12, every=4, scored=True)
    run.call("on_train_begin")
    run.make(12)
    assert run.rows == [
        " step     loss  point_f1  count_accuracy     left",
        " 4/12    1.042     0.500           0.250     0:38",
        " 8/12    0.317     0.500           0.250     0:24",
        "12/12    0.193     0.500           0.250     0:10",
    ]


def test_the_time_left_is_that_of_the_steps_and_evaluations_to_come():
    run = Run(steps=100, every=10, scored=True)
    run.call("on_train_begin")
    run.make(10, first=30.0, step=2.0, evaluation=7.0)  # the first step warms up
    assert run.rows[-1].split()[-1] == "4:10", "90 steps of 2 s, nine evaluations and the last of 7 s"


def test_a_run_that_goes_on_says_so():
    run = Run(steps=8, every=4, scored=True, start=4)
    run.call("on_train_begin")
    assert run.rows == ["resumed at step 4 of 8"]
    run.make(4)
    assert len(run.rows) == 3 and run.rows[-1].startswith("8/8")


def test_rows_without_scores():
    silent = Run(steps=20, every=10, scored=True)
    silent.call("on_train_begin")
    silent.make(9, step=25.0)
    assert [row.split()[0] for row in silent.rows] == ["step", "4/20", "7/20"], "each minute"
    plain = Run(steps=2, every=0, scored=False)
    plain.call("on_train_begin")
    plain.make(2)
    assert [row.split() for row in plain.rows] == [
        ["step", "loss", "left"],
        ["1/2", "2.000", "0:01"],
        ["2/2", "1.000", "0:00"],
    ]
    other = Run(steps=2, every=1, scored=True)
    other.state.is_world_process_zero = False
    other.make(2)
    assert other.rows == [], "one process speaks"
