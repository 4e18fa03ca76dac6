"""What clients send and how they read answers; the same for both kinds of client."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from molmopoint.backends.media import DisplayedMedia
from molmopoint.backends.options import complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.backends.zoom import Zoom
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import is_file
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline import TrackingResult
from molmopoint.points import Point, Points
from molmopoint.processing.pictures import load_picture
from molmopoint.tracks import Tracks

if TYPE_CHECKING:
    import httpx

Document = dict[str, Any]
_FILE_KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}
"""First bytes of files that are sent as they are; everything else is sent as PNG."""


class ServerError(MolmoPointError):
    """What a server refused, in its own words.

    Attributes:
        status: of HTTP; None where an answer broke off.
        kind: of the error; empty where the server did not say.
    """

    def __init__(self, message: str, status: int | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def import_httpx() -> Any:
    """Httpx.

    Raises:
        ImportError: it is missing.
    """
    try:
        import httpx
    except ImportError as error:
        raise ImportError('expected httpx for a client, got none; pip install "molmopoint[serve]"') from error
    return httpx


def headers_of(key: str | None) -> dict[str, str]:
    """Headers of all requests."""
    return {} if key is None else {"Authorization": f"Bearer {key}"}


@dataclass(frozen=True)
class Question:
    """A question about pictures on its way to a server.

    Attributes:
        body: for JSON.
        pictures: as people see them.
        as_list: whether they came as a list.
        sent: the prompt as the model gets it.
    """

    body: Document
    pictures: tuple[Image.Image, ...]
    as_list: bool
    sent: str


def question(
    image: Any,
    prompt: str,
    template: str | None,
    options: Mapping[str, Any],
    *,
    model: str | None,
    **more: Any,
) -> Question:
    """A question about pictures.

    Args:
        image: a picture, a list of them, or None.
        prompt: as it was typed.
        template: where the prompt goes instead.
        options: of the call; those that are None are left out.
        model: name of a model of the server.
        **more: further fields.

    Raises:
        ProcessingError: a picture or the prompt cannot be used.
    """
    as_list = isinstance(image, (list, tuple))
    given = [] if image is None else list(image) if as_list else [image]
    pictures = tuple(load_picture(picture) for picture in given)
    body = fields(options) | {"prompt": prompt, **more}
    if model is not None:
        body["model"] = model
    if template is not None:
        body["template"] = template
    if given:
        body["images"] = [_encoded(*pair) for pair in zip(given, pictures, strict=True)]
    return Question(body, pictures, as_list, complete_prompt(prompt, template))


def fields(options: Mapping[str, Any]) -> Document:
    """Options of a call under the names of a server.

    Raises:
        ProcessingError: an option that a server does not take.
    """
    if isinstance(options.get("zoom"), Zoom):
        raise ProcessingError(
            f"expected zoom=True or False for a server, got {options['zoom']}; how often it looks is its own"
        )
    given = {name: value for name, value in options.items() if value is not None}
    if "max_new_tokens" in given:
        given["max_tokens"] = given.pop("max_new_tokens")
    return given


def form(options: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a form as text."""
    texts = {}
    for name, value in fields(options).items():
        texts[name] = value if isinstance(value, str) else json.dumps(value)
    return texts


def video_of(video: Any) -> tuple[str, bytes]:
    """Name and bytes of a clip.

    Raises:
        ProcessingError: it is neither a file nor its bytes.
    """
    if isinstance(video, (bytes, bytearray, memoryview)):
        return "video", bytes(video)
    if isinstance(video, (str, Path)) and Path(video).is_file():
        return "video", Path(video).read_bytes()
    raise ProcessingError(
        f"expected a video file or its bytes to send to a server, got {video!r:.60}; write frames into a file "
        "first"
    )


def check(response: httpx.Response) -> None:
    """Refuses answers that are errors.

    Raises:
        ServerError: with the words of the server.
    """
    if response.is_success:
        return
    try:
        error = response.json()["error"]
        message, kind = str(error["message"]), str(error["type"])
    except (ValueError, KeyError, TypeError):
        message = f"expected an answer, got status {response.status_code}; check the address of the server"
        kind = ""
    raise ServerError(message, response.status_code, kind)


def failed_job(job: Document) -> ServerError:
    """What is raised for a job without a result."""
    error: Document | None = job.get("error")
    if error is None:
        return ServerError(f"expected the result of a job, got one that is {job['status']}")
    return ServerError(error["message"], error.get("code"), error.get("type", ""))


@dataclass
class StreamReader:
    """Reads a stream line by line.

    Attributes:
        asked: the question.
        result: the whole answer, once it came.
    """

    asked: Question
    result: PointingResult | None = field(default=None)

    def events(self, line: str) -> Iterator[str | Point]:
        """The piece of words or the point of a line.

        Raises:
            ServerError: the server broke off.
        """
        if not line.startswith("data: ") or line == "data: [DONE]":
            return
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            error = event["error"]
            raise ServerError(error["message"], error.get("code"), error.get("type", ""))
        if event["type"] == "text":
            yield event["text"]
        elif event["type"] == "point":
            point = event["point"]
            yield Point(point["object_id"], point["image"], point["x"], point["y"], float("nan"))
        else:
            self.result = pointing_result(event, self.asked)


def pointing_result(answer: Document, asked: Question) -> PointingResult:
    """The answer of a server in the form of a local one; what only the model knows, heatmaps, is missing."""
    sizes = _sizes(answer)
    return PointingResult(
        points=_points(answer["points"], sizes, "image"),
        text=answer["text"],
        raw_text=answer["text"],
        prompt=asked.sent,
        truncated=answer["truncated"],
        invalid=0,
        image_sizes=sizes,
        metadata=_sizes_alone(sizes),
        displayed=DisplayedMedia(asked.pictures, as_list=asked.as_list),
        notes=tuple(answer["notes"]),
        absent=float("nan") if answer["absent"] is None else answer["absent"],
        looks=answer.get("looks", 1),
        calibrated=answer.get("calibrated", False),
    )


def clip_result(answer: Document, video: Any, prompt: str) -> PointingResult:
    """The same for a clip."""
    sizes = _sizes(answer)
    points = _points(answer["points"], sizes, "seconds")
    times = np.unique(points.group) if len(points) else np.zeros(1)
    frames = np.arange(len(times))
    metadata = PointingMetadata(
        pooling=frames[:, None],
        indexable=np.ones(len(times), dtype=bool),
        patch_maps=[np.array([[frame]]) for frame in frames.tolist()],
        image_sizes=sizes,
        timestamps=times,
        location_grid=0,
    )
    return PointingResult(
        points=points,
        text=answer["text"],
        raw_text=answer["text"],
        prompt=prompt,
        truncated=answer["truncated"],
        invalid=0,
        image_sizes=sizes,
        metadata=metadata,
        displayed=DisplayedMedia(clip=_path_of(video), timestamps=times),
        notes=tuple(answer["notes"]),
    )


def tracking_result(answer: Document, video: Any) -> TrackingResult:
    """Tracks of a server in the form of local ones."""
    tracks = Tracks.from_dict(answer["tracks"])
    ((width, height), *_) = _sizes(answer)
    return TrackingResult(
        tracks=tracks,
        text=answer["text"],
        raw_text=answer["text"],
        prompt=answer["prompt"],
        truncated=answer["truncated"],
        invalid=answer["invalid"],
        size=(width, height),
        answers=(),
        displayed=DisplayedMedia(clip=_path_of(video), timestamps=np.asarray(tracks.moments)),
        notes=tuple(answer["notes"]),
    )


def _sizes(answer: Document) -> tuple[tuple[int, int], ...]:
    return tuple((int(width), int(height)) for width, height in answer["image_sizes"])


def _path_of(video: Any) -> str | None:
    return str(video) if isinstance(video, (str, Path)) else None


def _points(rows: list[Document], sizes: tuple[tuple[int, int], ...], group: str) -> Points:
    """Points of an answer; their group is the number of a picture, or seconds."""
    x = np.array([row["x"] for row in rows], dtype=np.float64)
    y = np.array([row["y"] for row in rows], dtype=np.float64)
    groups = np.array([row[group] for row in rows], dtype=np.int64 if group == "image" else np.float64)
    numbers = np.array([row["object_id"] for row in rows], dtype=np.int64)
    given = [float("nan") if row["score"] is None else row["score"] for row in rows]
    labels = tuple(row["label"] for row in rows)
    scores = np.array(given, dtype=np.float64)
    return Points(numbers, groups, x, y, scores, image_sizes=sizes, labels=labels)


def _encoded(source: Any, picture: Image.Image) -> str:
    """A picture as a data URL: the bytes of its file where a server reads them as well, else PNG."""
    content = _file_bytes(source)
    kind = next((kind for head, kind in _FILE_KINDS.items() if content.startswith(head)), None)
    if kind is None:
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=1)
        content, kind = file.getvalue(), "image/png"
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _file_bytes(source: Any) -> bytes:
    """The bytes of a picture that is a file; none of one that is not."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, Path)) and is_file(Path(source)):
        return Path(source).read_bytes()
    return b""


def _sizes_alone(sizes: tuple[tuple[int, int], ...]) -> PointingMetadata:
    """Sizes of pictures; grounding tokens mean something for the server only."""
    numbers = np.arange(len(sizes))
    maps = [np.array([[number]]) for number in numbers.tolist()]
    return PointingMetadata(
        numbers[:, None], np.ones(len(sizes), dtype=bool), maps, list(sizes), location_grid=0
    )
