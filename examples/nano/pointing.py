"""Second stage: the whole model learns to answer questions with points.

One training example is a message tree: one picture and several questions about it. The vision transformer
comes from the first stage and is left alone for the first part of the stage. A small picture has one tile
that is equal to its global view, so both rows of image tokens pool the same crop and the vision transformer
runs once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from molmopoint.backends.options import complete_prompt
from molmopoint.config import MolmoPointConfig
from molmopoint.data.questions import KINDS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing.chat import ChatWriter
from molmopoint.processing.grounding_answers import EncodedText, encode_answer, write_answer
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import (
    IMAGE_COL,
    IMAGE_END,
    IMAGE_PATCH,
    IMAGE_START,
    LOW_RES_PATCH,
    LOW_RES_START,
    NO_MORE_POINTS,
    NO_SELECTION,
)
from molmopoint.training.precision import autocast
from nano.attention import use_lean_attention
from nano.auxiliary import PictureAlignment
from nano.cache import SHARDS, load_shard, patchify
from nano.cells import PICTURE_WINDOW, picture_triples, pooling_of_crop, pooling_of_crops
from nano.dense import DenseModel, dense_head, dense_loss, take_over
from nano.files import CHAT_TEMPLATE, nano_config
from nano.loop import ShardStream, Stage, train
from nano.settings import GRID, Settings

_POOLED = GRID // PICTURE_WINDOW
"""Image tokens per side of a crop."""
LESSONS = (("colour",), ("colour", "shape", "both", "count"))
"""Kinds of questions asked first and second; all kinds come after them."""

_SENTENCES = ("Find {}", "Locate {}", "Show me {}", "Where are {}?")
_REPHRASED = 0.1
"""Share of noun phrases that are not asked as "Point to ..."."""


class Examples:
    """Turns cached questions into training batches.

    Args:
        tokenizer: of the model.
        settings: of the run.
        overview: whether a picture is its overview and its tile, as the processor has it, or the tile alone.

    Attributes:
        trunk_ids: (S,) the picture as tokens.
        trunk_types: (S,) which of them stand for the picture.
        pooling: (T, 4) ViT patches of its image tokens.
    """

    def __init__(self, tokenizer: Any, settings: Settings, overview: bool = True) -> None:
        self.tokenizer, self.settings, self.overview = tokenizer, settings, overview
        line = [IMAGE_PATCH] * _POOLED + [IMAGE_COL]
        vision = [IMAGE_START, *line * _POOLED, IMAGE_END]
        tile = pooling_of_crop(PICTURE_WINDOW)
        if overview:
            vision = [LOW_RES_START, *[LOW_RES_PATCH] * _POOLED**2, IMAGE_END, *vision]
        self.pooling = torch.cat([tile, tile]) if overview else tile
        self.trunk_ids = torch.tensor([tokenizer.bos_token_id, *tokenizer.convert_tokens_to_ids(vision)])
        self.trunk_types = torch.tensor([0] + [1] * len(vision))
        self.chat = ChatWriter(tokenizer, CHAT_TEMPLATE)
        self.prompt = cache(lambda text: self.chat.prompts([complete_prompt(text)], "image", 1)[0])
        self.template = cache(self._template)

    def pooling_of(self, pictures: int) -> Tensor:
        """(pictures * T, 4): the table of several pictures, one after the other."""
        return pooling_of_crops(self.pooling, pictures)

    def turn(self, question: dict, rng: np.random.Generator) -> Turn:
        """A cached question and its answer as tokens; some noun phrases become another sentence than the
        usual one.
        """
        triples = picture_triples(question["points"], self.overview)
        ids, places = self.template(len(triples), question["label"], question["style"])
        selections = np.full(len(ids), NO_SELECTION)
        if len(triples):
            flat = triples[np.lexsort(triples.T[::-1])].ravel()
            selections[places] = [*flat, NO_MORE_POINTS]
        prompt = question["prompt"]
        if question["style"] == "pointing" and rng.random() < _REPHRASED:
            prompt = _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(prompt)
        return Turn(self.prompt(prompt), EncodedText(ids, selections))

    def batch(
        self, pixels: Tensor, questions: list[list[dict]], rng: np.random.Generator, kinds: Collection[str]
    ) -> tuple[dict[str, Tensor], list[list[str]]]:
        """A batch of message trees.

        Args:
            pixels: (N, CROP, CROP, 3) uint8.
            questions: cached ones, per picture.
            rng: chooses among them.
            kinds: of the questions that may be asked.

        Returns:
            arguments of the forward pass, and per row the phrase behind each of its PATCH tokens.
        """
        rows: list[Row] = []
        phrases: list[list[str]] = []
        for patches, asked in zip(patchify(pixels), questions, strict=True):
            chosen = self._choose(asked, rng, kinds)
            turns = [self.turn(question, rng) for question in chosen]
            trunk = Row(self.trunk_ids, self.trunk_types, patches[None], self.pooling)
            tree = MessageTree(trunk, [(turn,) for turn in turns])
            rows.append(build_row(tree, self.tokenizer.eos_token_id))
            phrases.append(phrases_of(chosen))
        return collate(rows, self.tokenizer.pad_token_id), phrases

    def _choose(self, asked: list[dict], rng: np.random.Generator, kinds: Collection[str]) -> list[dict]:
        """Some of the questions that may be asked, in random order; the first one of all if there are none."""
        allowed = [question for question in asked if question["kind"] in kinds] or asked[:1]
        order = rng.permutation(len(allowed))[: self.settings.branches]
        return [allowed[i] for i in order]

    def _template(self, count: int, label: str, style: Any) -> tuple[np.ndarray, np.ndarray]:
        """Ids of an answer with `count` points, and where its grounding tokens stand."""
        encoded = encode_answer(
            write_answer(np.arange(3 * count).reshape(-1, 3), label, style), self.tokenizer
        )
        return encoded.ids, np.flatnonzero(encoded.selections != NO_SELECTION)


def phrases_of(questions: list[dict]) -> list[str]:
    """The phrase behind each PATCH token of the answers: one for every point, and one for no more points."""
    phrases: list[str] = []
    for question in questions:
        if question["points"]:
            phrases += [question["label"]] * (len(question["points"]) + 1)
    return phrases


Check = Callable[[MolmoPointForConditionalGeneration], dict[str, float]]
"""A look at the model while it trains: scores by name."""


def build_model(config: MolmoPointConfig, seed: int = 1) -> MolmoPointForConditionalGeneration:
    """A new model with quick attention, and with weights as large as their inputs are many."""
    torch.manual_seed(seed)
    model = MolmoPointForConditionalGeneration(config)
    use_lean_attention(model.config.text_config, model.config.vision_config)
    depth = math.sqrt(2 * config.text_config.num_hidden_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "vision_tower" not in name and name != "lm_head":
            is_output = name.endswith(("self_attn.o_proj", "mlp.down_proj"))
            shrink = depth if is_output else 1.0
            nn.init.normal_(module.weight, std=module.in_features**-0.5 / shrink)
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.2)
    return model


def lesson(progress: float, settings: Settings) -> Collection[str]:
    """Kinds of questions asked at this part of the stage."""
    if progress < settings.first_lesson:
        return LESSONS[0]
    return LESSONS[1] if progress < settings.second_lesson else KINDS


def selections_of(batch: dict[str, Tensor], patch_token_id: int) -> Tensor:
    """Selections of all PATCH tokens of a batch, row by row."""
    return batch["selection_ids"][
        (batch["input_ids"] == patch_token_id) & (batch["selection_ids"] != NO_SELECTION)
    ]


def metrics_of(output: Any, chosen: Tensor) -> dict[str, float]:
    """Losses per target, and how often patch, end of list, slot and location are chosen right
    (teacher-forced).
    """
    sums = output.loss_sums
    guess, last = output.patch_logits.argmax(-1), output.patch_logits.shape[1] - 1
    ends = chosen == NO_MORE_POINTS
    right = guess == torch.where(ends, last, chosen)
    values = {
        "text": float(sums["text"].detach()) / float(output.weight_sum),
        "patch": float(right[~ends].float().mean()),
        "end": float(right[ends].float().mean()),
        "patch_loss": float(sums["patch"].detach()) / len(chosen),
    }
    for name in ("subpatch", "location"):
        values[name + "_loss"] = float(sums[name].detach()) / int((~ends).sum())
    return values


class PointingStage(Stage):
    """Message trees about scenes.

    Args:
        folder: of the run; `vit.safetensors` there is what the stage begins with.
        settings: of the run.
        examples: make batches.
        check: is run with every checkpoint.
    """

    def __init__(self, folder: Path, settings: Settings, examples: Examples, check: Check) -> None:
        super().__init__()
        self.folder, self.settings, self.examples, self.look = folder, settings, examples, check
        self.model = build_model(nano_config(settings))
        self.vision, self.dense = self.model.model.vision_tower, dense_head(settings)
        self.alignment = PictureAlignment(self.model, _POOLED**2)
        self.modules = {"model": self.model, "dense": self.dense, "alignment": self.alignment}
        self.rates = [
            (self.vision, settings.point_vit_rate),
            (self.dense, settings.point_vit_rate),
            (self.model, settings.point_rate),
            (self.alignment, settings.point_rate),
        ]
        self.clipped = self.model
        self.scenes = ShardStream([folder / "cache"], SHARDS, load_shard)
        self.streams = {"scenes": self.scenes}
        self.items = settings.point_batch

    def begin(self) -> None:
        """Takes over what the first stage has trained."""
        take_over(self.folder / "vit.safetensors", DenseModel(self.settings), self.vision, self.dense)

    def add_gradients(self, step: int, steps: int, rng: np.random.Generator) -> dict[str, float]:
        """Of one batch: answers, what stands at the patches, and while that fades, words of queries and keys."""
        settings = self.settings
        self.vision.requires_grad_(step >= settings.vit_frozen * steps)
        shard, rows = self.scenes.take(self.items, rng)
        labels = shard.labels[rows]
        questions = [shard.questions[row] for row in rows]
        batch, phrases = self.examples.batch(
            shard.pixels[rows], questions, rng, lesson(step / steps, settings)
        )
        with autocast():
            output = self.model(**batch)
            features = output.grounding_state.vit_features.unflatten(0, (len(rows), GRID * GRID))
            aside, seen = dense_loss(self.dense(features), labels)
        chosen = selections_of(batch, self.model.config.patch_token_id)
        push, spoken = self.alignment.loss_of_pictures(phrases, labels, chosen)
        fading = max(0.0, 1 - step / (settings.alignment_until * steps))
        loss = output.loss + settings.dense_part * aside + settings.alignment_part * fading * push
        loss.backward()
        return {"dense_shape": seen["shape"], **spoken, **metrics_of(output, chosen)}

    def check(self) -> dict[str, float]:
        """Scores of real decoding."""
        return self.look(self.model)


def train_pointing(
    folder: Path, settings: Settings, examples: Examples, steps: int, check: Check, log_every: int = 25
) -> None:
    """Runs or resumes the second stage; `check` is run with every checkpoint and its numbers are logged."""
    stage = PointingStage(folder, settings, examples, check)
    train(stage, folder / "point", settings, steps, seed=2, log_every=log_every)
