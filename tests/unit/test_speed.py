"""The speed program: its statistics, its turns, and whole runs on toy sizes."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from molmopoint.eval.speed import memory, phases, reward, subjects, video
from molmopoint.eval.speed.__main__ import app, main
from molmopoint.eval.speed.costs import REST, PartClock, watched
from molmopoint.eval.speed.forced_answers import BareText, answer, points_turn, text_turn
from molmopoint.eval.speed.phases import Measurement, checks, measure
from molmopoint.eval.speed.timing import Setting, Summary, interleave, paired_ratio

PLAN = phases.Plan(batches=(1, 2), steps=8, sizes=((64, 48),), prompt_size=(96, 64), repeats=1)


@pytest.fixture(scope="module")
def toy():
    return subjects.build("toy", Setting())


def test_summary():
    assert Summary.of([3.0]) == Summary(3.0, 3.0, 3.0, 1)
    assert Summary.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Summary(3.0, 2.0, 4.0, 5)
    assert Summary.of([1.0, 2.0]).to_dict(10)["median"] == 15.0
    with pytest.raises(ValueError, match="at least one"):
        Summary.of([])


def test_ratios_are_paired():
    # A busy moment disturbs both sides of a turn: the ratio of medians would be 2.5 here.
    assert paired_ratio([2.0, 20.0, 200.0], [1.0, 10.0, 100.0]).median == 2.0
    with pytest.raises(ValueError, match="as many turns"):
        paired_ratio([1.0], [1.0, 2.0])


def test_turns_alternate_and_warm_up_does_not_count():
    seen = []

    def run(name):
        seen.append(name)
        return {"x": float(len(seen))}

    values = interleave({"a": lambda: run("a"), "b": lambda: run("b")}, repeats=2, warm_up=1)
    assert "".join(seen) == "ba" + "ab" + "ba"
    assert values == {"a": {"x": [3.0, 6.0]}, "b": {"x": [4.0, 5.0]}}


def test_settings():
    assert Setting().changed("dtype=bfloat16, threads=2") == Setting(dtype="bfloat16", threads=2)
    for text, message in (
        ("dtype=int8", "dtype"),
        ("speed=9", "such as"),
        ("threads=two", "number"),
        ("dtype", "such as"),
        ("threads=0", "1 thread"),
    ):
        with pytest.raises(ValueError, match=message):
            Setting().changed(text)
    with pytest.raises(ValueError, match="clock=wall"):
        Setting(device="cuda", clock="processor")
    assert Setting(cache="static").generate_arguments()["cache_implementation"] == "static"
    assert subjects.default_setting("8b", 1).dtype == "bfloat16"


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="nano"):
        subjects.build("9b", Setting())


def test_the_small_model_has_a_tenth_of_a_billion_parameters():
    with torch.device("meta"):
        model = subjects.MolmoPointForConditionalGeneration._from_config(subjects.small_config())
    assert 0.09e9 < sum(p.numel() for p in model.parameters()) < 0.12e9
    assert subjects.large_config().text_config.hidden_size == 4096


def test_prompts_fit_the_model(toy):
    inputs = subjects.picture_prompt(toy, 2, 640, 480)
    config = toy.model.config
    image_tokens = (inputs["input_ids"] == config.image_patch_id) | (
        inputs["input_ids"] == config.image_non_indexable_patch_id
    )
    assert image_tokens.sum() == len(inputs["image_token_pooling"])
    assert inputs["image_token_pooling"].shape[1] == 4
    clip = subjects.clip_prompt(toy, 2)
    assert clip["video_token_pooling"].shape == (2 * 81, 9)
    with pytest.raises(ValueError, match="divides"):
        subjects.clip_prompt(toy, 1, window=4)


def test_answers_are_forced(toy):
    inputs = phases.seen_prompt(toy, PLAN, 2)
    with torch.inference_mode():
        before = toy.model(**inputs, logits_to_keep=1).logits
    clock = answer(toy, Setting(), inputs, 8, pointing=True)
    assert len(clock.steps) == 8
    assert clock.first > 0
    config = toy.model.config
    start, tokens = config.extended_start, [int(t) for t in clock.tokens[0]]
    first_slot = start + len(inputs["visual_features"].pooling) // 2 + 1
    kinds = [
        "word" if t < start else "patch" if t < first_slot else "slot" if t < first_slot + 4 else "location"
        for t in tokens
    ]
    assert kinds == ["patch", "slot", "location", "word"] * 2 + ["patch"]
    text = answer(toy, Setting(), inputs, 3, pointing=False)
    assert set(text.tokens[1].tolist()) == {subjects.WORD}
    with torch.inference_mode():
        assert torch.equal(toy.model(**inputs, logits_to_keep=1).logits, before)  # nothing is left behind


def test_measures_of_a_turn(toy):
    inputs = phases.seen_prompt(toy, PLAN, 1)
    assert set(text_turn(toy, Setting(clock="processor"), inputs, 8)) == {"prefill", "text step"}
    bare = BareText(toy, Setting(), 1, 20)
    for _ in range(2):
        assert set(points_turn(toy, Setting(), inputs, 8, bare)) == {
            "pointing step",
            "point",
            "bare text step",
        }
        assert len(bare.seconds) == 9
        assert bare.cache.get_seq_length() == 29  # every turn starts where the first one did


def test_two_settings_take_turns(toy):
    other = subjects.build("toy", Setting(dtype="bfloat16"))
    rows, found = measure([(toy, Setting()), (other, Setting(dtype="bfloat16"))], PLAN)
    entries = [row.to_dict() for row in rows]
    assert {entry["phase"] for entry in entries} == {"preprocessing", "vision", "prefill", "decode"}
    assert all(entry["ratio"]["median"] > 0 for entry in entries)
    assert found == []


def test_limits():
    rows = [
        Measurement("decode", "pointing step", "ms", 1, ([1.2, 1.2],)),
        Measurement("decode", "pointing step", "ms", 8, ([3.0, 3.0],)),
    ]
    rows.append(Measurement("decode", "bare text step", "ms", 1, ([1.0, 1.0],)))
    of_batch, of_heads = checks("0.1b", rows)
    assert of_batch.holds
    assert of_batch.ratio.median == 2.5
    assert not of_heads.holds
    assert checks("nano", rows)[1].holds


def test_parts_do_not_count_twice(toy):
    clock = PartClock(Setting())
    head = toy.model.lm_head
    with watched(toy.model, clock):
        clock.start(REST)
        head(torch.zeros(1, head.in_features))
        clock.stop()
    assert set(clock.seconds) == {REST, "vocabulary head"}
    assert not head._forward_hooks


@pytest.mark.parametrize(
    "measured", [memory.run_case, pytest.param(memory.measure_in_child, marks=pytest.mark.slow)]
)
def test_memory_of_a_clip(measured):
    case = {"model": "toy", "setting": Setting(dtype="bfloat16").to_dict(), "frames": 2}
    found = measured(case)
    assert found["vit_features_held_once"] and found["prefill_s"] > 0
    assert found["vit_features_in_compute_dtype"]
    assert found["state_mb"]["vit_features"] == pytest.approx(2 * 729 * 64 * 2 / 1e6)
    with pytest.raises(ValueError, match="expected a model"):
        memory.run_case(case | {"model": "9b"})


def run(*arguments):
    return CliRunner().invoke(
        app, [*arguments, "--repeats", "1", "--steps", "8", "--batch", "1", "--frames", "0", "--no-memory"]
    )


def test_the_program_on_the_embedded_model():
    done = run("nano", "--json", "--vs", "dtype=bfloat16")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    (model,) = document["models"]
    assert [setting["dtype"] for setting in model["settings"]] == ["float32", "bfloat16"]
    assert {"torch", "transformers", "processor", "python"} <= set(document["machine"])
    assert [cost["phase"] for cost in model["costs"]] == ["preprocessing", "vision", "prefill", "decode"]
    assert all(len(cost["parts"]) == 3 for cost in model["costs"])
    assert any(check["name"].startswith("pointing step /") for check in model["checks"])


def test_the_table():
    done = run("toy")
    assert done.exit_code == 0, done.output
    assert "preprocessing" in done.stdout
    assert "median" in done.stdout


def test_wrong_usage_is_named():
    for arguments in (("9b",), ("toy", "--vs", "speed=1"), ("toy", "--set", "dtype=int8")):
        done = run(*arguments)
        assert done.exit_code == 2
        assert "expected" in done.output


def test_reading_a_clip(capsys):
    pytest.importorskip("av")
    document = video.measure(video.Film(seconds=2, size=(64, 48)), ("toy",), Setting(), repeats=1)
    assert {(row["what"], row["kind"]) for row in document["rows"]} >= {
        ("PyAV", "ours"),
        ("PyAV", "plain"),
        ("toy", "vision"),
    }
    assert all(row["ms_per_frame"]["median"] > 0 for row in document["rows"])
    assert document["checks"][0]["limit"] == 1.3
    with pytest.raises(SystemExit) as caught:
        main(["video", "none", "--seconds", "1"])
    assert caught.value.code == 2 and "expected a model of nano" in capsys.readouterr().err


@pytest.mark.parametrize(
    "case", [reward.Case("picture", (200, 150), 0, 7), reward.Case("text", None, 30, 12)]
)
def test_answers_judged_apart_have_the_same_scores_in_every_way(toy, case):
    model = reward.RewardModel(toy.model, reward.RewardSettings(), reward.SEPARATOR).eval()
    scorer = reward.ways_of(toy, model, case, 3)
    with torch.inference_mode():
        expected = scorer.separate()
        for way in (scorer.batched, scorer.cached, scorer.apart):
            torch.testing.assert_close(way(), expected, atol=1e-6, rtol=1e-4)
        joint = scorer.joint()
    torch.testing.assert_close(joint[0], expected[0], atol=1e-6, rtol=1e-4)
    assert not torch.allclose(joint[1:], expected[1:], atol=1e-6)


def test_the_promise_of_counting_tokens_is_that_of_the_fact_sheet():
    found = [
        round(reward.promised(prompt, answer, count), 2)
        for prompt, answer in ((4096, 50), (512, 512))
        for count in (2, 4, 8)
    ]
    assert found == [1.98, 3.86, 7.38, 1.33, 1.6, 1.78]


def test_the_program_that_judges(toy):
    cases = [reward.Case(reward.CHECKED[0], None, 20, 4), reward.Case("text", None, 12, 9)]
    document = json.loads(json.dumps(reward.examine(toy, Setting(), 1, (2, 4), cases)))
    assert [(row["case"], row["answers"]) for row in document["rows"]] == [
        (case.name, count) for case in cases for count in (2, 4)
    ]
    assert all(set(row["gain"]) == set(reward.BASELINES) for row in document["rows"])
    assert len(document["checks"]) == 1
    reward.print_tables(document)
    assert CliRunner().invoke(reward.app, ["toy", "--counts", "two"]).exit_code == 2
