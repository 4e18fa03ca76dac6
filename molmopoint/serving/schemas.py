"""What clients send and get, as pydantic models; the OpenAPI page is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from molmopoint.serving.styles import PointStyle

Prompt = Annotated[str, Field(min_length=1, max_length=20_000)]
Picture = Annotated[str, Field(min_length=1, description="A picture as base64 or as a data URL.")]

_EXAMPLE_PICTURE = "data:image/png;base64,iVBORw0KGgo..."


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
    """A question for points."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"image": _EXAMPLE_PICTURE, "prompt": "the red circles"}]},
    )

    prompt: Prompt
    template: str | None = Field(default=None, max_length=20_000)
    single: bool = False
    max_points: int | None = Field(default=None, ge=1)
    min_score: float | None = Field(default=None, ge=0, le=1)


class QueryAsked(Asked):
    """A question that is answered in words."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"image": _EXAMPLE_PICTURE, "question": "How many circles are there?"}]
        },
    )

    question: Prompt


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
        score: 0..1, uncalibrated; None where the model gives none.
    """

    x: float
    y: float
    x_norm: float
    y_norm: float
    image: int
    object_id: int
    label: str | None = None
    score: float | None = None


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
        notes: what was wrong with the input, where it was used all the same.
        usage: what it cost.
        model: that answered.
    """

    points: list[PointOut]
    text: str
    count: int
    absent: float | None = None
    truncated: bool
    image_sizes: list[tuple[int, int]]
    notes: list[str] = []
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

    role: Literal["system", "user", "assistant"]
    content: str | list[ContentPart] | None = None


class ChatAsked(BaseModel):
    """OpenAI's chat completion; what it has beyond these fields is left out of account."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=0.0, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool = False
    point_style: PointStyle | None = None


class MoondreamPointAsked(BaseModel):
    """Moondream's form of a question for points."""

    model_config = ConfigDict(extra="ignore")

    image_url: Picture
    object: Prompt


class MoondreamQueryAsked(BaseModel):
    """Moondream's form of a question."""

    model_config = ConfigDict(extra="ignore")

    image_url: Picture
    question: Prompt
    stream: bool = False


class MoondreamCaptionAsked(BaseModel):
    """Moondream's form of a request for a caption."""

    model_config = ConfigDict(extra="ignore")

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
    ChatAsked,
    MoondreamPointAsked,
    MoondreamQueryAsked,
    MoondreamCaptionAsked,
    PredictAsked,
)
"""What routes read; the description of the server has them all."""
