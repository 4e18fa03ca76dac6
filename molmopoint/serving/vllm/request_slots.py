"""The grammar of points over the request slots of an engine, as tensors that stay on the device.

Letters: R request slots, B rows of a step, P image tokens of a request, C room for them, K slots per image
token, L location cells, V vocabulary.

The rules are those of `molmopoint.generation.rules`; there all rows of a batch begin together and share their
limits, here every row is at a step of its own and has its own. What a slot holds is a function of the tokens
and pictures of its request: one that was put off is set up again from both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from molmopoint.config import GroundingSettings
from molmopoint.generation.rules import FREE, PATCH_CHOSEN, SUBPATCH_CHOSEN, PromptEnd, transitions
from molmopoint.grammar import Symbol
from molmopoint.heads import SelectionLogits, patch_scale
from molmopoint.rows import split_extended
from molmopoint.serving.vllm.point_options import PointOptions
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION

Draw = Callable[[Tensor], Tensor]
"""(B,) a class per row of masked scores (B, n)."""

_NO_LIMIT = 2**31 - 1


class Places(NamedTuple):
    """Where the image tokens of a request are.

    Attributes:
        columns: (P,) position of each in the sequence.
        indexable: (P,) True where it may be chosen.
        rotary: (P,) its number among those that may.
        num_slots: K of its pictures; 0 without any.
    """

    columns: np.ndarray
    indexable: np.ndarray
    rotary: np.ndarray
    num_slots: int


class Chosen(NamedTuple):
    """What the rows of a step chose.

    Attributes:
        ids: (B,) extended ids.
        selections: (B,) NO_SELECTION where a word was chosen.
        odds: (B,) float32 probability of the selection at temperature 1, NaN for words.
        no_more_odds: (B,) float32 of no-more-points beside the places, for rows that chose a patch; with
            `single`, what it would have got as the first choice.
    """

    ids: Tensor
    selections: Tensor
    odds: Tensor
    no_more_odds: Tensor


class RequestSlots:
    """State of every request slot.

    Args:
        num_requests: R.
        settings: grounding tokens.
        end_ids: that end an answer.
        device: where the state lives.
    """

    def __init__(
        self, num_requests: int, settings: GroundingSettings, end_ids: tuple[int, ...], device: torch.device
    ) -> None:
        self.settings = settings
        self.device = device

        def row(value: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full((num_requests,), value, dtype=dtype, device=device)

        # Where the answer stands, all (R,).
        self.grammar = row(FREE)
        self.patch = row(NO_SELECTION)
        """(R,) the patch chosen last in this answer, NO_MORE_POINTS after the end of a list."""
        self.slot = row(NO_SELECTION)
        self.selected = row(NO_SELECTION)
        """(R,) the patch whose position the queries carry; earlier answers of the prompt count."""
        self.first_patch = row(0)
        self.num_points = row(0)
        self.has_points = row(0, torch.bool)
        self.may_start = row(0, torch.bool)
        self.is_first = row(1, torch.bool)
        # What was asked, and of how large a picture, all (R,).
        self.max_points = row(_NO_LIMIT)
        self.is_single = row(0, torch.bool)
        self.can_point = row(0, torch.bool)
        self.num_patches = row(0)
        self.num_slots = row(0)
        # Image tokens, all (R, C).
        self.columns = torch.zeros((num_requests, 0), dtype=torch.int64, device=device)
        self.indexable = torch.zeros((num_requests, 0), dtype=torch.bool, device=device)
        self.rotary = torch.zeros((num_requests, 0), dtype=torch.int64, device=device)
        self.memory_rows = torch.zeros((num_requests, 0), dtype=torch.int64, device=device)

        # Constants.
        self.end_ids = torch.tensor(end_ids, dtype=torch.int64, device=device)
        self.table = transitions(settings.num_locations > 0).to(device)  # (states, symbols)
        self.symbols = torch.tensor(
            [Symbol.PATCH, Symbol.SUBPATCH, Symbol.LOCATION, Symbol.TEXT], device=device
        )
        self.forced = torch.tensor(
            [-1, settings.subpatch_token_id, settings.location_token_id, -1], device=device
        )
        self.only_forced = torch.tensor(
            [settings.subpatch_token_id, settings.location_token_id], device=device
        )

    def begin(
        self, index: int, places: Places, options: PointOptions, end: PromptEnd, points: int, selected: int
    ) -> None:
        """Sets up a slot for a request, or again for one that was put off.

        Args:
            index: of the slot.
            places: image tokens of the request.
            options: of points.
            end: where its tokens leave the answer.
            points: of the answer so far.
            selected: patch that was selected last, by whatever answer.
        """
        count = len(places.columns)
        self._make_room(count)
        for buffer, values in (
            (self.columns, places.columns),
            (self.indexable, places.indexable),
            (self.rotary, places.rotary),
        ):
            buffer[index, :count] = self._on_device(values).to(buffer.dtype)
        self.indexable[index, count:] = False
        limit = 1 if options.single else options.max_points
        for state, value in (
            (self.grammar, int(end.state)),
            (self.patch, end.patch),
            (self.slot, end.slot),
            (self.selected, max(selected, NO_SELECTION)),
            (self.first_patch, 0),
            (self.num_points, points),
            (self.has_points, end.has_points),
            (self.may_start, end.may_start_with_patch),
            (self.is_first, True),
            (self.max_points, _NO_LIMIT if limit is None else limit),
            (self.is_single, options.single),
            (self.can_point, bool(places.indexable.any())),
            (self.num_patches, count),
            (self.num_slots, places.num_slots),
        ):
            state[index] = value

    def place_pictures(self, index: int, memory_rows: np.ndarray, valid_slots: Tensor) -> None:
        """Says where the features of a request's image tokens are, once they are there.

        Args:
            index: of the slot.
            memory_rows: (P,) rows of the picture memory.
            valid_slots: (rows, K) of the memory.
        """
        self.memory_rows[index, : len(memory_rows)] = self._on_device(memory_rows)
        here = torch.tensor([index], device=self.device)
        self.first_patch[here] = self._first_patch(here, self.patch[here], self.slot[here], valid_slots)

    def resume(self, index: int) -> None:
        """Says that a part of the answer is in the tokens already."""
        self.is_first[index] = False

    def split(self, ids: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Plain ids and selections (M,) of tokens (M,) of request slots (M,)."""
        plain, selections = split_extended(
            ids.unsqueeze(1), self.num_patches[slots], self.num_slots[slots], self.settings
        )
        return plain.squeeze(1), selections.squeeze(1)

    def rows_of(self, slots: Tensor, patches: Tensor) -> Tensor:
        """Rows (M,) of the picture memory of patches (M,); any row for negative patches."""
        if not self.memory_rows.shape[1]:
            return torch.zeros_like(patches)
        return self.memory_rows[slots, patches.clamp(min=0)]

    def query_positions(self, slots: Tensor) -> Tensor:
        """(B,) rotary positions that queries carry."""
        selected = self.selected[slots]
        if not self.rotary.shape[1]:
            return torch.zeros_like(selected)
        return self.rotary[slots, selected.clamp(min=0)] * (selected >= 0)

    def mask_words(self, text: Tensor, slots: Tensor, patch_logits: Tensor) -> Tensor:
        """Lets the grammar decide which words may come: changes text logits (B, V) in place.

        A row with one possible token has all others at the lowest number, and this one at 0.

        Args:
            text: (B, V).
            slots: (B,) request slots.
            patch_logits: (B, P + 1) unmasked, the last column no-more-points.

        Returns:
            (B, P + 1) masked scores of patches.
        """
        settings = self.settings
        scores, has_place = self._patch_scores(slots, patch_logits)
        grammar, is_first, is_single = self.grammar[slots], self.is_first[slots], self.is_single[slots]
        may_point = has_place & (grammar == FREE) & (~is_first | self.may_start[slots])
        lowest = torch.finfo(text.dtype).min
        text.index_fill_(1, self.only_forced, lowest)
        text[:, settings.patch_token_id].masked_fill_(~may_point, lowest)
        # The answer cannot end before its point, where there is something to point at.
        is_waiting = is_single & (self.num_points[slots] == 0) & self.can_point[slots]
        text[:, self.end_ids] = text[:, self.end_ids].masked_fill(is_waiting.unsqueeze(1), lowest)
        begins = is_first & is_single & may_point & (self.num_points[slots] == 0)
        only = torch.where(begins, settings.patch_token_id, self.forced[grammar])  # (B,)
        is_forced = (only >= 0).unsqueeze(1)
        text.masked_fill_(is_forced, lowest)
        at_only = text.gather(1, only.clamp(min=0).unsqueeze(1)).masked_fill(is_forced, 0.0)
        text.scatter_(1, only.clamp(min=0).unsqueeze(1), at_only)
        return scores

    def choose(
        self,
        tokens: Tensor,
        slots: Tensor,
        ready: Tensor,
        patch_scores: Tensor,
        logits: SelectionLogits,
        valid: Tensor,
        draw: Draw,
    ) -> Chosen:
        """Chooses places where the tokens need one, and takes note of it.

        Args:
            tokens: (B,) plain ids.
            slots: (B,) request slots.
            ready: (B,) False where a prompt is not complete, so that nothing is chosen.
            patch_scores: what `mask_words` returned.
            logits: unmasked; slots are those of `selected`.
            valid: (B, K) True at the slots of that patch.
            draw: chooses a class per row.
        """
        settings, grammar = self.settings, self.grammar[slots]
        odds = torch.full_like(patch_scores[:, 0], torch.nan)
        selections = torch.full_like(tokens, NO_SELECTION)
        last = patch_scores.shape[1] - 1

        is_patch = (grammar == FREE) & (tokens == settings.patch_token_id)
        place, chance = _pick(patch_scores, draw)
        place = place.masked_fill(place == last, NO_MORE_POINTS)
        selections, odds = torch.where(is_patch, place, selections), torch.where(is_patch, chance, odds)
        no_more_odds = self._no_more_odds(patch_scores, logits.patch, slots)

        assert logits.subpatch is not None, "all stages are computed"
        above = torch.arange(valid.shape[1], device=self.device) > self.slot[slots].unsqueeze(1)
        slot_scores = logits.subpatch.masked_fill(~(valid & above), torch.finfo(logits.subpatch.dtype).min)
        place, chance = _pick(slot_scores, draw)
        is_slot = grammar == PATCH_CHOSEN
        selections, odds = torch.where(is_slot, place, selections), torch.where(is_slot, chance, odds)

        if logits.location is not None:
            place, chance = _pick(logits.location, draw)
            is_cell = grammar == SUBPATCH_CHOSEN
            selections, odds = torch.where(is_cell, place, selections), torch.where(is_cell, chance, odds)

        self._advance(slots, ready, selections, valid)
        ids = self._extended(tokens, selections, slots)
        return Chosen(ids, selections, odds, no_more_odds)

    def _advance(self, slots: Tensor, ready: Tensor, selections: Tensor, valid: Tensor) -> None:
        """Takes note of the selections (B,) of rows that are ready."""
        grammar, patch, slot = self.grammar[slots], self.patch[slots], self.slot[slots]
        symbol = self.symbols[grammar].masked_fill(selections == NO_MORE_POINTS, Symbol.NO_MORE_POINTS)
        symbol = symbol.masked_fill(selections == NO_SELECTION, Symbol.TEXT)
        is_patch, is_slot = symbol == Symbol.PATCH, symbol == Symbol.SUBPATCH
        is_end = symbol == Symbol.NO_MORE_POINTS
        new_slot = slot.masked_fill(is_patch & (selections != patch), NO_SELECTION)
        new_slot = torch.where(is_slot, selections, new_slot)
        new_patch = torch.where(is_patch, selections, patch)
        left = (valid & (torch.arange(valid.shape[1], device=self.device) > new_slot.unsqueeze(1))).any(1)
        after_slot = torch.where(left, new_patch, new_patch + 1).clamp(min=0)
        selected = torch.where(is_patch | is_end, selections.clamp(min=NO_SELECTION), self.selected[slots])
        for state, value in (
            (self.slot, new_slot),
            (self.patch, new_patch),
            (self.has_points, self.has_points[slots] | is_patch),
            (self.num_points, self.num_points[slots] + is_patch),
            (self.first_patch, torch.where(is_slot, after_slot, self.first_patch[slots])),
            (self.selected, selected),
            (self.grammar, self.table[grammar, symbol]),
            (self.is_first, torch.zeros_like(ready)),
        ):
            state[slots] = torch.where(ready, value, state[slots])

    def _first_patch(self, slots: Tensor, patch: Tensor, slot: Tensor, valid_slots: Tensor) -> Tensor:
        """(M,) the first patch that may follow: the last one again while one of its slots is left."""
        valid = valid_slots[self.rows_of(slots, patch)] & (patch >= 0).unsqueeze(1)  # (M, K)
        left = (valid & (torch.arange(valid.shape[1], device=self.device) > slot.unsqueeze(1))).any(1)
        return torch.where(left, patch, patch + 1).clamp(min=0)

    def _patch_scores(self, slots: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Masked scores (B, P + 1), and whether anything may be chosen (B,)."""
        count = logits.shape[1] - 1
        numbers = torch.arange(count, device=self.device)
        allowed = self.indexable[slots, :count] & (numbers >= self.first_patch[slots].unsqueeze(1))
        allowed = allowed & (self.num_points[slots] < self.max_points[slots]).unsqueeze(1)
        allowed = torch.cat([allowed, self.has_points[slots].unsqueeze(1)], 1)  # (B, P + 1)
        scores = (logits * self._scale(slots)).masked_fill(~allowed, torch.finfo(logits.dtype).min)
        return scores, allowed.any(1)

    def _scale(self, slots: Tensor) -> Tensor | float:
        """(B, 1) factor of patch logits, or a number."""
        settings = self.settings
        scale = patch_scale(settings.patch_logit_scale, self.num_patches[slots], settings.patch_embed_dim)
        return scale.unsqueeze(1) if isinstance(scale, Tensor) else scale

    def _no_more_odds(self, scores: Tensor, logits: Tensor | None, slots: Tensor) -> Tensor:
        """(B,) of no-more-points beside the places that may be chosen, at temperature 1, allowed or not."""
        assert logits is not None, "all stages are computed"
        no_more = logits[:, -1:] * self._scale(slots)
        return torch.cat([scores[:, :-1], no_more], 1).softmax(-1)[:, -1]

    def _extended(self, tokens: Tensor, selections: Tensor, slots: Tensor) -> Tensor:
        """(B,) extended ids."""
        settings = self.settings
        no_more = settings.extended_start + self.num_patches[slots]
        first = torch.full_like(no_more, settings.extended_start)
        first = torch.where(tokens == settings.subpatch_token_id, no_more + 1, first)
        first_cell = no_more + 1 + self.num_slots[slots]
        first = torch.where(tokens == settings.location_token_id, first_cell, first)
        extended = torch.where(selections == NO_MORE_POINTS, no_more, first + selections)
        return torch.where(selections == NO_SELECTION, tokens, extended)

    def _make_room(self, count: int) -> None:
        """Widens what there is per image token; seldom, for prompts are about as long as others before."""
        room = self.columns.shape[1]
        if count <= room:
            return
        more = max(count, 2 * room) - room
        for name in ("columns", "indexable", "rotary", "memory_rows"):
            old: Tensor = getattr(self, name)
            setattr(self, name, torch.cat([old, old.new_zeros((len(old), more))], 1))

    def _on_device(self, values: np.ndarray) -> Tensor:
        """A copy that no kernel waits for."""
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _pick(scores: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """(B,) a class per row of masked scores (B, n), and its probability at temperature 1."""
    index = draw(scores)
    return index, scores.softmax(-1).gather(1, index.unsqueeze(1)).squeeze(1)
