"""`calibrated=True`: chances of the models that ship a map, and an error of all others."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from toy_processor import picture
from typer.testing import CliRunner

import molmopoint
from molmopoint.cli import app
from molmopoint.cli.console import OK, USAGE
from molmopoint.data import sample_scene
from molmopoint.errors import CheckpointError, GroundingError, ProcessingError
from molmopoint.metrics import Calibration, reliability_curve, right_points


@pytest.fixture(scope="module")
def nano():
    return molmopoint.load("nano")


@pytest.fixture(scope="module")
def shapes():
    return sample_scene(np.random.default_rng(7)).image


def test_scores_become_chances_in_the_same_order(nano, shapes):
    plain = nano.point(shapes, "every shape")
    result = nano.point(shapes, "every shape", calibrated=True)
    assert len(plain.points) > 1 and not plain.calibrated and result.calibrated
    assert np.array_equal(result.points.xy, plain.points.xy)
    chances = Calibration.load(molmopoint.checkpoints.resolve("nano"))(plain.points.score)
    assert result.points.score == pytest.approx(chances)
    assert result.to_dict()["calibrated"] and not plain.to_dict()["calibrated"]
    assert np.array_equal(result.heatmap(0), plain.heatmap(0))
    with pytest.raises(GroundingError, match="apply one once"):
        result.with_chances(Calibration(scores=(0, 1), chances=(0, 1)))


def test_min_score_is_on_the_scale_of_the_scores(nano, shapes):
    plain, result = nano.point(shapes, "every shape"), nano.point(shapes, "every shape", calibrated=True)
    limit = float(np.median(result.points.score))
    assert limit > np.median(plain.points.score), "nano says too little"
    kept = nano.point(shapes, "every shape", calibrated=True, min_score=limit)
    assert len(kept.points) == (result.points.score >= limit).sum() and kept.points.score.min() >= limit
    assert kept.left_out == len(result.points) - len(kept.points)
    assert nano.count(shapes, "shapes", calibrated=True, min_score=1.0) <= nano.count(shapes, "shapes")


def test_batches_lists_and_streams_agree(nano, shapes):
    alone = nano.point(shapes, "every shape", calibrated=True).points.score
    (listed,) = nano.point(shapes, ["every shape"], calibrated=True)
    (batched,) = nano.point_batch([shapes], "every shape", calibrated=True)
    with nano.stream(shapes, "every shape", calibrated=True) as events:
        list(events)
    for result in (listed, batched, events.result):
        assert result.calibrated and result.points.score == pytest.approx(alone, abs=1e-4)


def test_a_single_click_has_a_chance_too(nano, shapes):
    click = nano.point(shapes, "every shape", single=True, calibrated=True)
    assert len(click.points) == 1 and 0 <= click.absent <= 1 and click.points.score[0] > 0.5
    abstained = nano.point(shapes, "the purple star", single=True, calibrated=True, min_score=1.0)
    assert len(abstained.points) + abstained.left_out == 1


def test_nano_is_right_as_often_as_it_says(nano):
    scores, hits = [], []
    for i in range(12):
        scene = sample_scene(np.random.default_rng([20_265, i]))  # seen by neither training nor fit
        prompts = [query.prompt for query in scene.queries]
        for query, result in zip(
            scene.queries, nano.point(scene.image, prompts, calibrated=True), strict=True
        ):
            scores.append(result.points.score)
            hits.append(right_points(result.points.xy, [target.mask for target in query.targets]))
    curve = reliability_curve(np.concatenate(scores), np.concatenate(hits), bins=3)
    assert curve.count.sum() > 50 and curve.error < 0.1  # 0.29 without


def test_models_without_a_map_say_so(toy_folder, tmp_path):
    pointer = molmopoint.load(toy_folder)
    image = picture(60, 90, seed=0)
    for call in (
        lambda: pointer.point(image, "cats", calibrated=True),
        lambda: pointer.point(image, ["cats"], calibrated=True),
        lambda: pointer.count(image, "cats", calibrated=True),
        lambda: list(pointer.point_batch([image], "cats", calibrated=True)),
        lambda: pointer.stream(image, "cats", calibrated=True),
    ):
        with pytest.raises(ProcessingError, match=r"no calibration\.json; fit one"):
            call()
    with pytest.raises(ProcessingError, match="True or False"):
        pointer.point(image, "cats", calibrated=1)
    with pytest.raises(TypeError, match="plain question"):
        pointer.ask(image, "Why?", calibrated=True)


def test_clips_have_no_chances(nano):
    frames = [picture(60, 90, seed=i) for i in range(3)]
    for call in (nano.point_video, nano.track):
        with pytest.raises(ProcessingError, match="calibrated=False for a clip"):
            call(frames, "the circles", timestamps=[0.0, 0.5, 1.0], calibrated=True)


def test_a_map_of_ones_own_is_found_beside_the_weights_and_belongs_to_them(toy_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(toy_folder, folder)
    Calibration(scores=(0.0, 1.0), chances=(0.25, 0.25)).save(folder)
    pointer = molmopoint.load(folder)
    result = pointer.point(picture(60, 90, seed=0), "cats", calibrated=True, single=True, max_new_tokens=24)
    assert result.points.score.tolist() == [0.25] * len(result.points)

    # What is saved again may be trained by now: a map is never taken along.
    saved = tmp_path / "saved"
    pointer.model.save_pretrained(saved)
    pointer.processor.save_pretrained(saved)
    assert not (saved / "calibration.json").exists()
    with pytest.raises(ProcessingError, match=r"no calibration\.json"):
        molmopoint.load(saved).point(picture(60, 90, seed=0), "cats", calibrated=True)

    # A damaged one keeps nobody from pointing without it.
    (folder / "calibration.json").write_text('{"scores": [1, 0]}', encoding="utf-8")
    damaged = molmopoint.load(folder)
    damaged.point(picture(60, 90, seed=0), "cats", max_new_tokens=24)
    with pytest.raises(CheckpointError, match="remove the file"):
        damaged.point(picture(60, 90, seed=0), "cats", calibrated=True)


def test_both_models_ship_one():
    for name in ("nano", "nano-screens"):
        calibration = Calibration.load(molmopoint.checkpoints.resolve(name))
        assert calibration.points > 2000 and calibration.about


def test_command_line(toy_folder, tmp_path):
    path = tmp_path / "a.png"
    picture(60, 90, seed=0).save(path)
    done = CliRunner().invoke(app, ["point", str(path), "the red circles", "--calibrated", "--json"])
    assert done.exit_code == OK and '"calibrated": true' in done.stdout
    refused = CliRunner().invoke(
        app, ["point", str(path), "cats", "--calibrated", "--model", str(toy_folder)]
    )
    assert refused.exit_code == USAGE and "no calibration.json" in refused.stderr
