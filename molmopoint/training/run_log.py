"""The lines of a run in a file: one JSON object per line, gone on with where a resumed run starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback

from molmopoint.files import write_text_whole

LOG_FILE = "log.jsonl"


class RunLog(TrainerCallback):
    """Appends every logged line to `log.jsonl`; lines behind the checkpoint a run goes on from are removed first.

    Args:
        out: folder of the run.
        tensorboard: write event files to the folder `tensorboard` as well.
    """

    def __init__(self, out: Path, *, tensorboard: bool = False) -> None:
        self.file = out / LOG_FILE
        self.events = out / "tensorboard" if tensorboard else None
        self.board: TensorBoardCallback | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Takes the lines of steps that will be made again out of the file."""
        if not state.is_world_process_zero:
            return
        kept = [line for line in read_log(self.file) if line["step"] <= state.global_step]
        write_text_whole(self.file, "".join(f"{json.dumps(line)}\n" for line in kept))
        if self.events is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = board = TensorBoardCallback(SummaryWriter(str(self.events), purge_step=state.global_step + 1))
            board.on_train_begin(args, state, control, **kwargs)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Appends a line."""
        if not state.is_world_process_zero:
            return
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": state.global_step, **(logs or {})}) + "\n")
        if self.board is not None:
            self.board.on_log(args, state, control, logs=logs, **kwargs)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Closes the event files."""
        if self.board is not None:
            self.board.on_train_end(args, state, control, **kwargs)


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log, in order; a last line that was cut off is left out."""
    if not file.exists():
        return []
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines
