"""A quick look at how well the model points while it trains: real decoding on a few scenes that are neither
trained nor scored.
"""

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
from molmopoint.training.precision import autocast
from nano.cache import patchify, resized
from nano.cells import clip_metadata, picture_metadata, pooling_of_crops
from nano.clip_cache import stretched_frames
from nano.clip_examples import ClipExamples
from nano.clip_scores import score_answer, table_of_clips
from nano.pointing import Examples

_SEED = 31_337


@torch.no_grad()
def validate(
    model: MolmoPointForConditionalGeneration, examples: Examples, num_scenes: int = 40, rows: int = 40
) -> dict[str, float]:
    """Mean F1, exact count and F1 by kind over all questions of `num_scenes` scenes."""
    model.eval()
    scenes = [sample_scene(np.random.default_rng([_SEED, i])) for i in range(num_scenes)]
    asked = [(scene, query) for scene in scenes for query in scene.queries]
    scores = defaultdict(list)
    for first in range(0, len(asked), rows):
        part = asked[first : first + rows]
        prompts = [
            torch.cat([examples.trunk_ids, torch.from_numpy(examples.prompt(query.prompt).ids)])
            for _, query in part
        ]
        answers = greedy_answers(
            model, examples.tokenizer, prompts, 80,
            pixel_values=patchify(torch.stack([resized(scene) for scene, _ in part])),
            image_token_pooling=examples.pooling_of(len(part)),
        )  # fmt: skip
        for (scene, query), answer in zip(part, answers, strict=True):
            found = read_answer(
                answer,
                picture_metadata(scene.image.size),
                model.config.extended_start,
                examples.tokenizer.decode,
            )
            match = match_points(found.points.xy, [target.mask for target in query.targets])
            for key in ("f1", f"f1_{query.kind}", "f1_held_out" if query.held_out else "f1_seen"):
                scores[key].append(match.f1)
            scores["count"].append(float(match.exact_count))
    model.train()
    return {key: float(np.mean(values)) for key, values in sorted(scores.items())}


@torch.no_grad()
def validate_clips(
    model: MolmoPointForConditionalGeneration,
    examples: ClipExamples,
    num_clips: int = 30,
    clips_at_once: int = 10,
) -> dict[str, float]:
    """Mean F1 of points and HOTA of tracks, with those of the kinds, over all questions of `num_clips` clips."""
    model.eval()
    clips = [sample_clip(np.random.default_rng([_SEED, 1, i])) for i in range(num_clips)]
    scores = []
    for first in range(0, num_clips, clips_at_once):
        asked = [(clip, query) for clip in clips[first : first + clips_at_once] for query in clip.queries]
        requests = [
            examples.prompt(query.request(2 if i % 2 else None)).ids for i, (_, query) in enumerate(asked)
        ]
        prompts = [
            torch.cat([examples.trunk(len(clip.frames)).input_ids, torch.from_numpy(ids)])
            for (clip, _), ids in zip(asked, requests, strict=True)
        ]
        frames = torch.cat([patchify(stretched_frames(clip.frames)) for clip, _ in asked])
        answers = greedy_answers(
            model, examples.tokenizer, prompts, 150,
            pixel_values_videos=frames, video_token_pooling=pooling_of_crops(examples.pooling, len(frames)),
        )  # fmt: skip
        for (clip, query), answer in zip(asked, answers, strict=True):
            found = read_answer(
                answer, _metadata_of(clip), model.config.extended_start, examples.tokenizer.decode
            )
            scores.append((query, score_answer(clip, query, found.points)))
    model.train()
    table = table_of_clips(scores)
    points = {f"clip_f1_{name}": row["f1"] for name, row in table["pointing"].items()}
    return points | {f"hota_{name}": row["hota"] for name, row in table["track"].items()}


def _metadata_of(clip: SyntheticClip) -> PointingMetadata:
    height, width = clip.frames.shape[1:3]
    return clip_metadata(clip.timestamps, (width, height))


def greedy_answers(
    model: MolmoPointForConditionalGeneration,
    tokenizer: Any,
    prompts: list[torch.Tensor],
    max_new_tokens: int,
    **visual: Any,
) -> list[torch.Tensor]:
    """Ids of the most likely answers to some prompts, without the end of the turn.

    Args:
        model: that answers.
        tokenizer: of the model.
        prompts: ids of each, pictures included.
        max_new_tokens: longest answer.
        visual: pixels and pooling tables, or visual features, of all prompts.
    """
    length, pad = max(map(len, prompts)), tokenizer.pad_token_id
    ids = torch.stack([torch.nn.functional.pad(p, (length - len(p), 0), value=pad) for p in prompts])
    with autocast():
        answers = model.generate(
            input_ids=ids, attention_mask=(ids != pad).long(), **visual,
            max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad, eos_token_id=tokenizer.eos_token_id,
        )[:, length:]  # fmt: skip
    return [_until_end(answer, tokenizer.eos_token_id) for answer in answers]


def _until_end(answer: torch.Tensor, end: int) -> torch.Tensor:
    ends = (answer == end).nonzero()
    return answer[: int(ends[0])] if len(ends) else answer
