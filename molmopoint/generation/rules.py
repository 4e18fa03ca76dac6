"""The grammar over a batch: what each row may choose next, as tensors.

Letters: B rows, P image tokens per row (padded), K slots per image token, L location cells, V + A vocabulary.

Nothing here grows with the answer. Only the prompt is read on the host, once, and after each step which
stages come next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from molmopoint.config import GroundingSettings
from molmopoint.generation.faults import CELLS, PATCHES, SLOTS, WORDS, finite
from molmopoint.grammar import GroundingGrammar, State, Symbol
from molmopoint.heads import GroundingState, SelectionLogits, Stages, patch_scale
from molmopoint.tokens import NO_MORE_POINTS, NO_SELECTION

Processors = Callable[..., Any]
"""A `LogitsProcessorList`: from ids and scores to scores."""

# Plain integers: tensors compare with members of an enumeration at twice the cost.
FREE, PATCH_CHOSEN, SUBPATCH_CHOSEN, CLOSED = (int(state) for state in State)
PATCH, SUBPATCH = int(Symbol.PATCH), int(Symbol.SUBPATCH)
ENDED = -1


@dataclass(frozen=True)
class Limits:
    """What the caller allows.

    Attributes:
        max_points: points per row; None for no limit.
        single_point: exactly one point: the answer cannot end before it, and nothing is chosen after it.
    """

    max_points: int | None = None
    single_point: bool = False

    @property
    def points(self) -> int | None:
        """Points per row at most; None for no limit."""
        return 1 if self.single_point else self.max_points


class Choice(NamedTuple):
    """One token per row, all (B,): plain id, selection, and the selection's probability (NaN without one).

    The distributions over patches (B, P + 1) and slots (B, K) are None where no row chose from them; so is
    `peak`, the largest logit of the words that a row chose from (0 in rows that had no choice).
    """

    tokens: Tensor
    selections: Tensor
    probabilities: Tensor
    patch_distribution: Tensor | None
    subpatch_distribution: Tensor | None
    peak: Tensor | None = None

    def only(self, unfinished: Tensor, padding: Tensor | int) -> Choice:
        """The same, with padding in rows that have ended (`unfinished` is (B,) boolean)."""
        return self._replace(
            tokens=torch.where(unfinished, self.tokens, padding),
            selections=torch.where(unfinished, self.selections, NO_SELECTION),
            probabilities=torch.where(unfinished, self.probabilities, torch.nan),
            peak=None if self.peak is None else self.peak.masked_fill(~unfinished, 0.0),
        )

    def compact(self) -> Choice:
        """The same, with distributions in half precision: they are kept for every token."""
        patch, subpatch = self.patch_distribution, self.subpatch_distribution
        return self._replace(
            patch_distribution=None if patch is None else patch.half(),
            subpatch_distribution=None if subpatch is None else subpatch.half(),
        )


@dataclass(frozen=True)
class PromptEnd:
    """Where one prompt leaves the answer: its state, its last complete place, and whether it ends inside a
    list.
    """

    state: State = State.FREE
    patch: int = NO_SELECTION
    slot: int = NO_SELECTION
    has_points: bool = False
    may_start_with_patch: bool = False


def read_prompt(
    tokens: list[int], selections: list[int], turn_ends: set[int], settings: GroundingSettings
) -> PromptEnd:
    """Runs the grammar over the part of a prompt that already belongs to the answer: all after the last turn
    end.

    Args:
        tokens: plain ids of one row, padding removed or not.
        selections: aligned with `tokens`.
        turn_ends: ids that end a turn (the end-of-sequence ids).
        settings: supply the grounding tokens.
    """
    start = 0
    for index, token in enumerate(tokens):
        if token in turn_ends:
            start = index + 1
    grammar = GroundingGrammar(settings.num_locations > 0)
    state, patch, slot, has_points = State.FREE, NO_SELECTION, NO_SELECTION, False
    for token, selection in zip(tokens[start:], selections[start:], strict=True):
        symbol = _symbol_of(token, selection, settings)
        state = grammar.run([symbol], state)
        if symbol is Symbol.PATCH:
            if selection != patch:  # else the slot still counts: the same patch is chosen again
                slot = NO_SELECTION
            patch, has_points = selection, True
        elif symbol is Symbol.SUBPATCH:
            slot = selection
    return PromptEnd(state, patch, slot, has_points, may_start_with_patch=has_points and state is State.FREE)


def _symbol_of(token: int, selection: int, settings: GroundingSettings) -> Symbol:
    """What a plain id with its selection is to the grammar."""
    if selection == NO_SELECTION:
        return Symbol.TEXT
    if selection == NO_MORE_POINTS:
        return Symbol.NO_MORE_POINTS
    symbols = {
        settings.patch_token_id: Symbol.PATCH,
        settings.subpatch_token_id: Symbol.SUBPATCH,
        settings.location_token_id: Symbol.LOCATION,
    }
    return symbols.get(token, Symbol.TEXT)


class DecodingRules:
    """State of every row, and the choice of its next token.

    Args:
        settings: grounding tokens and the scale of the patch logits.
        state: what the prompts kept.
        ends: where each prompt leaves its answer.
        limits: what the caller allows.
        end_ids: (n,) end-of-sequence ids, held back until a single point was made; None without any.
    """

    def __init__(
        self,
        settings: GroundingSettings,
        state: GroundingState,
        ends: list[PromptEnd],
        limits: Limits,
        end_ids: Tensor | None,
    ) -> None:
        device = state.num_patches.device
        self.limits = limits
        self.end_ids = end_ids

        # By grammar state: where each symbol leads, what a selection is, the only token there is, and what
        # chose badly.
        self.table = transitions(settings.num_locations > 0).to(device)  # (states, symbols)
        self.symbols = torch.tensor(
            [Symbol.PATCH, Symbol.SUBPATCH, Symbol.LOCATION, Symbol.TEXT], device=device
        )
        self.forced_tokens = torch.tensor(
            [-1, settings.subpatch_token_id, settings.location_token_id, -1], device=device
        )
        self.fault_of_state = torch.tensor([PATCHES, SLOTS, CELLS, WORDS], device=device)
        self.patch_token_id = settings.patch_token_id
        self.only_forced = torch.tensor(
            [settings.subpatch_token_id, settings.location_token_id], device=device
        )

        # By row, all (B,): where the answer stands, and the last place that was selected.
        self.grammar = torch.tensor([end.state for end in ends], device=device)
        self.patch = torch.tensor([end.patch for end in ends], device=device)
        self.slot = torch.tensor([end.slot for end in ends], device=device)
        self.has_points = torch.tensor([end.has_points for end in ends], device=device)
        self.may_start = torch.tensor([end.may_start_with_patch for end in ends], device=device)
        self.num_points = torch.zeros_like(self.patch)
        self.faults = torch.zeros_like(self.patch)
        self.nothing = torch.full_like(self.patch, NO_SELECTION)
        self.no_odds = torch.full_like(self.patch, torch.nan, dtype=torch.float32)

        self.patch_mask = state.patch_key_mask  # (B, P)
        self.patch_ids = torch.arange(state.patch_key_mask.shape[1], device=device)  # (P,)
        self.slot_ids = torch.arange(state.pooling.shape[1], device=device)  # (K,)
        scale = patch_scale(settings.patch_logit_scale, state.num_patches, settings.patch_embed_dim)
        self.scale = scale.unsqueeze(1) if isinstance(scale, Tensor) else scale  # (B, 1), or a number
        rows = torch.arange(len(ends), device=device)
        self.first_patch = self._first_patch(state.slots_of(rows, self.patch))  # (B,)
        self.is_first = True
        self.absent: Tensor | None = None
        """(B,) what no-more-points would have got as the first choice of a single point, which has to be a
        place; None unless asked.
        """

    def choose(
        self,
        text: Tensor | None,
        selection: SelectionLogits,
        state: GroundingState,
        ids: Tensor,
        processors: Processors,
        warpers: Processors | None,
    ) -> Choice:
        """One token per row: first whether to point, then where.

        Args:
            text: (B, V + A) float32 logits; changed in place. None where no row chooses words.
            selection: unmasked selection logits of the same step; None where no row chooses from them.
            state: `selected_patch` is the patch whose slots are scored.
            ids: (B, so far) plain ids, for processors that look at them.
            processors: of the text stage.
            warpers: of the selection stage when sampling; None for greedy decoding.
        """
        tokens = self.forced_tokens[self.grammar]  # (B,)
        selections, odds = self.nothing, self.no_odds
        patch = slot = peak = None

        if text is not None and selection.patch is not None:
            peak = text.amax(-1).masked_fill(tokens >= 0, 0.0)  # before anything is masked
            scores, has_place = self._patch_scores(selection.patch)
            if self.is_first and self.limits.single_point:
                self.absent = self._no_more_odds(scores, selection.patch)
            tokens = self._text_stage(text, has_place, ids, processors, warpers is not None)
            patch = _pick(scores, warpers)
            is_here = (self.grammar == FREE) & (tokens == self.patch_token_id)
            place = patch.index.masked_fill(patch.index == len(self.patch_ids), NO_MORE_POINTS)
            selections = torch.where(is_here, place, selections)
            odds = torch.where(is_here, patch.probability, odds)

        if selection.subpatch is not None:
            slot = _pick(self._slot_scores(selection.subpatch, state), warpers)
            is_here = self.grammar == PATCH_CHOSEN
            selections = torch.where(is_here, slot.index, selections)
            odds = torch.where(is_here, slot.probability, odds)

        if selection.location is not None:
            cell = _pick(selection.location, warpers)
            is_here = self.grammar == SUBPATCH_CHOSEN
            selections = torch.where(is_here, cell.index, selections)
            odds = torch.where(is_here, cell.probability, odds)

        return Choice(
            tokens=tokens,
            selections=selections,
            probabilities=odds,
            patch_distribution=None if patch is None else patch.distribution,
            subpatch_distribution=None if slot is None else slot.distribution,
            peak=peak,
        )

    def stages(self, unfinished: Tensor) -> Stages | None:
        """What the next step has to compute, None if all rows have ended: the one thing a step waits for.

        Args:
            unfinished: (B,) True where a row goes on.
        """
        states = set(self.grammar.masked_fill(~unfinished, ENDED).tolist()) - {ENDED}
        if not states:
            return None
        return Stages(
            words=FREE in states or CLOSED in states,
            slots=PATCH_CHOSEN in states,
            locations=SUBPATCH_CHOSEN in states,
        )

    def advance(self, choice: Choice, state: GroundingState) -> None:
        """Takes note of what was chosen; `state` is that of the step that chose it."""
        self._note_faults(choice)
        symbol = self.symbols[self.grammar].masked_fill(
            choice.selections == NO_MORE_POINTS, Symbol.NO_MORE_POINTS
        )
        symbol = symbol.masked_fill(choice.selections == NO_SELECTION, Symbol.TEXT)
        if choice.patch_distribution is not None:
            is_patch = symbol == PATCH
            self.slot = self.slot.masked_fill(is_patch & (choice.selections != self.patch), NO_SELECTION)
            self.patch = torch.where(is_patch, choice.selections, self.patch)
            self.has_points = self.has_points | is_patch
            self.num_points = self.num_points + is_patch
        if choice.subpatch_distribution is not None:
            is_slot = symbol == SUBPATCH
            self.slot = torch.where(is_slot, choice.selections, self.slot)
            # Where a slot was chosen, the state's selected patch is the one it was chosen in.
            self.first_patch = torch.where(is_slot, self._first_patch(state.selected_slots), self.first_patch)
        self.grammar = self.table[self.grammar, symbol]
        self.is_first = False

    def _note_faults(self, choice: Choice) -> None:
        """Remembers the first stage of each row at which its numbers were not finite; stays on the device."""
        # A choice among such numbers has a softmax of NaN, and so no probability.
        is_bad = (choice.selections != NO_SELECTION) & choice.probabilities.isnan()
        fault = self.fault_of_state[self.grammar] * is_bad
        if choice.peak is not None:
            fault = torch.where(choice.peak.isfinite(), fault, WORDS)
        self.faults = torch.where(self.faults > 0, self.faults, fault)

    def _first_patch(self, slots: Tensor) -> Tensor:
        """(B,) the first patch that may follow: the last one again while one of its `slots` (B, K) is left
        above the last slot.
        """
        may_repeat = self._left(slots).any(1)
        return torch.where(may_repeat, self.patch, self.patch + 1).clamp(min=0)

    def _left(self, slots: Tensor) -> Tensor:
        """(B, K) True at valid slots above the last one."""
        return (slots >= 0) & (self.slot_ids > self.slot.unsqueeze(1))

    def _patch_scores(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Masked scores (B, P + 1), and whether anything may be chosen (B,)."""
        allowed = self.patch_mask & (self.patch_ids >= self.first_patch.unsqueeze(1))
        if self.limits.points is not None:
            allowed = allowed & (self.num_points < self.limits.points).unsqueeze(1)
        allowed = torch.cat([allowed, self.has_points.unsqueeze(1)], 1)  # (B, P + 1); no more points
        scores = (logits * self.scale).masked_fill(~allowed, torch.finfo(logits.dtype).min)
        return scores, allowed.any(1)

    def _no_more_odds(self, scores: Tensor, logits: Tensor) -> Tensor:
        """(B,) probability of no-more-points beside the places that may be chosen, at temperature 1.

        Args:
            scores: (B, P + 1) of the choice, masked.
            logits: (B, P + 1) unmasked; the last column is no-more-points.
        """
        no_more = (logits * self.scale)[:, -1:]  # (B, 1)
        return torch.cat([scores[:, :-1], no_more], 1).softmax(-1)[:, -1]

    def _slot_scores(self, logits: Tensor, state: GroundingState) -> Tensor:
        """Masked scores (B, K): valid slots of the chosen patch, above the last slot if that patch was chosen
        before.
        """
        allowed = self._left(state.selected_slots)  # (B, K)
        return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)

    def _text_stage(
        self, text: Tensor, has_place: Tensor, ids: Tensor, processors: Processors, sample: bool
    ) -> Tensor:
        """(B,) plain ids; where the grammar leaves no choice, the only token it allows."""
        may_point = has_place & (self.grammar == FREE)
        if self.is_first:
            may_point = may_point & self.may_start
        lowest = torch.finfo(text.dtype).min
        text.index_fill_(1, self.only_forced, lowest)
        text[:, self.patch_token_id].masked_fill_(~may_point, lowest)
        if self.limits.single_point and self.end_ids is not None and len(self.patch_ids):
            # The answer cannot end before its point, where there is something to point at.
            is_waiting = (self.num_points == 0) & self.patch_mask.any(1)
            text[:, self.end_ids] = torch.where(is_waiting.unsqueeze(1), lowest, text[:, self.end_ids])
        scores = processors(ids, text)
        tokens = _draw(scores) if sample else scores.argmax(-1)
        if self.is_first and self.limits.single_point:
            tokens = torch.where(may_point & (self.num_points == 0), self.patch_token_id, tokens)
        forced = self.forced_tokens[self.grammar]
        return torch.where(forced >= 0, forced, tokens)


def transitions(has_locations: bool) -> Tensor:
    """(states, symbols) next state of the grammar; where a symbol is not allowed, the state stays."""
    grammar = GroundingGrammar(has_locations)
    table = []
    for state in State:
        following = []
        for symbol in Symbol:
            after = grammar.next_state(state, symbol)
            following.append(state if after is None else after)
        table.append(following)
    return torch.tensor(table)


class _Pick(NamedTuple):
    """What every row chose of n classes.

    Attributes:
        index: (B,) the class.
        probability: (B,) its probability at temperature 1.
        distribution: (B, n) that of all classes.
    """

    index: Tensor
    probability: Tensor
    distribution: Tensor


def _pick(scores: Tensor, warpers: Processors | None) -> _Pick:
    """Chooses a column per row; probabilities are those before the warpers, at temperature 1."""
    distribution = scores.softmax(-1)
    # A low temperature drives rows in which nothing may be chosen to infinity; they stay even, and nobody
    # reads their choice.
    index = scores.argmax(-1) if warpers is None else _draw(warpers(None, scores))
    probability = distribution.gather(1, index.unsqueeze(1)).squeeze(1)
    return _Pick(index, probability, distribution)


def _draw(scores: Tensor) -> Tensor:
    """(B,) a class drawn from each row of scores (B, n)."""
    return torch.multinomial(finite(scores).softmax(-1), 1).squeeze(1)
