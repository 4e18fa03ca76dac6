"""Whether the turns that training writes are those of the checkpoint's own chat template, which `molmopoint.load` asks with.

Training writes turns itself, because branches of a message tree share their pictures. So its format is that of released templates:
pictures first, then turns. A template that writes something else would have the model asked in other words than it has learned.
"""

from __future__ import annotations

from typing import Any

from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.answers import TURN_START, encode_prompt

_ASKED, _ANSWERED, _NEXT = "Is it there?", "Yes.", "And now?"
_HEADER = f"{TURN_START}assistant\n"


def check_chat_format(processor: MolmoPointProcessor) -> None:
    """Refuses a checkpoint whose template writes other turns than training.

    One difference is known and let pass: released templates put a space before the header of an earlier answer, which neither their
    training nor ours does.

    Raises:
        CheckpointError: there is no template, or it writes other turns, or pictures elsewhere.
    """
    if processor.chat_template is None:
        raise CheckpointError("expected a chat template, got none; copy chat_template.jinja from the released model")
    tokenizer: Any = processor.tokenizer
    opening = tokenizer.encode(processor.opening, add_special_tokens=False)
    try:
        single, _ = processor.render_chat([_said("user", _ASKED)], add_generation_prompt=True)
        both, _ = processor.render_chat(
            [_said("user", _ASKED), _said("assistant", _ANSWERED), _said("user", _NEXT)], add_generation_prompt=True
        )
        for kind, count in (("image", 1), ("image", 2), ("video", 1)):
            processor.visual_text(kind, count)
    except ProcessingError as error:
        raise CheckpointError(f"expected a chat template that training can follow: {error}") from error
    first = [*opening, *encode_prompt(_ASKED, tokenizer).ids.tolist()]
    later = encode_prompt(_NEXT, tokenizer, follows_answer=True).ids.tolist()
    answer = tokenizer.encode(_ANSWERED, add_special_tokens=False)
    _compare(processor, single, first)
    _compare(processor, both.replace(f" {_HEADER}", _HEADER), [*first, *answer, *later])


def _compare(processor: MolmoPointProcessor, rendered: str, written: list[int]) -> None:
    tokenizer: Any = processor.tokenizer
    text = rendered if rendered.startswith(processor.opening) else processor.opening + rendered
    if tokenizer.encode(text, add_special_tokens=False) != written:
        raise CheckpointError(
            f"expected a chat template that writes turns as {tokenizer.decode(written)!r}, which is what training writes, got {text!r}; the "
            "model would be asked in another format than it learns, so use the template of a released model"
        )


def _said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}
