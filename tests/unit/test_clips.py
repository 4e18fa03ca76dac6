"""Synthetic clips: the promises of the distribution, and the same bytes for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.backends.options import complete_prompt
from molmopoint.data.clip_questions import CLIP_KINDS, MAX_TARGETS
from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.synthetic import HELD_OUT_PAIRS, SyntheticClip, sample_clip
from molmopoint.errors import ProcessingError

NUM_CLIPS = 150


@pytest.fixture(scope="module")
def clips() -> list[SyntheticClip]:
    return [sample_clip(np.random.default_rng([8, i])) for i in range(NUM_CLIPS)]


def test_same_seed_same_clip_everywhere() -> None:
    clip = sample_clip(np.random.default_rng([4711, 5]))
    assert hashlib.sha256(clip.frames.tobytes()).hexdigest()[:16] == "2859a01aff23a63d"
    assert [query.request() for query in clip.queries] == [
        "Point to the yellow circles", "Point to the circles", "Track the moving circles", "Point to red stars",
    ]  # fmt: skip


def test_clips_keep_their_promises(clips: list[SyntheticClip]) -> None:
    for clip in clips:
        assert clip.frames.dtype == np.uint8 and clip.frames.shape[0] == 8 and clip.frames.shape[3] == 3
        assert clip.timestamps.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]
        assert 2 <= len(clip.objects) <= 6
        assert np.sum([item.masks for item in clip.objects], axis=0).max() == 1, "a pixel shows one object"
        assert len({(query.prompt, query.style) for query in clip.queries}) == len(clip.queries) == 4
        for item in clip.objects:
            assert item.masks.shape == clip.frames.shape[:3] and item.visible.sum() >= 3
            for frame in np.flatnonzero(item.visible):
                assert item.masks[frame, int(item.xy[frame, 1]), int(item.xy[frame, 0])]


def test_an_object_is_covered_at_most_once(clips: list[SyntheticClip]) -> None:
    covered = 0
    for clip in clips:
        far = np.array([clip.frames.shape[2], clip.frames.shape[1]]) - 2
        for item in clip.objects:
            inside = ((np.floor(item.xy) >= 2) & (np.floor(item.xy) < far)).all(axis=1)
            hidden = (inside & ~item.visible).astype(int)
            assert (np.diff(hidden, prepend=0) == 1).sum() <= 1
            covered += int(hidden.any())
    assert covered > 20


def test_objects_do_what_is_said_of_them(clips: list[SyntheticClip]) -> None:
    axis_and_sign = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
    for item in (item for clip in clips for item in clip.objects):
        steps = np.diff(item.xy, axis=0)
        if item.motion == "still":
            assert not steps.any() and not item.enters and not item.leaves
            continue
        axis, sign = axis_and_sign[item.motion]
        assert (np.sign(steps[:, axis]) == sign).all()
        assert abs(item.xy[-1] - item.xy[0])[axis] > 2 * abs(item.xy[-1] - item.xy[0])[1 - axis]
        assert item.masks[0].any() != item.enters or not item.visible[0]
        assert not (item.enters and item.masks[0].any()) and not (item.leaves and item.masks[-1].any())


def test_questions_are_mixed_as_documented(clips: list[SyntheticClip]) -> None:
    queries = [query for clip in clips for query in clip.queries]
    shares = Counter(query.kind for query in queries)
    for kind, share in CLIP_KINDS.items():
        assert abs(shares[kind] / len(queries) - share) < 0.07, kind
    assert abs(np.mean([not query.targets for query in queries]) - 0.15) < 0.05
    assert abs(np.mean([query.style == "track" for query in queries]) - 0.5) < 0.07
    assert max(len(query.targets) for query in queries) == MAX_TARGETS
    assert 0.005 < np.mean([query.held_out for query in queries]) < 0.1


def test_answers_are_what_the_words_say(clips: list[SyntheticClip]) -> None:
    singular = {plural: shape for shape in SHAPES for plural in (shape, f"{shape}s", f"{shape}es")}
    verbs = {
        "enter": "enters",
        "enters": "enters",
        "leave": "leaves",
        "leaves": "leaves",
        "moving": "moving",
        "still": "still",
    }
    verbs |= {word: word for word in ("left", "right", "up", "down")} | {"move": "moving", "moves": "moving"}
    seen = Counter()
    for clip in clips:
        for query in clip.queries:
            words = query.prompt.split()
            colours = [word for word in words if word in COLOURS]
            shapes = [singular[word] for word in words if word in singular]
            motions = [verbs[word] for word in words if word in verbs]
            expected = [
                item
                for item in clip.objects
                if item.colour in (colours or [item.colour])
                and item.shape in (shapes or [item.shape])
                and all(map(item.does, motions))
            ]
            assert set(query.targets) == set(expected), query.prompt
            seen[query.kind] += 1
    assert min(seen.values()) > 80


def test_points_of_a_track_are_all_visible_moments_and_points_the_first_of_each(
    clips: list[SyntheticClip],
) -> None:
    for query in (query for clip in clips for query in clip.queries):
        seen = query.points()
        assert (np.diff(seen.frame) >= 0).all()
        for number, target in enumerate(query.targets):
            frames = np.flatnonzero(target.visible)
            own = seen.target == number
            assert seen.frame[own].tolist() == (frames if query.style == "track" else frames[:1]).tolist()
            assert (seen.xy[own] == target.xy[seen.frame[own]]).all()
        assert len(seen) == 0 or query.targets


def test_requests_are_those_of_the_pointer(clips: list[SyntheticClip]) -> None:
    query = next(query for query in clips[0].queries if query.style == "track")
    assert query.request(2) == f"Track {query.prompt} at 2 FPS" and query.request() == f"Track {query.prompt}"
    for query in (query for clip in clips for query in clip.queries if query.style == "pointing"):
        assert query.request() == complete_prompt(query.prompt)


def test_training_clips_hide_the_held_out_pairs() -> None:
    phrases = [f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS]
    for i in range(60):
        clip = sample_clip(np.random.default_rng([9, i]), held_out=False, num_queries=8)
        assert len(clip.queries) == 8
        assert not {(item.colour, item.shape) for item in clip.objects} & HELD_OUT_PAIRS
        assert not any(
            phrase in query.prompt or query.held_out for query in clip.queries for phrase in phrases
        )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    num_frames=st.integers(2, 24),
    fps=st.sampled_from([0.5, 1.0, 2.0, 6.0, 29.97]),
)
def test_any_number_of_frames_at_any_rate(seed: int, num_frames: int, fps: float) -> None:
    clip = sample_clip(np.random.default_rng(seed), num_frames, fps, num_queries=3)
    assert clip.frames.shape[0] == num_frames and np.allclose(np.diff(clip.timestamps), 1 / fps)
    for item in clip.objects:
        assert item.xy.shape == (num_frames, 2) and item.visible.sum() >= min(3, num_frames)
        for frame in np.flatnonzero(item.visible):
            assert item.masks[frame, int(item.xy[frame, 1]), int(item.xy[frame, 0])]


@pytest.mark.parametrize(
    "arguments", [{"num_frames": 1}, {"num_frames": 0}, {"fps": 0.0}, {"fps": float("nan")}]
)
def test_clips_in_which_nothing_can_move_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ProcessingError, match="two or more frames"):
        sample_clip(np.random.default_rng(0), **arguments)
