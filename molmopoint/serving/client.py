"""A server as if its model were here: the methods of `Pointer`, over HTTP."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from molmopoint.backends.media import DisplayedMedia
from molmopoint.backends.options import complete_prompt
from molmopoint.backends.result import PointingResult
from molmopoint.errors import MolmoPointError
from molmopoint.geometry import PointingMetadata
from molmopoint.points import Point, Points
from molmopoint.processing.pictures import load_picture

if TYPE_CHECKING:
    import httpx


class ServerError(MolmoPointError):
    """What a server refused, in its own words."""


class Client:
    """A server that points.

        client = molmopoint.Client("http://127.0.0.1:8000")
        client.point("photo.jpg", "the red circles").points

    Args:
        url: where the server is.
        key: one of its keys, where it asks for one.
        model: name of one of its models; its first one by default.
        timeout: seconds to wait for an answer.

    Raises:
        ImportError: httpx is missing, which the extra `serve` installs.
    """

    def __init__(
        self, url: str, *, key: str | None = None, model: str | None = None, timeout: float = 120.0
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ImportError(
                'expected httpx for a client, got none; pip install "molmopoint[serve]"'
            ) from error
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout)
        self.model = model

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def point(
        self, image: Any, prompt: str, *, template: str | None = None, **options: Any
    ) -> PointingResult:
        """Points at what the prompt names; arguments as in `Pointer.point`.

        Args:
            image: a picture in any form that `Pointer.point` takes, or a list of them; it is read here and
                sent.
            prompt: a noun phrase, a request or a question.
            template: where the prompt goes instead.
            **options: `single`, `max_points`, `min_score`, `max_crops`, `max_new_tokens`, `temperature`,
                `top_p`.

        Raises:
            ServerError: the server refused it.
        """
        pictures, as_list = _pictures(image)
        return _result(
            self._post("/v1/point", self._body(pictures, prompt, template, options)),
            pictures,
            as_list,
            prompt,
            template,
        )

    def count(self, image: Any, phrase: str, *, template: str | None = None, **options: Any) -> int:
        """How many there are; arguments as in `Pointer.count`."""
        pictures, _ = _pictures(image)
        return int(self._post("/v1/count", self._body(pictures, phrase, template, options))["count"])

    def ask(self, image: Any, question: str, **options: Any) -> str:
        """An answer in words; arguments as in `Pointer.ask`."""
        pictures, _ = _pictures(image)
        body = self._body(pictures, question, None, options)
        body["question"] = body.pop("prompt")
        return str(self._post("/v1/query", body)["answer"])

    def point_batch(
        self, images: Iterable[Any], prompts: str | Iterable[str], *, batch_size: int = 8, **options: Any
    ) -> Iterator[PointingResult]:
        """Answers to many requests, in order; so many are under way at a time, and the server puts them
        together.
        """
        with ThreadPoolExecutor(batch_size) as pool:
            pairs = (
                ((image, prompts) for image in images)
                if isinstance(prompts, str)
                else zip(images, prompts, strict=True)
            )
            yield from pool.map(lambda pair: self.point(*pair, **options), pairs)

    def stream(
        self, image: Any, prompt: str, *, template: str | None = None, **options: Any
    ) -> Iterator[str | Point]:
        """Pieces of the answer's words and points as soon as they are complete."""
        pictures, _ = _pictures(image)
        body = self._body(pictures, prompt, template, options) | {"stream": True}
        with self._http.stream("POST", "/v1/point", json=body) as response:
            if not response.is_success:
                response.read()
                _check(response)
            for line in response.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise ServerError(event["error"]["message"])
                if event["type"] == "text":
                    yield event["text"]
                elif event["type"] == "point":
                    point = event["point"]
                    yield Point(point["object_id"], point["image"], point["x"], point["y"], float("nan"))

    def _body(
        self, pictures: list[Image.Image], prompt: str, template: str | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        sent = {name: value for name, value in options.items() if value is not None}
        if "max_new_tokens" in sent:
            sent["max_tokens"] = sent.pop("max_new_tokens")
        if template is not None:
            sent["template"] = template
        return {
            "model": self.model,
            "images": [_encoded(picture) for picture in pictures],
            "prompt": prompt,
            **sent,
        }

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        response = self._http.post(path, json=body)
        _check(response)
        return response.json()


def _check(response: httpx.Response) -> None:
    """Refuses answers that are errors.

    Raises:
        ServerError: with the words of the server.
    """
    if response.is_success:
        return
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"expected an answer, got status {response.status_code}; check the address of the server"
    raise ServerError(message)


def _pictures(image: Any) -> tuple[list[Image.Image], bool]:
    """The pictures of a request, and whether they came as a list."""
    if image is None:
        return [], False
    as_list = isinstance(image, (list, tuple))
    return [load_picture(picture) for picture in (image if as_list else [image])], as_list


def _encoded(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _result(
    answer: dict[str, Any], pictures: list[Image.Image], as_list: bool, prompt: str, template: str | None
) -> PointingResult:
    """The answer of a server in the form of a local one; what only the model knows, heatmaps, is missing."""
    rows = answer["points"]
    sizes = tuple((int(width), int(height)) for width, height in answer["image_sizes"])
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in ("image", "x", "y")}
    scores = np.array(
        [float("nan") if row["score"] is None else row["score"] for row in rows], dtype=np.float64
    )
    object_ids = np.array([row["object_id"] for row in rows], dtype=np.int64)
    points = Points(
        object_ids, columns["image"].astype(np.int64), columns["x"], columns["y"], scores, image_sizes=sizes
    )
    return PointingResult(
        points=points,
        text=answer["text"],
        raw_text=answer["text"],
        prompt=complete_prompt(prompt, template),
        truncated=answer["truncated"],
        invalid=0,
        image_sizes=sizes,
        metadata=_sizes_alone(sizes),
        displayed=DisplayedMedia(tuple(pictures), as_list=as_list),
        notes=tuple(answer["notes"]),
    )


def _sizes_alone(sizes: tuple[tuple[int, int], ...]) -> PointingMetadata:
    """Sizes of pictures; grounding tokens mean something for the server only."""
    numbers = np.arange(len(sizes))
    maps = [np.array([[number]]) for number in numbers.tolist()]
    return PointingMetadata(
        numbers[:, None], np.ones(len(sizes), dtype=bool), maps, list(sizes), location_grid=0
    )
