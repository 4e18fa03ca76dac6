"""The columns of a row of preferences, as a user writes them, and the rules between them that the JSON schema
publishes.

`preferences` checks the same rules and says in words what is wrong; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypeGuard

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from molmopoint.data.record_columns import MediaColumns
from molmopoint.data.row_model import FileName, Number, Picture, Text, check_characters, refuse, shown

FORMS = (("responses", "rankings"), ("chosen", "rejected"), ("responses", "scores"))
"""RowModel that say which answers are better, one pair per row."""

_TURN_SCHEMA = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {"type": "object", "required": ["role", "content"]},
}
"""Of a chat of one turn."""

_TEXT_OR_TURN = {"anyOf": [{"type": "string"}, _TURN_SCHEMA]}


def _none_if_blank(value: Any) -> Any:
    """None for a picture or clip that is not there, as some data sets write it."""
    is_blank = isinstance(value, str) and not value.strip()
    return None if is_blank or (isinstance(value, Sequence) and not value) else value


def _is_chat(value: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Whether this is a list of turns."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    return len(value) > 0 and all(isinstance(turn, Mapping) for turn in value)


def _text_of_turn(turns: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text of a chat of one turn; pictures are columns of their own."""
    if len(turns) != 1 or turns[0].get("role") != role:
        roles = ", ".join(str(turn.get("role")) for turn in turns)
        refuse(
            f"text, or one turn of the {role}",
            "several turns are not judged; write the last one",
            got=f"turns of {roles}",
        )
    content = turns[0].get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else ()
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    if len(texts) != 1 or not isinstance(texts[0], str):
        refuse("content with one text", "write the text as content", got=shown(content))
    return texts[0]


def _question(value: Any) -> Any:
    """What is asked, from text or one turn of the user."""
    return _text_of_turn(value, "user") if _is_chat(value) else value


def _answer(value: Any) -> str:
    """An answer, which may be blank, from text or one turn of the assistant."""
    return _text(_text_of_turn(value, "assistant") if _is_chat(value) else value)


def _text(value: Any) -> str:
    """Text, which may be blank."""
    if not isinstance(value, str):
        refuse("text", "write the answer as text")
    check_characters(value)
    return value


def _as_list(value: Any) -> Any:
    """One side of a comparison as a list of answers: it may be an answer, a turn of chat, or a list already."""
    return [value] if isinstance(value, str) or _is_chat(value) else value


def _name(value: Any) -> Any:
    """A name of an item, which may be a number."""
    return str(value) if isinstance(value, int | float) else value


_Request = Annotated[
    Text,
    BeforeValidator(_question),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": "\\S"},
                {**_TURN_SCHEMA, "description": "One turn of the user."},
            ]
        }
    ),
]
_Answer = Annotated[str, PlainValidator(_answer), WithJsonSchema(_TEXT_OR_TURN)]
_Side = Annotated[
    list[_Answer],
    Field(min_length=1),
    BeforeValidator(_as_list),
    WithJsonSchema(
        {"anyOf": [*_TEXT_OR_TURN["anyOf"], {"type": "array", "items": _TEXT_OR_TURN, "minItems": 1}]}
    ),
]


def _has(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _has_file(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"type": ["string", "object"], "pattern": "\\S"}}}


def _form(better: str, worse: str) -> dict[str, Any]:
    """One of the ways to write which answers are better, and nothing of another."""
    others = {name for form in FORMS for name in form} - {better, worse}
    return {"allOf": [_has(better), _has(worse)], "not": {"anyOf": [_has(name) for name in sorted(others)]}}


_HAS_IMAGES = {"required": ["images"], "properties": {"images": {"type": "array", "minItems": 1}}}
_RULES = [
    {
        "description": "One visual input.",
        "not": {
            "anyOf": [
                {"allOf": [_has_file("image"), _HAS_IMAGES]},
                {"allOf": [_has_file("image"), _has_file("video")]},
                {"allOf": [_HAS_IMAGES, _has_file("video")]},
            ]
        },
    },
    {"description": "An interval has a clip.", "if": _has("sampling_interval"), "then": _has_file("video")},
    {"description": "One request.", "oneOf": [_has("prompt"), _has("question")]},
    {"description": "One form.", "oneOf": [_form(*form) for form in FORMS]},
]
_DESCRIPTION = (
    "One line of a JSONL file, or one row of a data set with the same columns. A null counts as absent, and "
    "so does a blank picture or "
    "clip. Beyond a schema: rankings, scores and models are as many as responses, relative files start at "
    "the folder of the JSONL file, "
    "and data sets may embed pictures, for which JSON has no place."
)
_BLANK_OR_FILE = WithJsonSchema({"type": ["string", "object", "null"]})
_OF_ANSWERS = (("a list of texts", "write a list, also of one"), ("text", "write the answer as text"))
_OF_NUMBERS = (
    ("a list of numbers, one per answer", "write one number per answer"),
    ("a finite number", "write a plain number such as 12.5"),
)
_OF_SIDES = (("one or more answers", "leave the row out"), _OF_ANSWERS[1])


class PreferenceColumns(MediaColumns):
    """A request, what it is about, and answers in one of three forms."""

    rules: ClassVar = {
        "title": "A row of preferences for molmopoint finetune-reward",
        "description": _DESCRIPTION,
        "allOf": _RULES,
    }
    lists: ClassVar = {
        **MediaColumns.lists,
        "responses": (("two or more answers", "write a list, or leave the row out"), _OF_ANSWERS[1]),
        "rankings": _OF_NUMBERS,
        "scores": _OF_NUMBERS,
        "chosen": _OF_SIDES,
        "rejected": _OF_SIDES,
        "models": _OF_ANSWERS,
    }

    image: Annotated[Picture | None, BeforeValidator(_none_if_blank), _BLANK_OR_FILE] = Field(
        default=None, description="The picture; blank for none."
    )
    images: Annotated[list[Picture] | None, BeforeValidator(_none_if_blank)] = Field(
        default=None, description="Several pictures, in order."
    )
    video: Annotated[FileName | None, BeforeValidator(_none_if_blank), _BLANK_OR_FILE] = Field(
        default=None, description="The clip, a file or a folder of frames; blank for none."
    )
    sampling_interval: Number | None = Field(
        default=None,
        description="Seconds between the frames of a folder; 4 if not given. Needs a video.",
        json_schema_extra={"exclusiveMinimum": 0},
    )
    prompt: _Request | None = Field(default=None, description="What the user asks.")
    question: _Request | None = Field(default=None, description="Another name for prompt.")
    responses: Annotated[list[_Answer], Field(min_length=1)] | None = Field(
        default=None, description="The answers."
    )
    rankings: list[Annotated[Number, Field(json_schema_extra={"minimum": 1, "multipleOf": 1})]] | None = (
        Field(default=None, description="Rank of each answer; 1 is best, ties share a rank.")
    )
    scores: list[Number] | None = Field(
        default=None, description="How good each answer is; higher is better."
    )
    chosen: _Side | None = Field(default=None, description="The better answer, or several as good ones.")
    rejected: _Side | None = Field(default=None, description="The worse answer, or several.")
    id: Annotated[
        Text | None,
        BeforeValidator(_name),
        WithJsonSchema({"type": ["string", "number", "null"], "pattern": "\\S"}),
    ] = Field(default=None, description="Name of the item.")
    models: list[Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]] | None = Field(
        default=None, description="What wrote each answer."
    )
    source: Text | None = Field(default=None, description="Name of the data set.")


PREFERENCE_COLUMNS = tuple(PreferenceColumns.model_fields)
"""RowModel of a row."""
