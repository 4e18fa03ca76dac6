"""Molmo2 behind the same calls: a tiny random model from transformers' own files, and written answers through
the real reader.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_molmo2 import molmo2_processor
from toy_pointer import toy_pointer
from toy_processor import frames, picture
from transformers import LogitsProcessor, Molmo2ForConditionalGeneration

import molmopoint
from molmopoint.backends import backend_class_of
from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.molmo2 import Molmo2Backend
from molmopoint.backends.molmopoint import MolmoPointBackend
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import collate_requests
from molmopoint.errors import CheckpointError, GroundingError, ProcessingError
from molmopoint.geometry import triples_to_points
from molmopoint.pipeline import Pointer
from molmopoint.points import Point, Points
from molmopoint.processing import Molmo2PointingProcessor
from molmopoint.processing.text_points import text_points
from molmopoint.video import Clip

STEPS = 16
PICTURES = [picture(60, 90), picture(120, 60), picture(150, 200), picture(20, 33)]
TIMES = [0.0, 0.5, 1.0]


@pytest.fixture(scope="module")
def pointer(molmo2_folder: Path) -> Pointer:
    return molmopoint.load(molmo2_folder, device_map="cpu")


class Dictation(LogitsProcessor):
    """Makes the model write given answers and end its turn; where a limit leaves it no choice, that token
    comes first.
    """

    def __init__(self, pointer: Pointer, answers: tuple[str, ...]) -> None:
        tokenizer = pointer.processor.tokenizer
        self.rows = [
            [*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id]
            for answer in answers
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, ids in enumerate(self.rows):
            if ids and scores[row, ids[0]] > -torch.inf:
                scores[row] = -torch.inf
                scores[row, ids.pop(0)] = 0
        return scores


@contextmanager
def dictated(pointer: Pointer, *answers: str) -> Iterator[Pointer]:
    """The pointer, whose model says these answers, row by row."""
    backend: Any = pointer._backend
    limits = backend._limits

    def with_dictation(*arguments: Any) -> dict[str, Any]:
        return {
            "logits_processor": [*limits(*arguments).get("logits_processor", ()), Dictation(pointer, answers)]
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "_limits", with_dictation)
        yield pointer


def say(pointer: Pointer, answer: str, image: Any = PICTURES[2], **options: Any) -> molmopoint.PointingResult:
    with dictated(pointer, answer):
        return pointer.point(image, "the cats", **options)


def places(points: Any) -> list[tuple[int, float, float, float]]:
    return [(p.object_id, p.group, round(p.x, 6), round(p.y, 6)) for p in points]


def columns(*values: list[Any]) -> Any:
    return tuple(np.array(each) for each in values)


def native_inputs(
    processor: Any, prompt: str, images: list[Any] | None = None, clip: Clip | None = None
) -> Any:
    kinds = ["image"] * len(images or ()) + ["video"] * (clip is not None)
    content = [*({"type": kind} for kind in kinds), {"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    if clip is None:
        return processor(text=[text], images=images, return_tensors="pt")
    known = {"total_num_frames": len(clip.frames), "fps": 1.0, "frames_indices": list(clip.timestamps)}
    return processor(
        text=[text], videos=[clip.frames], video_metadata=[known], do_sample_frames=False, return_tensors="pt"
    )


@pytest.mark.parametrize(
    "changes", [{}, {"use_frame_special_tokens": False, "use_single_crop_col_tokens": False}]
)
def test_inputs_and_answers_are_the_native_ones(
    molmo2_folder: Path, tmp_path: Path, changes: dict[str, bool]
):
    native: Any = molmo2_processor()
    model: Any = Molmo2ForConditionalGeneration.from_pretrained(molmo2_folder).eval()
    for name, value in changes.items():
        setattr(native, name, value)
    native.save_pretrained(tmp_path)
    pointer = Pointer(model, Molmo2PointingProcessor.from_pretrained(tmp_path))
    clip = Clip(frames(3), TIMES)
    for images, shown in (([PICTURES[0]], None), (PICTURES[1:3], None), (None, None), (None, clip)):
        expected = native_inputs(native, "Find it.", images, shown)
        options = AnswerOptions(max_new_tokens=STEPS)
        request, _ = pointer._builder.question(images, "Find it.", {}, video=shown)
        assert request.input_ids.tolist() == expected["input_ids"][0].tolist()
        assert request.row.mm_token_type_ids.tolist() == expected["mm_token_type_ids"][0].tolist()
        for name, tensor in request.media.pixels.items():
            difference = (tensor - expected[name]).abs()
            # Bytes may round otherwise.
            assert difference.max() <= 2 / 255 + 1e-6 and (difference > 1e-6).float().mean() <= 1e-3, name
        same = {name: tensor for name, tensor in expected.items() if not name.startswith("pixel")}
        inputs = {
            **same,
            **{name: value for name, value in request.media.pixels.items() if name.startswith("pixel")},
        }
        written = model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0, len(request.input_ids) :]
        (result,) = pointer._answer([request], options)
        assert result.raw_text == native.tokenizer.decode(written, skip_special_tokens=True)


def test_a_batch_is_its_rows_whatever_they_show(pointer):
    options = AnswerOptions(max_new_tokens=STEPS)
    builder = pointer._builder
    requests = [
        builder.about_pictures(PICTURES[0], "a dog on a chair", options),
        builder.about_video(frames(3), "x", ClipOptions(TIMES), options),
        builder.about_pictures(None, "Where is it?", options),
        builder.about_pictures(PICTURES[1:3], "the cats", options),
        builder.about_video(
            Clip(frames(40)[:, :20, :20], np.arange(40) / 2), "y", ClipOptions(), options
        ),  # more than one pass of the ViT
    ]
    alone = [pointer._answer([request], options)[0].raw_text for request in requests]
    assert len(set(alone)) == len(alone)
    assert [result.raw_text for result in pointer._answer(requests, options)] == alone
    mixed = list(
        pointer.point_batch(
            [PICTURES[0], None, PICTURES[1:3]], "the cats", max_new_tokens=STEPS, batch_size=2
        )
    )
    assert [r.raw_text for r in mixed] == [
        pointer.point(image, "the cats", max_new_tokens=STEPS).raw_text
        for image in (PICTURES[0], None, PICTURES[1:3])
    ]


def test_encoded_once_asked_often(pointer):
    encoded = pointer.encode(PICTURES[2])
    for prompt in ("the cats", "a dog"):
        assert (
            pointer.point(encoded, prompt, max_new_tokens=STEPS).raw_text
            == pointer.point(PICTURES[2], prompt, max_new_tokens=STEPS).raw_text
        )
    batch = list(pointer.point_batch([PICTURES[0], encoded, None], "the cats", max_new_tokens=STEPS))
    assert batch[1].raw_text == pointer.point(PICTURES[2], "the cats", max_new_tokens=STEPS).raw_text
    assert batch[0].raw_text == pointer.point(PICTURES[0], "the cats", max_new_tokens=STEPS).raw_text


WRITTEN = [
    ('<points coords="1 1 100 300 2 500 200">boats</points>', [(1, 0, 20, 45), (2, 0, 100, 30)], "boats", 0),
    (
        'Seeing the <points coords="1 1 000 1000">cups</points> makes 1.',
        [(1, 0, 0, 150)],
        "Seeing the cups makes 1.",
        0,
    ),
    (
        'Two <points alt="c" coords="1 1 100 100\t1 2 200 200">cats</points>.',
        [(1, 0, 20, 15), (2, 0, 40, 30)],
        "Two cats.",
        0,
    ),
    ('<points coords="1 1 100 300 2 1001 200 3 45 100;2 4 100 100">x</points>', [(1, 0, 20, 45)], "x", 3),
    ('<point x="61.5" y="40.0" alt="cup">cup</point>', [(1, 0, 123, 60)], "cup", 0),
    (
        '<points x1="10.5" y1="20.0" x2="3" y2="4.0" alt="cups">cups</points>',
        [(1, 0, 21, 30), (2, 0, 6, 6)],
        "cups",
        0,
    ),
    ("Click(10.5, 20)", [(1, 0, 21, 30)], "Click(10.5, 20)", 0),
    ("There are none.", [], "There are none.", 0),
]


@pytest.mark.parametrize(("answer", "expected", "words", "invalid"), WRITTEN)
def test_written_answers_become_points_and_so_do_their_streams(pointer, answer, expected, words, invalid):
    result = say(pointer, answer)
    assert (places(result.points), result.text, result.invalid, result.truncated) == (
        expected,
        words,
        invalid,
        False,
    )
    assert (
        result.raw_text == answer
        and result.points.image_sizes == ((200, 150),)
        and np.isnan(result.points.score).all()
    )
    with dictated(pointer, answer):
        stream = pointer.stream(PICTURES[2], "the cats")
        events = list(stream)
    assert places([event for event in events if isinstance(event, Point)]) == expected
    assert "".join(event for event in events if isinstance(event, str)).strip() == words
    assert stream.result is not None and stream.result.raw_text == answer


def test_points_of_a_stream_come_early(pointer):
    with dictated(pointer, 'Two: <points coords="1 1 100 300 2 500 200">boats</points>'):
        events = list(pointer.stream(PICTURES[2], "the cats"))
    kinds = ["point" if isinstance(event, Point) else event for event in events]
    joined = "|".join(kinds)
    assert joined.replace("|", "").startswith("Two: pointpoint") and joined.replace("|", "").endswith("boats")


def test_several_pictures_clips_and_cut_answers(pointer):
    result = say(pointer, '<points coords="1 1 050 060;2 2 500 500">cats</points>', PICTURES[:2])
    assert places(result.points) == [(1, 0, 4.5, 3.6), (2, 1, 30, 60)]
    drawn = result.draw()
    assert isinstance(drawn, list) and len(drawn) == 2
    tracks = '<tracks coords="0.0 1 100 100 2 500 100;0.5 1 150 100 1 900 900;1.0 1 200 100">dog</tracks>'
    with dictated(pointer, tracks):
        followed = pointer.point_video(frames(3), "the dog", timestamps=[0.0, 0.46, 1.04])
    assert places(followed.points) == [(1, 0, 12, 8), (2, 0, 60, 8), (1, 0.46, 18, 8), (1, 1.04, 24, 8)]
    assert followed.invalid == 1 and followed.points.group.dtype.kind == "f"  # one object twice at one time
    answer = '<points coords="1 1 100 300 2 500 2'
    cut = say(pointer, answer + "00", max_new_tokens=len(answer))
    assert cut.truncated and places(cut.points) == [(1, 0, 20, 45)] and cut.text == ""
    lost = say(pointer, '<points coords="1 1 100 300">x</points>', None)
    assert len(lost.points) == 0 and lost.invalid == 1
    with pytest.raises(GroundingError, match="distributions"):
        result.heatmap(0)
    assert (
        result.to_dict()["points"]["score"] == [None, None] if "score" in result.to_dict()["points"] else True
    )


def test_limits(pointer):
    many = 'Look: <points coords="1 1 100 300 2 500 200 3 100 1000 4 200 200">x</points> <points coords="1 5 100 100">y</points>'
    for limit in (1, 2, 3):
        result = say(pointer, many, max_points=limit)
        assert len(result.points) == limit and result.points.object_id.tolist() == list(range(1, limit + 1))
        assert not result.truncated and result.invalid == 0
    assert say(pointer, many, max_points=3).points.y[2] == 150, "1000 has four digits"
    hundred = say(pointer, '<points coords="1 1 100 100 2 300 300">x</points>', max_points=1)
    assert places(hundred.points) == [(1, 0, 20, 15)]
    one = say(pointer, '1 7 250 500 8 100 100">x</points>', single=True)
    assert one.raw_text.startswith('<points coords="1 7 250 500">') and places(one.points) == [(7, 0, 50, 75)]
    older = say(pointer, '<points x1="10.0" y1="20.0" x2="30.0" y2="40.0" alt="a">a</points>', max_points=1)
    assert places(older.points) == [(1, 0, 20, 30)]
    with dictated(pointer, many, "There are none.", many):
        batch = list(pointer.point_batch(PICTURES[1:], "the cats", max_points=2))
    assert [len(result.points) for result in batch] == [2, 0, 2]
    with dictated(pointer, many):
        events = list(pointer.stream(PICTURES[2], "the cats", max_points=2))
    assert sum(isinstance(event, Point) for event in events) == 2
    for unlimited in (True, False):
        sampled = pointer.point(
            PICTURES[0], "x", max_new_tokens=4, top_k=2, max_points=None if unlimited else 1
        )
        assert sampled.truncated
    with pytest.raises(ProcessingError, match="single"):
        pointer.point(None, "x", single=True)
    with pytest.raises(NotImplementedError, match="beam"):
        pointer.point(PICTURES[0], "x", max_points=1, num_beams=2)
    with pytest.raises(NotImplementedError, match="beam"):
        pointer.stream(PICTURES[0], "x", num_beams=2)


def prompt_of(pointer, history, image=PICTURES[2]):
    request = pointer._builder.about_pictures(image, "next", AnswerOptions(), history)
    return pointer.processor.tokenizer.decode(request.input_ids).split("<|im_start|>", 1)[1]


def test_earlier_turns_are_written_as_text(pointer):
    answer = '<points coords="1 2 500 200 1 100 300">boats</points> <POINT_3'
    first = say(pointer, answer)
    assert f"assistant\n{answer}" in prompt_of(pointer, first), "its own answers stay as they are"
    points = Points(*columns([2, 1], [0, 0], [100.0, 20.0], [30.0, 45.0]))
    assert '<points coords="1 1 100 300 2 500 200">the <cats></points>' in prompt_of(
        pointer, [("the <cats>", points)]
    )
    assert "There are none." in prompt_of(pointer, [("x", Points.empty())])
    assert "user\nWhat?<|im_end|>\n<|im_start|>assistant\nA cat." in prompt_of(pointer, [("What?", "A cat.")])
    with pytest.raises(GroundingError, match="inside a picture"):
        prompt_of(pointer, [("x", Points(*columns([1], [0], [201.0], [1.0])))])
    clip = pointer._builder.process_video(frames(3), ClipOptions(TIMES))
    moving = Points(*columns([1, 1], [0.0, 0.5], [12.0, 24.0], [8.0, 8.0]))
    asked = pointer._builder.build_request(clip, "next", history=[("it", moving)])
    assert '<tracks coords="0.0 1 100 100;0.5 1 200 100">it</tracks>' in pointer.processor.tokenizer.decode(
        asked.input_ids
    )


def test_turns_of_the_other_family(pointer):
    grounded = toy_pointer()
    theirs = grounded.point(PICTURES[2], "the cats", max_new_tokens=32)
    triples = re.findall(r"(?:<POINT_\d+>){3}", theirs.raw_text)
    assert len(triples) == len(theirs.points) > 0
    listed = "".join(f"{triple}{number}" for number, triple in enumerate(triples, 1))
    shown = prompt_of(pointer, replace(theirs, raw_text=f'See <points coords="{listed}">cats</point>.'))
    assert (
        f"assistant\nSee {text_points(theirs.points.group, theirs.points.xy, theirs.image_sizes, 'cats')}.<"
        in shown
    )
    ours = say(pointer, '<points coords="1 1 100 300 2 500 200">boats</points>')
    request = grounded._builder.about_pictures(PICTURES[2], "next", AnswerOptions(), [ours])
    assert int((request.row.selection_ids >= 0).sum()) == 6
    chosen = request.row.selection_ids[request.row.selection_ids >= 0].reshape(-1, 3).numpy()
    _, xy = triples_to_points(chosen, request.metadata)
    assert np.abs(np.sort(xy, axis=0) - np.sort(ours.points.xy, axis=0)).max() <= 5, (
        "half a location cell of a toy crop"
    )


@pytest.mark.parametrize("family", ["molmo2", "molmopoint"])
def test_plain_questions(pointer, family, tmp_path):
    asked: Any = pointer if family == "molmo2" else toy_pointer()
    for image in (PICTURES[0], PICTURES[:2], None, asked.encode(PICTURES[0])):
        answer = asked.ask(image, "the colour", max_new_tokens=STEPS)
        stream = asked.ask_stream(image, "the colour", max_new_tokens=STEPS)
        assert "".join(stream).strip() == answer and stream.result.prompt == "the colour"
        assert (
            stream.result.text
            == answer
            == asked.point(image, "the colour", template="{}", max_new_tokens=STEPS).text
        )
    clip = Clip(frames(3), TIMES)
    expected = asked.point_video(clip, "What?", max_new_tokens=STEPS).text
    assert asked.ask(clip, "What?", max_new_tokens=STEPS) == expected
    assert asked.ask(None, "What?", video=frames(3), timestamps=TIMES, max_new_tokens=STEPS) == expected
    assert (
        asked.ask(PICTURES[0], "And?", history=[("What?", "A cat.")], temperature=0.5, max_new_tokens=2)
        is not None
    )
    with asked.ask_stream(None, "What?", max_new_tokens=STEPS) as stream:
        next(stream)
    for arguments, message in (
        ({"video": clip}, "got both"),
        ({"timestamps": TIMES}, "timestamps"),
    ):
        with pytest.raises(ProcessingError, match=message):
            asked.ask(PICTURES[0], "What?", **arguments)
    with pytest.raises(ProcessingError, match="empty"):
        asked.ask(PICTURES[0], " ")
    with pytest.raises(ProcessingError, match="gone"):
        asked.ask(tmp_path / "gone.MP4", "What?")
    assert (
        asked.ask(None, "What?", video=frames(6), frame_rate=2, end=1.0, max_frames=2, max_new_tokens=2)
        is not None
    )
    with pytest.raises(TypeError, match="single"):
        asked.ask(PICTURES[0], "What?", single=True)
    with pytest.raises(TypeError, match="temperature"):
        asked.ask(PICTURES[0], "What?", temperatur=1)


def test_counting_with_text(pointer):
    with dictated(
        pointer, 'Counting the <points coords="1 1 100 300 2 500 200">cats</points> shows a total of 2.'
    ):
        assert pointer.count(PICTURES[0], "cats") == 2
    with dictated(pointer, "3"):
        assert pointer.count(PICTURES[0], "cats") == 3


def test_loading_checks_what_it_reads(molmo2_folder: Path, toy_folder: Path, tmp_path: Path):
    assert (
        backend_class_of(str(molmo2_folder)) is Molmo2Backend
        and backend_class_of(str(toy_folder)) is MolmoPointBackend
    )
    assert (
        molmopoint.load(molmo2_folder, dtype="bfloat16", device_map="cpu")
        .point(PICTURES[0], "x", max_new_tokens=2)
        .truncated
    )
    for file in molmo2_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if "language_model.layers.0" in name)
    save_file(
        {name: tensor for name, tensor in weights.items() if name != lost},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CheckpointError, match="missing"):
        molmopoint.load(tmp_path, device_map="cpu")
    (tmp_path / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        molmopoint.load(tmp_path, device_map="cpu")
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match="expected a Molmo2 at"):
        molmopoint.load(tmp_path, device_map="cpu")


def test_models_and_processors_that_do_not_belong_together(pointer):
    other = toy_pointer()
    with pytest.raises(CheckpointError, match="expected a Molmo2PointingProcessor"):
        Pointer(pointer.model, other.processor)
    with pytest.raises(CheckpointError, match="expected a MolmoPointProcessor"):
        Pointer(other.model, pointer.processor)
    native: Any = molmo2_processor()
    with pytest.raises(CheckpointError, match="got Molmo2Processor"):
        Pointer(pointer.model, native)


def test_the_processor_alone_reads_and_writes_points(pointer):
    processor = pointer.processor
    points = Points(*columns([1], [0], [20.0], [45.0]), labels=["cat"])
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": PICTURES[2]},
                {"type": "text", "text": "Point to the cat"},
            ],
        },
        {"role": "assistant", "content": [{"type": "points", "points": points}]},
        {"role": "user", "content": "And the dog?"},
    ]
    output = processor.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        return_pointing_metadata=True,
    )
    assert '<points coords="1 1 100 300">cat</points>' in processor.tokenizer.decode(output["input_ids"][0])
    (metadata,) = output.pop("pointing_metadata")
    assert "selection_ids" not in output
    ids = processor.tokenizer.encode('<points coords="1 1 100 300">cat</points>', add_special_tokens=False)
    assert (
        places(processor.decode_points(ids, metadata))
        == places(processor.decode_points(np.array(ids), metadata))
        == [(1, 0, 20, 45)]
    )


def test_written_tracks_keep_their_numbers(pointer):
    """Numbers need not begin at 1, and an object may come later or be missing in between."""
    answer = '<tracks coords="0.0 3 100 100 7 500 100;0.5 3 150 100;1.0 3 200 100 7 600 300 9 900 900">dog</tracks>'
    with dictated(pointer, answer):
        result = pointer.track(frames(3, 50, 70), "the dogs", timestamps=TIMES, fps=2)
    assert (
        result.prompt == "Track the dogs at 2 FPS"
        and result.tracks.object_ids == (3, 7, 9)
        and not result.invalid
    )
    assert (
        result.raw_text == answer
        and result.tracks.moments.tolist() == TIMES
        and result.tracks.size == (70, 50)
    )
    assert result.tracks.track(7).xy == pytest.approx(np.array([[35, 5], [42, 15]])) and result.tracks.track(
        7
    ).time.tolist() == [0, 1]
    assert [track.label for track in result.tracks] == ["dog"] * 3


def test_written_tracks_of_two_windows_are_linked(pointer, monkeypatch):
    """The second window counts its objects anew: its 1 is the 2 of the first, by the place at the shared
    moments.
    """
    monkeypatch.setattr(pointer.processor.video_processor, "num_frames", 5)
    first = ";".join(f"{t / 2:.1f} 1 100 {100 + 50 * t} 2 800 {100 + 50 * t}" for t in range(5))
    second = ";".join(f"{t / 2:.1f} 1 800 {200 + 50 * t}" for t in range(5))
    with dictated(
        pointer, f'<tracks coords="{first}">cat</tracks>', f'<tracks coords="{second}">cat</tracks>'
    ):
        (result,) = pointer.track_batch([Clip(frames(7, 50, 70), np.arange(7) / 2)], "the cats", batch_size=2)
    assert len(result.answers) == 2 and result.tracks.object_ids == (1, 2)
    assert result.tracks.track(1).end == 2.0 and result.tracks.track(2).time.tolist() == [
        0,
        0.5,
        1,
        1.5,
        2,
        2.5,
        3,
    ]
    assert result.tracks.track(2).y == pytest.approx(50 * np.arange(100, 401, 50) / 1000)


def test_pictures_are_seen_causally_where_they_were_in_training(molmo2_folder: Path, tmp_path: Path):
    """As a MolmoWeb, which the native network is when it is told no types of tokens."""
    web = shutil.copytree(molmo2_folder, tmp_path / "MolmoWeb-4B")
    pointer = molmopoint.load(web, device="cpu")
    request = pointer.backend.requests.about_pictures(PICTURES[0], "Point to cups", AnswerOptions())
    batch = collate_requests([request], 0)
    native = Molmo2ForConditionalGeneration.from_pretrained(web, dtype=torch.float32).eval()
    prompt = {
        name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values", "image_token_pooling")
    }
    seen: Any = native.get_image_features(
        prompt["pixel_values"],
        prompt["image_token_pooling"],
        image_grids=torch.tensor([[len(batch["image_token_pooling"]), 1, 0, 0]]),
    )
    features = seen.pooler_output[0]
    with torch.inference_mode():
        embeddings = native.get_input_embeddings()(prompt["input_ids"]).clone()
        embeddings[prompt["input_ids"] == native.config.image_patch_id] += features
        causal = native.generate(
            inputs_embeds=embeddings,
            attention_mask=prompt["attention_mask"],
            max_new_tokens=12,
            do_sample=False,
        )
    result = pointer.point(PICTURES[0], "Point to cups", max_new_tokens=12)
    assert result.raw_text == pointer.backend.decode(causal[0].tolist())
    other = molmopoint.load(molmo2_folder, device="cpu")
    assert not other.backend.causal_vision
    told = molmopoint.load(molmo2_folder, device="cpu", causal_vision=True)
    assert told.point(PICTURES[0], "Point to cups", max_new_tokens=12).raw_text == result.raw_text
    assert other.point(PICTURES[0], "Point to cups", max_new_tokens=12).raw_text != result.raw_text
    with pytest.raises(CheckpointError, match="no causal_vision with the MolmoPoint"):
        molmopoint.load("nano", causal_vision=True)
