"""What a row of preferences is once it is checked."""

from __future__ import annotations

from dataclasses import dataclass

from molmopoint.data.embedded import EmbeddedPicture

PREFERENCE_COLUMNS = (
    "image", "images", "video", "sampling_interval", "prompt", "question", "responses", "rankings", "scores", "chosen", "rejected",
    "id", "models", "source",
)  # fmt: skip
"""Everything a row may have."""

FORMS = (("responses", "rankings"), ("chosen", "rejected"), ("responses", "scores"))
"""Columns that say which answers are better, one pair per row."""


@dataclass(frozen=True)
class PreferenceRecord:
    """A request, answers to it, and how good each is among them.

    Attributes:
        row: number of the row, from 1; of a file the line.
        prompt: what the user asks.
        responses: the answers, none of them blank.
        rankings: of the answers, 1 is best; ties share a rank.
        images: files of the pictures, as written, or pictures that lie in the data set; empty without pictures.
        video: file of the clip, or folder of its frames, as written.
        models: what wrote each answer; empty where it is not known.
        id: name of the item.
        source: name of the data set.
        sampling_interval: seconds between the frames of a folder; None for what the reward model takes them to be.
        dropped: blank answers that were left out with their ranks.
    """

    row: int
    prompt: str
    responses: tuple[str, ...]
    rankings: tuple[int, ...]
    images: tuple[str | EmbeddedPicture, ...] = ()
    video: str | None = None
    models: tuple[str, ...] = ()
    id: str | None = None
    source: str | None = None
    sampling_interval: float | None = None
    dropped: int = 0

    @property
    def media(self) -> tuple[str, ...]:
        """Names of the pictures and of the clip, of text rows the prompt: rows that share one must not be trained on and scored."""
        names = tuple(image.digest if isinstance(image, EmbeddedPicture) else image for image in self.images)
        return (names if self.video is None else (*names, self.video)) or (self.prompt,)

    @property
    def best(self) -> tuple[int, ...]:
        """Places of the answers that share the best rank."""
        top = min(self.rankings, default=0)
        return tuple(i for i, rank in enumerate(self.rankings) if rank == top)

    @property
    def says_something(self) -> bool:
        """Whether one answer is better than another."""
        return len(set(self.rankings)) > 1
