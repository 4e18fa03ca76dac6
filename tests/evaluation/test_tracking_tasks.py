"""The tracking benchmarks: their layouts with their faults, and their rules."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, ParsedAnswer, score_items
from molmopoint.eval.benchmarks import referring_video
from molmopoint.eval.benchmarks.molmo2_track import OTHER_FIELD, Molmo2Track
from molmopoint.eval.benchmarks.referring_video import Mevis, ReasonVos, RefDavis17, RefYtVos
from molmopoint.eval.datasets.rows import read_rows, write_parquet
from molmopoint.eval.datasets.track_masks import PictureTracks, by_frame, length_of
from molmopoint.eval.datasets.videos import MAX_RATE, read_frames
from molmopoint.eval.predictions.readers import read_stored
from molmopoint.eval.predictions.records import Prediction
from molmopoint.eval.protocols import tracking
from molmopoint.eval.reports.summary import summarise
from molmopoint.eval.runner.data import BenchmarkData, open_data
from molmopoint.metrics.run_lengths import encode_mask
from molmopoint.video import sample_times

BENCHMARKS = (Mevis(), Molmo2Track(), ReasonVos(), RefDavis17(), RefYtVos())
NAMES = [each.name for each in BENCHMARKS]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, BenchmarkData]:
    """Made items of every benchmark; nobody changes them."""
    return {each.name: open_data(each, "fixture", tmp_path_factory.mktemp(each.name)) for each in BENCHMARKS}


def true_answer(item: Item, per_second: int = 1) -> ParsedAnswer:
    """Every object at its place, with ids from 1 on in the order they are stored; held still between the
    moments asked for.
    """
    rows = []
    for number, frame in item.truth.frames.items():
        numbers = {each: i for i, each in enumerate(frame.masks, 1)}
        for part in range(per_second):
            rows += [
                (numbers[each], number / item.truth.fps + part / per_second, *xy)
                for each, xy in zip(frame.ids, frame.xy, strict=True)
            ]
    table = np.array(rows, dtype=float).reshape(-1, 4)
    return ParsedAnswer(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64), image_sizes=item.image_sizes)


def broken_frames(item: Item) -> int:
    return sum(
        number < 0
        for frame in item.truth.frames.values()
        for each, number in frame.masks.items()
        if each in frame.ids
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=NAMES)
def test_the_true_places_are_right(benchmark, data):
    for item in data[benchmark.name].items.found:
        assert item.prompt.startswith("Track ") and item.prompt.endswith(" in 1 FPS.")
        exact, twice = true_answer(item), true_answer(item, per_second=2)
        scores, strict = benchmark.score(item, exact, "grid"), benchmark.score(item, exact, "strict")
        assert scores == strict and (scores["f1"] == scores["hota"] == 1) == (not broken_frames(item)), (
            item.item_id
        )
        assert benchmark.score(item, twice, "grid") == scores
        if len(twice):
            moments, between = (
                len(item.truth.frames),
                sum(bool(frame.ids) for frame in item.truth.frames.values()),
            )
            assert benchmark.score(item, twice, "strict")["f1"] == pytest.approx(
                scores["f1"] * moments / (moments + between)
            )
            assert benchmark.score(item, twice, "grid", ref_compat=True)["f1"] < scores["f1"], (
                "the reference is strict"
            )


def moved(item: Item, *, x: float = 0.0, size: float = 1.0) -> ParsedAnswer:
    given = true_answer(item)
    return ParsedAnswer(
        given.xy * size + [x, 0],
        given.group,
        given.object_id,
        image_sizes=((round(96 * size), round(64 * size)),),
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=NAMES)
def test_other_answers(benchmark, data):
    item = data[benchmark.name].items.found[0]
    right = benchmark.score(item, true_answer(item), "grid")
    assert benchmark.score(item, moved(item, size=2), "grid") == right, "pixels of another size are rescaled"
    empty = float(np.mean([not frame.ids for frame in item.truth.frames.values()]))
    assert benchmark.score(item, moved(item, x=48), "grid")["f1"] == pytest.approx(empty)
    nothing = ParsedAnswer(np.empty((0, 2)), np.empty(0), np.empty(0, dtype=np.int64))
    assert benchmark.score(item, nothing, "grid")["f1"] == pytest.approx(empty), (
        "right where there is nothing"
    )
    given = true_answer(item)
    unnamed = ParsedAnswer(given.xy, given.group, np.full(len(given), -1))
    assert benchmark.score(item, unnamed, "grid")["without_ids"] == 1


def reasons(found: BenchmarkData) -> list[str]:
    return sorted(each.reason for each in found.items.missing)


def test_mevis(data):
    found = data["mevis"]
    assert [each.item_id.split("/")[:2] for each in found.items.found] == [
        ["c0", "0"],
        ["c0", "1"],
        ["c0", "2"],
        ["c0", "3"],
        ["c1", "0"],
    ]
    assert not reasons(found)
    assert (
        found.items.warnings[referring_video.UNLISTED] == 1 and found.items.warnings[tracking.UNREADABLE] == 1
    )
    nothing = found.items.found[3]
    assert [frame.ids for frame in nothing.truth.frames.values()] == [(), (), ()] and nothing.categories[
        "objects"
    ] == "0"
    assert Mevis().score(nothing, true_answer(nothing), "grid")["f1"] == 1
    leaves = found.items.found[1].truth
    assert {number: frame.ids for number, frame in leaves.frames.items()} == {
        0: ("12",),
        6: ("12",),
        12: (),
    } and leaves.num_frames == 18


@pytest.mark.parametrize("benchmark", [RefYtVos(), ReasonVos()], ids=["ref_yt_vos", "reasonvos"])
def test_white_masks(benchmark, data):
    found = data[benchmark.name]
    assert len(found.items.found) == 4 and reasons(found) == ["no expression", "no masks"]
    assert found.items.warnings[tracking.UNREADABLE] == 1 and found.items.warnings[tracking.OTHER_SIZE] == 2
    small = found.items.found[3].truth
    assert small.index.sizes[small.frames[0].masks["1"]].tolist() == [48, 32] and small.num_frames == 18
    assert found.items.found[0].truth.num_frames is None, "masks of one object do not tell how long a clip is"


def test_ref_davis17_has_clusters_of_objects(data):
    found = data["ref_davis17"]
    assert [each.cluster for each in found.items.found] == ["blobs/1", "blobs/2", "blobs/1", "blobs/2"]
    assert reasons(found) == ["unreadable masks"]
    first, second = (found.items.found[i].truth for i in range(2))
    there = [[number for number, frame in truth.frames.items() if frame.ids] for truth in (first, second)]
    assert there == [[0, 6], [0, 6, 12]] and sorted(first.frames) == [0, 6, 12] and first.num_frames == 18


def test_molmo2_track(data, tmp_path):
    found = data["molmo2_track"]
    assert [each.categories["field"] for each in found.items.found] == [
        "Dancers",
        "Dancers",
        "Animals",
        "other",
    ]
    assert (
        reasons(found) == ["no video file", "unknown frame rate of the video"]
        and found.items.warnings[OTHER_FIELD] == 1
    )
    whole, part = found.items.found[0], found.items.found[2]
    assert whole.truth.num_frames == 18 and part.truth.num_frames is None
    assert whole.clip is not None and whole.clip.start is None and whole.clip.path.name == "dance_0_17.mp4"
    assert part.clip is not None and (part.clip.start, part.clip.end) == (1.0, pytest.approx(23 / 6))
    answers = {each.item_id: true_answer(each) for each in found.items.found}
    scores = score_items(Molmo2Track(), found.items.found, answers, "grid")
    summary = summarise(Molmo2Track(), found.items, scores, answers, "grid")
    assert [cell.group for cell in summary.cells if cell.metric == "f1" and cell.view == ("field",)] == [
        ("Animals",),
        ("Dancers",),
        ("other",),
        (),
    ]


def made_question(**changes):
    """A row of Molmo2-Track about a square of 4 x 4 that is at (2, 2) in frames 3 to 23 of a clip of 6 frames
    a second.
    """
    mask = np.zeros((20, 20), dtype=bool)
    mask[:5, :5] = True
    row = {"exp": "the square", "w": 20, "h": 20, "clip": "c", "video": "v", "video_dataset": "DanceTrack"}
    row |= {"start_frame": 0, "end_frame": 23, "fps": 6.0, "mask_id": ["9"]}
    there = [frame >= 3 for frame in range(24)]
    row["points"] = [{"object_id": "9", "points": [[2.0, 2.0] if seen else None for seen in there]}]
    row["masks"] = [{"object_id": "9", "masks": [encode_mask(mask) if seen else None for seen in there]}]
    return row | changes


def judged(tmp_path, row, given, *, ref_compat=False):
    """F1 and HOTA of (seconds, id, x, y) as an answer to the only row of a table; there is no video."""
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [row])
    (item,) = open_data(Molmo2Track(), tmp_path, tmp_path, with_media=False).items.found
    table = np.array(given, dtype=float).reshape(-1, 4)
    answer = ParsedAnswer(
        table[:, 2:], table[:, 0], table[:, 1].astype(np.int64), image_sizes=((row["w"], row["h"]),)
    )
    scores = Molmo2Track().score(item, answer, "grid", ref_compat=ref_compat)
    return item, scores


def test_moments_stand_on_whole_seconds_and_rows_with_a_rate_need_no_video(tmp_path):
    given = [(second, 1, 2, 2) for second in (1.0, 2.0, 3.0)]
    for ref_compat in (False, True):
        item, scores = judged(tmp_path, made_question(), given, ref_compat=ref_compat)
        assert sorted(item.truth.frames) == sorted(item.truth.reference_frames) == [6, 12, 18]
        assert scores["f1"] == scores["hota"] == 1
    late = [(0.5 + second, 1, 2, 2) for second in range(4)]
    assert judged(tmp_path, made_question(), late)[1]["f1"] == 0, "3, 9, 15 and 21 were not asked for"
    assert judged(tmp_path, made_question(), late, ref_compat=True)[1]["f1"] == 0


def test_the_reference_counts_whole_frames_between_seconds(tmp_path):
    frames = 120
    mask = encode_mask(np.ones((20, 20), dtype=bool))
    row = made_question(fps=29.97, end_frame=frames - 1)
    row["points"] = [{"object_id": "9", "points": [[2.0, 2.0]] * frames}]
    row["masks"] = [{"object_id": "9", "masks": [mask] * frames}]
    given = [(second, 1, 2, 2) for second in range(4)]
    item, scores = judged(tmp_path, row, given)
    assert sorted(item.truth.frames) == [0, 30, 60, 90] and scores["f1"] == 1
    assert sorted(item.truth.reference_frames) == [0, 29, 58, 87, 116]
    # Of the frames 0, 29, 30, 58, 60, 87, 90 and 116 the answer is right in the first one only.
    assert judged(tmp_path, row, given, ref_compat=True)[1]["f1"] == pytest.approx(1 / 8)


def test_ids_of_the_reference_are_numbers_in_the_order_of_the_question(tmp_path):
    left, right = np.zeros((20, 20), dtype=bool), np.zeros((20, 20), dtype=bool)
    left[:, :10], right[:, 10:] = True, True
    row = made_question(mask_id=["9", "10"], end_frame=11)
    row["points"] = [{"object_id": name, "points": [[x, 5.0]] * 12} for name, x in (("9", 4.0), ("10", 15.0))]
    row["masks"] = [
        {"object_id": name, "masks": [encode_mask(mask)] * 12} for name, mask in (("9", left), ("10", right))
    ]
    perfect = [(second, number, x, 5) for second in (0.0, 1.0) for number, x in ((1, 4), (2, 15))]
    assert judged(tmp_path, row, perfect, ref_compat=True)[1]["hota"] == 1, "9 comes before 10"
    # Listed the other way round, the reference pairs the first point with the first mask, which is that of 9.
    row["points"] = row["points"][::-1]
    _, scores = judged(tmp_path, row, perfect, ref_compat=True)
    assert scores["hota"] == 1 and scores["f1"] == 0, (
        "ids go by the question's order, points by the order listed"
    )
    assert judged(tmp_path, row, perfect)[1]["f1"] == 1


def test_only_rows_of_one_answer_a_second_are_part_of_a_benchmark(tmp_path):
    made = open_data(Mevis(), "fixture", tmp_path)
    table = made.folder / "data" / "valid_u-00000-of-00001.parquet"
    rows = list(read_rows([table]))
    write_parquet(table, [*rows, *({**row, "sampling_fps": 2} for row in rows)])
    again = Mevis().read(made.folder)
    assert [each.item_id for each in again.found] == [each.item_id for each in made.items.found]
    assert again.warnings[referring_video.OTHER_RATE] == len(rows)


def test_a_table_out_of_step_with_the_seconds_says_its_moments_itself(tmp_path):
    made = open_data(Mevis(), "fixture", tmp_path)
    table = made.folder / "data" / "valid_u-00000-of-00001.parquet"
    (row, *_) = read_rows([table])
    for moment in row["frame_trajectories"]:
        moment["frame"] += 3
    write_parquet(table, [row])
    (item,) = Mevis().read(made.folder).found
    assert (
        sorted(item.truth.frames) == [3, 9, 15] and Mevis().score(item, true_answer(item), "grid")["f1"] == 1
    )


def test_frames_of_clips_are_those_of_training():
    """The highest rate up to 10 that divides the clip's; the last moment is not added."""
    settings = Molmo2Track.generation
    rates = {}
    for fps in (6, 20, 24, 25, 29.97, 30):
        times = sample_times(
            4.0,
            settings.max_frames,
            settings.fps,
            settings.sample_mode,
            frame_rate=fps,
            sampling_fps=1,
            max_rate=MAX_RATE,
        )
        rates[fps] = round(1 / (times[1] - times[0]))
        assert times[-1] < 4
    assert rates == {6: 6, 20: 10, 24: 8, 25: 5, 29.97: 1, 30: 10}


def test_names_lead_nowhere(tmp_path):
    outside = tmp_path / "outside" / "1"
    outside.mkdir(parents=True)
    Image.new("L", (20, 20), 255).save(outside / "00000.png")
    names = {"a": "../../outside", "b": "x" * 300, "c": "", "d": str(tmp_path / "outside")}
    masks = PictureTracks(tmp_path / "data", names, {}, numbered=False)
    for item_id in names:
        assert not masks.has(item_id, "1", 0) and masks.num_frames(item_id) is None


def test_stored_answers_are_judged_without_the_videos(tmp_path):
    first = open_data(Molmo2Track(), "fixture", tmp_path)
    for file in first.folder.glob("videos/**/*.mp4"):
        file.unlink()
    again = open_data(Molmo2Track(), first.folder, tmp_path, with_media=False)
    assert [each.item_id for each in again.items.found] == [each.item_id for each in first.items.found], (
        "frame rates are kept"
    )


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=NAMES)
def test_clips_can_be_cut(benchmark, data):
    for item in data[benchmark.name].items.found:
        frames, times = read_frames(item.clip, benchmark.generation)
        assert frames.shape[1:] == (64, 96, 3) and set(np.round(times, 6)) >= {0.0, 1.0, 2.0}
        for number, frame in item.truth.frames.items():
            shown = frames[int(np.argmin(np.abs(np.array(times) - number / item.truth.fps)))]
            for x, y in frame.xy.astype(int):
                assert np.ptp(shown[y, x].astype(int)) > 60, (
                    "the disc is where the truth says, not the grey ground"
                )


def test_run_lengths_of_every_or_of_some_frames():
    mask = {"size": [1, 2], "counts": [0, 2]}
    assert by_frame([mask, None, mask]) == {0: mask, 2: mask} and length_of([[mask, None, mask], None]) == 3
    some = [{"frame_id": 7, "rle": mask}, {"frame_id": 9, "rle": None}]
    assert by_frame([{"frame": 7, "mask": mask, "frame_id": None, "rle": None}]) == {7: mask}
    assert by_frame(some) == {7: mask} and length_of([some]) is None and length_of([None]) is None
    assert by_frame(None) == {}


def test_of_several_tasks_the_one_that_tracks_is_read(tmp_path):
    made = open_data(ReasonVos(), "fixture", tmp_path).folder
    before = [each.item_id for each in ReasonVos().read(made).found]
    table = made / "data" / "test-00000-of-00001.parquet"
    for name in ("ground", "other"):
        (made / name).mkdir()
        (made / name / table.name).write_bytes(table.read_bytes())
    with pytest.raises(EvaluationError, match="data, ground, other"):
        ReasonVos().read(made)
    table.parent.rename(made / "track")
    assert [each.item_id for each in ReasonVos().read(made).found] == before


def test_other_folders_are_refused(tmp_path):
    for benchmark in BENCHMARKS:
        with pytest.raises(EvaluationError, match=r"\.parquet"):
            benchmark.read(tmp_path)
    made = open_data(Mevis(), "fixture", tmp_path).folder
    (made / "mask_dict.json").write_text("{")
    with pytest.raises(EvaluationError, match="download it again"):
        Mevis().read(made)
    (made / "mask_dict.json").unlink()
    with pytest.raises(EvaluationError, match=r"mask_dict\.json"):
        Mevis().read(made)


def test_a_cut_list_of_coordinates_gives_the_reference_nothing(tmp_path):
    """Ours counts the whole points; an answer of grounding tokens is not affected."""
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", [made_question()])
    (item,) = open_data(Molmo2Track(), tmp_path, tmp_path, with_media=False).items.found

    def scores(text: str, ref_compat: bool) -> float:
        path = tmp_path / "answers.jsonl"
        path.write_text(json.dumps({"item_id": item.item_id, "text": text}) + "\n")
        (prediction,) = read_stored(path, [item], Molmo2Track(), form="molmo2").values()
        return Molmo2Track().score(item, prediction.answer(), "grid", ref_compat=ref_compat)["f1"]

    whole = '<tracks coords="1.0 1 100 100;2.0 1 100 100;3.0 1 100 100">square</tracks>'
    cut = whole[: whole.index('">')] + ";4.0 1"
    assert scores(whole, False) == scores(whole, True) == scores(cut, False) == 1
    assert scores(cut, True) == 0
    first = '<tracks coords="1.0 1 100 100">a</tracks>'
    assert scores(first + '<tracks coords="2.0 1 100 100;3.0 1 100 100;', True) == pytest.approx(1 / 3)
    ours = Prediction(
        item.item_id, "molmo2_track", 2, "", raw_text='<tracks coords="<POINT_1><POINT_2><POINT_3>1'
    )
    assert ours.answer().closed is None
