"""What a person sees of a run: one aligned row per evaluation, where it goes on, and the time it still takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

_SCORE = "score/"
"""How names of scores begin in a log."""

_ERROR = "_error"
"""How names of the standard errors of scores end; `log.jsonl` has them."""

_SILENCE = 60.0
"""Seconds after which a row without scores says that the run goes on."""

_WIDTH = 7
"""Letters of a column at least."""


class RunTable(TrainerCallback):
    """Tells a run row by row, in place of the tables of all figures that Trainer prints.

    Times count what training and scoring took so far; the first step, which warms up, and scoring do not make
    a step look slow.

    Args:
        say: gets each row, in words.
        every: steps between evaluations; 0 for none but the last.
        scored: whether there are evaluations at all.
        clock: seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        every: int,
        scored: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._every = every
        self._scored = scored
        self._clock = clock
        self._columns: list[str] = []
        self._has_head = False
        self._losses: list[float] = []
        self._steps = 0
        self._step_seconds = 0.0
        self._scoring_seconds = 0.0
        self._since = self._spoke = clock()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Says where a run goes on that was stopped."""
        self._since = self._spoke = self._clock()
        if state.is_world_process_zero and state.global_step:
            self._say(f"resumed at step {state.global_step} of {state.max_steps}")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Times the step, with what was waited for its data."""
        now = self._clock()
        self._steps += 1
        seconds = now - self._since
        # The mean of the steps behind the first, which alone stands for them until there are some.
        others = max(self._steps - 1, 1)
        self._step_seconds += (seconds - self._step_seconds) / others
        self._since = now

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Notes the loss, and after a long silence writes a row without scores."""
        if logs is None or "loss" not in logs:
            return
        self._losses.append(float(logs["loss"]))
        is_late = self._clock() - self._spoke >= _SILENCE
        if is_late or not self._scored:
            self._row(state, {})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes the row of an evaluation."""
        now = self._clock()
        self._scoring_seconds = now - self._since
        self._since = now
        scores = {}
        for name, value in (metrics or {}).items():
            if name.startswith(_SCORE) and not name.endswith(_ERROR):
                scores[name.removeprefix(_SCORE)] = value
        self._row(state, scores)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Writing a checkpoint makes no step look slow."""
        self._since = self._clock()

    def _row(self, state: TrainerState, scores: Mapping[str, float]) -> None:
        """One row; above the first one, and where there are other scores, the names of the columns."""
        self._spoke = self._clock()
        if not state.is_world_process_zero:
            return
        columns = list(scores) or self._columns
        steps = f"{state.global_step}/{state.max_steps}"
        if columns != self._columns or not self._has_head:
            self._columns = columns
            self._has_head = True
            self._say(self._line("step", state, ["loss", *columns, "left"]))
        loss = f"{sum(self._losses) / len(self._losses):.3f}" if self._losses else "-"
        self._losses = []
        figures = []
        for name in columns:
            figures.append(f"{scores[name]:.3f}" if name in scores else "-")
        self._say(self._line(steps, state, [loss, *figures, self._left(state)]))

    def _line(self, steps: str, state: TrainerState, cells: list[str]) -> str:
        """Cells below the names of their columns."""
        widths = [max(len(name), _WIDTH) for name in ("loss", *self._columns, "left")]
        first = steps.rjust(2 * len(str(state.max_steps)) + 1)
        return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])

    def _left(self, state: TrainerState) -> str:
        """Hours, minutes and seconds that the steps and evaluations to come take."""
        steps = max(state.max_steps - state.global_step, 0)
        evaluations = 0
        if self._scored:
            evaluations = 1  # of the best weights, at the end
            if self._every:
                evaluations += state.max_steps // self._every - state.global_step // self._every
        return in_hours(steps * self._step_seconds + evaluations * self._scoring_seconds)


def in_hours(seconds: float) -> str:
    """A time for people.

    >>> in_hours(7), in_hours(65.4), in_hours(3725)
    ('0:07', '1:05', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
