"""What clients send and get, as pydantic models; the OpenAPI page is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from molmopoint.points import Points
from molmopoint.serving.refusals import Refused
from molmopoint.serving.styles import PointStyle

Prompt = Annotated[str, Field(min_length=1, max_length=20_000)]
Video = Annotated[str, Field(min_length=1)]
Picture = Annotated[str, Field(min_length=1, description="A picture as base64 or as a data URL.")]

MOST_NUMBER = 2**31 - 1
"""Of an object or a picture of an earlier answer."""

_EXAMPLE_PICTURE = "data:image/png;base64,iVBORw0KGgo..."


class EarlierPoint(BaseModel):
    """A point of an earlier answer; those of `PointAnswer` may be sent back as they came.

    Attributes:
        x: pixels of the displayed picture from its left edge.
        y: pixels from its upper edge.
        image: number of the picture, from 0.
        object_id: number of the object.
        label: what it shows.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    x: float
    y: float
    image: int = Field(default=0, ge=0, le=MOST_NUMBER)
    object_id: int = Field(default=1, ge=0, le=MOST_NUMBER)
    label: str | None = Field(default=None, max_length=20_000)


class EarlierTurn(BaseModel):
    """An earlier question about the same pictures, and its answer.

    Attributes:
        prompt: as it was sent to the model.
        points: of the answer.
        text: the answer in words, in place of points.
    """

    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    points: list[EarlierPoint] | None = Field(default=None, min_length=1, max_length=1000)
    text: str | None = Field(default=None, max_length=20_000)

    @model_validator(mode="after")
    def _has_one_answer(self) -> EarlierTurn:
        if (self.points is None) == (self.text is None):
            raise ValueError("expected points or text of an earlier answer, got both or neither")
        return self

    def as_turn(self) -> tuple[str, Points | str]:
        """The same for a model.

        Raises:
            GroundingError: points that cannot be.
        """
        if self.points is None:
            return self.prompt, self.text or ""
        points = Points(
            np.array([point.object_id for point in self.points]),
            np.array([point.image for point in self.points]),
            np.array([point.x for point in self.points]),
            np.array([point.y for point in self.points]),
            labels=[point.label for point in self.points],
        )
        return self.prompt, points


History = Annotated[
    list[EarlierTurn], Field(max_length=64, description="Earlier turns about the same pictures, in JSON.")
]


class Asked(BaseModel):
    """What every question has.

    Attributes:
        model: name of a model of the server; its first one by default.
        image: one picture.
        images: several pictures, instead of it.
        max_crops: most crops per picture.
        max_tokens: of the answer.
        temperature: 0 takes the likeliest tokens.
        top_p: part of the probability that is drawn from.
        stream: server-sent events as the answer is written.
    """

    model_config = ConfigDict(extra="forbid")

    model: str | None = None
    image: Picture | None = None
    images: list[Picture] | None = None
    max_crops: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool = False
    _files: dict[str, list[bytes]] = PrivateAttr(default_factory=dict)

    @property
    def files(self) -> dict[str, list[bytes]]:
        """Those of a form, by their fields."""
        return self._files

    @property
    def video_file(self) -> bytes:
        """The video of a form; nothing where there is none."""
        return b"".join(self._files.get("video", ())[:1])

    def take_files(self, files: dict[str, list[bytes]]) -> None:
        """Takes the files of a form, by their fields."""
        self._files = files

    @property
    def pictures(self) -> list[str | bytes]:
        """All pictures in order: those of `image` before those of `images`, text before files."""
        first = [] if self.image is None else [self.image]
        uploaded = [*self._files.get("image", ()), *self._files.get("images", ())]
        return [*first, *(self.images or ()), *uploaded]


class PointAsked(Asked):
    """A question for points; see `Pointer.point`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"image": _EXAMPLE_PICTURE, "prompt": "the red circles"}]},
    )

    prompt: Prompt
    template: str | None = Field(default=None, max_length=20_000)
    single: bool = False
    max_points: int | None = Field(default=None, ge=1)
    min_score: float | None = Field(default=None, ge=0, le=1)
    zoom: bool = Field(
        default=False,
        description="Look again at native pixels around the likeliest places of a large picture.",
    )
    calibrated: bool = Field(
        default=False,
        description="Scores, and `min_score`, are chances that points are right; for models that ship a "
        "calibration.",
    )
    history: History = []
    heatmap: bool = Field(default=False, description="Also say where each point might have been as well.")
    video: Video | None = Field(default=None, description="A clip, as for /v1/video/point.")


class ClipAsked(Asked):
    """What questions about clips have in common.

    Attributes:
        prompt: what to find.
        video: the clip as base64 or as a data URL; or as the file of a form.
        template: where the prompt goes instead.
        start: second at which the part to look at begins.
        end: second at which it ends.
        max_frames: most frames to look at.
        max_fps: most frames to look at in a second.
        frame_rate: of a file without times.
        max_points: most points of an answer.
        min_score: of a point.
        background: true for a job at once, false for waiting until the time limit of the server; by default a
            request waits some seconds and then becomes a job.
    """

    prompt: Prompt
    video: Video | None = None
    template: str | None = Field(default=None, max_length=20_000)
    start: float = Field(default=0.0, ge=0, le=1e7)
    end: float | None = Field(default=None, gt=0, le=1e7)
    max_frames: int | None = Field(default=None, ge=1)
    max_fps: float | None = Field(default=None, gt=0, le=1000)
    frame_rate: float | None = Field(default=None, gt=0, le=1000)
    max_points: int | None = Field(default=None, ge=1)
    min_score: float | None = Field(default=None, ge=0, le=1)
    background: bool | None = None

    def clip_keywords(self) -> dict[str, Any]:
        """Keywords of the call: those that were given."""
        names = ("template", "start", "end", "max_frames", "max_fps", "frame_rate", "max_points", "min_score")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class VideoPointAsked(ClipAsked):
    """A question for points in a clip; see `Pointer.point_video`.

    Attributes:
        windows: look at all of a long clip, some frames at a time.
        absolute: times count from the beginning of the video, and not from `start`.
        single: exactly one point.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"video": "AAAAIGZ0eXBpc29t...", "prompt": "the red ball"}]},
    )

    windows: bool = False
    absolute: bool = False
    single: bool = False

    def clip_keywords(self) -> dict[str, Any]:
        """Keywords of `Pointer.point_video`."""
        flags = {"windows": self.windows, "absolute": self.absolute, "single": self.single}
        return super().clip_keywords() | flags


class TrackAsked(ClipAsked):
    """A question for tracks; see `Pointer.track`.

    Attributes:
        fps: points per second and object.
        ground: "start_end" asks for the first and the last place of each object only.
        point: (x, y) in pixels of one object to follow.
        time: second at which it is there.
        interpolate: points per second to fill in; true for the rate of the video.
        max_gap: seconds beyond which a gap is not filled.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"video": "AAAAIGZ0eXBpc29t...", "prompt": "the red cars"}]},
    )

    fps: int | None = Field(default=None, ge=1, le=1000)
    ground: Literal["start_end"] | None = None
    point: tuple[float, float] | None = None
    time: float = Field(default=0.0, ge=0, le=1e7)
    interpolate: bool | float = False
    max_gap: float | None = Field(default=None, gt=0)

    def clip_keywords(self) -> dict[str, Any]:
        """Keywords of `Pointer.track`."""
        if self.max_frames is not None:
            raise Refused(422, "expected no max_frames for tracks, got one; pass max_fps instead")
        names = ("fps", "ground", "point", "max_gap")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return super().clip_keywords() | given | {"time": self.time, "interpolate": self.interpolate}


class RewardAsked(Asked):
    """Answers to one prompt, of which the best is looked for.

    Attributes:
        prompt: what was asked.
        responses: the answers.
        permutations: judge the list in so many orders and average.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "image": _EXAMPLE_PICTURE,
                    "prompt": "How many circles are there?",
                    "responses": ["Two.", "Three."],
                }
            ]
        },
    )

    prompt: Prompt
    responses: list[Prompt] = Field(min_length=1)
    permutations: int = Field(default=1, ge=1, le=8)


class RewardAnswer(BaseModel):
    """Scores of answers.

    Attributes:
        scores: higher is better, in the order of the answers; they compare the answers of one request only.
        order: numbers of the answers, from 0, the best first.
        model: that judged.
    """

    scores: list[float]
    order: list[int]
    model: str


class JobProgress(BaseModel):
    """Windows of a clip: answered ones, and all of them."""

    done: int
    of: int


class JobAnswer(BaseModel):
    """How far a job is.

    Attributes:
        id: of the job.
        object: "job".
        status: how far it is.
        progress: None until it is known.
        created: seconds since 1970.
        result: what the route would have answered, once it is done.
        error: why there is none.
    """

    id: str
    object: Literal["job"]
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: JobProgress | None
    created: int
    result: dict[str, Any] | None
    error: dict[str, Any] | None


class QueryAsked(Asked):
    """A question that is answered in words."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"image": _EXAMPLE_PICTURE, "question": "How many circles are there?"}]
        },
    )

    question: Prompt
    history: History = []


class PointOut(BaseModel):
    """One point.

    Attributes:
        x: pixels of the displayed picture from its left edge.
        y: pixels from its upper edge.
        x_norm: the same as a part of the width.
        y_norm: the same as a part of the height.
        image: number of the picture, from 0.
        object_id: number of the object.
        label: what it shows, where the answer says so.
        score: 0..1, uncalibrated unless `calibrated` was asked for; None where the model gives none.
        heatmap: a grey picture, as a data URL of PNG, of where the point might have been as well, over the
            whole picture; its brightest place is white. Only where it was asked for.
    """

    x: float
    y: float
    x_norm: float
    y_norm: float
    image: int
    object_id: int
    label: str | None = None
    score: float | None = None
    heatmap: str | None = None


class Usage(BaseModel):
    """What an answer cost."""

    prompt_tokens: int
    completion_tokens: int
    seconds: float


class PointAnswer(BaseModel):
    """Points and words of an answer.

    Attributes:
        points: in the order of the answer.
        text: the answer in words.
        count: objects that were counted.
        absent: with `single` the probability that "no more points" would have been the first choice; None
            without.
        truncated: a limit cut the answer.
        image_sizes: (width, height) of the displayed pictures.
        calibrated: scores are chances that points are right.
        notes: what was wrong with the input, where it was used all the same.
        looks: how often the model looked: once, and with `zoom` once more for each part of the picture.
        usage: what it cost; the tokens are those of the first look.
        model: that answered.
    """

    points: list[PointOut]
    text: str
    count: int
    absent: float | None = None
    truncated: bool
    image_sizes: list[tuple[int, int]]
    calibrated: bool = False
    notes: list[str] = []
    looks: int = 1
    usage: Usage
    model: str


class QueryAnswer(BaseModel):
    """An answer in words."""

    answer: str
    truncated: bool
    usage: Usage
    model: str


class ImageUrl(BaseModel):
    """A picture in OpenAI's form."""

    url: str
    detail: str | None = None


class ContentPart(BaseModel):
    """A part of a message in OpenAI's form."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None


class Message(BaseModel):
    """A message in OpenAI's form."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None


class StreamOptions(BaseModel):
    """Of a stream in OpenAI's form."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatAsked(BaseModel):
    """OpenAI's chat completion; what it has beyond these fields is left out of account.

    Attributes:
        n: answers; only one is given.
        point_style: form of the points.
    """

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "model": "nano:json",
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "image_url", "image_url": {"url": _EXAMPLE_PICTURE}},
                                {"type": "text", "text": "the red circles"},
                            ],
                        }
                    ],
                }
            ]
        },
    )

    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    n: Literal[1] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    point_style: PointStyle | None = None


class MoondreamSettings(BaseModel):
    """Moondream's settings of an answer."""

    model_config = ConfigDict(extra="ignore")

    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_objects: int | None = Field(default=None, ge=1)


class MoondreamAsked(BaseModel):
    """What every question in Moondream's form has."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    settings: MoondreamSettings | None = None
    stream: bool = False


class MoondreamPointAsked(MoondreamAsked):
    """Moondream's form of a question for points."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={"examples": [{"image_url": _EXAMPLE_PICTURE, "object": "the red circles"}]},
    )

    image_url: Picture
    object: Prompt


class MoondreamQueryAsked(MoondreamAsked):
    """Moondream's form of a question."""

    image_url: Picture | None = None
    question: Prompt


class MoondreamCaptionAsked(MoondreamAsked):
    """Moondream's form of a request for a caption."""

    image_url: Picture
    length: Literal["short", "normal", "long"] = "normal"


class PredictAsked(BaseModel):
    """The form that home-made servers have."""

    model_config = ConfigDict(extra="ignore")

    image_b64: Picture | None = None
    image_base64: Picture | None = None
    prompt: Prompt


BODIES: tuple[type[BaseModel], ...] = (
    PointAsked,
    QueryAsked,
    VideoPointAsked,
    TrackAsked,
    RewardAsked,
    ChatAsked,
    MoondreamPointAsked,
    MoondreamQueryAsked,
    MoondreamCaptionAsked,
    PredictAsked,
)
"""What routes read; the description of the server has them all."""
