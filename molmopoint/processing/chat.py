"""Conversations as the checkpoint's own chat template writes them, for requests, training and rewards alike.

A template writes the pictures before what the user says. What it writes up to the last picture is the trunk
of a row, which all branches of a message tree share; what follows are the branches. Answers of a training row
are encoded apart from the text around them, as they are when a model generates them, so the template is
rendered with a mark in the place of each answer and cut there.

User text is escaped: names of placeholders, special tokens and places in it become plain text
(`molmopoint.processing.escaping`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from jinja2 import TemplateError

from molmopoint.errors import ProcessingError
from molmopoint.processing.escaping import MARK, text_escaper
from molmopoint.processing.grounding_answers import EncodedText, PointList, encode_answer
from molmopoint.processing.history import LIST_MARK
from molmopoint.processing.message_tree import Turn
from molmopoint.tokens import IMAGE_PLACEHOLDER, NO_SELECTION, VIDEO_PLACEHOLDER

ANSWER_MARK = "\ufdd2"
"""Stands for an answer while the template is rendered. A noncharacter, as `LIST_MARK` is, which Unicode keeps
out of text.
"""

_MARKS = str.maketrans("", "", MARK + LIST_MARK + ANSWER_MARK)

Media = Literal["image", "video"]
"""What a conversation is about: pictures or a clip."""

_MEDIA_TEXTS: WeakKeyDictionary[Any, dict[tuple[str, Media, int], str]] = WeakKeyDictionary()
"""What templates write for pictures, by tokenizer: it is the same for every conversation about as many."""


class ChatWriter:
    """Writes conversations with one chat template.

    Args:
        tokenizer: of the checkpoint.
        chat_template: Jinja text of the checkpoint.
        image_token: what the template writes for a picture.
        opening: what a row may start with, and then belongs to its trunk also where there are no pictures;
            None for the token of the tokenizer.

    Raises:
        ProcessingError: there is no template.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None,
        *,
        image_token: str = IMAGE_PLACEHOLDER,
        opening: str | None = None,
    ) -> None:
        if chat_template is None:
            raise ProcessingError(
                "expected a chat template, got none; copy chat_template.jinja from the released model"
            )
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self._placeholders: dict[Media, str] = {"image": image_token, "video": VIDEO_PLACEHOLDER}
        self._opening: str = opening or tokenizer.bos_token or tokenizer.eos_token
        self._media_texts = _MEDIA_TEXTS.setdefault(tokenizer, {})

    def media_text(self, media: Media, count: int) -> str:
        """What the template writes up to the last picture or clip: placeholders, maybe with names, and what
        stands before them.

        Args:
            media: pictures or a clip.
            count: how many of them; nothing is written for none.

        Raises:
            ProcessingError: the template writes them behind what the user says, or not as often.
        """
        key = (self.chat_template, media, count)
        if key in self._media_texts:
            return self._media_texts[key]
        rendered = self._render([_user(ANSWER_MARK, media, count)])
        before_text, _, _ = rendered.partition(ANSWER_MARK)
        placeholder = self._placeholders[media]
        if before_text.count(placeholder) != count:
            raise ProcessingError(
                f"expected a chat template that writes {placeholder} {count} times before what the user "
                "says, got one that does not: "
                f"{rendered!r:.200}; use the template of a released model"
            )
        # A template may write the first token of the row itself; it belongs to the trunk, also where there
        # are no pictures.
        end = len(self._opening) if before_text.startswith(self._opening) else 0
        if count:
            end = before_text.rfind(placeholder) + len(placeholder)
        self._media_texts[key] = before_text[:end]
        return before_text[:end]

    def prompts(self, texts: Sequence[str], media: Media = "image", count: int = 0) -> list[EncodedText]:
        """What stands before each answer of a conversation: the user's turn and the header of the answer.

        All but the first begin with the end of the answer before them. `media_text`, which stands before the
        first, is left out.

        Args:
            texts: what the user says, turn by turn.
            media: what the conversation is about.
            count: how many pictures or clips.

        Raises:
            ProcessingError: the template does not accept the turns, or writes something else than pictures
                and turns.
        """
        escaper = text_escaper(self.tokenizer)
        said = [escaper.escape(text.translate(_MARKS)) for text in texts]
        messages = [_user(said[0], media, count)]
        for text in said[1:]:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": ANSWER_MARK}]})
            messages.append(_user(text))
        rendered = self._render(messages)
        pieces = rendered.split(ANSWER_MARK)
        media_text = self.media_text(media, count)
        says_all = all(text.strip() in rendered for text in said)  # templates may trim
        if len(pieces) != len(texts) or not pieces[0].startswith(media_text) or not says_all:
            raise ProcessingError(
                "expected a chat template that writes pictures, then every turn once, got another; use the "
                "template of a released model"
            )
        pieces[0] = pieces[0].removeprefix(media_text)
        encoded = []
        for piece in pieces:
            ids = np.array(escaper.encode(piece), dtype=np.int64)
            encoded.append(EncodedText(ids, np.full(len(ids), NO_SELECTION)))
        return encoded

    def conversation(
        self, turns: Sequence[tuple[str, Sequence[str | PointList]]], media: Media = "image", count: int = 0
    ) -> tuple[Turn, ...]:
        """A branch from pairs of user text and pieces of the answer, as `write_answer` gives them.

        Raises:
            ProcessingError: as `prompts`; or the tokenizer lacks a grounding token that an answer needs.
        """
        prompts = self.prompts([text for text, _ in turns], media, count)
        answers = [encode_answer(pieces, self.tokenizer) for _, pieces in turns]
        return tuple(Turn(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))

    def _render(self, messages: list[dict[str, Any]]) -> str:
        try:
            return self.tokenizer.apply_chat_template(
                messages, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ProcessingError(
                f"expected turns that the chat template accepts, got: {error}; check their order"
            ) from error


def _user(text: str, media: Media = "image", count: int = 0) -> dict[str, Any]:
    """A message of the user about pictures or a clip."""
    pictures: list[dict[str, str]] = [{"type": media}] * count
    return {"role": "user", "content": [*pictures, {"type": "text", "text": text}]}
