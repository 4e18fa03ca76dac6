"""What a row is once it is checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from molmopoint.data.embedded import EmbeddedPicture

Coords = Literal["pixel", "percent", "norm1", "norm1000"]
"""Space of x and y: pixels of the displayed picture, 0 to 100, 0 to 1, or 0 to 1000 across it."""

TRACK_STYLES = ("track", "track_start_end", "track_from_point")
"""Styles of rows whose points are tracks of numbered objects through a clip."""

POINT_STYLES = ("pointing", "point_count", "count_then_point", "count", *TRACK_STYLES)
"""Styles of rows with points; of other rows the style is free text, written in front of the prompt."""

FULL_SCALE: dict[str, float] = {"percent": 100.0, "norm1": 1.0, "norm1000": 1000.0}
"""Value at the right and lower edge in each space that does not depend on the size of the picture."""


@dataclass(frozen=True)
class RecordPoint:
    """A place in a picture or clip.

    Attributes:
        x: across, from the left edge, in the row's space.
        y: down, from the upper edge, in the row's space.
        image: which of the row's pictures, from 0.
        t: seconds from the beginning of the clip; None for pictures.
        object_id: number of the object, the same wherever it appears; None where nobody counted.
        label: what this point shows; requests of a row without prompt and label are made of these.
    """

    x: float
    y: float
    image: int = 0
    t: float | None = None
    object_id: int | None = None
    label: str | None = None


@dataclass(frozen=True)
class Record:
    """One row, checked.

    Attributes:
        row: number of the row, from 1; of a file the line.
        images: files of the pictures, as written, or pictures that lie in the data set; empty without
            pictures.
        video: file of the clip, as written.
        prompt: what the user asks, sent as it is.
        prompts: other wordings of one request; one is drawn each time, see `FormattingRules.prompt_share` for
            rows with a label too.
        label: noun phrase to point at; put into a prompt template where there is no prompt.
        points: the places; None in rows that do not point.
        coords: space of the points; None without points.
        no_points: nothing to point at.
        answer: text to answer a question with.
        caption: text that describes the visual input.
        style: one of `POINT_STYLES`, or of a text row what is written in front of the prompt; None lets it be
            drawn.
        source: name of the data set, for loss weights and losses per source.
        weight: factor of the row's loss; None is 1.
        turns: requests and answers of a conversation, each with the row's pictures; empty in rows of one
            request.
    """

    row: int
    images: tuple[str | EmbeddedPicture, ...] = ()
    video: str | None = None
    prompt: str | None = None
    prompts: tuple[str, ...] = ()
    label: str | None = None
    points: tuple[RecordPoint, ...] | None = None
    coords: Coords | None = None
    no_points: bool = False
    answer: str | None = None
    caption: str | None = None
    style: str | None = None
    source: str | None = None
    weight: float | None = None
    turns: tuple[Record, ...] = ()

    @property
    def visual(self) -> tuple[tuple[str | EmbeddedPicture, ...], str | None]:
        """What rows on the same pictures or clip have in common; embedded pictures are the same if their
        content is.
        """
        return self.images, self.video

    @property
    def is_pointing(self) -> bool:
        """Whether the answer points, or says that there is nothing to point at."""
        return any(request.no_points or request.points is not None for request in self.requests)

    @property
    def requests(self) -> tuple[Record, ...]:
        """The turns of a conversation, else the row itself."""
        return self.turns or (self,)

    @property
    def media(self) -> tuple[str, ...]:
        """Names of the pictures and of the clip: paths as written, the digest of what is embedded."""
        names = tuple(image.digest if isinstance(image, EmbeddedPicture) else image for image in self.images)
        return names if self.video is None else (*names, self.video)

    @property
    def num_points(self) -> int:
        """Points of the row, or of all its turns."""
        return sum(len(request.points or ()) for request in self.requests)
