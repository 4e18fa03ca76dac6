"""What transformers users expect of a processor: message objects, both kinds of input in one call, offsets,
names, Auto classes.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from toy_processor import frames, picture, toy_processor
from transformers import AutoImageProcessor, AutoProcessor, Molmo2Processor, pipeline

import molmopoint
from molmopoint import checkpoints
from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.processing import Molmo2PointingProcessor, MolmoPointImageProcessor, MolmoPointProcessor

PROCESSOR = toy_processor()
ONE, CLIP = picture(60, 90), frames(3)
RATE = {"video_metadata": [{"fps": 1}], "do_sample_frames": False}


@dataclass
class Message:
    role: str
    content: Any
    tool_calls: list | None = None


@dataclass
class Block:
    type: str
    text: str | None = None
    image: Any = None


class Modelled:
    """As pydantic's models are, which the package need not have."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, Any]:
        return dict(self.fields)


@dataclass
class Chat:
    messages: list = field(default_factory=list)


@pytest.mark.parametrize("form", ["dataclass", "pydantic", "chat"])
def test_messages_may_be_objects(form):
    plain = [
        {
            "role": "user",
            "content": [{"type": "image", "image": ONE}, {"type": "text", "text": "What is <POINT_1>?"}],
        }
    ]
    blocks = [Block("image", image=ONE), Block("text", text="What is <POINT_1>?")]
    objects: Any = {
        "dataclass": [Message("user", blocks)],
        "pydantic": [
            Modelled(
                role="user", content=[Modelled(type="image", image=ONE, text=None), plain[0]["content"][1]]
            )
        ],
        "chat": Chat([Message("user", blocks)]),
    }[form]
    asked: Any = {"tokenize": True, "return_dict": True, "add_generation_prompt": True}
    expected, got = (PROCESSOR.apply_chat_template(messages, **asked) for messages in (plain, objects))
    assert got["input_ids"] == expected["input_ids"]
    assert torch.equal(torch.as_tensor(got["pixel_values"]), torch.as_tensor(expected["pixel_values"]))
    assert PROCESSOR.apply_chat_template([objects]) == [PROCESSOR.apply_chat_template(plain)], (
        "a list of conversations"
    )


def test_fields_that_are_none_are_left_out():
    template = "{% for m in messages %}{{ m.role }}{% if m.tool_calls is defined %}!{% endif %}{% endfor %}"
    assert PROCESSOR.apply_chat_template([Message("user", "x")], chat_template=template) == "user"


@pytest.mark.parametrize("wrong", [3, "text", [3], [Block("text", text="x")], [{"content": "x"}], [Message]])
def test_what_is_no_message(wrong):
    with pytest.raises(ProcessingError, match="messages with role and content"):
        PROCESSOR.apply_chat_template(wrong)


def test_a_picture_and_a_clip_in_one_sample():
    """Encoded as in transformers; who wants points is told that no model takes both in a row."""
    text = "<|image|> and <|video|>"
    out = PROCESSOR(text=text, images=ONE, videos=[CLIP], return_tensors="pt", **RATE)
    assert set(out) == set(PROCESSOR.model_input_names)
    single = [
        PROCESSOR(text="<|image|>", images=ONE, return_tensors="pt"),
        PROCESSOR(text="<|video|>", videos=[CLIP], return_tensors="pt", **RATE),
    ]
    assert torch.equal(out["pixel_values"], single[0]["pixel_values"])
    assert torch.equal(out["pixel_values_videos"], single[1]["pixel_values_videos"])
    count = [
        int((ids["input_ids"] == PROCESSOR.tokenizer.convert_tokens_to_ids("<im_patch>")).sum())
        for ids in (out, *single)
    ]
    assert count[0] == count[1] + count[2]
    with pytest.raises(ProcessingError, match="pictures or a video in a sample"):
        PROCESSOR(text=text, images=ONE, videos=[CLIP], return_pointing_metadata=True, **RATE)


def test_offsets_of_placeholders():
    seen = []
    replace = PROCESSOR.get_text_with_replacements
    try:
        PROCESSOR.get_text_with_replacements = lambda *given: seen.append(replace(*given)) or seen[-1]
        out = PROCESSOR(
            text="See <|image|>, then <|image|>.", images=[ONE, ONE], return_text_replacement_offsets=True
        )
    finally:
        del PROCESSOR.get_text_with_replacements
    text = seen[0][0][0]
    for entry in out["text_replacement_offsets"][0]:
        start, end = entry["new_span"]
        assert (
            entry["type"] == "image"
            and text[start:end] == entry["replacement"]
            and "<im_patch>" in entry["replacement"]
        )
    assert len(out["text_replacement_offsets"][0]) == 2


@pytest.mark.parametrize(
    "given",
    [
        {"return_tensors": "pt"},
        {"return_tensors": "pt", "text_kwargs": {}},
        {"text_kwargs": {"return_tensors": "pt"}},
    ],
)
def test_settings_may_be_flat_or_nested(given):
    out = PROCESSOR(text="<|image|>", images=ONE, **given)
    assert all(
        isinstance(out[name], torch.Tensor) for name in ("input_ids", "attention_mask", "mm_token_type_ids")
    )


def test_counts_are_told_as_transformers_tells_them():
    for images in ([ONE] * 2, [[ONE], [ONE]], [[ONE, ONE]]):
        with pytest.raises(
            ValueError, match=" tokens in the prompts should be the same as the number of images"
        ):
            PROCESSOR(text="<|image|>", images=images)


def test_frames_of_unknown_times_are_told():
    """Taken as they are, they are as far apart as the model looks; where frames are chosen, times must be
    known.
    """
    with pytest.warns(InputWarning, match="taken to be 2 a second"):
        out = PROCESSOR(
            text="<|video|>", videos=[CLIP], do_sample_frames=False, return_pointing_metadata=True
        )
    assert out["pointing_metadata"][0].timestamps.tolist() == [0.0, 0.5, 1.0]
    with pytest.raises(ProcessingError, match="expected to know when the frames were taken"):
        PROCESSOR(text="<|video|>", videos=[CLIP])


def test_arrays_with_channels_first():
    first = np.ascontiguousarray(np.moveaxis(CLIP, 3, 1))
    out = [
        PROCESSOR(text="<|video|>", videos=[clip], **RATE)["pixel_values_videos"]
        for clip in (CLIP, first, torch.from_numpy(first))
    ]
    assert torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])
    narrow = PROCESSOR(
        text="<|video|>", videos=[np.zeros((2, 3, 9, 3), np.uint8)], return_pointing_metadata=True, **RATE
    )
    assert narrow["pointing_metadata"][0].image_sizes == ((9, 3),), (
        "where both readings are possible, channels come last"
    )


# --- Auto classes


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """nano as released repositories are: the files name the native classes and remote code."""
    folder = tmp_path_factory.mktemp("released") / "model"
    shutil.copytree(checkpoints.resolve("nano"), folder)
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        file = folder / name
        file.write_text(file.read_text().replace("MolmoPoint", "Molmo2"))
    code = {
        "config.json": {"AutoConfig": "configuration.C", "AutoModelForImageTextToText": "modeling.M"},
        "processor_config.json": {"AutoProcessor": "processing.P"},
        "preprocessor_config.json": {"AutoProcessor": "processing.P", "AutoImageProcessor": "image.I"},
    }
    for name, auto_map in code.items():
        fields = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**fields, "auto_map": auto_map}))
    return folder


def circles() -> Image.Image:
    drawn = Image.new("RGB", (320, 240), (236, 236, 228))
    for x, y in ((60, 70), (220, 150)):
        ImageDraw.Draw(drawn).ellipse((x - 22, y - 22, x + 22, y + 22), fill=(220, 40, 40))
    return drawn


def test_auto_classes_find_ours(released, tmp_path, molmo2_folder):
    molmopoint.register()
    nano = checkpoints.resolve("nano")
    toy_processor().save_pretrained(tmp_path)
    for source in (nano, str(released), released, tmp_path):
        assert type(AutoProcessor.from_pretrained(source)) is MolmoPointProcessor
    assert type(AutoImageProcessor.from_pretrained(nano)) is MolmoPointImageProcessor
    assert type(Molmo2Processor.from_pretrained(released, None, False, True)) is MolmoPointProcessor, (
        "arguments by position"
    )
    assert type(AutoProcessor.from_pretrained(molmo2_folder)) is Molmo2Processor, "a Molmo2 keeps its own"
    assert type(Molmo2Processor.from_pretrained(molmo2_folder)) is Molmo2Processor


def test_saved_files_of_a_molmo2_name_the_native_classes(molmo2_folder, tmp_path):
    Molmo2PointingProcessor.from_pretrained(molmo2_folder).save_pretrained(tmp_path)
    again: Any = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is Molmo2Processor and type(again.image_processor).__name__ == "Molmo2ImageProcessor"
    assert type(again.video_processor).__name__ == "Molmo2VideoProcessor"
    native: Any = AutoProcessor.from_pretrained(molmo2_folder)
    processors: list[Any] = [again, native]
    ids = [
        processor(text="<|image|>", images=ONE, return_tensors="pt")["input_ids"] for processor in processors
    ]
    assert torch.equal(*ids)


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_points_at_the_same(released):
    expected = molmopoint.load("nano").point(circles(), "the red circles").points.xy
    asked = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": circles()},
                {"type": "text", "text": "Point to the red circles"},
            ],
        }
    ]
    assert len(expected) == 2
    for source in (checkpoints.resolve("nano"), str(released)):
        run: Any = pipeline("image-text-to-text", model=source)
        answer = run(text=asked, max_new_tokens=100, return_full_text=False)[0]["generated_text"]
        inputs = run.processor.apply_chat_template(
            asked, tokenize=True, return_dict=True, return_pointing_metadata=True
        )
        assert np.allclose(run.processor.decode_points(answer, inputs["pointing_metadata"][0]).xy, expected)
