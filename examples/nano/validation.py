"""A quick look at how well the model points while it trains: real decoding on a few scenes that are neither trained nor scored."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from molmopoint.data.synthetic import SyntheticClip, sample_clip, sample_scene
from molmopoint.decoding import read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.metrics import match_points
from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.cache import patchify, resized
from nano.clip_cache import stretched_frames
from nano.clip_examples import ClipExamples, frame_pooling
from nano.clip_scores import score_answer, table_of_clips
from nano.pointing import Examples, pooling_table
from nano.settings import GRID, LOCATIONS

_SEED = 31_337


def metadata_of(size: tuple[int, int]) -> PointingMetadata:
    """What the processor would record for a picture of (width, height) with one tile."""
    table = pooling_table().numpy()
    tiles = len(table) // 2
    patch_map = np.arange(GRID * GRID).reshape(GRID, GRID)
    indexable = np.arange(len(table)) >= tiles
    return PointingMetadata(table, indexable, [patch_map], [size], location_grid=LOCATIONS)


@torch.no_grad()
def validate(model: MolmoPointForConditionalGeneration, examples: Examples, num_scenes: int = 40, rows: int = 40) -> dict[str, float]:
    """Mean F1, exact count and F1 by kind over all questions of `num_scenes` scenes."""
    model.eval()
    scenes = [sample_scene(np.random.default_rng([_SEED, i])) for i in range(num_scenes)]
    asked = [(scene, query) for scene in scenes for query in scene.queries]
    scores = defaultdict(list)
    for first in range(0, len(asked), rows):
        part = asked[first : first + rows]
        prompts = [torch.cat([examples.trunk_ids, torch.from_numpy(examples.prompt(query.prompt).ids)]) for _, query in part]
        offsets = torch.arange(len(part))[:, None, None] * GRID * GRID
        answers = _generate(
            model, examples.tokenizer, prompts, 80,
            pixel_values=patchify(torch.stack([resized(scene) for scene, _ in part])),
            image_token_pooling=(examples.pooling[None] + offsets).flatten(0, 1),
        )  # fmt: skip
        for (scene, query), answer in zip(part, answers, strict=True):
            found = read_answer(answer, metadata_of(scene.image.size), model.config.extended_start, examples.tokenizer.decode)
            match = match_points(found.points.xy, [target.mask for target in query.targets])
            for key in ("f1", f"f1_{query.kind}", "f1_held_out" if query.held_out else "f1_seen"):
                scores[key].append(match.f1)
            scores["count"].append(float(match.exact_count))
    model.train()
    return {key: float(np.mean(values)) for key, values in sorted(scores.items())}


def metadata_of_clip(clip: SyntheticClip) -> PointingMetadata:
    """What the processor would record for a clip."""
    count, pooling = len(clip.frames), frame_pooling().numpy()
    table = np.concatenate([pooling + frame * GRID * GRID for frame in range(count)])
    maps = list(np.arange(count * GRID * GRID).reshape(count, GRID, GRID))
    sizes = [(clip.frames.shape[2], clip.frames.shape[1])]
    return PointingMetadata(table, np.ones(len(table), dtype=bool), maps, sizes, clip.timestamps, LOCATIONS)


@torch.no_grad()
def validate_clips(
    model: MolmoPointForConditionalGeneration, examples: ClipExamples, num_clips: int = 30, clips_at_once: int = 10
) -> dict[str, float]:
    """Mean F1 of points and HOTA of tracks, with those of the kinds, over all questions of `num_clips` clips."""
    model.eval()
    clips = [sample_clip(np.random.default_rng([_SEED, 1, i])) for i in range(num_clips)]
    scores = []
    for first in range(0, num_clips, clips_at_once):
        asked = [(clip, query) for clip in clips[first : first + clips_at_once] for query in clip.queries]
        requests = [examples.prompt(query.request(2 if i % 2 else None)).ids for i, (_, query) in enumerate(asked)]
        prompts = [
            torch.cat([examples.trunk(len(clip.frames)).input_ids, torch.from_numpy(ids)])
            for (clip, _), ids in zip(asked, requests, strict=True)
        ]
        starts = np.cumsum([0, *(len(clip.frames) for clip, _ in asked)])
        pooling = [
            examples.pooling + (start + frame) * GRID * GRID
            for start, (clip, _) in zip(starts, asked, strict=False)
            for frame in range(len(clip.frames))
        ]
        answers = _generate(
            model, examples.tokenizer, prompts, 150,
            pixel_values_videos=torch.cat([patchify(stretched_frames(clip.frames)) for clip, _ in asked]),
            video_token_pooling=torch.cat(pooling),
        )  # fmt: skip
        for (clip, query), answer in zip(asked, answers, strict=True):
            found = read_answer(answer, metadata_of_clip(clip), model.config.extended_start, examples.tokenizer.decode)
            scores.append((query, score_answer(clip, query, found.points)))
    model.train()
    table = table_of_clips(scores)
    points = {f"clip_f1_{name}": row["f1"] for name, row in table["pointing"].items()}
    return points | {f"hota_{name}": row["hota"] for name, row in table["track"].items()}


def _generate(
    model: MolmoPointForConditionalGeneration, tokenizer: Any, prompts: list[torch.Tensor], max_new_tokens: int, **visual: Any
) -> list[torch.Tensor]:
    """Ids of the answers to some prompts, without the end of the turn."""
    length, pad = max(map(len, prompts)), tokenizer.pad_token_id
    ids = torch.stack([torch.nn.functional.pad(p, (length - len(p), 0), value=pad) for p in prompts])
    with torch.autocast("cpu", torch.bfloat16):
        answers = model.generate(
            input_ids=ids, attention_mask=(ids != pad).long(), **visual,
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id,
        )[:, length:]  # fmt: skip
    ends = [(answer == tokenizer.eos_token_id).nonzero() for answer in answers]
    return [answer[: int(end[0])] if len(end) else answer for answer, end in zip(answers, ends, strict=True)]
