"""Which pictures are held out, and how answers about them are scored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from own_pictures import rows_of, write_rows
from scipy.stats import sem
from toy_pointer import toy_pointer

from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.data.records import Record
from molmopoint.metrics import MatchScores, match_nearby
from molmopoint.points import Points
from molmopoint.training.prepare import ExamplePreparer, rules_of
from molmopoint.training.recipe import Data, Scoring
from molmopoint.training.sampling import Draw
from molmopoint.training.scoring import SCORES, HeldOutScore, match_record, prompt_of, summarise
from molmopoint.training.sources import GroupSource, SceneSource, load_rows, split_records
from molmopoint.training.trees import group_records, read_media


def records(*pictures: tuple[str, ...]) -> list[Record]:
    return [
        Record(row, images=images, label="cups", no_points=True)
        for row, images in enumerate(pictures, start=1)
    ]


def test_pictures_are_held_out_whole_and_whatever_the_order():
    rows = records(*[(f"{i % 20}.png",) for i in range(60)])
    train, held = split_records(rows, 0.2)
    assert len({record.media for record in held}) == 4 and len(held) == 12
    assert not {record.media for record in train} & {record.media for record in held}
    again = split_records(rows[::-1], 0.2)[1]
    assert {record.row for record in again} == {record.row for record in held}
    assert {record.row for record in split_records(rows, 0.2, seed=1)[1]} != {record.row for record in held}
    assert len({record.media for record in split_records(rows, 7)[1]}) == 7


def test_pictures_that_occur_together_stay_together():
    rows = records(("a", "b"), ("b", "c"), ("d",), ("c",), ("e",))
    for seed in range(8):
        train, held = split_records(rows, 1, seed)
        assert {record.row for record in held} in ({1, 2, 4}, {3}, {5}) and len(train) + len(held) == 5


def test_there_is_always_something_to_train_on():
    assert split_records(records(("a",), ("a",)), 0.5) == (records(("a",), ("a",)), [])
    assert len(split_records(records(("a",), ("b",)), 5)[0]) == 1
    assert split_records(records(("a",), ("b",)), 0)[1] == []
    text = [Record(1, prompt="Why?", answer="So.")]
    assert split_records(text * 3, 0.5)[1] == []


def test_points_match_nearby_targets_one_to_one():
    assert match_nearby([[0, 0], [1, 0]], [[0, 1]], 2.0) == MatchScores(1, 2, 1)
    # A greedy choice would give the first point the second's only target.
    assert match_nearby([[0, 0], [-3, 0]], [[-2, 0], [2, 0]], 2.0).matched == 2
    assert match_nearby([[5, 5]], [[5, 5]], 1.0, group=[1], target_group=[0]).matched == 0
    assert match_nearby([[np.nan, 0]], [[0, 0]], [9.0]).matched == 0
    assert match_nearby([], [], 1.0).f1 == 1.0
    with pytest.raises(ValueError, match=r"points of shape \(n, 2\), got \(3,\)"):
        match_nearby([1, 2, 3], [], 1.0)


def test_scores_are_means_over_expressions():
    scores = summarise(
        [MatchScores(1, 2, 1), MatchScores(1, 1, 2), MatchScores(0, 0, 0), MatchScores(0, 1, 0)]
    )
    assert tuple(scores) == SCORES
    assert (scores["over_count"], scores["under_count"], scores["count_accuracy"]) == (0.5, 0.25, 0.25)
    assert scores["point_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 0) / 4)
    assert scores["point_f1_error"] == pytest.approx(sem([2 / 3, 2 / 3, 1, 0]))
    assert summarise([]) == {}


def test_questions_are_what_a_user_types():
    assert prompt_of(Record(1, images=("a",), label="cups", no_points=True)) == "Point to cups"
    assert (
        prompt_of(Record(1, images=("a",), label="cups", no_points=True, style="point_count"))
        == "How many cups are there?"
    )
    assert prompt_of(Record(1, images=("a",), prompt="Where?", label="cups", no_points=True)) == "Where?"
    assert prompt_of(Record(1, images=("a",), prompts=("Where?", "Which?"), no_points=True)) == "Where?"
    assert prompt_of(Record(1, video="a", label="cups", no_points=True, style="track")) == "Track cups"


def test_a_batch_scores_as_single_questions_do_and_the_mode_is_kept(tmp_path):
    pointer = toy_pointer()
    rows, folder = load_rows(write_rows(tmp_path / "data.jsonl", rows_of(tmp_path, 6)))
    backend = MolmoPointBackend(pointer.processor)
    source = GroupSource("held_out", group_records(rows), folder)
    asked = {}
    for size in (1, 3):
        score = HeldOutScore(
            {"": source, "replay_": SceneSource()},
            backend,
            Scoring(examples=4, batch_size=size, max_new_tokens=24),
        )
        pointer.model.train()
        state = torch.get_rng_state()
        asked[size] = score(pointer.model)
        assert pointer.model.training and torch.equal(torch.get_rng_state(), state)
    assert asked[1] == asked[3] and set(asked[1]) == {*SCORES, *(f"replay_{name}" for name in SCORES)}


def test_points_of_a_row_are_right_within_a_part_of_the_longer_side(tmp_path):
    rows, folder = load_rows(write_rows(tmp_path / "data.jsonl", rows_of(tmp_path, 6)))
    record = next(record for record in rows if record.points)
    source = GroupSource("held_out", [(record,)], folder)
    metadata: Any = read_media(MolmoPointBackend(toy_pointer().processor), source.example(0)).metadata
    targets: Any = record.points
    longer, target = max(metadata.image_sizes[0]), targets[0]
    for away, f1 in ((0.0, 1.0), (0.049, 1.0), (0.051, 0.0)):
        place: Any = [np.array([value]) for value in (1, 0, target.x + away * longer, target.y, 1.0)]
        assert match_record(Points(*place), record, metadata, 0.05).f1 == pytest.approx(
            f1 * 2 / (1 + len(targets))
        )


def test_examples_depend_on_the_draw_alone(tmp_path):
    pointer = toy_pointer()
    rows, folder = load_rows(write_rows(tmp_path / "data.jsonl", rows_of(tmp_path, 4)))
    source = GroupSource("data", group_records(rows), folder)
    prepare = ExamplePreparer(
        [source, SceneSource()], MolmoPointBackend(pointer.processor), rules_of(Data()), 1000
    )
    for draw in (Draw(7, 0, 1, 0), Draw(8, 1, 3, 2)):
        first, second = prepare(draw), prepare(draw)
        assert torch.equal(first.input_ids, second.input_ids) and torch.equal(
            first.selection_ids, second.selection_ids
        )
    assert not torch.equal(prepare(Draw(8, 1, 3, 2)).input_ids, prepare(Draw(8, 1, 3, 3)).input_ids), (
        "scenes of another pass are others"
    )
