"""From a row of preferences to a row of the model, its answers in an order of their own every time it is
read.

A row must fit the budget whole, because an answer that is cut off is another answer. What may give way is the
picture: with fewer tiles, or the clip with fewer frames. A row that still does not fit is refused, and
skipped and counted by the data.

Source: arXiv 2604.10966, public training code, for the numbers of tiles and the limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.data.preferences import PreferenceRecord
from molmopoint.errors import ProcessingError
from molmopoint.processing.rows import Row, collate
from molmopoint.reward.clips import FOLDER_FRAMES
from molmopoint.reward.rows import PromptPart, RowBuilder
from molmopoint.training.packed_dataset import ORIGINS, PROGRESS
from molmopoint.training.reward.dataset import PreparedBatch
from molmopoint.training.reward.losses import ABSENT
from molmopoint.training.sampling import Draw

RANKS, BEST = "ranks", "best"
"""Keys of a batch under which the ranks (B, N) and the place of a best answer (B,) lie: no arguments of the
model.
"""


@dataclass(frozen=True)
class Budget:
    """What a row may cost.

    Attributes:
        max_tokens: of a row.
        vision_tokens: image and frame tokens of a row.
        margin: tokens of a row that stay free.
        crops: tiles of a picture beside its overview, tried in turn.
        frames: of a clip from a file; halved until the row fits.
        folder_frames: of a clip that is a folder of frames; the same.
    """

    max_tokens: int
    vision_tokens: int
    margin: int
    crops: tuple[int, ...]
    frames: int
    folder_frames: int = FOLDER_FRAMES


@dataclass(frozen=True, eq=False)
class RankedRow:
    """A row with what is known of its answers.

    Attributes:
        row: the row of the model.
        ranks: (N,) of its answers in the order they stand in, 1 is best.
        best: place of the answer that counts as the best one.
    """

    row: Row
    ranks: Tensor
    best: int


class PreferencePreparer:
    """Makes the row of a draw; depends on the draw alone, and is sent to loader workers.

    Args:
        records: rows of the data.
        folder: where their relative paths begin.
        builder: of rows.
        budget: of a row.
    """

    def __init__(
        self, records: Sequence[PreferenceRecord], folder: Path, builder: RowBuilder, budget: Budget
    ) -> None:
        self.records = records
        self.folder = folder
        self.builder = builder
        self.budget = budget

    def __call__(self, draw: Draw) -> RankedRow:
        """The answers in a random order; of answers tied for the best rank a random one counts as the best.

        Raises:
            ProcessingError: a picture or clip is broken, or the row does not fit.
        """
        record = self.records[draw.index]
        rng = draw.generator()
        order = rng.permutation(len(record.responses)).tolist()
        best = record.best[int(rng.integers(len(record.best)))]

        responses = [record.responses[i] for i in order]
        ranks = [record.rankings[i] for i in order]
        row = self.builder.row(self.prompt(record), responses)
        return RankedRow(row, torch.tensor(ranks), order.index(best))

    def prompt(self, record: PreferenceRecord) -> PromptPart:
        """The prompt with as much of its picture or clip as fits beside all answers.

        Raises:
            ProcessingError: as for a draw.
        """
        pictures: list[Any] = []
        for image in record.images:
            pictures.append(image.open() if isinstance(image, EmbeddedPicture) else self.folder / image)
        clip = None if record.video is None else self.folder / record.video
        clip_name = None if clip is None else str(clip)

        budget = self.budget
        vision = total = 0
        for settings in self._attempts(record, clip):
            made = self.builder.prompt(record.prompt, pictures or None, clip_name, **settings)
            vision = int(made.mm_token_type_ids.sum())
            total = self.builder.length(made, record.responses)
            margin = budget.margin if vision else 0
            if vision <= budget.vision_tokens and total <= budget.max_tokens - margin:
                return made
        raise ProcessingError(
            f"row {record.row}: expected at most {budget.max_tokens} tokens, {budget.vision_tokens} of them "
            "of pictures, got "
            f"{total} and {vision} with the fewest crops or frames; shorten the answers, or raise "
            "data.max_tokens"
        )

    def _attempts(self, record: PreferenceRecord, clip: Path | None) -> Iterator[dict[str, Any]]:
        """Settings of the processor, from the most to the fewest tokens."""
        if record.images:
            for crops in self.budget.crops:
                yield {"max_crops": crops}
        elif clip is not None:
            most = self.budget.folder_frames if clip.is_dir() else self.budget.frames
            frames = min(most, self._frames_that_fit())
            known = (
                {} if record.sampling_interval is None else {"sampling_interval": record.sampling_interval}
            )
            while frames:
                yield {"num_frames": frames, **known}
                frames //= 2
        else:
            yield {}

    def _frames_that_fit(self) -> int:
        """Frames of which no more can fit, whatever their clip, and at least one: reading more of them would
        be for nothing.
        """
        processor = self.builder.processor
        rows, columns = processor.video_processor.grid
        around = 2 if processor.use_frame_special_tokens else 0
        return max(1, self.budget.vision_tokens // (rows * columns + around))


class PreferenceCollator:
    """Prepared rows to a batch: the arguments of the model's forward pass, `RANKS`, `BEST`, `PROGRESS` and
    `ORIGINS`.

    Args:
        pad_token_id: id at padding.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, batches: Sequence[PreparedBatch]) -> dict[str, Any]:
        """Inputs of `RewardModel.forward` for the rows of one or more batches."""
        rows: list[RankedRow] = []
        origins: list[tuple[int, int]] = []
        for batch in batches:
            rows += batch.rows
            origins += [(draw.source, draw.index) for draw in batch.draws]
        joined: dict[str, Any] = dict(join_rows(rows, self.pad_token_id))
        joined[PROGRESS] = [batch.progress for batch in batches]
        joined[ORIGINS] = origins
        return joined


def join_rows(rows: Sequence[RankedRow], pad_token_id: int) -> dict[str, Tensor]:
    """Inputs of the model, with ranks (B, N) and the best place (B,)."""
    batch = collate([row.row for row in rows], pad_token_id)
    width = batch["response_positions"].shape[1]  # N
    ranks = [pad(row.ranks, (0, width - len(row.ranks)), value=ABSENT) for row in rows]
    best = [row.best for row in rows]
    return {**batch, RANKS: torch.stack(ranks), BEST: torch.tensor(best)}
