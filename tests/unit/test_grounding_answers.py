"""Writing answers: the published token sequence, order and numbering, literal text, and what is written can
be read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from molmopoint.decoding import read_answer
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.processing.grounding_answers import (
    NOTHING_THERE,
    PointList,
    encode_answer,
    grounding_token_ids,
    write_answer,
)
from molmopoint.tokens import (
    NO_MORE_POINTS,
    NO_SELECTION,
    RELEASED_TOKENS,
    ExtendedVocabulary,
    Kind,
    point_text,
)


def byte_tokenizer():
    """One token per byte, the special tokens of the model, and a few point numbers."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens(
        [
            AddedToken(t, special=True)
            for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *RELEASED_TOKENS)
        ]
    )
    core.add_tokens([AddedToken(point_text(n), special=False) for n in range(40)])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")


TOKENIZER = byte_tokenizer()
START: Any = TOKENIZER.convert_tokens_to_ids(point_text(0))
T, V, L = grounding_token_ids(TOKENIZER)


def text_ids(text):
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_the_published_token_sequence():
    encoded = encode_answer(write_answer([[9, 0, 1], [5, 3, 2]], "boats"), TOKENIZER)
    expected = [
        *text_ids('<points coords="'), T, V, L, *text_ids("1"), T, V, L, *text_ids("2"), T, *text_ids('">boats</point>'),
    ]  # fmt: skip
    assert encoded.ids.tolist() == expected
    assert encoded.selections[encoded.selections != NO_SELECTION].tolist() == [
        5,
        3,
        2,
        9,
        0,
        1,
        NO_MORE_POINTS,
    ]
    assert (
        np.flatnonzero(encoded.selections != NO_SELECTION) == np.flatnonzero(np.isin(encoded.ids, [T, V, L]))
    ).all()


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("pointing", '<points coords="1 2">cups</point>'),
        ("point_count", 'Counting the <points coords="1 2">cups</point> shows a total of 2.'),
        ("count_then_point", 'There are 2 <points coords="1 2">cups</point>.'),
        ("count", "2"),
    ],
)
def test_styles(style, text):
    ids = encode_answer(write_answer([[1, 0, 0], [2, 0, 0]], "cups", style), TOKENIZER).ids
    plain = [i for i in ids.tolist() if i not in (T, V, L)]
    assert TOKENIZER.decode(plain) == text.replace("1 2", "12")
    assert write_answer([], "cups", style) == (NOTHING_THERE,)


def test_an_unknown_style_is_named():
    with pytest.raises(ProcessingError, match="pointing, point_count"):
        write_answer([[1, 0, 0]], "cups", "poetry")  # type: ignore[arg-type]  # what is tested


def test_tracks_are_numbered_by_first_appearance():
    points = PointList.sort_tracks([[9, 0, 0], [2, 0, 0], [4, 1, 1], [8, 0, 0]], ["a", "b", "a", "b"], "dogs")
    assert points.triples[:, 0].tolist() == [2, 4, 8, 9]
    assert points.object_ids.tolist() == [1, 2, 1, 2]
    text = TOKENIZER.decode(encode_answer([points], TOKENIZER).ids)
    assert text.startswith("<tracks coords=")
    assert text.endswith("dogs</point>")


def test_equal_points_are_kept_and_no_location_is_not_written():
    points = PointList.sort([[3, 1, -1], [3, 1, -1]], "dots")
    assert len(points) == 2
    assert L not in encode_answer([points], TOKENIZER).ids


@pytest.mark.parametrize(
    ("triples", "object_ids"),
    [([], []), ([[1, 0, 0]], [1, 2]), ([[2, 0, 0], [1, 0, 0]], [1, 2]), ([[1, 0]], [1]), ([[1, 0, 0]], [-1])],
)
def test_point_lists_are_checked_at_birth(triples, object_ids):
    with pytest.raises(GroundingError, match="expected"):
        PointList(np.array(triples), np.array(object_ids), "x")


def test_special_tokens_in_labels_and_questions_stay_text():
    label = "red <|im_end|> <|image|>"
    encoded = encode_answer(write_answer([[1, 0, 0]], label), TOKENIZER)
    assert TOKENIZER.eos_token_id not in encoded.ids
    assert TOKENIZER.decode(encoded.ids).endswith(f">{label}</point>")


def test_points_need_a_tokenizer_with_grounding_tokens():
    core = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    with pytest.raises(ProcessingError, match="token_index"):
        encode_answer([PointList.sort([[0, 0, 0]], "a")], PreTrainedTokenizerFast(tokenizer_object=core))


METADATA = PointingMetadata(np.arange(16).reshape(4, 4), np.ones(4), [np.arange(16)[None]], [(160, 10)])
VOCABULARY = ExtendedVocabulary(START, 4, 4, 9)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 8)), max_size=12),
    st.sampled_from(["pointing", "point_count"]),
)
def test_what_is_written_can_be_read(triples, style):
    encoded = encode_answer(write_answer(triples, "green ä cups", style), TOKENIZER)
    kinds = {T: Kind.PATCH, V: Kind.SUBPATCH, L: Kind.LOCATION}
    ids = [
        VOCABULARY.encode(kinds[i], s) if i in kinds else i
        for i, s in zip(encoded.ids.tolist(), encoded.selections.tolist(), strict=True)
    ]
    answer = read_answer(ids, METADATA, START, lambda ids: str(TOKENIZER.decode(ids)))
    assert answer.points.triples is not None and answer.points.triples.tolist() == sorted(map(list, triples))
    assert answer.points.object_id.tolist() == list(range(1, len(triples) + 1))
    assert (answer.invalid, answer.truncated_triple) == (0, False)
    assert answer.labels == (("green ä cups",) if triples else ())
    assert read_answer(TOKENIZER.decode(ids), METADATA, START).points == answer.points
    if triples:
        again = PointList.from_points(answer.points, METADATA, "green ä cups")
        assert again.triples.tolist() == answer.points.triples.tolist()
