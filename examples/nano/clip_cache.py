"""Draws training clips once and keeps what the trained vision transformer sees in them, so that it never runs
again.

A shard is a safetensors file with the tapped features of every frame and what every image token shows, and a
JSON file beside it with the questions. Clip i of shard n is drawn from the seed [CLIP_SEED, n, i], without
the held-out pairs. Every clip is kept in both directions: backwards, left is right and whoever left now
enters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from molmopoint.connector import tapped_features
from molmopoint.data.clip_questions import ClipObject, ClipQuery, ask_about_clip
from molmopoint.data.clips import SyntheticClip, sample_clip
from molmopoint.data.drawing import COLOURS, HELD_OUT_PAIRS, SHAPES
from molmopoint.data.questions import PLURALS
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.training.precision import autocast
from nano.attention import use_lean_attention
from nano.cache import patchify, write_shard
from nano.cells import FRAME_WINDOW
from nano.settings import CROP, GRID, Settings

CLIP_SEED = 77_002
SHARDS = "clips_*.safetensors"
"""Names of shards of clips."""
POOLED = GRID // FRAME_WINDOW
"""Image tokens per side of a frame."""
MOTIONS = ("moving", "still", "left", "right", "up", "down", "enters", "leaves")
WORDS = (*COLOURS, *SHAPES, *MOTIONS)
"""What image tokens and questions can say."""

_SPOKEN = {"enter": "enters", "leave": "leaves"}
_BACKWARDS = {"left": "right", "right": "left", "up": "down", "down": "up"}


@dataclass(frozen=True)
class CachedClip:
    """A clip of the cache in one direction.

    Attributes:
        features: (T, GRID * GRID, F) what the vision transformer sees.
        words: (T, POOLED * POOLED, WORDS) bool, see `words_of_tokens`.
        velocity: (T, POOLED * POOLED, 2), see `ways_of_tokens`.
        beside: (T, POOLED * POOLED, 2), likewise.
        questions: with all their visible moments.
    """

    features: Tensor
    words: Tensor
    velocity: Tensor
    beside: Tensor
    questions: list[dict]


def stretched_frames(frames: np.ndarray) -> Tensor:
    """(T, CROP, CROP, 3) uint8: frames as the video processor stretches them, with its rounding."""
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    stretched = F.interpolate(pixels, size=(CROP, CROP), mode="bilinear", align_corners=False)
    return stretched.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def words_of_label(label: str) -> np.ndarray:
    """(WORDS,) bool: which words the label of a question says; who moves to the left is not asked for as
    moving.
    """
    said = {_SPOKEN.get(word, word) for word in label.split()}
    said |= {shape for shape in SHAPES if PLURALS[shape] in said}
    if said & {"move", "moves"} and not said & set(_BACKWARDS):
        said.add("moving")
    return np.array([word in said for word in WORDS])


def words_of_tokens(objects: Sequence[ClipObject], size: tuple[int, int]) -> np.ndarray:
    """(T, POOLED * POOLED, WORDS) bool: words of the objects whose points can be seen in each image token."""
    words = np.zeros((len(objects[0].visible), POOLED, POOLED, len(WORDS)), dtype=bool)
    for item in objects:
        own = np.array(
            [word in (item.colour, item.shape) or (word in MOTIONS and item.does(word)) for word in WORDS]
        )
        for frame in np.flatnonzero(item.visible):
            col, row = (item.xy[frame] / size * POOLED).astype(np.int64).tolist()
            words[frame, row, col] |= own
    return words.reshape(len(words), -1, len(WORDS))


def ways_of_tokens(objects: Sequence[ClipObject], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """How the object of each image token moves, where it is the only one there.

    Returns:
        (T, POOLED * POOLED, 2) float32 how far it moves per frame, in tenths of the sides, NaN where there is
        no single one; and (T, POOLED * POOLED, 2) int16 the image tokens that show it in the frame before and
        in the next one, numbered over the clip, -1 where none does.
    """
    frames = len(objects[0].visible)
    velocity = np.full((frames, POOLED**2, 2), np.nan, dtype=np.float32)
    beside = np.full((frames, POOLED**2, 2), -1, dtype=np.int16)
    count = np.zeros(velocity.shape[:2], dtype=np.int64)
    for item in objects:
        col, row = np.floor(item.xy / size * POOLED).astype(np.int64).T
        place = np.where(item.visible, np.arange(frames) * POOLED**2 + row * POOLED + col, -1)
        seen = np.flatnonzero(item.visible)
        cell = place[seen] % POOLED**2
        velocity[seen, cell] = 10 * (item.xy[-1] - item.xy[0]) / (frames - 1) / size
        beside[seen, cell, 0] = np.concatenate([[-1], place[:-1]])[seen]
        beside[seen, cell, 1] = np.concatenate([place[1:], [-1]])[seen]
        count[seen, cell] += 1
    velocity[count != 1], beside[count != 1] = np.nan, -1
    return velocity, beside


def backwards(item: ClipObject) -> ClipObject:
    """An object in the clip played from its end."""
    motion = _BACKWARDS.get(item.motion, item.motion)
    return replace(
        item,
        motion=motion,
        enters=item.leaves,
        leaves=item.enters,
        xy=item.xy[::-1],
        visible=item.visible[::-1],
        masks=item.masks[::-1],
    )


def draw_clip_shards(folder: Path, indices: Iterable[int], settings: Settings, start: Path) -> None:
    """Writes the shards that are not there yet, with the vision transformer of the model in the folder
    `start`.
    """
    model = MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32).eval()
    use_lean_attention(model.config.vision_config)
    layers = model.config.adapter_config.vision_feature_layer
    for index in indices:
        _draw_clip_shard(
            folder, index, settings, lambda pixels: tapped_features(model.model.vision_tower, pixels, layers)
        )


def _draw_clip_shard(folder: Path, index: int, settings: Settings, look: Callable[[Tensor], Tensor]) -> None:
    """Writes shard `index` unless it is there; files appear complete or not at all."""
    path = folder / f"clips_{index:04d}.safetensors"
    if path.exists():
        return
    features, words, ways, questions = [], [], [], []
    for i in range(settings.shard_clips):
        rng = np.random.default_rng([CLIP_SEED, index, i])
        clip = sample_clip(rng, held_out=False, num_queries=1)
        with torch.no_grad(), autocast():
            seen = look(patchify(stretched_frames(clip.frames)))
        features.append(seen.to(torch.bfloat16).view(len(clip.frames), GRID * GRID, -1))
        turned = tuple(map(backwards, clip.objects))
        words.append(np.stack([words_of_tokens(objects, _size(clip)) for objects in (clip.objects, turned)]))
        ways.append(ways_of_tokens(clip.objects, _size(clip)))
        questions.append(
            [_questions(rng, objects, _size(clip), settings) for objects in (clip.objects, turned)]
        )
    velocity, neighbours = (torch.from_numpy(np.stack(part)) for part in zip(*ways, strict=True))
    labels = {"words": torch.from_numpy(np.stack(words)), "velocity": velocity, "beside": neighbours}
    write_shard(path, {"features": torch.stack(features), **labels}, questions)


class ClipShard:
    """The clips of a shard.

    Args:
        path: of its tensors.
    """

    def __init__(self, path: Path) -> None:
        self.tensors = load_file(path)
        self.questions = json.loads(path.with_suffix(".json").read_text())

    def __len__(self) -> int:
        return len(self.questions)

    def clip(self, number: int, turned: bool) -> CachedClip:
        """A clip as it was drawn, or played backwards."""
        names = ("features", "words", "velocity", "beside")
        features, words, velocity, beside = (self.tensors[name][number] for name in names)
        questions = self.questions[number]
        if not turned:
            return CachedClip(features, words[0], velocity, beside, questions[0])
        before_and_after = beside.flip(0, 2)
        frame, cell = before_and_after // POOLED**2, before_and_after % POOLED**2
        renumbered = (len(features) - 1 - frame) * POOLED**2 + cell
        neighbours = torch.where(before_and_after >= 0, renumbered, -1)
        return CachedClip(features.flip(0), words[1], -velocity.flip(0), neighbours, questions[1])


def _size(clip: SyntheticClip) -> tuple[int, int]:
    return clip.frames.shape[2], clip.frames.shape[1]


def _questions(
    rng: np.random.Generator, objects: Sequence[ClipObject], size: tuple[int, int], settings: Settings
) -> list[dict]:
    """Questions with all visible moments (frame, target, x and y as parts of the sides), whatever they will
    be asked as.
    """
    asked = ask_about_clip(rng, objects, settings.cached_clip_queries, HELD_OUT_PAIRS, allow_hidden=False)
    return [question_of(query, size) for query in asked]


def question_of(query: ClipQuery, size: tuple[int, int]) -> dict:
    """A question as it is cached."""
    seen = [
        [frame, target, *(round(part, 6) for part in (item.xy[frame] / size).tolist())]
        for target, item in enumerate(query.targets)
        for frame in np.flatnonzero(item.visible).tolist()
    ]
    return {"prompt": query.prompt, "label": query.label, "kind": query.kind, "seen": seen}
