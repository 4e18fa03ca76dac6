"""What is refused: OpenAI's error object, with what was expected, what came and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from molmopoint.errors import MolmoPointError, NumericalError
from molmopoint.serving.engine import Cancelled, Closed, QueueFull

INVALID = "invalid_request_error"
SERVER_ERROR = "server_error"
CLIENT_GONE = 499
_TRY_LATER = (429, 503)
_MOST_FAULTS = 5

Made = TypeVar("Made")


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        kind: of the error, as OpenAI calls them.
    """

    def __init__(self, status: int, message: str, kind: str = INVALID) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def error_object(error: Refused) -> dict[str, object]:
    """OpenAI's form of an error."""
    return {"error": {"message": str(error), "type": error.kind, "param": None, "code": error.status}}


def error_response(error: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    headers = {"Retry-After": "1"} if error.status in _TRY_LATER else None
    return JSONResponse(error_object(error), error.status, headers)


def valid(make: Callable[[], Made]) -> Made:
    """What a function of the library makes of a request; what it refuses is the client's fault.

    Raises:
        Refused: it was refused.
    """
    try:
        return make()
    except (MolmoPointError, TypeError) as error:
        raise Refused(400, str(error)) from error


def as_refused(error: BaseException) -> Refused:
    """What a client is told of an error; of one that nobody foresaw, its kind alone."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, QueueFull):
        return Refused(429, str(error), "rate_limit_exceeded")
    if isinstance(error, Closed):
        return Refused(503, str(error), SERVER_ERROR)
    if isinstance(error, Cancelled):
        return Refused(CLIENT_GONE, str(error), "client_gone")
    if isinstance(error, NumericalError):
        return Refused(500, str(error), SERVER_ERROR)
    if isinstance(error, MolmoPointError):
        return Refused(400, str(error))
    return Refused(
        500,
        f"expected an answer of the model, got {type(error).__name__}; see the log of the server",
        SERVER_ERROR,
    )


def of_http(error: HTTPException) -> Refused:
    """What the framework refused: a path or a method that there is not."""
    if error.status_code == 404:
        return Refused(404, "expected one of the routes that /docs lists, got another one")
    return Refused(error.status_code, str(error.detail))


def of_fields(error: RequestValidationError) -> Refused:
    """A body whose fields are not as described."""
    faults = []
    for fault in error.errors()[:_MOST_FAULTS]:
        place = ".".join(str(part) for part in fault["loc"] if part != "body")
        faults.append(f"{place or 'body'}: {fault['msg']}")
    return Refused(422, f"expected a request as /docs describes it, got: {'; '.join(faults)}")
