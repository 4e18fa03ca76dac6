"""Bodies of requests: JSON, or a form with files, read into one of the models of `schemas`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar, cast

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from molmopoint.serving.refusals import Refused
from molmopoint.serving.schemas import Asked

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
_MOST_PARTS = 64
_LISTS = ("images",)
"""Fields of a form that may come several times."""

_FILES = ("image", "images", "video")

Body = TypeVar("Body", bound=BaseModel)


class _FormInMemory(MultiPartParser):
    """Keeps files in memory: nothing that a client sends is written to a disk. The gate limits their size."""

    spool_max_size = 2**40


def body_of(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """Reads the body of a request, for `Depends`.

    Args:
        model: of its fields; forms are read where it has files.
    """
    takes_forms = issubclass(model, Asked)

    async def read(request: Request) -> Body:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == JSON_TYPE:
            body = await request.body()
            return _checked(lambda: model.model_validate_json(body))
        if kind == FORM_TYPE and takes_forms:
            fields, files = await _read_form(request)
            asked = _checked(lambda: model.model_validate(fields))
            cast(Asked, asked).take_files(files)
            return asked
        expected = f"{JSON_TYPE} or {FORM_TYPE}" if takes_forms else JSON_TYPE
        raise Refused(
            422, f"expected a body of type {expected}, got {kind[:80] or 'no content-type'!r}; name its type"
        )

    return read


def described(model: type[BaseModel]) -> dict[str, Any]:
    """The body in the words of OpenAPI, for `openapi_extra`; `with_models` adds what it refers to."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content: dict[str, Any] = {JSON_TYPE: {"schema": schema}}
    if issubclass(model, Asked):
        content[FORM_TYPE] = {"schema": _form_schema(model)}
    return {"requestBody": {"required": True, "content": content}}


def with_models(description: dict[str, Any], models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    """The description of an application with the models of its bodies among its components."""
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    for model in models:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return description


def _form_schema(model: type[Asked]) -> dict[str, Any]:
    """Fields of a form: files for what JSON has as base64, everything else as text."""
    file = {"type": "string", "format": "binary"}
    properties: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        properties[name] = {"type": "string", "description": field.description or ""}
        if name in _FILES:
            properties[name] = file
        if name in _LISTS:
            properties[name] = {"type": "array", "items": file}
    required = [name for name, field in model.model_fields.items() if field.is_required()]
    return {"type": "object", "properties": properties, "required": required}


async def _read_form(request: Request) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Fields and files of a form.

    Raises:
        Refused: it is no form, or a field comes twice.
    """
    stream = cast(AsyncGenerator[bytes, None], request.stream())
    try:
        parser = _FormInMemory(request.headers, stream, max_files=_MOST_PARTS, max_fields=_MOST_PARTS)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, AssertionError) as error:
        raise Refused(422, f"expected a form as {FORM_TYPE}, got: {error}; let a library write it") from error
    try:
        return await _sorted(form)
    finally:
        await form.close()


async def _sorted(form: FormData) -> tuple[dict[str, Any], dict[str, list[bytes]]]:
    """Fields and files, by name."""
    fields: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in _FILES:
                raise Refused(422, f"expected files in {', '.join(_FILES)}, got one in {name[:40]!r}")
            files.setdefault(name, []).append(await value.read())
        elif name in _LISTS:
            fields.setdefault(name, []).append(value)
        elif name in fields:
            raise Refused(422, f"expected {name[:40]!r} once, got it several times")
        else:
            fields[name] = value
    return fields, files


def _checked(make: Callable[[], Body]) -> Body:
    """A body with its faults as the framework tells them."""
    try:
        return make()
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from error
