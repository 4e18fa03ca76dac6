"""Families that write coordinates: rows are those of transformers' processors, answers are read by the family's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_hosts import tiny_host
from tiny_locators import tiny_florence, tiny_paligemma
from transformers import LogitsProcessor, LogitsProcessorList

import molmopoint
from molmopoint.backends.options import AnswerOptions, complete_prompt
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.eval import evaluate
from molmopoint.eval.benchmarks.synthetic import write_scenes
from molmopoint.pipeline import Pointer

ANSWERS = {
    "qwen2_5_vl": '```json\n[{"point_2d": [56, 28], "label": "a"}, {"point_2d": [900, 5]}]\n```',
    "qwen3_vl": '[{"point_2d": [500, 250]}, {"bbox_2d": [1001, 0, 1003, 4]}]',
    "qwen3_vl_moe": '[{"point_2d": [500, 250]}, {"bbox_2d": [1001, 0, 1003, 4]}]',
    "florence2": "cup<loc_399><loc_199><loc_599><loc_299>",
    "paligemma": "<loc0206><loc0410><loc0306><loc0614> cup",
}


def made(kind: str) -> tuple[Any, Any]:
    if kind == "florence2":
        return tiny_florence()
    if kind == "paligemma":
        return tiny_paligemma()
    return tiny_host(kind)


@pytest.fixture(scope="module", params=list(ANSWERS))
def kind(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(kind)
    model, processor = made(kind)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pointer(folder) -> Pointer:
    return molmopoint.load(folder, device="cpu")


def picture(width: int = 200, height: int = 100) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class Dictation(LogitsProcessor):
    """Makes every row write the same answer."""

    def __init__(self, ids: list[int]) -> None:
        self.left = list(ids)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        said = torch.full_like(scores, -torch.inf)
        said[:, self.left.pop(0)] = 0
        return said


def dictated(pointer: Pointer, answer: str, images: list[Image.Image], **options: Any) -> list[Any]:
    """Results of requests that are all answered so."""
    backend = pointer.backend
    settings = AnswerOptions.of(**options)
    requests = [
        backend.requests.about_pictures(image, backend.complete_prompt("cup"), settings) for image in images
    ]
    tokenizer = backend.processor.tokenizer
    ids = [*tokenizer.encode(answer, add_special_tokens=False), backend.eos_token_ids[0]]
    return backend.answer(requests, settings, logits_processor=LogitsProcessorList([Dictation(ids)]))


def test_answers_become_points(kind, pointer):
    small, large = dictated(pointer, ANSWERS[kind], [picture(), picture(400, 200)])
    assert [len(result.points) for result in (small, large)] == [1, 1]
    x, y = small.points[0].xy
    seen = {"qwen2_5_vl": (140, 56)}.get(kind)
    if seen is not None:
        assert (x, y) == pytest.approx((56 / seen[0] * 200, 28 / seen[1] * 100))
    else:
        assert (x, y) == pytest.approx((100, 25), abs=0.2)
        assert large.points[0].xy == pytest.approx((200, 50), abs=0.4)
    assert small.invalid == (1 if kind.startswith("qwen") else 0)
    assert np.isnan(small.points.score).all() and not small.truncated
    assert small.raw_text == ANSWERS[kind]


def test_rows_and_answers_are_those_of_the_processor(kind, pointer):
    backend = pointer.backend
    image = picture()
    request = backend.requests.about_pictures(image, backend.complete_prompt("cup"), AnswerOptions())
    processor = backend.processor
    if kind.startswith("qwen"):
        content = [{"type": "image"}, {"type": "text", "text": backend.complete_prompt("cup")}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
    else:
        text = {"florence2": "Locate cup in the image.", "paligemma": "<image>detect cup"}[kind]
    native = processor(images=[image], text=[text], return_tensors="pt")
    assert request.input_ids.tolist() == native["input_ids"][0].tolist()
    for name, tensor in request.media.pixels.items():
        assert torch.equal(tensor, native[name])
    native.pop("labels", None)
    with torch.inference_mode():
        output = pointer.model.generate(**native, max_new_tokens=6, do_sample=False)
    written = output[0, 1 if kind == "florence2" else native["input_ids"].shape[1] :]
    assert pointer.point(image, "cup", max_new_tokens=6).raw_text == backend.decode(written.tolist())


def test_a_batch_gives_the_answers_of_its_rows(pointer):
    images = [picture(), picture(90, 190)]
    prompts = ["cup", "the long name of a thing that is there"]
    together = list(pointer.point_batch(images, prompts, max_new_tokens=6))
    alone = [pointer.point(*pair, max_new_tokens=6) for pair in zip(images, prompts, strict=True)]
    assert [result.raw_text for result in together] == [result.raw_text for result in alone]


def test_streams_questions_and_counts(kind, pointer):
    image = picture()
    with pointer.stream(image, "cup", max_new_tokens=5) as stream:
        words = "".join(event for event in stream if isinstance(event, str))
    assert stream.result is not None and stream.result.raw_text.startswith(words.rstrip("\ufffd"))
    assert isinstance(pointer.ask(image, "What is this?", max_new_tokens=4), str)
    assert pointer.count(image, "cups", max_new_tokens=4) >= 0
    assert (
        pointer.point(pointer.encode(image), "cup", max_new_tokens=4).raw_text
        == pointer.point(image, "cup", max_new_tokens=4).raw_text
    )
    events = pointer.backend.events(
        pointer.backend.requests.about_pictures(image, "x", AnswerOptions()), AnswerOptions()
    )
    got: list[Any] = []
    for token in pointer.processor.tokenizer.encode(ANSWERS[kind], add_special_tokens=False):
        got += events.push(token)
    got += events.finish()
    assert "".join(event for event in got if isinstance(event, str)) == ANSWERS[kind]
    assert sum(not isinstance(event, str) for event in got) == 1


def test_what_is_not_there_is_refused(folder, pointer):
    image = picture()
    for words, call in (
        ("no scores", lambda: pointer.point(image, "x", min_score=0.5)),
        ("got a clip", lambda: pointer.track(np.zeros((2, 28, 28, 3), np.uint8), "x", frame_rate=1.0)),
        ("max_crops", lambda: pointer.point(image, "x", max_crops=2)),
        ("history", lambda: pointer.point(image, "x", history=[("a", "b")])),
    ):
        with pytest.raises(ProcessingError, match=words):
            call()
    with pytest.raises(CheckpointError, match="no causal_vision"):
        molmopoint.load(folder, causal_vision=False)


def test_benchmarks_ask_each_in_its_own_form(kind, pointer, tmp_path):
    """Scenes name things; "Point to ..." around them is the form for Molmo."""
    write_scenes(tmp_path, 1)
    result = evaluate(pointer, "synthetic", data=tmp_path, limit=1, settings={"max_new_tokens": 4})
    (answer,) = result.predictions.values()
    item = next(item for item in result.data.items.found if item.item_id == answer.item_id)
    assert item.phrase is not None
    assert item.prompt == complete_prompt(item.phrase)
    assert answer.prompt == pointer.backend.complete_prompt(item.phrase)
    assert item.phrase in answer.prompt and ("JSON" in answer.prompt) == kind.startswith("qwen")


def test_requests_in_sentences_keep_their_words(kind, pointer):
    """Qwen is told the form of the answer behind them; the others know one form alone."""
    sent = pointer.backend.complete_prompt(" Where is the exit? ")
    named = pointer.backend.complete_prompt("exit")
    if kind.startswith("qwen"):
        assert sent.startswith("Where is the exit? Answer with JSON") and named.startswith(
            "Point to every exit."
        )
        assert sent.partition(" Answer")[2] == named.partition(" Answer")[2]
    else:
        assert sent == named.replace("exit", "Where is the exit?")
