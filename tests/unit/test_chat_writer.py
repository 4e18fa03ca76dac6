"""The chat writer: training writes what requests do, with whatever template the checkpoint has."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from toy_processor import toy_processor

from molmopoint.errors import ProcessingError
from molmopoint.processing.chat import ChatWriter
from molmopoint.tokens import NO_SELECTION

TOKENIZER = toy_processor().tokenizer
RELEASED: Any = toy_processor().chat_template
OTHER = (
    "{%- set media = namespace(count=0) -%}"
    "{%- for message in messages -%}{%- if message['content'] is not string -%}{%- for part in "
    "message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{%- set media.count = media.count + 1 -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{%- for i in range(media.count) -%}{{ 'Picture ' ~ i ~ ': <|image|>' }}{%- endfor -%}"
    "{%- for message in messages -%}{{ '<|im_start|>' ~ message['role'] ~ ': ' }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] | trim }}{%- endfor "
    "-%}{%- endif -%}"
    "{{ '<|im_end|>' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant: ' }}{%- endif -%}"
)
TEMPLATES = pytest.mark.parametrize("template", [RELEASED, OTHER], ids=["released", "other"])


def ids_of(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def test_turns_are_laid_out_as_released():
    turn = "<|im_start|>user\nPoint to the boats<|im_end|>\n<|im_start|>assistant\n"
    chat = ChatWriter(TOKENIZER, RELEASED)
    (first,) = chat.prompts(["Point to the boats"], "image", 1)
    assert first.ids.tolist() == ids_of(turn)
    assert (first.selections == NO_SELECTION).all()
    _, later = chat.prompts(["Is it there?", "Point to the boats"], "image", 1)
    assert later.ids.tolist() == ids_of(f"<|im_end|>\n{turn}")


@TEMPLATES
@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_of_training_are_those_of_requests(template, count):
    """Pieces of a conversation, put together, are what the template writes for the whole of it."""
    chat = ChatWriter(TOKENIZER, template)
    turns = [
        ("Is it there?", ["Yes."]),
        ("<|im_end|> Where? <POINT_3>", ["To the left."]),
        ("And now?", ["No."]),
    ]
    pieces = chat.conversation(turns, "image", count)
    written = ids_of(chat.media_text("image", count))
    for turn in pieces[:-1]:
        written += [*turn.prompt.ids.tolist(), *turn.answer.ids.tolist()]
    written += pieces[-1].prompt.ids.tolist()

    processor = toy_processor()
    processor.chat_template = template
    messages = [
        {"role": "user", "content": [*[{"type": "image"}] * count, {"type": "text", "text": turns[0][0]}]}
    ]
    for (_, answer), (question, _) in pairwise(turns):
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer[0]}]})
        messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
    rendered, _ = processor.render_chat(messages, add_generation_prompt=True)
    asked = processor(text=[rendered.replace("<|image|>", "")])["input_ids"][0]
    image = TOKENIZER.convert_tokens_to_ids("<|image|>")
    assert [i for i in written if i != image] == list(asked)[1:]


@TEMPLATES
def test_user_text_is_literal(template):
    chat = ChatWriter(TOKENIZER, template)
    text = "<|im_end|><|image|><POINT_3>\ufdd2\ufdd1\ufdd0"
    (prompt,) = chat.prompts([text], "image", 1)
    (plain,) = chat.prompts(["x"], "image", 1)
    special = [TOKENIZER.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|image|>", "<POINT_3>")]
    for token in special:
        assert (prompt.ids == token).sum() == (plain.ids == token).sum()


def test_templates_that_write_pictures_elsewhere_are_refused():
    behind = "{% for m in messages %}{{ m['content'][-1]['text'] }}{% for p in m['content'][:-1] %}<|image|>{% endfor %}{% endfor %}"
    with pytest.raises(ProcessingError, match="before what the user says"):
        ChatWriter(TOKENIZER, behind).prompts(["a"], "image", 1)
    deaf = "<|im_start|>{{ messages[0]['content'][-1]['text'] }}"
    with pytest.raises(ProcessingError, match="every turn once"):
        ChatWriter(TOKENIZER, deaf).prompts(["a", "b"])
    with pytest.raises(ProcessingError, match=r"copy chat_template\.jinja"):
        ChatWriter(TOKENIZER, None)
    with pytest.raises(ProcessingError, match="accepts"):
        ChatWriter(TOKENIZER, "{{ raise_exception('no') }}").prompts(["a"])
