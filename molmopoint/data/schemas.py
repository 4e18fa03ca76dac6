"""The JSON schemas that are installed with the package, made from the models of rows.

After a change of a model, `python -m molmopoint.data.schemas` writes the files beside this module anew; a
test compares them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from molmopoint.data.preference_columns import PreferenceColumns
from molmopoint.data.record_columns import RecordColumns
from molmopoint.data.row_model import RowModel, model_in

SCHEMAS: dict[str, type[RowModel]] = {
    "record.schema.json": RecordColumns,
    "preference.schema.json": PreferenceColumns,
}
"""Files and the models that they describe."""

_LINE = 120
"""Characters of a line of a schema."""


class _Published(GenerateJsonSchema):
    """A schema without what pydantic adds for programs: titles made of names, and defaults, which are all
    null.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])


def published_schema(model: type[RowModel]) -> str:
    """The JSON schema of a row, as text."""
    schema = model.model_json_schema(schema_generator=_Published) | model.rules
    definitions = schema.pop("$defs", {})
    for inner in _models_in(model):
        definitions[inner.__name__] |= inner.rules
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return _written({**head, **schema, "$defs": {**definitions, **model.shared}}, "") + "\n"


def _models_in(model: type[RowModel]) -> set[type[RowModel]]:
    """The models in the columns of a model, those in their columns included."""
    found: set[type[RowModel]] = set()
    for field in model.model_fields.values():
        inner = model_in(field.annotation)
        if inner is not None:
            found |= {inner, *_models_in(inner)}
    return found


def _written(value: Any, indent: str) -> str:
    """JSON for people: what is short stays on one line."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _LINE or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, list):
        entries = [_written(entry, inner) for entry in value]
    else:
        entries = [f"{json.dumps(name)}: {_written(entry, inner)}" for name, entry in value.items()]
    opening, closing = "[]" if isinstance(value, list) else "{}"
    lines = ",\n".join(inner + entry for entry in entries)
    return f"{opening}\n{lines}\n{indent}{closing}"


if __name__ == "__main__":
    for name, model in SCHEMAS.items():
        (Path(__file__).parent / name).write_text(published_schema(model), encoding="utf-8")
