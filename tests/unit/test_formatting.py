"""From rows to branches: places, styles, templates, tracks, limits, groups and weights."""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toy_processor import frames, picture, toy_processor

from molmopoint.backends.molmo2 import TextWriter
from molmopoint.backends.molmopoint import GroundingWriter
from molmopoint.backends.options import COUNTING_TEMPLATE, POINTING_TEMPLATE
from molmopoint.data.records import FULL_SCALE, Record, RecordPoint, parse_record
from molmopoint.errors import ProcessingError
from molmopoint.geometry import triples_to_points
from molmopoint.processing.grounding_answers import NOTHING_THERE, PointList
from molmopoint.processing.message_tree import LossWeighting
from molmopoint.processing.rows import IGNORED, Row
from molmopoint.processing.text_points import read_text_answer
from molmopoint.tokens import PATCH, ExtendedVocabulary, Kind
from molmopoint.training import templates
from molmopoint.training.formatting import NO_TRACKS, expressions, format_record, triples_of
from molmopoint.training.rules import PLAIN_WEIGHTS, FormattingRules, weighting_of
from molmopoint.training.trees import format_tree, group_records, media_of, tree_row

SIZE = (160, 90)
processor = functools.cache(toy_processor)


@functools.cache
def seen(*sizes, max_crops=4):
    """The processor's output for pictures of these (width, height), nothing but placeholders as text."""
    images = [picture(height, width) for width, height in sizes]
    text = processor().chat.media_text(*media_of(Record(1, tuple("ab"[: len(sizes)]))))
    return processor()(
        text=[text], images=images, max_crops=max_crops, return_pointing_metadata=True, return_tensors="pt"
    )


@functools.cache
def seen_clip():
    """Four frames, half a second apart."""
    metadata = {"fps": 2.0, "frames_indices": [0, 1, 2, 3], "total_num_frames": 4, "width": 120, "height": 80}
    settings = {
        "video_metadata": [metadata],
        "do_sample_frames": False,
        "return_pointing_metadata": True,
        "return_tensors": "pt",
    }
    return processor()(text=["<|video|>"], videos=[frames(4)], **settings)


def metadata_of(inputs):
    return inputs["pointing_metadata"][0]


def rng(seed=0):
    return np.random.default_rng(seed)


def row(points=((40, 30), (100, 60)), **columns):
    """A record on one picture, in pixels."""
    given = {
        "image": "a",
        "label": "Red Cups",
        "coords": "pixel",
        "points": [{"x": x, "y": y} for x, y in points],
    }
    return parse_record({**given, **columns}, 5)


def clip_row(points, **columns):
    """A record on a clip, in percent; points are (t, x, y, object)."""
    listed = [{"t": t, "x": x, "y": y, "object_id": number} for t, x, y, number in points]
    return parse_record({"video": "v", "label": "Ducks", "coords": "percent", "points": listed, **columns}, 5)


def point_list(conversation):
    return next(piece for piece in conversation.answer if isinstance(piece, PointList))


# Places


@pytest.mark.parametrize("coords", ["pixel", *FULL_SCALE])
@given(
    size=st.tuples(st.integers(8, 300), st.integers(8, 300)),
    max_crops=st.integers(1, 6),
    grid=st.sampled_from([1, 2, 3, 5]),
    places=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_there_and_back_within_half_a_cell(coords, size, max_crops, grid, places):
    metadata = dataclasses.replace(metadata_of(seen(size, max_crops=max_crops)), location_grid=grid)
    scale = np.array(size) if coords == "pixel" else np.full(2, FULL_SCALE[coords])
    points = tuple(RecordPoint(*np.minimum(np.array(place) * scale, scale).tolist()) for place in places)
    group, xy = triples_to_points(
        triples_of(Record(1, ("a",), label="dog", points=points, coords=coords), metadata), metadata
    )
    rows, cols = metadata.patch_maps[0].shape
    vit_patch = np.array(size) / (cols, rows)
    half_a_cell = (
        0.5 / grid + (0.01 if grid == 3 else 0.0)
    ) * vit_patch  # three cells are 0.33 wide, not a third
    assert (group == 0).all()
    assert (np.abs(xy - np.array(places) * size) <= half_a_cell + 1e-6).all()


def test_points_on_seams_and_borders_have_a_place():
    size = (300, 300)
    metadata = metadata_of(seen(size))
    rows, cols = metadata.patch_maps[0].shape
    edges = [(x * size[0] / cols, y * size[1] / rows) for x in range(cols + 1) for y in range(rows + 1)]
    triples = triples_of(row(edges, label="seams"), metadata)
    inner = [
        triple
        for edge, triple in zip(edges, triples.tolist(), strict=True)
        if edge[0] < size[0] and edge[1] < size[1]
    ]
    # Each ViT patch owns its upper left corner, once.
    assert len({tuple(triple[:2]) for triple in inner}) == rows * cols


def test_points_outside_are_refused_unless_their_source_is_clipped():
    outside, metadata = row([(40, 30), (161, 30)], source="loose"), metadata_of(seen(SIZE))
    with pytest.raises(
        ProcessingError,
        match=r"^row 5, points\[1\]: expected x in 0\.\.160 and y in 0\.\.90 for coords 'pixel', got \(161, 30\)",
    ):
        format_record(outside, GroundingWriter(metadata), rng())
    clipped = format_record(
        outside, GroundingWriter(metadata), rng(), FormattingRules(clip=frozenset({"loose"}))
    )
    assert len(point_list(clipped)) == 2


# Styles and labels


@pytest.mark.parametrize(
    ("style", "texts"),
    [
        ("pointing", []),
        ("point_count", ["Counting the ", " shows a total of 2."]),
        ("count_then_point", ["There are 2 ", "."]),
        ("count", ["2"]),
    ],
)
def test_answers_of_each_style(style, texts):
    conversation = format_record(row(style=style), GroundingWriter(metadata_of(seen(SIZE))), rng())
    assert [piece for piece in conversation.answer if isinstance(piece, str)] == texts
    if style != "count":
        points = point_list(conversation)
        assert points.label == "red cups" and points.object_ids.tolist() == [1, 2]
    assert "red cups" in conversation.prompt


@pytest.mark.parametrize("style", ["pointing", "point_count", "count_then_point", "count"])
def test_nothing_to_point_at_is_one_sentence(style):
    conversation = format_record(
        row(points=[], no_points=True, coords=None, style=style),
        GroundingWriter(metadata_of(seen(SIZE))),
        rng(),
    )
    assert conversation.answer == (NOTHING_THERE,)


def test_points_are_sorted_whatever_their_order():
    metadata = metadata_of(seen(SIZE))
    places = rng(1).uniform(0, 90, (12, 2)).tolist()
    answers = [
        point_list(format_record(row(order, style="pointing"), GroundingWriter(metadata), rng()))
        for order in (places, places[::-1])
    ]
    assert np.array_equal(answers[0].triples, answers[1].triples)
    assert answers[0].object_ids.tolist() == list(range(1, 13))


def test_styles_are_drawn_half_and_half_or_as_the_rules_say():
    metadata = metadata_of(seen(SIZE))
    source = rng(3)
    lengths = [len(format_record(row(), GroundingWriter(metadata), source).answer) for _ in range(400)]
    assert 150 < lengths.count(1) < 250 and lengths.count(1) + lengths.count(3) == 400
    only = FormattingRules(styles=("count",))
    assert {format_record(row(), GroundingWriter(metadata), source, only).answer for _ in range(5)} == {
        ("2",)
    }
    with pytest.raises(ProcessingError, match="expected one or more styles"):
        format_record(row(), GroundingWriter(metadata), source, FormattingRules(styles=()))


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("Click on the bin.", 1),
        ("How many cups?", 3),
        ("please count the cups", 3),
        ("Point to the countdown", 1),
        ("Show how many cups", 1),
    ],
)
def test_a_prompt_is_sent_as_it_is_and_decides_the_style(prompt, pieces):
    conversation = format_record(
        row(prompt=prompt, label=None), GroundingWriter(metadata_of(seen(SIZE))), rng()
    )
    assert conversation.prompt == prompt
    assert len(conversation.answer) == pieces
    assert point_list(conversation).label == prompt


def test_labels_keep_their_case_where_case_means_something():
    metadata = metadata_of(seen(SIZE))
    rules = FormattingRules(keep_case=frozenset({"screens"}))
    assert (
        point_list(
            format_record(row(source="screens", style="pointing"), GroundingWriter(metadata), rng(), rules)
        ).label
        == "Red Cups"
    )
    assert (
        point_list(
            format_record(row(source="photos", style="pointing"), GroundingWriter(metadata), rng(), rules)
        ).label
        == "red cups"
    )
    clip = clip_row([(0, 10, 10, 1)], style="pointing")
    assert point_list(format_record(clip, GroundingWriter(metadata_of(seen_clip())), rng())).label == "Ducks"


def test_questions_and_captions_need_no_metadata():
    question = parse_record({"prompt": "Why?", "answer": "Because.", "style": "school"}, 1)
    conversation = format_record(question, None, rng())
    assert (conversation.prompt, conversation.answer) == ("school: Why?", ("Because.",))
    captions = [
        parse_record({**visual, "caption": "A dog."}, 1)
        for visual in ({"image": "a"}, {"images": ["a", "b"]}, {"video": "v"})
    ]
    for record, word in zip(captions, ("image", "images", "video"), strict=True):
        made = format_record(record, None, rng())
        assert re.search(rf"\b(?:{word}|see|happens)\b", made.prompt) and made.answer == ("A dog.",)
    with pytest.raises(ProcessingError, match="row 5: expected the metadata of the pictures"):
        format_record(row(), None, rng())


# Several pictures, clips, tracks


def test_several_pictures_name_what_they_ask_for():
    metadata, source = metadata_of(seen(SIZE, (90, 120))), rng(2)
    points = [{"x": 10, "y": 10, "image": 1}, {"x": 20, "y": 80, "image": 1}]
    record = parse_record(
        {"images": ["a", "b"], "label": "Cats", "points": points, "coords": "pixel", "style": "pointing"}, 1
    )
    of_request = {}
    for _ in range(60):
        made = format_record(record, GroundingWriter(metadata), source)
        named = re.search(r"image_[12](, image_[12])?|all images", made.prompt)
        of_request.setdefault(named and named[0], set()).add(
            len(made.answer[0]) if isinstance(made.answer[0], PointList) else made.answer[0]
        )
    assert of_request == {"image_1": {NOTHING_THERE}, "image_2": {2}, "all images": {2}, None: {2}}
    groups, _ = triples_to_points(
        point_list(
            format_record(record, GroundingWriter(metadata), rng(), FormattingRules(some_images=0.0))
        ).triples,
        metadata,
    )
    assert groups.tolist() == [1, 1]


def test_points_of_a_clip_go_to_the_nearest_frame():
    metadata = metadata_of(seen_clip())
    made = format_record(
        clip_row([(1.3, 50, 50, 1), (0.1, 90, 90, 2)], style="point_count"), GroundingWriter(metadata), rng()
    )
    times, xy = triples_to_points(point_list(made).triples, metadata)
    assert times.tolist() == [0.0, 1.5]
    assert np.abs(xy - [[108, 72], [60, 40]]).max() < 24 / 6 + 0.3
    assert made.answer[2] == " shows a total of 2."
    assert "image" not in made.prompt


def test_tracks_number_objects_by_first_appearance():
    metadata = metadata_of(seen_clip())
    points = [(1.0, 20, 20, 8), (0.5, 80, 80, 3), (0.5, 10, 10, 8), (1.0, 85, 80, 3), (0.77, 50, 50, 9)]
    made = format_record(clip_row(points, style="track"), GroundingWriter(metadata), rng())
    tracks = point_list(made)
    assert (tracks.tag, tracks.label) == ("tracks", "Ducks")
    assert tracks.object_ids.tolist() == [1, 2, 1, 2]  # 0.77 s is no frame
    assert triples_to_points(tracks.triples, metadata)[0].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert format_record(
        clip_row([], style="track", no_points=True), GroundingWriter(metadata), rng()
    ).answer == (NO_TRACKS,)
    with pytest.raises(
        ProcessingError,
        match=r"row 5, points: expected points within 0\.01 s of a frame .* the nearest is 0\.230 s away",
    ):
        format_record(clip_row([(0.73, 50, 50, 9)], style="track"), GroundingWriter(metadata), rng())
    outside = format_record(clip_row([(0, 101, -1, 1)], style="track"), GroundingWriter(metadata), rng())
    assert len(point_list(outside)) == 1  # tracks leave the picture; they end at its edge


def test_the_rate_of_a_track_is_that_of_its_points():
    metadata, source = metadata_of(seen_clip()), rng()
    slow = clip_row([(0, 10, 10, 1), (1, 10, 10, 1)], style="track")
    fast = clip_row([(t / 2, 10, 10, 1) for t in range(4)], style="track")
    once = clip_row([(0, 10, 10, 1)], style="track")
    rates = {name: {(re.search(r"\d", format_record(each, GroundingWriter(metadata), source).prompt) or [None])[0] for _ in range(30)}
             for name, each in (("slow", slow), ("fast", fast), ("once", once))}  # fmt: skip
    assert rates == {"slow": {"1"}, "fast": {"2", None}, "once": {None}}


def test_a_rate_means_moments_counted_from_the_start_of_the_clip():
    """As the reference thins its tracks, and as benchmarks ask: whole seconds, also of a track that begins
    between them.
    """
    writer, source = TextWriter(((120, 80),), np.arange(8) / 2), rng()

    def asked_and_answered(times: list[float], **changes: str) -> tuple[set[str | None], list[float]]:
        row = clip_row([(time, 10, 10, 1) for time in times], style="track", **changes)
        made = [format_record(row, writer, source) for _ in range(12)]
        rates = {(re.search(r"[0-9]", each.prompt) or [None])[0] for each in made}
        answer = read_text_answer("".join(map(str, made[0].answer)), writer.image_sizes, writer.timestamps)
        return rates, answer.points.group.tolist()

    assert asked_and_answered([0.0, 1.0, 2.0, 3.0, 3.5]) == ({"1"}, [0.0, 1.0, 2.0, 3.0]), (
        "the last moment is out of step"
    )
    assert asked_and_answered([0.5, 1.5, 2.5]) == ({None}, [0.5, 1.5, 2.5]), (
        "no rate is stated where no point would stand"
    )
    assert asked_and_answered([0.0, 1.0, 2.0, 3.0, 3.5], prompt="Where does it go?")[1][-1] == 3.5, (
        "no rate was stated"
    )


# Limits and groups


def test_too_many_points_for_one_expression():
    many = row([(1, 1)] * 61)
    with pytest.raises(ProcessingError) as caught:
        group_records([row(), many])
    assert str(caught.value) == (
        "row 5, points: expected at most 60 points for one expression, got 61; split the row by a narrower "
        "label, or raise max_points"
    )
    assert expressions(many, max_points=61) == (many,)
    track = clip_row([(0.0, 1, 1, i) for i in range(61)], style="track")
    assert group_records([track, track]) == [(track,), (track,)]


def test_point_labels_are_expressions():
    points = [{"x": i, "y": 1, "label": name} for i, name in enumerate("abab")]
    parts = expressions(parse_record({"image": "p", "points": points, "coords": "pixel"}, 1))
    assert [(part.label, [point.x for point in part.points or ()]) for part in parts] == [
        ("a", [0, 2]),
        ("b", [1, 3]),
    ]
    assert [expressions(part) for part in parts] == [(part,) for part in parts]


small_rows = st.builds(
    lambda name, count: (
        row([(1, 1)] * count, image=name) if count else row([], image=name, no_points=True, coords=None)
    ),
    st.sampled_from("pqr"),
    st.integers(0, 10),
)


@given(st.lists(small_rows, max_size=20), st.integers(10, 30))
def test_groups_hold_all_rows_in_order_within_the_limit(rows, limit):
    groups = group_records(rows, limit)
    assert sum(len(group) for group in groups) == len(rows)
    for group in groups:
        assert len({each.visual for each in group}) == 1
        assert sum(len(each.points or ()) for each in group) <= limit
    for name in "pqr":
        same = [each for group in groups for each in group if each.images == (name,)]
        assert all(
            a is b for a, b in zip(same, [each for each in rows if each.images == (name,)], strict=True)
        )
    firsts = [next(i for i, each in enumerate(rows) if each is group[0]) for group in groups]
    assert firsts == sorted(firsts)


def test_text_rows_share_nothing():
    text = parse_record({"prompt": "Why?", "answer": "Because."}, 1)
    assert group_records([text, text]) == [(text,), (text,)]


def test_every_draw_shuffles_and_the_same_state_draws_the_same():
    group, metadata = [row(label=name) for name in "abcdef"], metadata_of(seen(SIZE))
    orders = {
        tuple(str(each.record.label) for each in format_tree(group, GroundingWriter(metadata), rng(seed)))
        for seed in range(20)
    }
    assert len(orders) > 15 and all(sorted(order) == list("abcdef") for order in orders)
    twice = [
        [each.prompt for each in format_tree(group, GroundingWriter(metadata), rng(9))] for _ in range(2)
    ]
    assert twice[0] == twice[1]


# Weights and rows


@pytest.mark.parametrize(
    ("columns", "weighting"),
    [
        ({"image": "a", "label": "x", "no_points": True}, LossWeighting(0.2)),
        ({"image": "a", "label": "x", "no_points": True, "weight": 3}, LossWeighting(0.2 * 3)),
        ({"image": "a", "label": "x", "no_points": True, "source": "mine"}, LossWeighting(1.0, 4.0)),
        ({"prompt": "x", "answer": "y"}, LossWeighting(1.0, 2.0, True)),
        ({"image": "a", "caption": "y", "weight": 0.5}, LossWeighting(0.5, 2.0, True)),
        ({"video": "a", "caption": "y", "source": "other"}, LossWeighting(0.1)),
    ],
)
def test_weights_by_kind_source_and_row(columns, weighting):
    record, rules = (
        parse_record(columns, 1),
        FormattingRules(source_weights={"mine": LossWeighting(1.0, 4.0)}),
    )
    assert weighting_of(record, rules) == weighting
    plain = dataclasses.replace(rules, weights=PLAIN_WEIGHTS, source_weights={})
    assert weighting_of(dataclasses.replace(record, weight=None), plain) == LossWeighting()


def test_a_tree_weighs_every_branch_by_its_own_row():
    inputs = seen(SIZE)
    question = parse_record({"image": "a", "prompt": "What is it?", "answer": "A red cup."}, 1)
    made = format_tree([row(weight=2.0), question], GroundingWriter(metadata_of(inputs)), rng())
    built = tree_row(Row.from_processor(inputs), made, processor().chat)
    targets = built.shift_labels != IGNORED
    for i, conversation in enumerate(made):
        mine = (built.branch_ids == i) & targets
        weight = 0.4 if conversation.record.is_pointing else 2 / np.sqrt(int(mine.sum()) - 1) / np.sqrt(2)
        torch.testing.assert_close(built.loss_weights[mine], torch.full((int(mine.sum()),), float(weight)))
    assert (built.loss_weights[~targets] == 0).all()
    first_only = tree_row(
        Row.from_processor(inputs), made, processor().chat, max_length=int((built.branch_ids < 1).sum())
    )
    assert int(first_only.branch_ids.max()) == 0


@pytest.mark.parametrize("kind", ["picture", "pictures", "clip"])
def test_rows_read_as_the_processor_reads_them(kind):
    """Prompt ids equal the processor's for the same text, and the answer decodes to the points of the record."""
    if kind == "clip":
        inputs, record = seen_clip(), clip_row([(0.5, 50, 50, 1), (1.0, 20, 70, 1)], style="point_count")
    else:
        sizes = [SIZE, (90, 120)][: 1 if kind == "picture" else 2]
        points = [{"x": 40, "y": 30}, {"x": 70, "y": 80, "image": len(sizes) - 1}]
        record = parse_record(
            {"images": ["a", "b"][: len(sizes)], "label": "cups", "coords": "pixel", "points": points}, 1
        )
        inputs = seen(*sizes)
    metadata = metadata_of(inputs)
    made = format_record(record, GroundingWriter(metadata), rng(), FormattingRules(some_images=0.0))
    built = tree_row(Row.from_processor(inputs), [made], processor().chat)
    text = f"{processor().chat.media_text(*media_of(record))}<|im_start|>user\n{made.prompt}<|im_end|>\n<|im_start|>assistant\n"
    visual = (
        {"images": [picture(h, w) for w, h in metadata.image_sizes], "max_crops": 4} if kind != "clip" else {}
    )
    if visual:
        expected = processor()(text=[text], **visual, return_tensors="pt")["input_ids"][0]
        assert torch.equal(built.input_ids[: len(expected)], expected)
    decoded = processor().decode_points(extended_ids(built, metadata), metadata)
    wanted = triples_to_points(point_list(made).triples, metadata)
    assert np.array_equal(decoded.xy, wanted[1]) and decoded.group.tolist() == wanted[0].tolist()


def extended_ids(built, metadata):
    """Ids as generation gives them: grounding tokens replaced by what they select."""
    known = processor()
    vocabulary = ExtendedVocabulary(
        known.extended_start, metadata.num_patches, metadata.num_slots, metadata.num_locations
    )
    grounding = known.tokenizer.convert_tokens_to_ids([PATCH, "<|vit_index|>", "<|vit_loc|>"])
    kinds = dict(zip(grounding, (Kind.PATCH, Kind.SUBPATCH, Kind.LOCATION), strict=True))
    pairs = zip(built.input_ids.tolist(), built.selection_ids.tolist(), strict=True)
    return [
        token if selection == -1 else vocabulary.encode(kinds[token], selection) for token, selection in pairs
    ]


# Templates

TABLES = {
    name: table
    for name, table in vars(templates).items()
    if name.isupper() and isinstance(table, tuple) and name not in ("TRACK_STYLES", "NO_POINTS_PLEASE")
}
COUNTS = {
    "POINTING": 43, "POINT_COUNT": 60, "COUNT_THEN_POINT": 6, "COUNT": 6, "SEVERAL_POINTING": 11, "SEVERAL_POINT_COUNT": 14,
    "SEVERAL_COUNT_THEN_POINT": 9, "SEVERAL_COUNT": 9, "TRACK_AT_RATE": 10, "TRACK": 8,
    "TRACK_START_END": 7, "TRACK_FROM_POINT_AT_RATE": 6, "TRACK_FROM_POINT": 6,
}  # fmt: skip


def test_as_many_templates_as_published_and_no_two_alike():
    assert {name: len(TABLES[name]) for name in COUNTS} == COUNTS
    for name, table in TABLES.items():
        assert len(set(table)) == len(table), name
        slots = {slot for template in table for slot in re.findall(r"{(\w*)}", template)}
        assert slots <= {"label", "medium", "images", "rate", "points"}
        assert name.endswith("CAPTION") or all(
            template.count("{label}") + template.count("{points}") == 1 for template in table
        ), name


def test_what_the_pipeline_sends_is_among_the_templates():
    assert POINTING_TEMPLATE.replace("{}", "{label}") in templates.POINTING
    assert COUNTING_TEMPLATE.replace("{}", "{label}") in templates.POINT_COUNT


@given(st.sampled_from(["pointing", "point_count", "count_then_point", "count"]), st.integers(0, 2**32))
def test_braces_in_labels_mean_nothing(task, seed):
    label = "{medium} {label} {images} {rate}"
    assert label in templates.draw_prompt(task, label, rng(seed), medium="video")
    assert label in templates.draw_prompt_for_several(task, label, "image_1", rng(seed))
    assert label in templates.draw_track_prompt(label, 1, rng(seed))


def test_unknown_tasks_are_refused():
    with pytest.raises(
        ProcessingError,
        match="expected one of the tasks pointing, point_count, count_then_point, count, got 'boxes'",
    ):
        templates.draw_prompt("boxes", "x", rng())  # type: ignore[arg-type]
