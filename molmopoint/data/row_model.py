"""Columns of a row: the types that values have, what is said about a faulty one, and the schema that is
published.

The models of rows, `RecordColumns` and `PreferenceColumns`, are made of these types. pydantic checks a row;
of what it finds the first fault becomes one sentence with the number of the row, the column, what was
expected, what is there, and what to do. `schemas` writes the JSON schemas from the same models.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar, get_args

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    Strict,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from molmopoint.data.embedded import EmbeddedPicture, embedded_picture
from molmopoint.errors import ProcessingError

Schema = dict[str, Any]
"""A JSON schema, or a part of one."""

_SHOWN = 200
"""Characters of a value in a message."""

_FAULT = "column"
"""Type of the errors of pydantic that already hold what was expected and what to do."""

_DEPTH = 5
"""A column of a point of a turn lies so deep in a row; nothing below it is looked at."""


def row_error(row: int, field: str | None, expected: str, got: str, remedy: str) -> ProcessingError:
    """What is wrong where, and what to do; `field` is None where it is the whole row."""
    place = f"row {row}" if field is None else f"row {row}, {field}"
    return ProcessingError(f"{place}: expected {expected}, got {got}; {remedy}")


def shown(value: Any) -> str:
    """A value in a message: short, and whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


class Expects:
    """Of a type of values: what is said of a value that is none of them.

    Args:
        expected: the type in words.
        remedy: what to do.
    """

    def __init__(self, expected: str, remedy: str) -> None:
        self.words = {"expected": expected, "remedy": remedy}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.custom_error_schema(
            handler(source),
            custom_error_type=_FAULT,
            custom_error_message=_FAULT,
            custom_error_context=self.words,
        )


def refuse(expected: str, remedy: str, got: str | None = None) -> NoReturn:
    """Ends a check in a function of a model; without `got` the value itself is shown."""
    words = {"expected": expected, "remedy": remedy}
    if got is not None:
        words["got"] = _whole_characters(got)
    raise PydanticCustomError(_FAULT, _FAULT, words)


# The pattern is what Python calls blank: four control characters more than the word of regular expressions.
Text = Annotated[
    str,
    Strict(),
    Field(pattern=r"[^\s\x1c-\x1f]"),
    Expects("text", "leave the column out where there is none"),
]
"""Text that is not blank."""

Number = Annotated[
    float,
    Strict(),
    Field(allow_inf_nan=False),
    Expects("a finite number", "write a plain number such as 12.5"),
]
"""A finite number, whole or not."""

Index = Annotated[int, Strict(), Field(ge=0, lt=2**63)]
"""A whole number from 0; a column says in its own words what it counts."""

Flag = Annotated[bool, Strict()]
"""True or false."""


def check_characters(text: str) -> None:
    """Refuses half a character: it can stand in JSON, and in no file, no name and no model input."""
    if has_half_character(text):
        refuse(*_WHOLE_CHARACTERS, got=ascii(text)[:_SHOWN])


def has_half_character(text: str) -> bool:
    """Whether half of a surrogate pair is in a text."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _whole_characters(text: str) -> str:
    """The text with halves of characters written as escapes; pydantic takes none."""
    return text.encode("utf-8", "backslashreplace").decode()


_WHOLE_CHARACTERS = ("whole characters", "write emoji as UTF-8, not as half a surrogate pair")


def _file_name(value: Any) -> str:
    """A path as text; also of a data set's undecoded picture column, which keeps it as {"path": ..., "bytes":
    None}.
    """
    if isinstance(value, Mapping) and value.get("path") and value.get("bytes") is None:
        value = value["path"]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value.strip():
        kind = shown(value) if isinstance(value, str) else type(value).__name__
        refuse("the path of a file", "save the picture or clip and write its path", got=kind)
    check_characters(value)
    if "\0" in value:
        refuse("the path of a file", "write it without null characters")
    return value


def _picture(value: Any) -> str | EmbeddedPicture:
    """The path of a file, or what a data set embeds."""
    if isinstance(value, EmbeddedPicture):
        return value
    return embedded_picture(value) or _file_name(value)


_FILE_SCHEMA = WithJsonSchema(
    {
        "description": 'A path; data sets write {"path": ..., "bytes": null} as well.',
        "type": ["string", "object"],
        "pattern": r"\S",
        "required": ["path"],
        "properties": {"path": {"type": "string", "pattern": r"\S"}, "bytes": {"type": "null"}},
    }
)
FileName = Annotated[str, PlainValidator(_file_name), _FILE_SCHEMA]
"""The path of a file."""

Picture = Annotated[str | EmbeddedPicture, PlainValidator(_picture), _FILE_SCHEMA]
"""The path of a picture, or a picture that lies in the data set."""


class RowModel(BaseModel):
    """Columns that are known; others are refused, for a misspelt one would silently do nothing. None counts
    as absent.

    Attributes:
        lists: of each column that is a list, what is said where it is none, and where an entry is of another
            type: what was expected, and what to do.
        required: the same where a required column is absent.
        rules: what its JSON schema says beyond the types of single columns.
        shared: parts of schemas that rules name as `{"$ref": "#/$defs/..."}`.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    lists: ClassVar[Mapping[str, tuple[tuple[str, str], tuple[str, str]]]] = {}
    required: ClassVar[tuple[str, str]]
    rules: ClassVar[Schema] = {}
    shared: ClassVar[Mapping[str, Schema]] = {}


Model = TypeVar("Model", bound=RowModel)


def check_columns(model: type[Model], fields: Any, row: int) -> Model:
    """The columns of one row in the types of its model.

    Args:
        model: of the row.
        fields: columns by name; numbers may be those of numpy.
        row: number of the row, for messages.

    Raises:
        ProcessingError: a column is not known, or its value is of another type.
    """
    if not isinstance(fields, Mapping):
        raise row_error(row, None, "an object with columns", shown(fields), "write one JSON object per line")
    validate = model.__pydantic_validator__.validate_python
    try:
        return validate(fields)
    except ValidationError:
        pass
    # Rows of files hold plain values. Others, such as numbers of numpy and tuples, are made plain before they
    # are refused.
    try:
        return validate(_plain(fields, _DEPTH))
    except ValidationError as error:
        raise _row_error_of(error, model, row) from None


def _plain(value: Any, depth: int) -> Any:
    """Dictionaries, lists and numbers of Python in place of others like them."""
    if isinstance(value, np.generic):
        return value.item()
    if depth == 0 or isinstance(value, str | bytes):
        return value
    if isinstance(value, Mapping):
        return {_whole_characters(str(name)): _plain(entry, depth - 1) for name, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(entry, depth - 1) for entry in value]
    return value


def _row_error_of(error: ValidationError, model: type[RowModel], row: int) -> ProcessingError:
    """The sentence about the first fault that pydantic found; of misspelt columns first, for they may be why
    others are missing.
    """
    faults = error.errors(include_url=False)
    unknown = [fault for fault in faults if fault["type"] == "extra_forbidden"]
    fault = min(unknown, key=lambda each: len(each["loc"])) if unknown else faults[0]
    place = _place(fault["loc"])
    if unknown:
        return _unknown_column(row, place, str(fault["loc"][-1]), _model_at(model, fault["loc"][:-1]))
    expected, got, remedy = _in_words(fault, model)
    return row_error(row, place, expected, got, remedy)


def _unknown_column(row: int, place: str, name: str, model: type[RowModel]) -> ProcessingError:
    known = list(model.model_fields)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", which is like {near[0]!r}" if near else ""
    return row_error(
        row, place, f"one of the columns {', '.join(known)}", shown(name) + hint, "rename or remove it"
    )


def _in_words(fault: ErrorDetails, model: type[RowModel]) -> tuple[str, str, str]:
    """What was expected, what is there, and what to do."""
    *path, last = fault["loc"]
    value = fault["input"]
    if isinstance(last, str):
        owner = _model_at(model, path)
        is_absent = fault["type"] == "missing" or value is None
        if is_absent and owner.model_fields[last].is_required():
            expected, remedy = owner.required
            return expected, "nothing", remedy
    if fault["type"] == _FAULT:
        words = fault.get("ctx", {})
        if "got" not in words and isinstance(value, str) and has_half_character(value):
            return _WHOLE_CHARACTERS[0], ascii(value)[:_SHOWN], _WHOLE_CHARACTERS[1]
        return words["expected"], words.get("got", shown(value)), words["remedy"]
    if isinstance(last, int):
        expected, remedy = _model_at(model, path[:-1]).lists[str(path[-1])][1]
    else:
        expected, remedy = _model_at(model, path).lists[last][0]
    return expected, shown(value), remedy


def _place(loc: tuple[int | str, ...]) -> str:
    """Where a value stands, such as points[0].x."""
    place = ""
    for step in loc:
        if isinstance(step, int):
            place += f"[{step}]"
        else:
            place += f".{step}" if place else step
    return place


def _model_at(model: type[RowModel], loc: Sequence[int | str]) -> type[RowModel]:
    """The model of the objects at a place in a row."""
    for step in loc:
        if isinstance(step, str):
            model = model_in(model.model_fields[step].annotation) or model
    return model


def model_in(annotation: Any) -> type[RowModel] | None:
    """The model in the type of a column, such as `list[PointColumns] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, RowModel):
        return annotation
    found = (model_in(inner) for inner in get_args(annotation))
    return next((model for model in found if model is not None), None)
