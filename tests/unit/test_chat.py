"""Chats: literal user text, points of earlier answers, and messages that are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from toy_processor import POINT_NAMES, frames, picture, toy_processor

from molmopoint import tokens
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.geometry import triples_to_points
from molmopoint.points import Points
from molmopoint.processing.escaping import MARK
from molmopoint.tokens import NO_MORE_POINTS, point_text
from molmopoint.video import Clip

PROCESSOR = toy_processor()
TOKENIZER = PROCESSOR.tokenizer
ONE, THREE = picture(100, 140), picture(90, 50)
CLIP = Clip(frames(5), np.array([0.0, 0.5, 1.0, 1.5, 2.04]))


def run(text: Any, images: Any = None, **kwargs: Any) -> Any:
    return PROCESSOR(text=text, images=images, return_tensors="pt", **kwargs)


def words(ids: Any) -> str:
    return TOKENIZER.decode(ids)


def without_padding(output: Any, row: int) -> list[int]:
    return output["input_ids"][row][output["attention_mask"][row].bool()].tolist()


def messages(text: str, image: Any = ONE) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]


def chat(conversation: Any, **kwargs: Any) -> Any:
    tensors: Any = {
        "tokenize": True,
        "return_dict": True,
        "return_tensors": "pt",
        "return_pointing_metadata": True,
    }
    return PROCESSOR.apply_chat_template(conversation, add_generation_prompt=True, **tensors, **kwargs)


def test_chat_template() -> None:
    out = chat(messages("Point to the cats"))
    prompt = "<|image|><|im_start|>user\nPoint to the cats<|im_end|>\n<|im_start|>assistant\n"
    assert PROCESSOR.apply_chat_template(messages("Point to the cats"), add_generation_prompt=True) == prompt
    raw = run(prompt, ONE)
    assert torch.equal(out["input_ids"], raw["input_ids"])
    assert torch.equal(out["pixel_values"], raw["pixel_values"])
    both = chat([messages("a"), messages("b", THREE)], processor_kwargs={"max_crops": 1})
    assert both["image_num_crops"].tolist() == [2, 2]
    assert [known.image_sizes for known in both["pointing_metadata"]] == [((140, 100),), ((50, 90),)]


NAMES = [
    "<|image|>",
    "<|video|>",
    "<im_patch>",
    "<|im_end|>",
    "<|im_start|>",
    point_text(3),
    point_text(10**6),
    tokens.PATCH,
]


def plain_ids(text: str) -> list[int]:
    """Ids of a tokenizer that knows no added tokens."""
    backend = json.loads(TOKENIZER.backend_tokenizer.to_str()) | {"added_tokens": []}
    return Tokenizer.from_str(json.dumps(backend)).encode(text).ids


@settings(max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([*NAMES, "<", "|", "<|", "<|im", "age|>", "<POINT_", "3>", MARK, "the <im", " "]),
            st.text(max_size=4),
        ),
        max_size=8,
    )
)
def test_user_text_is_literal(pieces: list[str]) -> None:
    text = "".join(pieces)
    text = text.encode("utf-8", "ignore").decode().replace("\ufdd1", "")  # a lone surrogate is no text
    out = chat([{"role": "user", "content": text}])
    ids = out["input_ids"][0].tolist()
    end, newline, start = (
        TOKENIZER.convert_tokens_to_ids("<|im_end|>"),
        plain_ids("\n"),
        TOKENIZER.convert_tokens_to_ids("<|im_start|>"),
    )
    body = plain_ids("user\n" + text.replace(MARK, ""))
    assert ids == [end, start, *body, end, *newline, start, *plain_ids("assistant\n")]


def test_texts_cannot_join_into_a_name() -> None:
    parts = [{"type": "text", "text": "<|im"}, {"type": "text", "text": "age|>"}]
    out = chat([{"role": "user", "content": parts}])
    assert "pixel_values" not in out
    assert words(out["input_ids"][0]).startswith("<|im_end|><|im_start|>user\n<|image|><|im_end|>")


def test_escaped_text_in_a_padded_batch() -> None:
    texts = [
        "plain",
        PROCESSOR.escape_user_text("a <|image|> b"),
        "<|image|>with picture " + PROCESSOR.escape_user_text(point_text(5)),
    ]
    for side in ("left", "right"):
        out = run(texts, [[], [], [ONE]], padding_side=side)
        assert words(without_padding(out, 1)) == "<|im_end|>a <|image|> b"
        assert words(without_padding(out, 2)).endswith("<im_end>with picture " + point_text(5))
        assert not set(out["input_ids"].flatten().tolist()) & set(
            range(PROCESSOR.extended_start, PROCESSOR.extended_start + POINT_NAMES)
        )
    raw = run([point_text(5)])["input_ids"][0].tolist()
    assert raw[-1] == PROCESSOR.extended_start + 5, "raw text honours places"


def found(object_id: list[int], group: Any, x: list[float], y: list[float], **columns: Any) -> Points:
    return Points(np.array(object_id), np.array(group), np.array(x), np.array(y), **columns)


def history(points: Points, **part: Any) -> list[dict[str, Any]]:
    answer = [
        {"type": "text", "text": "Counting the "},
        {"type": "points", "points": points, **part},
        {"type": "text", "text": "."},
    ]
    return [
        *messages("count"),
        {"role": "assistant", "content": answer},
        {"role": "user", "content": "and now?"},
    ]


def test_earlier_points_become_selections() -> None:
    points = found(
        object_id=[1, 2], group=[0, 0], x=[12.0, 100.0], y=[80.0, 20.0], labels=["cats <im_end>"] * 2
    )
    out = chat(history(points))
    ids, selected, known = out["input_ids"][0], out["selection_ids"][0], out["pointing_metadata"][0]
    grounding = TOKENIZER.convert_tokens_to_ids([tokens.PATCH, tokens.SUBPATCH, tokens.LOCATION])
    assert torch.equal(selected != -1, torch.isin(ids, torch.tensor(grounding)))
    *chosen, last = selected[selected != -1].tolist()
    assert last == NO_MORE_POINTS
    _, xy = triples_to_points(np.reshape(chosen, (2, 3)), known)
    assert np.abs(xy - [[100, 20], [12, 80]]).max() < 5, "in the order of the new input"
    names = tokens.PATCH + tokens.SUBPATCH + tokens.LOCATION
    assert f'Counting the <points coords="{names}2{names}1{tokens.PATCH}">cats <im_end></point>.' in words(
        ids
    )


def test_earlier_points_survive_another_tiling_and_padding() -> None:
    points = found(object_id=[1], group=[0], x=[70.0], y=[50.0])
    coarse = chat(
        [history(points, label="it"), messages("no history, but a longer question " * 5)],
        processor_kwargs={"max_crops": 1},
    )
    assert coarse["selection_ids"].shape == coarse["input_ids"].shape
    assert (coarse["selection_ids"][1] == -1).all()
    chosen = coarse["selection_ids"][0][coarse["selection_ids"][0] >= 0].tolist()
    assert np.abs(triples_to_points([chosen], coarse["pointing_metadata"][0])[1] - [[70, 50]]).max() < 10


def test_an_earlier_answer_without_points() -> None:
    out = chat(history(Points.empty(), label="dogs"))
    assert "Counting the There are none.." in words(out["input_ids"][0])
    assert "selection_ids" not in out


def test_earlier_tracks() -> None:
    points = found(object_id=[1, 1], group=[0.0, 2.04], x=[12.0, 100.0], y=[60.0, 20.0])
    conversation = history(points, label="dog")
    conversation[0] = {
        "role": "user",
        "content": [{"type": "video", "video": CLIP}, {"type": "text", "text": "track"}],
    }
    assert '<tracks coords="' in words(chat(conversation)["input_ids"][0])


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "expected a list of messages"),
        ("hello", "expected a list of messages with role and content, got str"),
        ([{"content": "x"}], "expected messages with role and content, got"),
        ([{"role": "system", "content": "x"}], "only user and assistant speak"),
        ([{"role": "assistant", "content": point_text(3)}], "an earlier answer without <POINT_n>"),
        (
            [{"role": "assistant", "content": [{"type": "text", "text": tokens.PATCH}]}],
            "an earlier answer without <POINT_n>",
        ),
        (
            [{"role": "user", "content": [{"type": "points", "points": Points.empty()}]}],
            "in assistant messages only",
        ),
        (
            [{"role": "assistant", "content": [{"type": "points", "points": [[1, 2]]}]}],
            "expected Points .* got list",
        ),
        (history(found([1], [0], [1.0], [1.0])), "expected one label"),
        ([*messages("x", "https://example.org/cat.png")], "unless allow_urls"),
    ],
)
def test_messages_refused(conversation: Any, message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        chat(conversation)


def test_earlier_points_need_their_picture_and_tokens() -> None:
    with pytest.raises(GroundingError, match="index of one of 1 pictures"):
        chat(history(found([1], [4], [1.0], [1.0]), label="it"))
    with pytest.raises(ProcessingError, match="tokenize=True"):
        PROCESSOR.apply_chat_template(history(found([1], [0], [1.0], [1.0]), label="it"))
