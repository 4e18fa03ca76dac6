"""The columns of a row of training data, as a user writes them, and the rules between them that the JSON
schema publishes.

`record_parsing` checks the same rules and says in words what is wrong; a test holds the two together.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from molmopoint.data.embedded import EmbeddedPicture
from molmopoint.data.record_types import POINT_STYLES, TRACK_STYLES, Coords
from molmopoint.data.row_model import (
    Expects,
    FileName,
    Flag,
    Index,
    Number,
    Picture,
    RowModel,
    Schema,
    Text,
    row_error,
)


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _all(*schemas: Schema) -> Schema:
    return {"allOf": list(schemas)}


def _where(name: str, schema: Schema) -> Schema:
    """A column is there, and as the schema says."""
    return {"required": [name], "properties": {name: schema}}


def _has(name: str) -> Schema:
    return _where(name, {"not": {"type": "null"}})


def _has_entries(name: str) -> Schema:
    return _where(name, {"type": "array", "minItems": 1})


def _rule(description: str, condition: Schema, then: Schema, otherwise: Schema | None = None) -> Schema:
    rule = {"description": description, "if": condition, "then": then}
    return rule if otherwise is None else {**rule, "else": otherwise}


def _in_points(schema: Schema) -> Schema:
    """Every point is as the schema says."""
    return {"properties": {"points": {"items": schema}}}


def _shared(name: str) -> Schema:
    """One of `_SHARED`."""
    return {"$ref": f"#/$defs/{name}"}


_SAYS_NONE = _where("no_points", {"const": True})
_IS_TRACK = _where("style", {"enum": list(TRACK_STYLES)})
_NO_TIME = {"properties": {"t": {"type": "null"}}}

_SHARED: dict[str, Schema] = {
    "asked": _any(_has("prompt"), _has_entries("prompts")),
    "points": _any(_has_entries("points"), _SAYS_NONE),
    "pointing": _all(
        {"properties": {"style": {"enum": [*POINT_STYLES, None]}}},
        _any(
            _shared("asked"),
            _has("label"),
            _where("points", {"type": "array", "minItems": 1, "items": _has("label")}),
        ),
        {
            "oneOf": [
                {
                    "properties": {"no_points": {"enum": [False, None]}},
                    **_all(_has_entries("points"), _has("coords")),
                },
                {"properties": {"points": {"maxItems": 0}}, **_all(_SAYS_NONE)},
            ]
        },
    ),
    "one_target": {"oneOf": [_shared("pointing"), _all(_has("answer"), _shared("asked")), _has("caption")]},
    "one_prompt": {"not": _all(_has("prompt"), _has_entries("prompts"))},
    "labels": _rule(
        "Labels say what is pointed at.", _any(_has("answer"), _has("caption")), {"not": _has("label")}
    ),
    "no_request": {
        "properties": {
            **{
                name: {"type": "null"} for name in ("prompt", "label", "coords", "answer", "caption", "style")
            },
            **{name: {"maxItems": 0} for name in ("prompts", "points")},
            "no_points": {"enum": [False, None]},
        }
    },
    "about_pictures": _any(_shared("points"), _has("caption")),
    "timed": _in_points(_has("t")),
    "untimed": _in_points(_NO_TIME),
}
"""Parts that several rules name."""

_TURN_RULES = [
    _shared("one_target"),
    _shared("one_prompt"),
    _shared("labels"),
    _rule(
        "Points need a prompt or label; labels of points are not enough.",
        _shared("points"),
        _any(_shared("asked"), _has("label")),
    ),
    {"description": "Tracks are rows of their own.", "not": _IS_TRACK},
]
_ROW_RULES = [
    _rule(
        "One target per row, or turns with one each.",
        _has_entries("turns"),
        _shared("no_request"),
        _shared("one_target"),
    ),
    _rule(
        "Captions are of pictures or clips, and so are points, in turns as well.",
        _any(
            _shared("about_pictures"),
            _where("turns", {"type": "array", "contains": _shared("about_pictures")}),
        ),
        _any(_has("image"), _has("images"), _has("video")),
    ),
    _shared("one_prompt"),
    {
        "description": "One kind of visual input, or none.",
        "not": _any(
            _all(_has("image"), _has("images")),
            _all(_has("image"), _has("video")),
            _all(_has("images"), _has("video")),
        ),
    },
    _shared("labels"),
    _rule(
        "Points of a clip have a time, points of pictures have none.",
        _has("video"),
        _all(_shared("timed"), {"properties": {"turns": {"items": _shared("timed")}}}),
        _all(_shared("untimed"), {"properties": {"turns": {"items": _shared("untimed")}}}),
    ),
    _rule(
        "Tracks are of clips and number their objects.",
        _all(_shared("points"), _IS_TRACK),
        _all(_has("video"), _in_points(_any(_has("id"), _has("object_id")))),
    ),
    _rule(
        "A request for one object is made of its label and a first point.",
        _all(_shared("points"), _where("style", {"const": "track_from_point"})),
        _has("label"),
    ),
]

_ROW_TITLE = "A row of molmopoint training data"
_ROW_DESCRIPTION = (
    "One line of a JSONL file, or one row of a data set with the same columns. A null counts as absent. "
    "Four rules are beyond a schema: "
    "an image index names one of the row's pictures, relative files start at the folder of the JSONL file, "
    "points lie inside their "
    "picture, and data sets may embed pictures, for which JSON has no place."
)


class PointColumns(RowModel):
    """A place in a picture or clip."""

    rules: ClassVar = {"not": _all(_has("id"), _has("object_id"))}
    required: ClassVar = ("a number", "every point has x and y")

    x: Number = Field(description="Across, from the left edge.")
    y: Number = Field(description="Down, from the upper edge.")
    image: Annotated[Index, Expects("the index of a picture, from 0", "write a whole number")] | None = Field(
        default=None, description="Index of the picture, from 0."
    )
    t: Number | None = Field(
        default=None, description="Seconds from the beginning of the clip.", json_schema_extra={"minimum": 0}
    )
    object_id: Annotated[Index, Expects("a number of the object, from 0", "write a whole number")] | None = (
        Field(default=None, description="Number of the object, the same wherever it appears.")
    )
    id: Annotated[Index, Expects("a number of the object, from 0", "write a whole number")] | None = Field(
        default=None, description="Another name of object_id."
    )
    label: Text | None = Field(default=None, description="What this point shows.")


class TurnColumns(RowModel):
    """A request and its answer: what a turn may have, and a row of one request."""

    rules: ClassVar = {"allOf": _TURN_RULES}
    lists: ClassVar = {
        "prompts": (
            ("a list of requests", "write a single one as prompt"),
            ("text", "leave the column out where there is none"),
        ),
        "points": (
            ('a list like [{"x": 10, "y": 20}]', "write one object per point"),
            ('an object like {"x": 10, "y": 20}', "name the coordinates"),
        ),
    }

    prompt: Text | None = Field(default=None, description="What the user asks, sent as it is.")
    prompts: list[Text] | None = Field(
        default=None,
        description="Several wordings of one request, instead of prompt; one is drawn each time.",
    )
    label: Text | None = Field(
        default=None,
        description="Noun phrase to point at; put into a prompt template where there is no prompt.",
    )
    points: list[PointColumns] | None = Field(default=None, description="The places.")
    coords: (
        Annotated[
            Coords,
            Expects(
                "one of pixel, percent, norm1, norm1000",
                "say in which space x and y are; it is never guessed",
            ),
        ]
        | None
    ) = Field(default=None, description="Space of x and y; required with points.")
    no_points: (
        Annotated[Flag, Expects("true or false", "write true where there is nothing to point at")] | None
    ) = Field(default=None, description="True where there is nothing to point at.")
    answer: Text | None = Field(default=None, description="Answer to the question in prompt.")
    caption: Text | None = Field(default=None, description="Description of the pictures or the clip.")
    style: Text | None = Field(
        default=None,
        description="Of rows with points: how to answer. Of other rows: a tag in front of the prompt.",
    )


class MediaColumns(RowModel):
    """What a row is about: one of a picture, several pictures and a clip, or nothing."""

    lists: ClassVar = {
        "images": (
            ("a list of one or more files", "write one picture as image"),
            ("the path of a file", "save the picture or clip and write its path"),
        ),
    }

    image: Picture | None = Field(default=None, description="The picture.")
    images: Annotated[list[Picture], Field(min_length=1)] | None = Field(
        default=None, description="Several pictures, in order."
    )
    video: FileName | None = Field(default=None, description="The clip.")

    def visual(self, row: int) -> tuple[tuple[str | EmbeddedPicture, ...], str | None]:
        """The pictures, and the file of the clip.

        Raises:
            ProcessingError: there are pictures and a clip, or pictures in two columns.
        """
        kinds = [name for name in ("image", "images", "video") if getattr(self, name) is not None]
        if len(kinds) > 1:
            raise row_error(
                row,
                kinds[1],
                "one of image, images and video",
                " and ".join(kinds),
                "write two rows, or use images",
            )
        if self.image is not None:
            return (self.image,), None
        return tuple(self.images or ()), self.video


class RecordColumns(TurnColumns, MediaColumns):
    """A row: its pictures or clip, and one request, or several in turns."""

    rules: ClassVar = {"title": _ROW_TITLE, "description": _ROW_DESCRIPTION, "allOf": _ROW_RULES}
    shared: ClassVar = _SHARED
    lists: ClassVar = {
        **MediaColumns.lists,
        **TurnColumns.lists,
        "turns": (
            ("a list of turns", "write one object with a request and its answer per turn"),
            ("an object like a row without pictures", "name its columns"),
        ),
    }

    source: Text | None = Field(
        default=None, description="Name of the data set, for loss weights and losses per source."
    )
    weight: Number | None = Field(
        default=None,
        description="Factor of the row's loss; 1 if absent.",
        json_schema_extra={"exclusiveMinimum": 0},
    )
    turns: list[TurnColumns] | None = Field(
        default=None,
        description="Requests and answers of one conversation about the row's pictures, instead of a request of the row.",
    )


POINT_COLUMNS = tuple(PointColumns.model_fields)
"""RowModel of a point; `id` is another name of `object_id`."""

TURN_COLUMNS = tuple(TurnColumns.model_fields)
"""RowModel of a turn, and of a row of one request."""

COLUMNS = tuple(RecordColumns.model_fields)
"""RowModel of a row."""
