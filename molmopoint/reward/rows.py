r"""From a prompt and its answers to one row, with the places where answers are read.

    causal, assistant:  [pictures][prompt][header] y1 \n\n <S> \n\n y2 \n\n <S> \n\n y3 [end]
    block:              [pictures][prompt][header] | y1 [end] | y2 [end] | y3 [end]          three branches of a message tree

A row is a trunk, which is read once, and branches, which do not see each other and whose positions go on from the trunk. In
"causal" a branch is a whole list of answers, each of which sees those before it; several orders of a list, or several lists, are
several branches. In "block" every answer is a branch: exactly what it would be alone.

Ids are built answer by answer, and places are recorded while they are built, so that nothing is searched for afterwards. Every
answer is literal text: a separator that somebody typed stays text. An answer is encoded together with the glue behind it, as
in the published rows, and without what is before it, which makes a difference only for answers that begin with white space.

Letters: S tokens of the row, N answers, B rows, P image tokens, K slots, C crops and frames, G ViT patches per crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from molmopoint.errors import ProcessingError
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.collate import PADDING_EXAMPLE, join_pooling
from molmopoint.processing.literal import literal_text
from molmopoint.processing.message_tree import TRUNK
from molmopoint.reward.prompts import Prompt, check_answers, read_prompt
from molmopoint.reward.separator import add_separator
from molmopoint.reward.settings import RewardSettings
from molmopoint.tokens import NO_SELECTION

GLUE = "\n\n"
"""Between an answer and a separator, and between a prompt and the first answer of the same turn."""

NO_RESPONSE = -1
"""Place of an answer that is not there."""

_ANSWERS_MARK = "\ufdd2"
"""Stands for the answers while the chat template is rendered. A noncharacter, which Unicode keeps out of text."""


Branch = tuple[list[int], list[int], list[int]]
"""Ids, and the first and the last place of each answer in them."""


@dataclass(frozen=True, eq=False)
class PromptPart:
    """What all answers share.

    Attributes:
        input_ids: (n,) up to the first answer, image tokens expanded.
        mm_token_type_ids: (n,) 1 at vision tokens.
        selection_ids: (n,) what the grounding tokens of earlier answers select, -1 elsewhere.
        ending: ids the template puts behind the last answer.
        pixel_values: (C, G, patch values) crops or frames; None without pictures.
        pooling: (P, K) ViT patches of each image token; None without pictures.
        image_features: (P, H) what the connector of a MolmoPoint made of the pictures; stands in for pixels and table of pictures that are
            read again and again while vision does not change.
    """

    input_ids: Tensor
    mm_token_type_ids: Tensor
    selection_ids: Tensor
    ending: tuple[int, ...]
    pixel_values: Tensor | None = None
    pooling: Tensor | None = None
    image_features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True, eq=False)
class RewardRow:
    """One row of a batch.

    Attributes:
        input_ids: (S,).
        selection_ids: (S,) -1 where nothing is selected.
        mm_token_type_ids: (S,) 1 at vision tokens.
        position_ids: (S,) they go on from the trunk in every branch.
        branch_ids: (S,) -1 in the trunk.
        response_starts: (N,) first token of each answer, branch after branch.
        response_positions: (N,) last token of each answer, at which it is read.
        pixel_values: (C, G, patch values), or None.
        pooling: (P, K), or None.
        image_features: (P, H), or None.
    """

    input_ids: Tensor
    selection_ids: Tensor
    mm_token_type_ids: Tensor
    position_ids: Tensor
    branch_ids: Tensor
    response_starts: Tensor
    response_positions: Tensor
    pixel_values: Tensor | None = None
    pooling: Tensor | None = None
    image_features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


class RowBuilder:
    """Makes rows; touches no weight, so it may run in a thread or process of its own.

    Args:
        processor: of the backbone; its tokenizer gets the separator if it has none.
        settings: of the reward model.
        max_length: tokens of a row at most, pictures and all answers included.
    """

    def __init__(self, processor: MolmoPointProcessor, settings: RewardSettings, max_length: int | None = None) -> None:
        self.processor = processor
        self.settings = settings
        self.max_length = max_length
        self.separator_id = add_separator(processor.tokenizer)
        self._between = (self.separator_id, *self._encode(GLUE))

    def prompt(self, prompt: Prompt, images: Any = None, videos: Any = None, **media: Any) -> PromptPart:
        """The part all answers share.

        Args:
            prompt: text, or messages that end with the user's.
            images: a picture or a list of them.
            videos: a clip: a file, or frames with their times.
            **media: settings of the processor for this call, such as `max_crops` or `num_frames`.

        Raises:
            ProcessingError: the prompt cannot be read, or a picture or the clip is missing or broken.
        """
        asked = read_prompt(prompt, images, videos)
        rendered, earlier = self.processor.render_chat(self._with_mark(asked.messages))
        head, mark, tail = rendered.partition(_ANSWERS_MARK)
        if not mark or _ANSWERS_MARK in tail:
            raise ProcessingError("expected a chat template that writes the content of the last message once, got another; correct it")
        output = self.processor(
            text=[head],
            images=[asked.images] if asked.images else None,
            videos=asked.videos or None,
            earlier_points=[earlier] if earlier else None,
            return_tensors="pt",
            **media,
        )
        ids = output["input_ids"][0]
        kind = ("pixel_values_videos", "video_token_pooling") if asked.videos else ("pixel_values", "image_token_pooling")
        return PromptPart(
            ids,
            output["mm_token_type_ids"][0].long(),
            output["selection_ids"][0] if "selection_ids" in output else torch.full_like(ids, NO_SELECTION),
            tuple(literal_text(self.processor.tokenizer).encode(tail)),
            *(output.get(name) for name in kind),
        )

    def row(self, prompt: PromptPart, responses: Sequence[str], orders: Sequence[Sequence[int]] | None = None) -> RewardRow:
        """One row of a prompt and its answers.

        Args:
            prompt: what `prompt` returned.
            responses: the answers.
            orders: which of them stand in which order, once per list that is judged together; one list of all as given by default. A
                list is a branch in causal attention; in block attention each of its answers is.

        Raises:
            ProcessingError: an answer is no text or empty, or the row is longer than `max_length`.
        """
        orders = [range(len(responses))] if orders is None else orders
        row, count = self.longest_row(prompt, responses, orders)
        if count < len(orders):
            raise self._too_long(prompt, None, [self._encode(answer) for answer in responses])
        return row

    def longest_row(self, prompt: PromptPart, responses: Sequence[str], orders: Sequence[Sequence[int]]) -> tuple[RewardRow, int]:
        """A row of the first lists, as many as fit, and how many these are. Arguments and errors as in `row`."""
        responses = check_answers(responses)
        last = [self._encode(answer) for answer in responses]
        followed = last if self.settings.attention == "block" else [self._encode(answer, GLUE) for answer in responses]
        branches: list[Branch] = []
        length, count = len(prompt), 0
        for order in orders:
            if self.settings.attention == "block":
                added = [branch_of([last[number]], (), prompt.ending) for number in order]
            else:
                answers = [*(followed[number] for number in order[:-1]), last[order[-1]]]
                added = [branch_of(answers, self._between, prompt.ending)]
            length += sum(len(ids) for ids, _, _ in added)
            if self.max_length is not None and length > self.max_length:
                break
            branches += added
            count += 1
        if not count:
            raise self._too_long(prompt, length, last)
        return join_branches(prompt, branches), count

    def length(self, prompt: PromptPart, responses: Sequence[str]) -> int:
        """Tokens of the row of these answers in one list."""
        ends = [len(self._encode(answer)) for answer in responses]
        if self.settings.attention == "block":
            return len(prompt) + sum(ends) + len(prompt.ending) * len(ends)
        glued = [len(self._encode(answer, GLUE)) + len(self._between) for answer in responses[:-1]]
        return len(prompt) + sum(glued) + ends[-1] + len(prompt.ending)

    def _with_mark(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Messages with a mark where the answers go; no other text has one."""
        clean = [{**message, "content": [_unmarked(part) for part in message["content"]]} for message in messages]
        if self.settings.layout == "assistant":
            return [*clean, {"role": "assistant", "content": _ANSWERS_MARK}]
        *before, message = clean
        content = list(message["content"])
        if content and content[-1]["type"] == "text":
            content[-1] = {"type": "text", "text": f"{content[-1]['text']}{GLUE}{_ANSWERS_MARK}"}
        else:
            content.append({"type": "text", "text": _ANSWERS_MARK})
        return [*before, {**message, "content": content}]

    def _encode(self, text: str, glue: str = "") -> list[int]:
        """Ids of literal text and the glue behind it."""
        literal = literal_text(self.processor.tokenizer)
        return literal.encode(literal.escape(text) + glue)

    def _too_long(self, prompt: PromptPart, total: int | None, answers: Sequence[list[int]]) -> ProcessingError:
        lengths = ", ".join(str(len(answer)) for answer in answers)
        return ProcessingError(
            f"expected at most {self.max_length} tokens, got {'more' if total is None else total}: {len(prompt)} of the prompt with its "
            f"pictures, answers of {lengths}; shorten them, pass fewer answers, fewer or smaller pictures, or a larger max_length"
        )


def collate(rows: Sequence[RewardRow], pad_token_id: int, padding_side: Literal["left", "right"] = "right") -> dict[str, Tensor]:
    """A batch: the arguments of `RewardModel.forward`.

    Args:
        rows: one or more.
        pad_token_id: id at padding.
        padding_side: where shorter rows are filled up.

    Returns:
        input_ids, selection_ids, attention_mask, position_ids, example_ids, branch_ids and mm_token_type_ids (B, S); response_positions and
        response_starts (B, N), -1 where a row has fewer answers; and, if any row has pictures, pixel_values (C, G, patch values) and
        image_token_pooling (P of all rows, K), numbered over the call. Frames of clips are crops among the others. Or image_features
        (P of all rows, H), if the rows have them.

    Raises:
        ProcessingError: no rows, or features in some rows and pixels in others.
    """
    if not rows:
        raise ProcessingError("expected one or more rows for a batch, got none")
    length = max(map(len, rows))
    fill = {
        "input_ids": pad_token_id, "selection_ids": NO_SELECTION, "mm_token_type_ids": 0, "position_ids": 0, "branch_ids": TRUNK,
    }  # fmt: skip

    def filled(columns: Iterable[Tensor], value: int) -> Tensor:
        missing = [(column, length - len(column)) for column in columns]
        return torch.stack([pad(column, (0, n) if padding_side == "right" else (n, 0), value=value) for column, n in missing])

    batch = {name: filled([getattr(row, name) for row in rows], value) for name, value in fill.items()}
    batch["attention_mask"] = filled([torch.ones_like(row.input_ids) for row in rows], 0)
    batch["example_ids"] = torch.where(batch["attention_mask"] > 0, 0, PADDING_EXAMPLE)
    most = max(len(row.response_positions) for row in rows)
    for name in ("response_positions", "response_starts"):
        moved = [getattr(row, name) + (length - len(row) if padding_side == "left" else 0) for row in rows]
        batch[name] = torch.stack([pad(places, (0, most - len(places)), value=NO_RESPONSE) for places in moved])
    seen = [(row.pixel_values, row.pooling) for row in rows if row.pixel_values is not None and row.pooling is not None]
    if seen:
        batch["pixel_values"] = torch.cat([pixels for pixels, _ in seen])
        batch["image_token_pooling"] = join_pooling([table for _, table in seen], [p.shape[0] * p.shape[1] for p, _ in seen])
    features = [row.image_features for row in rows if row.image_features is not None]
    if seen and features:
        raise ProcessingError(f"expected features or pixels in all rows, got features in {len(features)} and pixels in {len(seen)}")
    if features:
        batch["image_features"] = torch.cat(features)
    return batch


def branch_of(answers: Sequence[Sequence[int]], between: Sequence[int], ending: Sequence[int]) -> Branch:
    """One list of answers.

    Args:
        answers: ids of each, all but the last with the glue behind it.
        between: separator and the glue behind it.
        ending: behind the last answer, which is read at its end.
    """
    ids: list[int] = []
    starts, ends = [], []
    for answer in answers[:-1]:
        starts.append(len(ids))
        ids += answer
        ends.append(len(ids) - 1)
        ids += between
    starts.append(len(ids))
    ids += [*answers[-1], *ending]
    return ids, starts, [*ends, len(ids) - 1]


def join_branches(prompt: PromptPart, branches: Sequence[Branch]) -> RewardRow:
    """The row of a prompt and its branches, which do not see each other."""
    trunk = len(prompt)
    parts, positions, numbers, starts, ends = [prompt.input_ids], [torch.arange(trunk)], [torch.full((trunk,), TRUNK)], [], []
    place = trunk
    for number, (ids, first, last) in enumerate(branches):
        parts.append(torch.tensor(ids))
        positions.append(torch.arange(trunk, trunk + len(ids)))
        numbers.append(torch.full((len(ids),), number))
        starts += [place + i for i in first]
        ends += [place + i for i in last]
        place += len(ids)
    added = place - trunk
    return RewardRow(
        input_ids=torch.cat(parts),
        selection_ids=pad(prompt.selection_ids, (0, added), value=NO_SELECTION),
        mm_token_type_ids=pad(prompt.mm_token_type_ids, (0, added)),
        position_ids=torch.cat(positions),
        branch_ids=torch.cat(numbers),
        response_starts=torch.tensor(starts, dtype=torch.long),
        response_positions=torch.tensor(ends, dtype=torch.long),
        pixel_values=prompt.pixel_values,
        pooling=prompt.pooling,
        image_features=prompt.image_features,
    )


def _unmarked(part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "text": part["text"].replace(_ANSWERS_MARK, "")} if isinstance(part.get("text"), str) else part
