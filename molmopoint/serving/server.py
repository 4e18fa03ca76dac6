"""The models of an application, and how a question gets to one of them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import Request

from molmopoint.backends.history import Turn
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.result import PointingResult
from molmopoint.errors import MolmoPointError
from molmopoint.pipeline import Pointer
from molmopoint.points import Point
from molmopoint.reward import Judge
from molmopoint.serving.engine import Closed, Engine, Job, QueueFull
from molmopoint.serving.figures import Figures, ModelFigures
from molmopoint.serving.following import Following
from molmopoint.serving.gate import CLIENT_KEY
from molmopoint.serving.jobs import Jobs
from molmopoint.serving.limits import Limits
from molmopoint.serving.pictures import PictureReader, key_of
from molmopoint.serving.refusals import SERVER_ERROR, Refused, as_refused, valid
from molmopoint.serving.rewards import Judging
from molmopoint.serving.schemas import Asked, PointOut, RewardAsked, Usage
from molmopoint.serving.styles import PointStyle

Loader = Callable[[], Any]
"""Loads a model when the server begins."""


class Answering:
    """One model of a server.

    Args:
        name: by which clients know it.
        engine: that answers.
        figures: of the model.
    """

    def __init__(self, name: str, engine: Engine, figures: ModelFigures) -> None:
        self.name = name
        self.engine = engine
        self._figures = figures

    def complete_prompt(self, text: str, template: str | None = None) -> str:
        """The request that this model is sent for what a person typed."""
        return self.engine.pointer.backend.complete_prompt(text, template)

    def complete_count(self, text: str, template: str | None = None) -> str:
        """The request that this model is sent to count what a person typed."""
        return self.engine.pointer.backend.complete_count(text, template)

    def complete_question(self, text: str) -> str:
        """A question in words as this model is sent it."""
        return self.engine.pointer.backend.complete_question(text)

    def usage(self, followed: Following, result: PointingResult) -> Usage:
        """What an answer cost; it is counted, too."""
        job = followed.job
        prompt_tokens = 0 if job.request is None else len(job.request.row)
        completion_tokens = self.engine.count_tokens(result)
        seconds = time.monotonic() - job.started
        self._figures.count_answer(prompt_tokens, completion_tokens, seconds)
        return Usage(
            prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, seconds=round(seconds, 4)
        )


class Server:
    """The models of an application, its limits, and what it counts.

    Args:
        models: by name; a function loads its model when `load` is called.
        rewards: reward models, the same way.
        limits: of requests.
        point_style: of points in chats.
        allow_urls: pictures may be addresses of the web.
    """

    def __init__(
        self,
        models: Mapping[str, Pointer | Loader],
        rewards: Mapping[str, Judge | Loader],
        limits: Limits,
        *,
        point_style: PointStyle,
        allow_urls: bool,
    ) -> None:
        self.limits = limits
        self.point_style: PointStyle = point_style
        self.figures = Figures()
        self.names = tuple(models)
        self.started = time.time()
        self.engines: dict[str, Engine] = {}
        self.jobs = Jobs(limits)
        self.reward_names = tuple(rewards)
        self._judging: dict[str, Judging] = {}
        self._pictures = PictureReader(allow_urls=allow_urls)
        self._answering: dict[str, Answering] = {}
        self._loaders: dict[str, Loader] = {}
        for name, model in {**models, **rewards}.items():
            if isinstance(model, (Pointer, Judge)):
                self._add(name, model)
            else:
                self._loaders[name] = model

    @property
    def is_ready(self) -> bool:
        """Whether all models are loaded."""
        return not self._loaders

    def load(self) -> None:
        """Loads the models that are not loaded yet."""
        for name, loader in list(self._loaders.items()):
            self._add(name, loader())
            del self._loaders[name]

    def refuse_queue(self) -> None:
        """Refuses what waits and what comes; answers that are being written go on."""
        for model in (*self.engines.values(), *self._judging.values()):
            model.refuse_queue()

    def close(self) -> None:
        """Stops, once the answers that are being written are whole."""
        self.jobs.close()
        for model in (*self.engines.values(), *self._judging.values()):
            model.close()

    def model(self, name: str | None) -> Answering:
        """The model of a name; the first one for none.

        Raises:
            Refused: there is none, or it is being loaded.
        """
        wanted = self.names[0] if name is None else name
        if wanted not in self.names:
            raise Refused(
                404,
                f"expected one of the models {', '.join(self.names)}, got {wanted[:200]!r}; see /v1/models",
                "model_not_found",
            )
        if wanted not in self._answering:
            raise Refused(
                503,
                f"expected a loaded model, got {wanted!r}, which is being loaded; ask again",
                SERVER_ERROR,
            )
        return self._answering[wanted]

    async def score(self, asked: RewardAsked) -> tuple[str, list[float]]:
        """Name of a reward model, and its scores of answers.

        Raises:
            Refused: there is none, or the request cannot be used.
        """
        if not self.reward_names:
            raise Refused(
                404, "expected a server with a reward model, got one without; start it with --reward MODEL",
                "model_not_found",
            )  # fmt: skip
        name = asked.model or self.reward_names[0]
        if name not in self.reward_names:
            raise Refused(
                404,
                f"expected one of the reward models {', '.join(self.reward_names)}, got {name[:200]!r}",
                "model_not_found",
            )
        if name not in self._judging:
            raise Refused(
                503, f"expected a loaded model, got {name!r}, which is being loaded; ask again", SERVER_ERROR
            )
        pictures = await self.read_pictures(asked.pictures)
        scoring = self._judging[name].score(asked.prompt, asked.responses, pictures, asked.permutations)
        try:
            return name, await asyncio.wait_for(scoring, self.limits.seconds)
        except TimeoutError:
            raise Refused(
                504, f"expected scores within {self.limits.seconds:g} seconds, got none", "timeout"
            ) from None
        except (QueueFull, Closed, MolmoPointError) as error:
            raise as_refused(error) from error

    async def read_pictures(self, pictures: Sequence[str | bytes]) -> tuple[bytes, ...]:
        """The bytes of all pictures of a request.

        Raises:
            Refused: there are too many, or one is none.
        """
        most = self.limits.pictures
        if len(pictures) > most:
            raise Refused(400, f"expected at most {most} pictures, got {len(pictures)}; ask about fewer")
        return await self._pictures.read(pictures)

    def options(self, asked: Asked, **more: Any) -> AnswerOptions:
        """How a request is to be answered.

        Raises:
            Refused: it asks for more than the server gives.
        """
        limits = self.limits
        most_points = more.get("max_points")
        for name, value, most in (
            ("max_crops", asked.max_crops, limits.crops),
            ("max_points", most_points, limits.points),
            ("max_tokens", asked.max_tokens, limits.tokens),
        ):
            if value is not None and value > most:
                raise Refused(400, f"expected {name} of at most {most}, got {value}; ask for fewer")
        sampling: dict[str, Any] = {}
        if asked.temperature:
            sampling["temperature"] = asked.temperature
            if asked.top_p is not None:
                sampling["top_p"] = asked.top_p
        tokens = asked.max_tokens or min(AnswerOptions.max_new_tokens, limits.tokens)
        return valid(
            lambda: AnswerOptions(max_new_tokens=tokens, max_crops=asked.max_crops, sampling=sampling, **more)
        )

    async def ask(
        self,
        model: Answering,
        pictures: Sequence[str | bytes],
        prompt: str,
        options: AnswerOptions,
        request: Request,
        *,
        streams: bool = False,
        history: Sequence[Turn] = (),
    ) -> Following:
        """Hands a question to a model.

        Args:
            model: that answers.
            pictures: as they came.
            prompt: as it is sent to the model.
            options: how it is answered.
            request: of the client.
            streams: pieces and points are wanted before the result; the question is a good one then.
            history: earlier questions and answers.

        Raises:
            Refused: the pictures are none, or the queue is full.
        """
        contents = await self.read_pictures(pictures)
        following = Following(request, self.limits.seconds)
        job = Job(
            contents,
            key_of(contents),
            prompt,
            options,
            following.notify,
            streams=streams,
            history=tuple(history),
        )
        following.job = job
        try:
            model.engine.submit(job)
        except (QueueFull, Closed) as error:
            raise as_refused(error) from error
        if streams:
            await following.begun()
        return following

    def _add(self, name: str, model: Pointer | Judge) -> None:
        if isinstance(model, Judge):
            self._judging[name] = Judging(model, self.limits)
            return
        figures = self.figures.of_model(name)
        engine = Engine(model, self.limits, figures)
        self.figures.watch(
            "open_requests", "Requests that wait or are being answered.", name, lambda: engine.num_open
        )
        self.figures.watch("queue", "Requests that wait for the model.", name, lambda: engine.num_waiting)
        self.engines[name] = engine
        self._answering[name] = Answering(name, engine, figures)


def client_of(request: Request) -> str:
    """Who asks, as the gate knows it; empty where nobody needs a key."""
    return request.scope.get(CLIENT_KEY, "")


def point_out(point: Point, result: PointingResult) -> PointOut:
    """One point as clients get it."""
    picture = int(point.group)
    width, height = result.image_sizes[picture]
    return PointOut(
        x=point.x,
        y=point.y,
        x_norm=point.x / width,
        y_norm=point.y / height,
        image=picture,
        object_id=point.object_id,
        label=point.label,
        score=None if math.isnan(point.score) else point.score,
    )
