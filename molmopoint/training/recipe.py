"""What a training run is told: every number of it, in one place, read from a file and changed from the
command line.

A recipe is a TOML file whose tables are the classes below. `recipes/` holds the published ones and ours; a
recipe may name another one as its `base` and write down only what differs. `load_recipe("lora",
["groups.point.peak=2e-4"])` reads one.

The classes are dataclasses that pydantic checks when they are made: nothing is turned into another type but
whole numbers into numbers and lists into tuples, unknown settings are refused, and so is what is out of
range. `recipe_files` puts its errors into words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, ConfigDict, Strict, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

GROUPS = ("vit", "connector", "llm", "point", "value")
"""Groups of parameters with a peak, a warm-up and a clip of their own; see `optimiser.group_of`."""

EXPECTED = "expected"
"""Type of the errors of pydantic whose message says what was expected, as a noun."""

TOGETHER = "together"
"""Type of those whose message is whole: two settings that do not fit."""

_CHECKED = ConfigDict(extra="forbid")


def _limit(expected: str, fits: Callable[[Any], bool]) -> AfterValidator:
    """Refuses values of the right type that are out of range.

    Args:
        expected: the range as a noun, for the message.
        fits: whether a value is in it.
    """

    def check(value: Any) -> Any:
        if not fits(value):
            raise PydanticCustomError(EXPECTED, expected)  # type: ignore[arg-type]  # no literal, but ours
        return value

    return AfterValidator(check)


# TOML has no word for nothing.
_FALSE_IS_NONE = BeforeValidator(lambda value: None if value is False else value)

Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict(), _limit("a whole number of 64 bits", lambda value: abs(value) < 2**63)]
Number = Annotated[float, Strict(), AllowInfNan(False)]

Count = Annotated[Whole, _limit("a number above 0", lambda value: value > 0)]
CountOrNone = Annotated[Count | None, _FALSE_IS_NONE]
CountOrZero = Annotated[Whole, _limit("0 or more", lambda value: value >= 0)]
Positive = Annotated[Number, _limit("a number above 0", lambda value: value > 0)]
PositiveOrNone = Annotated[Positive | None, _FALSE_IS_NONE]
NotNegative = Annotated[Number, _limit("0 or more", lambda value: value >= 0)]
Part = Annotated[Number, _limit("a part from 0 to 1", lambda value: 0 <= value <= 1)]
PartBelowOne = Annotated[Number, _limit("a part from 0 to below 1", lambda value: 0 <= value < 1)]
Degrees = Annotated[Number, _limit("degrees from 0 to 180", lambda value: 0 <= value <= 180)]
Names = Annotated[tuple[Text, ...], _limit("one or more names of layers", bool)]
Counts = Annotated[tuple[Count, ...], _limit("one or more numbers above 0", bool)]


Precision = Literal["auto", "bfloat16", "float32"]
"""Of the products of a training step, see `precision`."""


@dataclass(frozen=True, config=_CHECKED)
class GroupSettings:
    """One group of parameters.

    Attributes:
        peak: largest learning rate; 0 leaves the group as it is.
        warmup: steps from 0 to the peak; below 1 a part of all steps.
        clip: largest L2 norm of the group's gradient.
    """

    peak: NotNegative
    warmup: NotNegative = 200
    clip: Positive = 1.0


@dataclass(frozen=True, config=_CHECKED)
class Groups:
    """Parameter groups; the published fine-tuning values.

    Attributes:
        vit: vision tower.
        connector: pooling and projector, and the new token rows of the embedding and of an untied head.
        llm: text model without those rows; its base embedding table never trains.
        point: grounding heads, and the map of ViT features into the text model.
        value: head of a reward model, and its separator.
    """

    vit: GroupSettings = GroupSettings(5e-6)
    connector: GroupSettings = GroupSettings(5e-6)
    llm: GroupSettings = GroupSettings(1e-5)
    point: GroupSettings = GroupSettings(1e-4)
    value: GroupSettings = GroupSettings(1e-4)


@dataclass(frozen=True, config=_CHECKED)
class Optimiser:
    """AdamW and its schedule.

    Attributes:
        betas: decay of both moments.
        eps: added to the root of the second moment.
        weight_decay: of matrices; norms, biases and embeddings never decay.
        floor: part of the peak that the schedule ends at.
        shape: of the way down, after the warm-up.
        clip_together: scale all groups by one norm, to the smallest of their limits, instead of each by its
            own.
    """

    betas: tuple[PartBelowOne, PartBelowOne] = (0.9, 0.95)
    eps: Positive = 1e-6
    weight_decay: NotNegative = 0.0
    floor: Part = 0.1
    shape: Literal["cosine", "linear"] = "cosine"
    clip_together: Flag = False


@dataclass(frozen=True, config=_CHECKED)
class Lora:
    """Low-rank adapters on the text model; everything else of it stays as it is, the other groups train in
    full.

    Attributes:
        rank: of the added matrices.
        alpha: the update is scaled by alpha / rank.
        dropout: on the input of the adapters.
        targets: names of the linear layers of the text model that get one.
        bits: 4 or 8 stores the frozen matrices of the text model quantised (needs bitsandbytes); 16 leaves
            them.
    """

    rank: Count = 64
    alpha: Positive = 128
    dropout: PartBelowOne = 0.05
    targets: Names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    bits: Literal[4, 8, 16] = 16


@dataclass(frozen=True, config=_CHECKED)
class Data:
    """How rows of data become batches.

    Attributes:
        max_tokens: of a packed row.
        max_crops: crops and frames of a packed row.
        crops_per_image: tiles of a picture beside its overview; None as the processor says.
        pool: examples that wait to be packed, per loader worker.
        crop_weight: tokens that one crop counts as when rows are filled.
        max_stay: draws after which a waiting example goes before all others.
        rows: packed rows per device and micro-step.
        workers: loader processes per device; 0 prepares in the training process.
        seed: of order, styles and templates.
        max_points: of an expression and of a message tree.
        weights: loss weights by kind of row; "finetuning" as published for mixtures, "plain" counts every
            target once.
        stage: requests, styles and weights of a published stage instead of our own.
        held_out: pictures kept for the score in the loop; below 1 a part of all, else a number.
        replay: share of examples drawn from the second data file, if there is one.
    """

    max_tokens: Count = 16384
    max_crops: Count = 128
    crops_per_image: CountOrNone = None
    pool: Count = 48
    crop_weight: NotNegative = 30
    max_stay: Count = 512
    rows: Count = 1
    workers: CountOrZero = 0
    seed: CountOrZero = 50189
    max_points: Count = 60
    weights: Literal["finetuning", "plain"] = "plain"
    stage: Annotated[Literal["pretraining", "fine_tuning", "long_context", "gui"] | None, _FALSE_IS_NONE] = (
        None
    )
    held_out: NotNegative = 0.1
    replay: PartBelowOne = 0.2


@dataclass(frozen=True, config=_CHECKED)
class Augmentation:
    """Views of the user's own pictures that change from epoch to epoch, see `augmentation`; nothing is
    changed by default.

    Attributes:
        mirror: how likely a picture is mirrored.
        turn: largest angle by which it is turned, in degrees; 180 for things that may lie any way.
        crop: largest part of each side that is cut off; points are kept, with some space around them.
        light: largest change of brightness and of contrast, as a part.
    """

    mirror: Part = 0.0
    turn: Degrees = 0.0
    crop: PartBelowOne = 0.0
    light: NotNegative = 0.0


@dataclass(frozen=True, config=_CHECKED)
class Scoring:
    """The look at the held-out part while training goes on.

    Attributes:
        every: steps between scores; 0 scores at the end only.
        examples: expressions asked at most.
        batch_size: expressions per call of `generate`.
        max_new_tokens: of an answer.
        tolerance: where the data has no masks, a point is right within this part of the picture's longer
            side.
    """

    every: CountOrZero = 100
    examples: Count = 200
    batch_size: Count = 8
    max_new_tokens: Count = 512
    tolerance: Positive = 0.05


@dataclass(frozen=True, config=_CHECKED)
class Saving:
    """Checkpoints to go on from.

    Attributes:
        every: steps between checkpoints.
        keep: newest ones kept; the best one by the held-out score is kept as well.
    """

    every: Count = 100
    keep: Count = 2


@dataclass(frozen=True, config=_CHECKED)
class Logging:
    """What is written down while training goes on.

    Attributes:
        every: steps between lines.
        to: trackers of transformers by name, such as "tensorboard" (works offline), "trackio", "wandb"; empty
            for none.
    """

    every: Count = 10
    to: tuple[Text, ...] = ("tensorboard",)


@dataclass(frozen=True, config=_CHECKED)
class Reward:
    """What a reward model is and learns from, see `reward.losses` and `molmopoint.reward`.

    Attributes:
        loss: of the scores of one list of answers.
        layout: whose turn the answers are in.
        opening: which rows of layout "assistant" begin with the first token of the tokenizer: those with
            pictures or a clip ("visual", as published) or all.
        attention: whether an answer sees those before it.
        pooling: which states of an answer are read.
        begin: where an answer behind another one begins, for poolings that read more than its end: at the
            blank line behind the separator, as published, or at its words.
        head_width: hidden layer of the head; None for a plain linear one.
        activation: of the head.
        separator: the vector of the token between answers at first: the row that the base has for it ("base",
            as published; zeros if it has none), or the mean of the vocabulary.
        train_separator: train the vector of the token between answers too; the published training does not.
        text: weight of the next-token loss on the words of a best answer, beside the loss of the scores; the
            published training has none.
        train_text_head: let the output table learn along for that loss. It is of no use to a judge and is not
            stored with a small one.
        vision_tokens: of a row at most.
        margin: tokens of a row that stay free.
        crops: tiles of a picture beside its overview, tried in turn until a row fits.
        frames: of a clip from a file; halved until a row fits.
        folder_frames: of a clip that is a folder of frames; the same.
    """

    loss: Literal["ce", "ce_soft", "plackett_luce", "pairwise"] = "ce"
    layout: Literal["assistant", "user"] = "assistant"
    opening: Literal["visual", "always"] = "visual"
    attention: Literal["causal", "block"] = "causal"
    pooling: Literal[
        "last", "first", "first_last_concat", "first_last_add", "first_last_sub", "response_mean"
    ] = "last"
    begin: Literal["separator", "words"] = "separator"
    head_width: CountOrNone = 1024
    activation: Literal["silu", "selu", "gelu", "relu", "tanh"] = "silu"
    separator: Literal["base", "mean"] = "base"
    train_separator: Flag = False
    text: Number = 0.0
    train_text_head: Flag = False
    vision_tokens: Count = 16384
    margin: CountOrZero = 256
    crops: Counts = (8, 4, 2, 1)
    frames: Count = 384
    folder_frames: Count = 16


@dataclass(frozen=True, config=_CHECKED)
class Recipe:
    """A training run.

    Attributes:
        steps: optimiser steps; exactly one of steps and epochs is set.
        epochs: passes over the data instead, which may be a part of one.
        accumulation: micro-steps per optimiser step.
        seed: of dropout and of everything but the data.
        dtype: of the products; weights and optimiser stay float32 unless `bf16_weights`. "auto" is settled
            when a run starts: bfloat16 where the device computes it, float32 where it would only imitate it.
        bf16_weights: keep frozen weights in bfloat16.
        gradient_checkpointing: compute activations a second time instead of keeping them.
        compile: compile the blocks of both towers.
        z_loss: coefficient of the squared log-partition of the text loss.
        weight_pointing_losses: multiply selection losses by the weights of their tokens; the published
            training does not.
        residual_dropout: in the text model.
        heads_only: train the grounding heads and the rows of added tokens alone; all else stays as it is.
        reward: settings of a reward model; None trains pointing.
    """

    steps: CountOrNone = None
    epochs: PositiveOrNone = 3
    accumulation: Count = 1
    seed: CountOrZero = 6198
    dtype: Precision = "auto"
    bf16_weights: Flag = False
    gradient_checkpointing: Flag = True
    compile: Flag = False
    z_loss: NotNegative = 1e-4
    weight_pointing_losses: Flag = False
    residual_dropout: PartBelowOne = 0.0
    heads_only: Flag = False
    groups: Groups = field(default_factory=Groups)
    optimiser: Optimiser = field(default_factory=Optimiser)
    lora: Annotated[Lora | None, _FALSE_IS_NONE] = None
    reward: Annotated[Reward | None, _FALSE_IS_NONE] = None
    data: Data = field(default_factory=Data)
    augmentation: Augmentation = field(default_factory=Augmentation)
    scoring: Scoring = field(default_factory=Scoring)
    saving: Saving = field(default_factory=Saving)
    logging: Logging = field(default_factory=Logging)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if (self.steps is None) == (self.epochs is None):
            given = f"steps {self.steps} and epochs {self.epochs}"
            message = f"expected steps or epochs, got {given}; set exactly one of them"
            raise PydanticCustomError(TOGETHER, message)  # type: ignore[arg-type]
        if self.bf16_weights and self.dtype == "float32":
            remedy = "set bf16_weights=false or the dtype"
            message = f"bf16_weights: expected dtype 'bfloat16' beside it, got {self.dtype!r}; {remedy}"
            raise PydanticCustomError(TOGETHER, message)  # type: ignore[arg-type]
        if self.heads_only and (self.lora is not None or self.reward is not None):
            other = "lora" if self.lora is not None else "reward"
            message = f"heads_only: expected no table [{other}] beside it, got one; set {other}=false"
            raise PydanticCustomError(TOGETHER, message)  # type: ignore[arg-type]
        return self
