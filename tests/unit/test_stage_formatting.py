"""What the four published stages ask beyond plain requests: tags, parts of tracks, several turns, drawn
prompts, no points please.
"""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
from toy_processor import frames, picture, toy_processor

from molmopoint.backends.molmopoint import GroundingWriter
from molmopoint.data.records import Record, parse_record
from molmopoint.errors import ProcessingError
from molmopoint.geometry import triples_to_points
from molmopoint.processing.grounding_answers import PointList
from molmopoint.processing.message_tree import LossWeighting
from molmopoint.processing.rows import Row
from molmopoint.processing.text_points import TRACK_TAGS
from molmopoint.training.formatting import NO_TRACKS, format_record
from molmopoint.training.rules import FormattingRules, published_rules
from molmopoint.training.templates import NO_POINTS_PLEASE, asks_to_count
from molmopoint.training.trees import format_tree, group_records, tree_row

PRETRAINING, FINE_TUNING, GUI = (published_rules(stage) for stage in ("pretraining", "fine_tuning", "gui"))
POINTS = {"points": [{"x": 40, "y": 30}, {"x": 70, "y": 80}], "coords": "pixel"}
TRACK = [
    (0.0, 10, 20, 7),
    (0.5, 20, 30, 7),
    (1.0, 30, 40, 7),
    (1.5, 40, 50, 7),
    (0.5, 80, 80, 9),
    (1.0, 70, 80, 9),
]
processor = functools.cache(toy_processor)


@functools.cache
def seen(kind="picture"):
    known = {"return_pointing_metadata": True, "return_tensors": "pt"}
    if kind == "clip":
        clip = {"fps": 2.0, "frames_indices": [0, 1, 2, 3], "total_num_frames": 4, "width": 120, "height": 80}
        return processor()(
            text=["<|video|>"], videos=[frames(4)], video_metadata=[clip], do_sample_frames=False, **known
        )
    return processor()(text=["<|image|>"], images=[picture(90, 160)], **known)


def made(columns, rules=None, seed=0):
    record = parse_record(
        {"image": "a", **columns} if "video" not in columns and "images" not in columns else columns, 5
    )
    metadata = seen("clip" if record.video else "picture")["pointing_metadata"][0]
    return format_record(record, GroundingWriter(metadata), np.random.default_rng(seed), rules)


def track(style, points=TRACK, **columns):
    listed = [{"t": t, "x": x, "y": y, "object_id": number} for t, x, y, number in points]
    return {"video": "v", "label": "Ducks", "coords": "percent", "points": listed, "style": style, **columns}


def times_of(conversation):
    (points,) = (piece for piece in conversation.answer if isinstance(piece, PointList))
    times, _ = triples_to_points(points.triples, seen("clip")["pointing_metadata"][0])
    return list(zip(points.object_ids.tolist(), times.tolist(), strict=True))


@pytest.mark.parametrize(
    ("columns", "prompt"),
    [
        ({**POINTS, "label": "Red Cups", "style": "pointing"}, "pointing: red cups"),
        ({**POINTS, "label": "Red Cups", "style": "point_count"}, "point_count: red cups"),
        ({**POINTS, "prompt": "Which bar is highest?"}, "cosyn_point: Which bar is highest?"),
        ({**POINTS, "prompt": "How many cups?"}, "point_count: How many cups?"),
        ({"label": "Ducks", "no_points": True, "video": "v", "style": "count"}, "video_count: Ducks"),
        ({"prompt": "Why?", "answer": "Because.", "style": "text_sft"}, "text_sft: Why?"),
        (track("track"), "video_point_track_per_frame: Ducks"),
        (track("track_start_end"), "video_point_ground_start_end: Ducks"),
    ],
)
def test_pre_training_asks_by_tags(columns, prompt):
    assert made(columns, PRETRAINING).prompt == prompt


def test_pre_training_names_the_length_of_texts():
    prompts = [made({"caption": "x" * 900}, PRETRAINING, seed).prompt for seed in range(300)]
    lengths = [int(match[1]) for prompt in prompts if (match := re.fullmatch(r"long_caption (\d+):", prompt))]
    assert (
        0.05 < prompts.count("long_caption:") / 300 < 0.16
        and len(lengths) + prompts.count("long_caption:") == 300
    )
    assert 58 < np.mean(lengths) < 61.5 and 1 < np.std(lengths) < 2.5
    assert re.fullmatch(
        r"user_qa( -?\d+)?: What is it\?",
        made({"prompt": "What is it?", "answer": "A cup."}, PRETRAINING).prompt,
    )
    assert made({"caption": "x", "style": "transcript"}, PRETRAINING).prompt.startswith("transcript")
    assert made({"caption": "x"}, PRETRAINING).weighting == LossWeighting()


def test_fine_tuning_writes_no_tag_for_everyday_styles():
    question = {"prompt": "What is it?", "answer": "A cup."}
    assert made({**question, "style": "user_qa"}, FINE_TUNING).prompt == "What is it?"
    assert made({**question, "style": "chart_qa"}, FINE_TUNING).prompt == "chart_qa: What is it?"


def test_first_and_last_appearance():
    conversation = made(track("track_start_end"), FINE_TUNING)
    assert conversation.prompt.startswith("video_point_ground_start_end: ") and "Ducks" in conversation.prompt
    assert times_of(conversation) == [(1, 0.0), (2, 0.5), (2, 1.0), (1, 1.5)]
    assert times_of(made(track("track_start_end", TRACK[:1]))) == [(1, 0.0)]


def test_one_object_from_a_point():
    starts = []
    for seed in range(200):
        conversation = made(track("track_from_point"), FINE_TUNING, seed)
        found = re.search(
            r'<points coords="(\d\.\d) 1 (\d{3,4}) (\d{3,4})">Ducks</points>', conversation.prompt
        )
        assert found and conversation.prompt.startswith(f"{TRACK_TAGS['track_from_point']}: ")
        time, x, y = float(found[1]), int(found[2]) / 10, int(found[3]) / 10
        ((number),) = {entry[3] for entry in TRACK if entry[:3] == (time, x, y)}
        assert times_of(conversation) == [
            (1, entry[0]) for entry in TRACK if entry[3] == number and entry[0] > time
        ]
        starts.append((number, time))
    assert set(starts) == {(7, 0.0), (7, 0.5), (7, 1.0), (9, 0.5)}
    assert 0.75 < sum(start in ((7, 0.0), (9, 0.5)) for start in starts) / 200 < 0.97
    assert made(track("track_from_point", TRACK[:1])).answer == (NO_TRACKS,)


def test_recipes_choose_what_is_asked_of_tracks():
    rules = FormattingRules(track_styles=("track", "track_start_end", "track_from_point"))
    prompts = [made(track("track"), rules, seed).prompt for seed in range(60)]
    kinds = [prompt.split(":")[0] if ":" in prompt.split(" ")[0] else "" for prompt in prompts]
    assert set(kinds) == {"", TRACK_TAGS["track_start_end"], TRACK_TAGS["track_from_point"]}
    assert {made(track("track", prompt="Follow it"), rules, seed).prompt for seed in range(20)} == {
        "Follow it"
    }
    assert made({**track("track_from_point", []), "coords": None, "no_points": True}).answer == (NO_TRACKS,)


TURNS = {
    "turns": [
        {**POINTS, "label": "Cups", "style": "point_count"},
        {"prompt": "Whose?", "answer": "Mine."},
        {"label": "dogs", "no_points": True},
    ]
}


def test_turns_are_one_conversation():
    conversation = made(TURNS, FINE_TUNING)
    assert [len(answer) for _, answer in conversation.turns] == [3, 1, 1] and conversation.turns[1] == (
        "Whose?",
        ("Mine.",),
    )
    assert conversation.weighting == LossWeighting(0.2)
    row = tree_row(Row.from_processor(seen()), [conversation], processor().chat)
    assert int(row.branch_ids.max()) == 0
    text = processor().tokenizer.decode(row.input_ids.tolist())
    assert (
        text.count("<|im_start|>user") == 3
        and "Whose?" in text
        and text.index("Whose?") > text.index("Counting the")
    )
    assert (row.loss_weights[row.shift_labels != -100] == np.float32(0.2)).all()


def test_points_of_all_turns_count_for_the_limit():
    record = parse_record({"image": "a", **TURNS}, 5)
    assert record.num_points == 2 and [len(group) for group in group_records([record] * 3, max_points=4)] == [
        2,
        1,
    ]
    with pytest.raises(ProcessingError, match="expected at most 1 points for one expression, got 2"):
        group_records([record], max_points=1)


def test_requests_about_a_clip_may_share_a_conversation():
    rows = [
        {"video": "v", "label": name, "points": [{"x": 5, "y": 5, "t": 0.5}], "coords": "percent"}
        for name in "abc"
    ]
    (group,) = group_records([parse_record(row, i) for i, row in enumerate(rows, start=1)])
    metadata = seen("clip")["pointing_metadata"][0]
    lengths = [
        len(format_tree(group, GroundingWriter(metadata), np.random.default_rng(seed), FINE_TUNING))
        for seed in range(200)
    ]
    assert set(lengths) == {1, 3} and 0.12 < lengths.count(1) / 200 < 0.28
    (joined,) = format_tree(
        group, GroundingWriter(metadata), np.random.default_rng(0), FormattingRules(multi_turn=1.0)
    )
    assert len(joined.turns) == 3
    with_track = [*group, parse_record(track("track"), 9)]
    assert (
        len(
            format_tree(
                with_track,
                GroundingWriter(metadata),
                np.random.default_rng(0),
                FormattingRules(multi_turn=1.0),
            )
        )
        == 4
    )


def test_elements_of_a_screen_are_asked_for_by_intent_or_name():
    element = {
        "prompts": ["Store the file", "Keep it"],
        "label": "Save As",
        "points": [{"x": 40, "y": 30}],
        "coords": "pixel",
    }
    conversations = [made({**element, "source": "guisyn"}, GUI, seed) for seed in range(400)]
    by_intent = [each for each in conversations if each.prompt in element["prompts"]]
    assert 0.74 < len(by_intent) / 400 < 0.86 and {each.prompt for each in by_intent} == set(
        element["prompts"]
    )
    assert all(each.answer[0].label == each.prompt for each in by_intent)
    others = [each for each in conversations if each.prompt not in element["prompts"]]
    assert all("Save As" in each.prompt and each.answer[0].label == "Save As" for each in others)
    assert {len(each.answer) for each in conversations} == {1} and by_intent[0].weighting == LossWeighting(
        1.0, 2.0, True
    )
    screen = [parse_record({"image": "s", **element}, i + 1) for i in range(55)]
    assert len(group_records(screen)) == 1


def test_counting_questions_of_named_sources_ask_for_no_points():
    rules = FormattingRules(no_points_please=frozenset({"qa"}))
    question = {"prompt": "How many cups are there?", "answer": "2"}
    prompt = made({**question, "source": "qa"}, rules).prompt
    assert (
        prompt.endswith(question["prompt"])
        and prompt.removesuffix(question["prompt"]).strip() in NO_POINTS_PLEASE
    )
    assert made(question, rules).prompt == question["prompt"]
    assert made({"prompt": "Why?", "answer": "No.", "source": "qa"}, rules).prompt == "Why?"
    assert len(set(NO_POINTS_PLEASE)) == 32


@pytest.mark.parametrize(
    ("question", "counts"),
    [
        ("How many ducks swim?", True),
        ("howmany ducks", True),
        ("How many minutes are left?", False),
        ("Approximately how many ducks?", False),
        ("Count every duck.", True),
        ("Do not count the ducks.", False),
        ("In total there are ____ ducks", True),
        ("What is the total number of ducks?", True),
        ("What is the number of hours?", False),
        ("What a countdown!", False),
    ],
)
def test_what_reads_like_a_request_to_count(question, counts):
    assert asks_to_count(question) is counts


def test_rows_without_turns_have_one_request():
    record = Record(1, prompt="Why?", answer="No.")
    assert record.requests == (record,) and record.num_points == 0 and record.media == ()
