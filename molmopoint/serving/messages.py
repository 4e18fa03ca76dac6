"""What clients send and how they read answers; the same for both kinds of client."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from molmopoint.backends.history import as_turns
from molmopoint.backends.media import DisplayedMedia
from molmopoint.backends.options import complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.backends.zoom import Zoom
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline import TrackingResult
from molmopoint.pipeline.batching import is_one_picture, paired
from molmopoint.points import Point, Points
from molmopoint.serving.sent_pictures import SentPictures
from molmopoint.tracks import Tracks

if TYPE_CHECKING:
    import httpx

Document = dict[str, Any]


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
        sent: the prompt as the model gets it.
    """

    body: Document
    pictures: SentPictures
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
        image: a picture, a list of them, pictures that are ready to be sent, or None.
        prompt: as it was typed.
        template: where the prompt goes instead.
        options: of the call; those that are None are left out.
        model: name of a model of the server.
        **more: further fields.

    Raises:
        ProcessingError: a picture, the prompt or an option cannot be used.
    """
    asked = dict(options)
    history = as_turns(asked.pop("history", None))
    allow_urls = asked.pop("allow_urls", False)
    pictures = image if isinstance(image, SentPictures) else SentPictures(image, allow_urls=allow_urls)
    if pictures.max_crops is not None:
        asked["max_crops"] = _crops_as_encoded(pictures, asked.get("max_crops"))
    body = fields(asked) | {"prompt": prompt, **more}
    if model is not None:
        body["model"] = model
    if template is not None:
        body["template"] = template
    if pictures:
        body["images"] = list(pictures.addresses)
    if history:
        body["history"] = [_turn(*turn) for turn in history]
    return Question(body, pictures, complete_prompt(prompt, template))


def as_query(asked: Question) -> Document:
    """The body of a question that is answered in words, which is sent exactly as it is."""
    body = {name: value for name, value in asked.body.items() if name not in ("prompt", "template")}
    return body | {"question": asked.body["prompt"]}


def refuse_clip(video: Any) -> None:
    """Refuses questions about clips, for which servers have no route.

    Raises:
        ProcessingError: there is a clip.
    """
    if video is not None:
        raise ProcessingError(
            "expected pictures to ask a server about, got a video; pass a list of its frames, or use "
            "`point_video` or `track`"
        )


def encoded(image: Any, max_crops: int | None, *, allow_urls: bool) -> SentPictures:
    """Pictures that are ready to be sent.

    Raises:
        ProcessingError: there is none.
    """
    pictures = SentPictures(image, max_crops=max_crops, allow_urls=allow_urls)
    if not pictures:
        raise ProcessingError(
            "expected a picture to encode, got none; requests of text alone need no encoding"
        )
    return pictures


def read_once(image: Any, options: Mapping[str, Any]) -> repeat[Any]:
    """One picture again and again, for any number of prompts; None for requests of text alone."""
    if image is None or isinstance(image, SentPictures):
        return repeat(image)
    return repeat(SentPictures(image, allow_urls=options.get("allow_urls", False)))


def pairs_of(
    images: Iterable[Any], prompts: str | Iterable[str], options: Mapping[str, Any]
) -> Iterator[tuple[Any, str]]:
    """Pairs of pictures and prompts, as `Pointer.point_batch` takes them.

    Args:
        images: one per request, or one picture for several prompts.
        prompts: one per request, or one for all.
        options: of the requests.

    Raises:
        ProcessingError: one picture with one prompt, or more of the one than of the other.
    """
    if not is_one_picture(images) and not isinstance(images, SentPictures):
        return paired(images, prompts)
    if isinstance(prompts, str):
        raise ProcessingError(
            f"expected several images, got one ({type(images).__name__}); use `point`, or pass [image]"
        )
    return paired(read_once(images, options), prompts)


def _crops_as_encoded(pictures: SentPictures, max_crops: int | None) -> int | None:
    if max_crops not in (None, pictures.max_crops):
        raise ProcessingError(
            f"expected max_crops as encoded ({pictures.max_crops}), got {max_crops}; pass it to `encode` instead"
        )
    return pictures.max_crops


def _turn(prompt: str, answer: PointingResult | Points | str) -> Document:
    """An earlier turn for a server: its points in pixels, or its words where there are none."""
    if isinstance(answer, str):
        return {"prompt": prompt, "text": answer}
    points = answer.points if isinstance(answer, PointingResult) else answer
    if points.group.dtype.kind == "f" and len(points):
        raise ProcessingError(
            "expected earlier turns about pictures, got one about a clip; servers take no history of clips"
        )
    if not len(points):
        return {"prompt": prompt, "text": answer.text if isinstance(answer, PointingResult) else ""}
    places = []
    for point in points:
        place = {"x": point.x, "y": point.y, "image": int(point.group), "object_id": point.object_id}
        places.append(place | {"label": point.label})
    return {"prompt": prompt, "points": places}


_STAYS_LOCAL = {
    "on_phase": "its times are in /metrics of the server",
    "timestamps": "write frames into a video file, which has its times",
    "subtitles": "write what they say into the prompt, or load the model here",
    "stopping_criteria": "close a stream to end its answer",
}
"""Options of a `Pointer` that a server has no place for, and what to do."""


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
    for name in given.keys() & _STAYS_LOCAL.keys():
        raise ProcessingError(f"expected no {name} for a server, got some; {_STAYS_LOCAL[name]}")
    if "max_new_tokens" in given:
        given["max_tokens"] = given.pop("max_new_tokens")
    return given


def clip_form(prompt: str, model: str | None, options: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a form about a clip.

    Raises:
        ProcessingError: an option that a server does not take.
    """
    if options.get("history"):
        raise ProcessingError(
            "expected no history for a clip on a server, got some; say it in the prompt, or load the model here"
        )
    asked = {name: value for name, value in options.items() if name not in ("history", "allow_urls")}
    return form({"model": model, "prompt": prompt, **asked})


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
        displayed=DisplayedMedia(asked.pictures, as_list=asked.pictures.as_list),
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


def _sizes_alone(sizes: tuple[tuple[int, int], ...]) -> PointingMetadata:
    """Sizes of pictures; grounding tokens mean something for the server only."""
    numbers = np.arange(len(sizes))
    maps = [np.array([[number]]) for number in numbers.tolist()]
    return PointingMetadata(
        numbers[:, None], np.ones(len(sizes), dtype=bool), maps, list(sizes), location_grid=0
    )
