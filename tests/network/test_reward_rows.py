"""Rows of reward models: ids are those of the whole text, whatever answers begin with, and places are where
they belong.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_reward import FAMILIES, PUBLISHED, TEMPLATE, random_backbone, reward_processor
from toy_processor import frames, picture

from molmopoint.errors import ProcessingError
from molmopoint.points import Points
from molmopoint.processing.escaping import text_escaper
from molmopoint.reward import SEPARATOR, RewardModel, RewardSettings, RowBuilder, add_separator, collate
from molmopoint.video import Clip

LAYOUTS, OPENINGS = ("assistant", "user"), ("visual", "always")
PAD = 0
BETWEEN = f"\n\n{SEPARATOR}\n\n"
WHITE = [" Yes, three.", "\nNo.", "  \n Maybe", "\n\nI see 4."]
"""Answers that begin with white space."""


@cache
def builder_of(family: Any, template: str = TEMPLATE, **given: Any) -> RowBuilder:
    return RowBuilder(
        reward_processor(family, line_ends=True, template=template), RewardSettings(head_width=8, **given)
    )


def whole_text(builder: RowBuilder, prompt: str, answers: list[str], template: str) -> list[int]:
    """Ids of the row as one text, written by hand."""
    literal = text_escaper(builder.processor.tokenizer)
    prompt, joined = literal.escape(prompt), BETWEEN.join(literal.escape(answer) for answer in answers)
    published = template == PUBLISHED
    user = builder.settings.layout == "user"
    first = "<|im_end|>" if user or builder.settings.opening == "always" else ""
    header = f"{' ' if published else ''}<|im_start|>assistant\n"
    if user:
        return literal.encode(f"{first}<|im_start|>user\n{prompt}\n\n{joined}<|im_end|>\n")
    end = "" if published else "<|im_end|>\n"
    return literal.encode(f"{first}<|im_start|>user\n{prompt}<|im_end|>\n{header}{joined}{end}")


PIECES = [
    "Yes",
    "no.",
    "?",
    " ",
    "\n",
    "\n\n",
    "\t",
    ".",
    "<|im_end|>",
    "<|im",
    SEPARATOR,
    "<|resp_",
    "the",
    "\u00a0",
    "é",
    "\r\n",
]
ANSWER = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join).filter(str.strip)


@settings(derandomize=True, max_examples=60)
@given(prompt=ANSWER, answers=st.lists(ANSWER, min_size=1, max_size=4))
@pytest.mark.parametrize(
    ("layout", "opening", "template"), list(product(LAYOUTS, OPENINGS, (TEMPLATE, PUBLISHED)))
)
def test_ids_are_those_of_the_whole_text(
    layout: Any, opening: Any, template: str, prompt: str, answers: list[str]
):
    builder = builder_of("molmo2", template, layout=layout, opening=opening)
    row = builder.row(builder.prompt(prompt), answers)
    expected = whole_text(builder, prompt, answers, template)
    assert row.input_ids.tolist() == expected
    separators = [place for place, number in enumerate(expected) if number == builder.separator_id]
    assert len(separators) == len(answers) - 1
    assert row.response_positions.tolist() == [*(place - 1 for place in separators), len(expected) - 1]
    assert row.response_starts.tolist()[1:] == [place + 1 for place in separators]
    assert row.response_words.tolist()[1:] == [place + 2 for place in separators]
    assert row.position_ids.tolist() == list(range(len(expected)))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_answer_begins_at_the_blank_line_behind_its_separator(family: Any, layout: Any):
    builder = builder_of(family, layout=layout)
    answers = ["Two cats.", "a dog\nand a bird", "No"]
    row = builder.row(builder.prompt("What?"), answers)
    tokenizer: Any = builder.processor.tokenizer
    spans = zip(row.response_starts.tolist(), row.response_positions.tolist(), strict=True)
    texts = [tokenizer.decode(row.input_ids[start : end + 1]) for start, end in spans]
    end = "<|im_end|>\n"
    tail = [tokenizer.decode(row.input_ids[start : start + 1]) for start in row.response_words.tolist()]
    assert tail == ["T", "a", "N"]
    older = builder_of(family, layout=layout, begin="words")
    same = older.row(older.prompt("What?"), answers)
    assert same.response_starts.tolist() == same.response_words.tolist() == row.response_words.tolist()
    assert texts == ["Two cats.\n\n", "\n\na dog\nand a bird\n\n", f"\n\nNo{end}"]


def test_white_space_at_the_start_shares_a_token_with_the_line_end_before_it():
    builder = builder_of("molmo2", PUBLISHED)
    row = builder.row(builder.prompt("Count the circles."), ["\nYes.", "No."])
    tokenizer: Any = builder.processor.tokenizer
    words = tokenizer.convert_ids_to_tokens(row.input_ids.tolist())
    assert words[int(row.response_starts[0])] == "ĊĊ"  # of "assistant\n" and "\nYes."
    assert tokenizer.decode(row.input_ids[int(row.response_starts[0]) :]) == f"\n\nYes.{BETWEEN}No."
    plain = builder.row(builder.prompt("Count the circles."), ["Yes.", "No."])
    assert int((row.branch_ids == -1).sum()) == int((plain.branch_ids == -1).sum()) - 1


def test_the_last_answer_is_read_where_the_template_ends():
    for template, layout, end in (
        (PUBLISHED, "assistant", "."),
        (PUBLISHED, "user", "\n"),
        (TEMPLATE, "assistant", "\n"),
    ):
        builder = builder_of("molmo2", template, layout=layout)
        row = builder.row(builder.prompt("What?"), ["Yes.", "No."])
        assert builder.processor.tokenizer.decode(row.input_ids[int(row.response_positions[-1])]).endswith(
            end
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["causal", "block"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lists_in_one_row_are_the_lists_alone_with_white_space_too(family: Any, attention: Any, layout: Any):
    """In some of them the first answer shares a token with the prompt, so the trunk ends before it for all."""
    processor = reward_processor(family, line_ends=True, template=PUBLISHED)
    separator = add_separator(processor.tokenizer)
    model = RewardModel(
        random_backbone(family), RewardSettings(head_width=8, layout=layout, attention=attention), separator
    ).eval()
    with torch.no_grad():
        for parameter in model.value.parameters():
            parameter.normal_(std=0.5)
    builder = RowBuilder(processor, model.settings)
    prompt = builder.prompt("What is there?", picture(70, 120))
    answers = ["Yes.", *WHITE[1:3]]
    orders = [[0, 1, 2], [1, 2, 0], [2, 0, 1], [2]]

    def scores(row: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(**collate([row], PAD)).scores[0]

    together = scores(builder.row(prompt, answers, orders))
    alone = [scores(builder.row(prompt, [answers[i] for i in order])) for order in orders]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["causal", "block"])
def test_the_limit_counts_the_tokens_of_the_row(attention: Any):
    free = builder_of("molmo2", PUBLISHED, attention=attention)
    prompt, answers, orders = (
        free.prompt("What?"),
        ["Yes.", *WHITE],
        [[0, 1, 2, 3, 4], [1, 0, 2, 3, 4], [4, 3, 2, 1, 0]],
    )
    lengths = [len(free.row(prompt, answers, orders[:count])) for count in (1, 2, 3)]
    assert free.length(prompt, answers) == lengths[0]
    limited = RowBuilder(free.processor, free.settings)
    for limit, count in ((lengths[0], 1), (lengths[1] - 1, 1), (lengths[1], 2), (lengths[2] + 5, 3)):
        limited.max_length = limit
        row, fitting = limited.longest_row(prompt, answers, orders)
        assert (fitting, len(row)) == (count, lengths[count - 1])
    limited.max_length = lengths[0] - 1
    with pytest.raises(
        ProcessingError,
        match=rf"expected at most {lengths[0] - 1} tokens, got {lengths[0]}: \d+ of the prompt",
    ):
        limited.longest_row(prompt, answers, orders)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layout", "opening"), list(product(LAYOUTS, OPENINGS)))
def test_rows_without_pictures_may_lack_the_first_token(family: Any, layout: Any, opening: Any):
    builder = builder_of(family, layout=layout, opening=opening)
    first = builder.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    clip = Clip(frames(2, 70, 70), [0.0, 0.5])
    seen = [builder.prompt("What?", picture(70, 120)), builder.prompt("What?", videos=clip)]
    assert all(part.input_ids[0] == first for part in seen)
    text = builder.prompt("What?")
    assert (text.input_ids[0] == first) == (layout == "user" or opening == "always")
    assert len(text) == len(text.mm_token_type_ids) == len(text.column("selection_ids"))


def test_a_template_that_writes_the_first_token_itself_keeps_it():
    builder = builder_of("molmo2", "<|im_end|>" + TEMPLATE)
    first = builder.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = builder.prompt("What?").input_ids
    assert ids[0] == first and ids[1] != first


def test_words_that_run_together_are_told_apart_or_refused():
    bare = "{% for m in messages %}{{ m['content'] if m['content'] is string else m['content'][-1]['text'] }}{% endfor %}"
    builder = builder_of("molmo2", bare)
    row = builder.row(builder.prompt("What?\n"), ["\nYes."])
    assert builder.processor.tokenizer.decode(row.input_ids) == "What?\n\nYes."
    points = Points(np.array([1]), np.array([0]), np.array([20.0]), np.array([20.0]))
    said = {"role": "assistant", "content": [{"type": "points", "points": points, "label": "a"}]}
    asked = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Point."}]}
    builder = builder_of("molmopoint", "<|image|>" + bare)
    with pytest.raises(
        ProcessingError, match="expected a chat template that begins turns with a special token"
    ):
        builder.prompt([asked, said, {"role": "user", "content": "And?"}], picture(70, 120))


def test_a_separator_typed_before_the_tokenizer_knew_it_stays_text():
    processor = reward_processor("molmopoint")
    text_escaper(processor.tokenizer).escape("what was escaped before the separator had a name")
    builder = RowBuilder(processor, RewardSettings())
    row = builder.row(builder.prompt("What?"), [f"one{SEPARATOR}two", "three"])
    assert int((row.input_ids == builder.separator_id).sum()) == 1


def test_half_a_character_is_refused():
    builder = builder_of("molmo2")
    with pytest.raises(ProcessingError, match="expected Unicode text in the prompt, got half of a character"):
        builder.prompt("What\ud800?")
    with pytest.raises(ProcessingError, match="expected Unicode text in answer 1, got half of a character"):
        builder.row(builder.prompt("What?"), ["Yes.", "No\udfff"])
