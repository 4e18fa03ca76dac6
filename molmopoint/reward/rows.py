r"""From a prompt and its answers to one row, with the places where answers are read.

    causal, assistant:  [pictures][prompt][header] y1 \n\n <S> \n\n y2 \n\n <S> \n\n y3 [end]
    block:              [pictures][prompt][header] | y1 [end] | y2 [end] | y3 [end]          three branches of a message tree

[end] is what the chat template puts behind the last message: the published one puts nothing behind an
assistant's, so the last answer is read at the last token of its own words, and in layout "user" at the
newline behind the end of the turn. All others are read at the blank line before the separator, and begin with
the blank line behind it.

A row is a trunk, which is read once, and branches, which do not see each other and whose positions go on from
the trunk. In "causal" a branch is a whole list of answers, each of which sees those before it; several orders
of a list, or several lists, are several branches. In "block" every answer is a branch: exactly what it would
be alone.

A list is encoded in one piece with the words before and behind it, as in the published rows: an answer that
begins with white space shares a token with the line end before it. Such a token belongs to the branch, and
the trunk ends before it. Every answer is literal
text: a separator that somebody typed stays text, so the separators in the ids are those between answers.

Letters: S tokens of the row, N answers, B rows, P image tokens, K slots, C crops and frames, G ViT patches
per crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch.nn.functional import pad

from molmopoint.errors import ProcessingError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.chat import ANSWER_MARK
from molmopoint.processing.escaping import TextEscaper, text_escaper
from molmopoint.processing.rows import TRUNK, Row
from molmopoint.reward.clips import as_clip
from molmopoint.reward.prompts import Asked, Prompt, check_answers, read_prompt
from molmopoint.reward.settings import SEPARATOR, RewardSettings, add_separator
from molmopoint.tokens import NO_SELECTION

GLUE = "\n\n"
"""Between an answer and a separator, and between a prompt and the first answer of the same turn."""


@dataclass(frozen=True)
class Branch:
    """What stands behind a trunk.

    Attributes:
        ids: of its tokens.
        starts: first token of each answer, behind its separator.
        words: first token of the words of each answer, behind the blank line.
        ends: last token of each answer, at which it is read.
    """

    ids: list[int]
    starts: list[int]
    words: list[int]
    ends: list[int]

    def behind(self, count: int) -> Branch:
        """The branch without its first tokens."""
        starts, words, ends = (
            [place - count for place in places] for places in (self.starts, self.words, self.ends)
        )
        return Branch(self.ids[count:], starts, words, ends)


@dataclass(frozen=True, eq=False)
class PromptPart(Row):
    """What all answers share: the row up to the first answer.

    Attributes:
        tail: rendered text behind the last special token; its tokens are the last ones of `input_ids`, unless
            an answer that begins with white space shares one of them.
        ending: rendered text that the template puts behind the last answer.
    """

    tail: str = ""
    ending: str = ""

    def without_last(self, count: int) -> PromptPart:
        """The part without its last tokens."""
        return self._kept(slice(0, len(self) - count))

    def without_first(self, count: int) -> PromptPart:
        """The part without its first tokens."""
        return self._kept(slice(count, None))

    def _kept(self, kept: slice) -> PromptPart:
        return replace(
            self,
            input_ids=self.input_ids[kept],
            mm_token_type_ids=self.mm_token_type_ids[kept],
            selection_ids=self.column("selection_ids")[kept],
        )


class RowBuilder:
    """Makes rows; touches no weight, so it may run in a thread or process of its own.

    Args:
        processor: of the backbone; its tokenizer gets the separator if it has none.
        settings: of the reward model.
        max_length: tokens of a row at most, pictures and all answers included.
    """

    def __init__(
        self, processor: MolmoPointProcessor, settings: RewardSettings, max_length: int | None = None
    ) -> None:
        self.processor = processor
        self.settings = settings
        self.max_length = max_length
        self.separator_id = add_separator(processor.tokenizer)

    def prompt(
        self,
        prompt: Prompt,
        images: Any = None,
        videos: Any = None,
        *,
        sampling_interval: float | None = None,
        **media: Any,
    ) -> PromptPart:
        """The part all answers share.

        Args:
            prompt: text, or messages that end with the user's.
            images: a picture or a list of them.
            videos: a clip: a file, a folder of frames, or frames with their times.
            sampling_interval: seconds between the frames of a folder, 4 if not given; of which `num_frames`
                are read, 16 if not given.
            **media: settings of the processor for this call, such as `max_crops` or `num_frames`.

        Raises:
            ProcessingError: the prompt cannot be read, or a picture or the clip is missing or broken.
        """
        asked = read_prompt(prompt, images, videos)
        clips = [as_clip(clip, media.get("num_frames"), sampling_interval) for clip in asked.videos]
        rendered, earlier = self.processor.render_chat(self._with_mark(asked.messages))
        head, mark, tail = rendered.partition(ANSWER_MARK)
        if not mark or ANSWER_MARK in tail:
            raise ProcessingError(
                "expected a chat template that writes the content of the last message once, got another; "
                "correct it"
            )
        seen = self.processor.media(asked.images, clips, **media)
        ids, selections = self.processor.encode_chat(head, seen.spans, earlier, seen.metadata)
        types = self.processor.create_mm_token_type_ids([ids])[0]
        row = seen.row(torch.tensor(ids), torch.tensor(types), torch.tensor(selections))
        part = PromptPart(**vars(row), tail=self._literal.behind_last_name(head), ending=tail)
        self._check_tail(part)
        added = not head.startswith(self.processor.opening)
        return part.without_first(1) if added and not self._opens(asked) else part

    def row(
        self, prompt: PromptPart, responses: Sequence[str], orders: Sequence[Sequence[int]] | None = None
    ) -> Row:
        """One row of a prompt and its answers.

        Args:
            prompt: what `prompt` returned.
            responses: the answers.
            orders: which of them stand in which order, once per list that is judged together; one list of all
                as given by default. A list is a branch in causal attention; in block attention each of its
                answers is.

        Raises:
            ProcessingError: an answer is no text or empty, or the row is longer than `max_length`.
        """
        orders = [range(len(responses))] if orders is None else orders
        row, count = self.longest_row(prompt, responses, orders)
        if count < len(orders):
            raise self._too_long(prompt, None, responses)
        return row

    def longest_row(
        self, prompt: PromptPart, responses: Sequence[str], orders: Sequence[Sequence[int]]
    ) -> tuple[Row, int]:
        """A row of the first lists, as many as fit, and how many these are. Arguments and errors as in `row`."""
        responses = check_answers(responses)
        shared, branches, length = self._fitting(prompt, responses, orders, self.max_length)
        if not branches:
            raise self._too_long(prompt, length, responses)
        trunk = prompt.without_last(len(self._literal.encode(prompt.tail)) - shared)
        row = join_branches(trunk, [branch.behind(shared) for each in branches for branch in each])
        return row, len(branches)

    def length(self, prompt: PromptPart, responses: Sequence[str]) -> int:
        """Tokens of the row of these answers in one list, whatever the limit is."""
        return self._fitting(prompt, responses, [range(len(responses))], None)[2]

    def _fitting(
        self, prompt: PromptPart, responses: Sequence[str], orders: Sequence[Sequence[int]], limit: int | None
    ) -> tuple[int, list[list[Branch]], int]:
        """As many lists as fit into a limit.

        Returns:
            How many tokens of the tail all branches share, the branches of each list, all with the tail at
            their head, and the tokens of the row; if nothing fits, those of a row of the first list.
        """
        tail = self._literal.encode(prompt.tail)
        before = len(prompt) - len(tail)
        shared, fitting, length = len(tail), [], before
        for order in orders:
            added = [self._branch(prompt, answers) for answers in self._lists(responses, order)]
            fewest = min(shared, *(_shared(tail, branch.ids) for branch in added))
            longer = (
                before
                + fewest
                + sum(len(branch.ids) - fewest for each in [*fitting, added] for branch in each)
            )
            if limit is not None and longer > limit:
                return shared, fitting, length if fitting else longer
            fitting.append(added)
            shared, length = fewest, longer
        return shared, fitting, length

    def _lists(self, responses: Sequence[str], order: Sequence[int]) -> list[list[str]]:
        """The answers of each branch of a list."""
        answers = [responses[number] for number in order]
        return [[answer] for answer in answers] if self.settings.attention == "block" else [answers]

    def _branch(self, prompt: PromptPart, answers: Sequence[str]) -> Branch:
        """A branch of answers that are judged together, the tail of the prompt before them."""
        between = GLUE + SEPARATOR + GLUE
        text = between.join(self._literal.escape(answer) for answer in answers)
        ids = self._literal.encode(prompt.tail + text + prompt.ending)
        glue = len(self._literal.encode(GLUE))
        branch = branch_of(ids, self.separator_id, _shared(self._literal.encode(prompt.tail), ids), glue)
        return replace(branch, starts=branch.words) if self.settings.begin == "words" else branch

    @property
    def _literal(self) -> TextEscaper:
        return text_escaper(self.processor.tokenizer)

    def _opens(self, asked: Asked) -> bool:
        """Whether a row begins with the first token of the tokenizer."""
        if self.settings.layout == "user" or self.settings.opening == "always":
            return True
        return bool(asked.images or asked.videos)

    def _check_tail(self, part: PromptPart) -> None:
        """Refuses a prompt whose last words share a token with what is before them."""
        tail = self._literal.encode(part.tail)
        if part.input_ids[len(part) - len(tail) :].tolist() != tail:
            raise ProcessingError(
                "expected a chat template that begins turns with a special token, got one whose words run "
                "together; use that of the model"
            )

    def _with_mark(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages with a mark where the answers go; no other text has one."""
        clean = [
            {**message, "content": [_unmarked(part) for part in message["content"]]} for message in messages
        ]
        if self.settings.layout == "assistant":
            return [*clean, {"role": "assistant", "content": ANSWER_MARK}]
        *before, message = clean
        content = list(message["content"])
        if content and content[-1]["type"] == "text":
            content[-1] = {"type": "text", "text": f"{content[-1]['text']}{GLUE}{ANSWER_MARK}"}
        else:
            content.append({"type": "text", "text": ANSWER_MARK})
        return [*before, {**message, "content": content}]

    def _too_long(self, prompt: PromptPart, total: int | None, answers: Sequence[str]) -> ProcessingError:
        lengths = ", ".join(
            str(len(self._literal.encode(self._literal.escape(answer)))) for answer in answers
        )
        return ProcessingError(
            f"expected at most {self.max_length} tokens, got {'more' if total is None else total}: "
            f"{len(prompt)} of the prompt with its "
            f"pictures, answers of {lengths}; shorten them, pass fewer answers, fewer or smaller pictures, "
            "or a larger max_length"
        )


def branch_of(ids: list[int], separator_id: int, first: int = 0, glue: int = 0) -> Branch:
    """One list of answers.

    Args:
        ids: of the answers with a separator between them, and maybe some before and behind all of them.
        separator_id: of the token between answers; an answer ends before it and begins behind it.
        first: where the first answer begins.
        glue: tokens between a separator and the words behind it.
    """
    separators = [place for place, number in enumerate(ids) if number == separator_id]
    ends = [*(place - 1 for place in separators), len(ids) - 1]
    starts = [first, *(place + 1 for place in separators)]
    words = [first, *(min(place + 1 + glue, end) for place, end in zip(separators, ends[1:], strict=True))]
    return Branch(ids, starts, words, ends)


def join_branches(prompt: PromptPart, branches: Sequence[Branch]) -> Row:
    """The row of a prompt and its branches, which do not see each other."""
    trunk = len(prompt)
    ids = [prompt.input_ids]
    positions = [torch.arange(trunk)]
    numbers = [torch.full((trunk,), TRUNK)]
    starts: list[int] = []
    words: list[int] = []
    ends: list[int] = []
    place = trunk
    for number, branch in enumerate(branches):
        length = len(branch.ids)
        ids.append(torch.tensor(branch.ids))
        positions.append(torch.arange(trunk, trunk + length))
        numbers.append(torch.full((length,), number))
        starts += [place + start for start in branch.starts]
        words += [place + word for word in branch.words]
        ends += [place + end for end in branch.ends]
        place += length
    input_ids = torch.cat(ids)
    added = place - trunk
    return Row(
        input_ids=input_ids,
        mm_token_type_ids=pad(prompt.mm_token_type_ids, (0, added)),
        pixel_values=prompt.pixel_values,
        pooling=prompt.pooling,
        selection_ids=pad(prompt.column("selection_ids"), (0, added), value=NO_SELECTION),
        position_ids=torch.cat(positions),
        example_ids=torch.zeros_like(input_ids),
        branch_ids=torch.cat(numbers),
        response_starts=torch.tensor(starts, dtype=torch.long),
        response_words=torch.tensor(words, dtype=torch.long),
        response_positions=torch.tensor(ends, dtype=torch.long),
        image_features=prompt.image_features,
    )


def _shared(tail: Sequence[int], ids: Sequence[int]) -> int:
    """Tokens at the head of `ids` that are those of the tail."""
    same = takewhile(lambda pair: pair[0] == pair[1], zip(tail, ids, strict=False))
    return sum(1 for _ in same)


def _unmarked(part: dict[str, Any]) -> dict[str, Any]:
    return (
        {**part, "text": part["text"].replace(ANSWER_MARK, "")} if isinstance(part.get("text"), str) else part
    )
