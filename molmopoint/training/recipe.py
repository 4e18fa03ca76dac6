"""What a training run is told: every number of it, in one place, read from a file and changed from the command line.

A recipe is a TOML file whose tables are the classes below. `recipes/` holds the published ones and ours; a recipe may name
another one as its `base` and write down only what differs. `load_recipe("lora", ["groups.point.peak=2e-4"])` reads one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

GROUPS = ("vit", "connector", "llm", "point", "value")
"""Groups of parameters with a peak, a warm-up and a clip of their own; see `parameters.group_of`."""


@dataclass(frozen=True)
class GroupSettings:
    """One group of parameters.

    Attributes:
        peak: largest learning rate; 0 leaves the group as it is.
        warmup: steps from 0 to the peak; below 1 a part of all steps.
        clip: largest L2 norm of the group's gradient.
    """

    peak: float
    warmup: float = 200
    clip: float = 1.0


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Optimiser:
    """AdamW and its schedule.

    Attributes:
        betas: decay of both moments.
        eps: added to the root of the second moment.
        weight_decay: of matrices; norms, biases and embeddings never decay.
        floor: part of the peak that the schedule ends at.
        shape: of the way down, after the warm-up.
        clip_together: scale all groups by one norm, to the smallest of their limits, instead of each by its own.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.0
    floor: float = 0.1
    shape: Literal["cosine", "linear"] = "cosine"
    clip_together: bool = False


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the text model; everything else of it stays as it is, the other groups train in full.

    Attributes:
        rank: of the added matrices.
        alpha: the update is scaled by alpha / rank.
        dropout: on the input of the adapters.
        targets: names of the linear layers of the text model that get one.
        bits: 4 or 8 stores the frozen matrices of the text model quantised (needs bitsandbytes); 16 leaves them.
    """

    rank: int = 64
    alpha: float = 128
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    bits: Literal[4, 8, 16] = 16


@dataclass(frozen=True)
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
        weights: loss weights by kind of row; "finetuning" as published for mixtures, "plain" counts every target once.
        stage: requests, styles and weights of a published stage instead of our own.
        held_out: pictures kept for the score in the loop; below 1 a part of all, else a number.
        replay: share of examples drawn from the second data file, if there is one.
    """

    max_tokens: int = 16384
    max_crops: int = 128
    crops_per_image: int | None = None
    pool: int = 48
    crop_weight: float = 30
    max_stay: int = 512
    rows: int = 1
    workers: int = 0
    seed: int = 50189
    max_points: int = 60
    weights: Literal["finetuning", "plain"] = "plain"
    stage: Literal["pretraining", "fine_tuning", "long_context", "gui"] | None = None
    held_out: float = 0.1
    replay: float = 0.2


@dataclass(frozen=True)
class Augmentation:
    """Views of the user's own pictures that change from epoch to epoch, see `augmentation`; nothing is changed by default.

    Attributes:
        mirror: how likely a picture is mirrored.
        turn: largest angle by which it is turned, in degrees; 180 for things that may lie any way.
        crop: largest part of each side that is cut off; points are kept, with some space around them.
        light: largest change of brightness and of contrast, as a part.
    """

    mirror: float = 0.0
    turn: float = 0.0
    crop: float = 0.0
    light: float = 0.0


@dataclass(frozen=True)
class Scoring:
    """The look at the held-out part while training goes on.

    Attributes:
        every: steps between scores; 0 scores at the end only.
        examples: expressions asked at most.
        batch_size: expressions per call of `generate`.
        max_new_tokens: of an answer.
        tolerance: where the data has no masks, a point is right within this part of the picture's longer side.
    """

    every: int = 100
    examples: int = 200
    batch_size: int = 8
    max_new_tokens: int = 512
    tolerance: float = 0.05


@dataclass(frozen=True)
class Saving:
    """Checkpoints to go on from.

    Attributes:
        every: steps between checkpoints.
        keep: newest ones kept; the best one by the held-out score is kept as well.
    """

    every: int = 100
    keep: int = 2


@dataclass(frozen=True)
class Logging:
    """What is written down while training goes on.

    Attributes:
        every: steps between lines.
        to: trackers of transformers by name, such as "tensorboard" (works offline), "trackio", "wandb"; empty for none.
    """

    every: int = 10
    to: tuple[str, ...] = ("tensorboard",)


@dataclass(frozen=True)
class Reward:
    """What a reward model is and learns from, see `reward.losses` and `molmopoint.reward`.

    Attributes:
        loss: of the scores of one list of answers.
        layout: whose turn the answers are in.
        opening: which rows of layout "assistant" begin with the first token of the tokenizer: those with pictures or a clip ("visual", as
            published) or all.
        attention: whether an answer sees those before it.
        pooling: which states of an answer are read.
        begin: where an answer behind another one begins, for poolings that read more than its end: at the blank line behind the separator,
            as published, or at its words.
        head_width: hidden layer of the head; None for a plain linear one.
        activation: of the head.
        separator: the vector of the token between answers at first: the row that the base has for it ("base", as published; zeros if it
            has none), or the mean of the vocabulary.
        train_separator: train the vector of the token between answers too; the published training does not.
        text: weight of the next-token loss on the words of a best answer, beside the loss of the scores; the published training has none.
        train_text_head: let the output table learn along for that loss. It is of no use to a judge and is not stored with a small one.
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
    pooling: Literal["last", "first", "first_last_concat", "first_last_add", "first_last_sub", "response_mean"] = "last"
    begin: Literal["separator", "words"] = "separator"
    head_width: int | None = 1024
    activation: Literal["silu", "selu", "gelu", "relu", "tanh"] = "silu"
    separator: Literal["base", "mean"] = "base"
    train_separator: bool = False
    text: float = 0.0
    train_text_head: bool = False
    vision_tokens: int = 16384
    margin: int = 256
    crops: tuple[int, ...] = (8, 4, 2, 1)
    frames: int = 384
    folder_frames: int = 16


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        steps: optimiser steps; exactly one of steps and epochs is set.
        epochs: passes over the data instead, which may be a part of one.
        accumulation: micro-steps per optimiser step.
        seed: of dropout and of everything but the data.
        dtype: of the products; weights and optimiser stay float32 unless `bf16_weights`.
        bf16_weights: keep frozen weights in bfloat16.
        gradient_checkpointing: compute activations a second time instead of keeping them.
        compile: compile the blocks of both towers.
        z_loss: coefficient of the squared log-partition of the text loss.
        weight_pointing_losses: multiply selection losses by the weights of their tokens; the published training does not.
        residual_dropout: in the text model.
        reward: settings of a reward model; None trains pointing.
    """

    steps: int | None = None
    epochs: float | None = 3
    accumulation: int = 1
    seed: int = 6198
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    bf16_weights: bool = False
    gradient_checkpointing: bool = True
    compile: bool = False
    z_loss: float = 1e-4
    weight_pointing_losses: bool = False
    residual_dropout: float = 0.0
    groups: Groups = field(default_factory=Groups)
    optimiser: Optimiser = field(default_factory=Optimiser)
    lora: Lora | None = None
    reward: Reward | None = None
    data: Data = field(default_factory=Data)
    augmentation: Augmentation = field(default_factory=Augmentation)
    scoring: Scoring = field(default_factory=Scoring)
    saving: Saving = field(default_factory=Saving)
    logging: Logging = field(default_factory=Logging)
