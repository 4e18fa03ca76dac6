"""Turns cached clips into training batches: one clip and several requests about it, to point or to track, as
a message tree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molmopoint.connector import VisualFeatures
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing.chat import ChatWriter
from molmopoint.processing.grounding_answers import NOTHING_THERE, EncodedText, PointList, encode_answer
from molmopoint.processing.message_tree import MessageTree, Turn, build_row
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import FRAME_END, FRAME_START, IMAGE_PATCH, NO_MORE_POINTS, NO_SELECTION
from molmopoint.training.formatting import NO_TRACKS
from molmopoint.training.templates import draw_prompt, draw_track_prompt
from nano.cells import FRAME_WINDOW, clip_triples, pooling_of_crop, pooling_of_crops
from nano.clip_cache import POOLED, WORDS, CachedClip, words_of_label
from nano.files import CHAT_TEMPLATE
from nano.settings import Settings

FPS = 2
_REPHRASED = 0.12
"""Share of requests that are not worded as the library words them."""
_SLOW = 0.1
"""Share of tracks that are asked for once a second."""
_LAST_TWICE, _CUT = 0.12, 0.12
"""Share of clips whose last frame is seen twice, as in a file that is read to its end, and of clips that end
earlier.
"""
_MOST_DOUBLINGS = 4
"""Objects are followed through up to 2 to this power frames."""
LOOKS = ("colour", "shape", "both")


@dataclass(frozen=True)
class ClipBatch:
    """A batch of message trees about clips.

    Attributes:
        inputs: arguments of the forward pass, without the visual features.
        features: (ViT patches of all frames, F).
        pooling: (image tokens of all clips, 9) rows of `features`.
        frames: per clip.
        named: (Q, WORDS) bool, what the question behind each PATCH token says.
        there: (image tokens of all clips, WORDS) bool, what each image token shows.
        velocity: (image tokens of all clips, 2) how its object moves, NaN where there is no single one.
        ends: (image tokens of all clips, 2), see `ends_of_ways`.
        queries: per row, its PATCH tokens.
    """

    inputs: dict[str, Tensor]
    features: Tensor
    pooling: Tensor
    frames: list[int]
    named: Tensor
    there: Tensor
    velocity: Tensor
    ends: Tensor
    queries: list[int]

    def seen_by(self, model: MolmoPointForConditionalGeneration) -> VisualFeatures:
        """What the model sees of the clips."""
        image_features = model.model.connector(self.features, self.pooling)
        return VisualFeatures(self.features, image_features, self.pooling, 0, (0, FRAME_WINDOW**2))


@dataclass(frozen=True)
class _Part:
    """What one clip adds to a `ClipBatch`; `named` has a vector for each of its PATCH tokens."""

    row: Row
    frames: int
    features: Tensor
    named: list[np.ndarray]
    there: Tensor
    velocity: Tensor
    ends: Tensor


def ends_of_ways(beside: Tensor) -> Tensor:
    """The first and the last image token to which an object can be followed from frame to frame.

    Args:
        beside: (P, 2) int64 image tokens that show the object of each one in the frame before and in the next
            one, or -1.

    Returns:
        (P, 2) int64, -1 where that is the token itself.
    """
    own = torch.arange(len(beside))[:, None].expand(-1, 2)
    ends = torch.where(beside >= 0, beside, own)
    for _ in range(_MOST_DOUBLINGS):
        ends = ends.gather(0, ends)
    return torch.where(ends != own, ends, -1)


class ClipExamples:
    """Draws requests about cached clips and encodes them."""

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        self.tokenizer, self.settings = tokenizer, settings
        self.pooling = pooling_of_crop(FRAME_WINDOW)
        self.trunk = cache(self._trunk)
        chat = ChatWriter(tokenizer, CHAT_TEMPLATE)
        self.prompt = cache(lambda text: chat.prompts([text], "video", 1)[0])
        self.template = cache(self._template)

    def batch(
        self, clips: Sequence[CachedClip], rng: np.random.Generator, kinds: Collection[str]
    ) -> ClipBatch:
        """A batch of message trees.

        Args:
            clips: cached ones.
            rng: chooses among them, words them, and now and then cuts a clip.
            kinds: of the questions that may be asked.
        """
        parts = [self._part(clip, rng, kinds) for clip in clips]
        named: list[np.ndarray] = []
        for part in parts:
            named += part.named
        frames = [part.frames for part in parts]
        return ClipBatch(
            inputs=collate([part.row for part in parts], self.tokenizer.pad_token_id),
            features=torch.cat([part.features for part in parts]).flatten(0, 1).float(),
            pooling=pooling_of_crops(self.pooling, sum(frames)),
            frames=frames,
            named=torch.from_numpy(np.stack(named))
            if named
            else torch.zeros(0, len(WORDS), dtype=torch.bool),
            there=torch.cat([part.there for part in parts]),
            velocity=torch.cat([part.velocity for part in parts]),
            ends=torch.cat([part.ends for part in parts]),
            queries=[len(part.named) for part in parts],
        )

    def _part(self, clip: CachedClip, rng: np.random.Generator, kinds: Collection[str]) -> _Part:
        """One clip of a batch, with some of its questions."""
        order, allowed = self._frames(len(clip.features), rng, kinds)
        wanted = [question for question in clip.questions if question["kind"] in allowed] or clip.questions[
            :1
        ]
        turns: list[Turn] = []
        named: list[np.ndarray] = []
        for i in rng.permutation(len(wanted))[: self.settings.clip_branches]:
            turn, queries = self.turn(wanted[i], order, rng)
            turns.append(turn)
            named += [words_of_label(wanted[i]["label"])] * queries
        tree = MessageTree(self.trunk(len(order)), [(turn,) for turn in turns])
        beside = clip.beside[order].flatten(0, 1).long()
        beside = beside.where(beside < len(order) * POOLED**2, -1)  # the clip may have been cut
        return _Part(
            row=build_row(tree, self.tokenizer.eos_token_id),
            frames=len(order),
            features=clip.features[order],
            named=named,
            there=clip.words[order].flatten(0, 1),
            velocity=clip.velocity[order].flatten(0, 1),
            ends=ends_of_ways(beside),
        )

    def turn(self, question: dict, order: list[int], rng: np.random.Generator) -> tuple[Turn, int]:
        """A request and its answer as tokens, and the number of its PATCH tokens.

        Args:
            question: a cached one.
            order: the frames that are shown.
            rng: draws whether to point or to track, how often, and the words.
        """
        track = bool(rng.random() < 0.55)
        rate = 1 if track and rng.random() < _SLOW else FPS
        answer, grounding = self.answer(question, order, track, rate)
        return Turn(self.prompt(self._request(question, rate if track else None, rng)), answer), grounding

    def answer(self, question: dict, order: list[int], track: bool, rate: int) -> tuple[EncodedText, int]:
        """An answer as tokens, and the number of its PATCH tokens.

        Args:
            question: a cached one.
            order: the frames that are shown.
            track: every moment at which an object can be seen, else the first one.
            rate: moments per second of tracks, counted from the first one.
        """
        seen: list[tuple] = []
        for at, frame in enumerate(order):
            seen += [(at, *moment[1:]) for moment in question["seen"] if moment[0] == frame]
        if track:
            seen = [moment for moment in seen if (moment[0] - seen[0][0]) % (FPS // rate) == 0]
        else:
            seen = list({moment[1]: moment for moment in reversed(seen)}.values())
        if not seen:
            return self.template((), NO_TRACKS if track else NOTHING_THERE, "text")[0], 0
        table = np.array(seen)  # (moments, 4) frame, object, x, y
        triples = clip_triples(table[:, 0].astype(np.int64), table[:, 2:])
        objects = table[:, 1].astype(np.int64).tolist()
        label = question["label"]
        points = PointList.sort_tracks(triples, objects, label) if track else PointList.sort(triples, label)
        encoded, places = self.template(tuple(points.object_ids.tolist()), label, points.tag)
        selections = np.full(len(encoded), NO_SELECTION)
        selections[places] = [*points.triples.ravel(), NO_MORE_POINTS]
        return EncodedText(encoded.ids, selections), len(points) + 1

    def _request(self, question: dict, rate: int | None, rng: np.random.Generator) -> str:
        rephrased = rng.random() < _REPHRASED
        if rate is None:
            return (
                draw_prompt("pointing", question["label"], rng, medium="video")
                if rephrased
                else f"Point to {question['prompt']}"
            )
        if rephrased:
            return draw_track_prompt(question["label"], rate, rng)
        named = rate != FPS or rng.random() < 0.55
        return f"Track {question['prompt']} at {rate} FPS" if named else f"Track {question['prompt']}"

    def _frames(
        self, count: int, rng: np.random.Generator, kinds: Collection[str]
    ) -> tuple[list[int], Collection[str]]:
        """Numbers of the frames to show, and the kinds of questions whose answers stay the same."""
        order, draw = list(range(count)), rng.random()
        if draw < _LAST_TWICE:
            return [*order, count - 1], kinds
        if draw < _LAST_TWICE + _CUT:
            return order[: int(rng.integers(4, count))], LOOKS
        return order, kinds

    def _trunk(self, count: int) -> Row:
        """The part before the requests, as the processor writes it."""
        ids: list[int] = [self.tokenizer.bos_token_id]
        types = [0]
        start, patch, end = self.tokenizer.convert_tokens_to_ids([FRAME_START, IMAGE_PATCH, FRAME_END])
        for frame in range(count):
            time = self.tokenizer(f"{' ' if frame else ''}{frame / FPS:.1f} ")["input_ids"]
            vision = [start, *[patch] * POOLED**2, end]
            ids += [*time, *vision]
            types += [0] * len(time) + [1] * len(vision)
        return Row(torch.tensor(ids), torch.tensor(types))

    def _template(self, object_ids: tuple[int, ...], label: str, tag: Any) -> tuple[EncodedText, np.ndarray]:
        """An answer with these object ids, and where its grounding tokens stand; a sentence for the tag
        "text".
        """
        if tag == "text":
            return encode_answer((label,), self.tokenizer), np.empty(0, dtype=np.int64)
        triples = np.arange(3 * len(object_ids)).reshape(-1, 3)
        encoded = encode_answer((PointList(triples, np.array(object_ids), label, tag),), self.tokenizer)
        return encoded, np.flatnonzero(encoded.selections != NO_SELECTION)
