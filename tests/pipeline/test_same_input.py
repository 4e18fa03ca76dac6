"""Training and `Pointer` give a model the same input for the same picture, clip and question, for both
families.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_reward import PUBLISHED
from toy_processor import TEMPLATE, frames, picture

import molmopoint
from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.options import AnswerOptions
from molmopoint.backends.requests import RequestBuilder
from molmopoint.data.records import Record
from molmopoint.errors import CheckpointError
from molmopoint.processing import Molmo2PointingProcessor
from molmopoint.training.recipe import Recipe
from molmopoint.training.sources import Example
from molmopoint.training.start import load_start
from molmopoint.training.trees import training_row

RECIPE = Recipe(steps=1, epochs=None)
QUESTION = "What is <|image|> there?"
FOLDERS = ("toy_folder", "molmo2_folder")

LOOKS: dict[str, dict[str, Any]] = {
    "as saved": {},
    "no word of normalising": {"do_normalize": None, "do_rescale": None, "do_resize": None},
    "null": {"do_normalize": "null", "image_mean": "null"},
    "by rate": {"frame_sample_mode": "fps", "sampling_fps": 1, "num_frames": 3},
    "few frames": {"num_frames": 3, "max_fps": 5},
}
"""Settings of the video processor; None takes one out of the file, "null" writes null there."""


def changed(folder: Path, target: Path, looks: dict[str, Any], template: str = TEMPLATE) -> Path:
    shutil.copytree(folder, target)
    file = target / "processor_config.json"
    document = json.loads(file.read_text())
    settings = document["video_processor"]
    for name, value in looks.items():
        settings.pop(name, None)
        if value is not None:
            settings[name] = None if value == "null" else value
    file.write_text(json.dumps(document))
    (target / "chat_template.jinja").write_text(template)
    return target


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that its EXIF entry turns, another one, and two seconds of noise at 10 frames a second."""
    av = pytest.importorskip("av")
    folder = tmp_path_factory.mktemp("media")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(70, 120).save(folder / "turned.png", exif=turned)
    picture(90, 60, 1).convert("RGBA").save(folder / "other.png")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 120, 80, "yuv420p"
        for frame in frames(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return folder


def of_training(folder: Path, files: list[Path], clip: Path | None) -> Any:
    """The part of a training row before its answer."""
    _, backend = load_start(folder, RECIPE)
    record = Record(
        1,
        tuple(map(str, files)),
        video=None if clip is None else str(clip),
        prompt=QUESTION,
        answer="Nothing.",
    )
    row = training_row(
        backend, Example((record,), tuple(files), clip=clip), np.random.default_rng(0), max_length=4096
    )
    first_target = int((row.shift_labels >= 0).nonzero()[0, 0])
    return row, first_target + 1


def of_pointer(folder: Path, files: list[Path], clip: Path | None) -> Any:
    pointer = molmopoint.load(folder, device_map="cpu")
    builder = RequestBuilder(pointer.processor, pointer.model.config)
    if clip is not None:
        return builder.about_video(clip, QUESTION, ClipOptions(), AnswerOptions())
    return builder.about_pictures(files or None, QUESTION, AnswerOptions())


def assert_same(folder: Path, files: list[Path], clip: Path | None) -> torch.Tensor | None:
    """That both see the same; the pixels."""
    row, length = of_training(folder, files, clip)
    request = of_pointer(folder, files, clip)
    assert row.input_ids[:length].tolist() == request.input_ids.tolist()
    assert row.mm_token_type_ids[:length].tolist() == request.row.mm_token_type_ids.tolist()
    assert row.selection_ids[:length].tolist() == request.row.selection_ids.tolist()
    assert row.position_ids[:length].tolist() == list(range(length))
    pixels = request.media.pixels
    kind = (
        ("pixel_values", "image_token_pooling")
        if clip is None
        else ("pixel_values_videos", "video_token_pooling")
    )
    given = [row.pixel_values, row.pooling]
    for tensor, name in zip(given, kind, strict=True):
        assert (tensor is None) == (name not in pixels)
        assert tensor is None or torch.equal(tensor, pixels[name])
    return row.pixel_values


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("template", [TEMPLATE, PUBLISHED], ids=["plain", "published"])
def test_pictures_are_the_same_in_training(
    name: str, template: str, media: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    folder = changed(request.getfixturevalue(name), tmp_path / "model", {}, template)
    for files in ([], ["turned.png"], ["turned.png", "other.png"]):
        assert_same(folder, [media / file for file in files], None)


NAMED = TEMPLATE.replace("<|image|>{% elif", "Image {{ loop.index }}<|image|>{% elif")


@pytest.mark.parametrize("name", FOLDERS)
def test_names_of_pictures_are_those_of_the_template(
    name: str, media: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    folder = changed(request.getfixturevalue(name), tmp_path / "model", {}, NAMED)
    assert_same(folder, [media / "turned.png", media / "other.png"], None)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("looks", LOOKS)
def test_frames_are_the_same_in_training(
    name: str, looks: str, media: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    folder = changed(request.getfixturevalue(name), tmp_path / "model", LOOKS[looks])
    pixels = assert_same(folder, [], media / "clip.mp4")
    assert pixels is not None and pixels.abs().max() <= 1.0  # no raw bytes
    count = {"by rate": 2, "few frames": 3}.get(looks, 5)
    assert len(pixels) == count


def test_what_is_written_after_training_is_read_by_transformers(molmo2_folder: Path, tmp_path: Path):
    from transformers import AutoProcessor, Molmo2Processor

    folder = changed(molmo2_folder, tmp_path / "model", {**LOOKS["by rate"], "do_normalize": None})
    _, backend = load_start(folder, RECIPE)
    backend.processor.save_pretrained(tmp_path / "written")
    native = AutoProcessor.from_pretrained(tmp_path / "written")
    assert type(native) is Molmo2Processor and native.video_processor.do_normalize is True
    again: Any = Molmo2PointingProcessor.from_pretrained(tmp_path / "written")
    ours: Any = backend.processor
    assert again.to_dict() == ours.to_dict() and again.chat_template == ours.chat_template


# Templates


INSIDE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] "
    "}}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|image|>{% elif c['type'] == 'video' "
    "%}<|video|>{% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt "
    "%}<|im_start|>assistant\n{% endif %}"
)
"""Pictures stand inside the turn."""

OTHER_TEMPLATES = {
    "inside the turn": INSIDE,
    "opened by itself": "<|im_end|>" + TEMPLATE,
    "with a system turn": "<|im_start|>system\nYou point.<|im_end|>\n" + TEMPLATE,
    "without line ends": TEMPLATE.replace("<|im_end|>\n", "<|im_end|>"),
    "another header": TEMPLATE.replace("assistant\n{% endif %}", "model\n{% endif %}"),
    "no header": TEMPLATE.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", ""),
    "wider": TEMPLATE.replace("{{ m['role'] }}\n", "{{ m['role'] }}\n\n"),
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("template", OTHER_TEMPLATES.values(), ids=OTHER_TEMPLATES)
def test_whatever_the_template_writes_is_what_training_writes(
    name: str, template: str, media: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    folder = changed(request.getfixturevalue(name), tmp_path / "model", {}, template)
    assert_same(folder, [], None)
    assert_same(folder, [media / "turned.png", media / "other.png"], None)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", "expected turns that the chat template accepts"),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "every turn once"),
    ],
)
def test_templates_that_cannot_be_followed_are_refused_before_a_run(
    template: str, message: str, toy_folder: Path, tmp_path: Path
):
    folder = changed(toy_folder, tmp_path / "model", {}, template)
    with pytest.raises(CheckpointError, match=message):
        load_start(folder, RECIPE)
