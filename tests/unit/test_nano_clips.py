"""How clips become training examples of the embedded model: as the processor sees them, and with answers that
read back.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from molmopoint.data.synthetic import SyntheticClip, sample_clip
from molmopoint.decoding import read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.rows import Row
from molmopoint.video import Clip

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def nano() -> Any:
    """Modules of the training by their last name."""
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        names = ("cache", "cells", "clip_cache", "clip_examples", "clip_scores", "settings")
        yield SimpleNamespace(**{name: importlib.import_module(f"nano.{name}") for name in names})
    finally:
        sys.path.remove(str(ROOT / "examples"))


@pytest.fixture(scope="module")
def processor() -> MolmoPointProcessor:
    return MolmoPointProcessor.from_pretrained(ROOT / "checkpoints" / "nano")


@pytest.fixture(scope="module")
def clips() -> list[SyntheticClip]:
    return [sample_clip(np.random.default_rng([12, i]), held_out=False) for i in range(25)]


def seen_by(processor: MolmoPointProcessor, clip: SyntheticClip) -> tuple[Row, PointingMetadata]:
    output = processor(
        text=["<|video|>"],
        videos=[Clip(clip.frames, clip.timestamps)],
        do_sample_frames=False,
        return_tensors="pt",
        return_pointing_metadata=True,
    )
    return Row.from_processor(output), output["pointing_metadata"][0]


def cached(nano: Any, clip: SyntheticClip) -> Any:
    size = (clip.frames.shape[2], clip.frames.shape[1])
    features = torch.zeros(len(clip.frames), 144, 1)
    words = torch.from_numpy(nano.clip_cache.words_of_tokens(clip.objects, size))
    velocity, beside = map(torch.from_numpy, nano.clip_cache.ways_of_tokens(clip.objects, size))
    questions = [nano.clip_cache.question_of(query, size) for query in clip.queries]
    return nano.clip_cache.CachedClip(features, words, velocity, beside, questions)


def test_trunk_and_pixels_are_those_of_the_processor(nano, processor, clips):
    examples = nano.clip_examples.ClipExamples(processor.tokenizer, nano.settings.Settings())
    trunk, _ = seen_by(processor, clips[0])
    ours = examples.trunk(8)
    assert torch.equal(ours.input_ids, trunk.input_ids) and torch.equal(
        ours.mm_token_type_ids, trunk.mm_token_type_ids
    )
    pixels = nano.cache.patchify(nano.clip_cache.stretched_frames(clips[0].frames))
    away = (
        pixels - trunk.pixel_values
    ).abs()  # rounding differs between ways of stretching, by one level of a byte and rarely
    assert away.max() < 0.0079 and (away > 1e-5).float().mean() < 1e-3
    pooling = nano.cells.pooling_of_crops(examples.pooling, 8)
    assert trunk.pooling is not None and torch.equal(pooling, trunk.pooling)


def test_answers_read_back_as_the_points_of_the_question(nano, processor, clips):
    examples = nano.clip_examples.ClipExamples(processor.tokenizer, nano.settings.Settings())
    extended = processor.extended_start
    checked = set()
    for clip in clips:
        metadata = seen_by(processor, clip)[1]
        size = np.array([clip.frames.shape[2], clip.frames.shape[1]])
        for query in clip.queries:
            seen = query.points()
            question = nano.clip_cache.question_of(query, tuple(size))
            turn, grounding = examples.answer(
                question, list(range(8)), query.style == "track", nano.clip_examples.FPS
            )
            assert grounding == (len(seen) + 1 if len(seen) else 0)
            if not len(seen):
                text = processor.tokenizer.decode(turn.ids)
                assert text == ("No tracks available." if query.style == "track" else "There are none.")
                continue
            ids = extended_ids(turn, metadata, extended, processor)
            points = read_answer(ids, metadata, extended, processor.tokenizer.decode).points
            elsewhere = nano.clip_scores.frames_of(clip, points)[:, None] != seen.frame
            away = np.abs(points.xy[:, None] - seen.xy) * 36 / size + elsewhere[..., None]
            assert len(points) == len(seen) and (away.max(axis=2).min(axis=0) < 1).all(), (
                "every point within its location cell"
            )
            assert len(set(points.object_id.tolist())) == len(query.targets) or query.style == "pointing"
            score = nano.clip_scores.score_answer(clip, query, points)
            assert score.get("hota", score.get("f1")) > 0.95
            checked.add((query.style, query.kind))
    assert len(checked) == 8


def extended_ids(
    turn: Any, metadata: PointingMetadata, start: int, processor: MolmoPointProcessor
) -> torch.Tensor:
    """An answer with the ids that `generate` returns for its selections."""
    patch, slot, location = processor.tokenizer.convert_tokens_to_ids(
        ["<|token_index|>", "<|vit_index|>", "<|vit_loc|>"]
    )
    patches, slots = metadata.pooling.shape
    first = {patch: start, slot: start + patches + 1, location: start + patches + 1 + slots}
    chosen = np.where(turn.selections == -2, patches, turn.selections)
    ids = [first[i] + s if i in first else i for i, s in zip(turn.ids.tolist(), chosen.tolist(), strict=True)]
    return torch.tensor(ids)


def test_cut_clips_and_doubled_ends_keep_their_answers_and_neighbours(nano, processor, clips):
    examples = nano.clip_examples.ClipExamples(processor.tokenizer, nano.settings.Settings())
    lengths = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        batch = examples.batch([cached(nano, clip) for clip in clips[:4]], rng, nano.clip_examples.LOOKS)
        lengths |= set(batch.frames)
        tokens = [frames * 16 for frames in batch.frames]
        assert len(batch.pooling) == len(batch.there) == len(batch.velocity) == len(batch.ends) == sum(tokens)
        assert len(batch.named) == sum(batch.queries)
        assert int((batch.inputs["selection_ids"] == -2).sum()) <= int(
            (batch.inputs["selection_ids"] != -1).sum()
        )
        for part, own in zip(batch.ends.split(tokens), tokens, strict=True):
            assert int(part.max()) < own
    assert len(lengths) > 2 and 9 in lengths


def test_ends_are_as_far_as_an_object_can_be_followed(nano):
    beside = torch.tensor([[-1, 1], [0, 2], [1, 3], [2, -1], [-1, -1]])
    assert nano.clip_examples.ends_of_ways(beside).tolist() == [[-1, 3], [0, 3], [0, 3], [0, -1], [-1, -1]]


def test_backwards_words_and_ways_turn_round(nano, clips):
    cache = nano.clip_cache
    for clip in clips:
        size = (clip.frames.shape[2], clip.frames.shape[1])
        turned = tuple(map(cache.backwards, clip.objects))
        assert [cache.backwards(item).motion for item in turned] == [item.motion for item in clip.objects]
        velocity, beside = cache.ways_of_tokens(clip.objects, size)
        other, beside_turned = cache.ways_of_tokens(turned, size)
        np.testing.assert_allclose(other, -velocity[::-1], rtol=1e-6)
        assert ((beside_turned[::-1] >= 0) == (beside[..., ::-1] >= 0)).all()
        words = cache.words_of_tokens(clip.objects, size)
        assert words.any(axis=(1, 2)).sum() >= 3


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("red circles", {"red", "circle"}),
        ("moving shapes", {"moving"}),
        ("crosses that move left", {"cross", "left"}),
        ("object that moves", {"moving"}),
        ("still hearts", {"still", "heart"}),
        ("things that enter", {"enters"}),
        ("star that leaves", {"star", "leaves"}),
    ],
)
def test_words_of_a_label(nano, label, words):
    said = nano.clip_cache.words_of_label(label)
    assert {word for word, there in zip(nano.clip_cache.WORDS, said, strict=True) if there} == words
