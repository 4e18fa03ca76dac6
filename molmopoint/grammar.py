"""Which kind of token may follow which. A pure state machine: no tensors, no ids.

    FREE --PATCH--> PATCH_CHOSEN --SUBPATCH--> SUBPATCH_CHOSEN --LOCATION--> FREE
    FREE --no more points--> CLOSED (text only, until the next assistant turn)

Models without a location head go from PATCH_CHOSEN straight back to FREE.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from molmopoint.errors import GroundingError


class Symbol(enum.IntEnum):
    """What a token is to the grammar."""

    TEXT = 0
    PATCH = 1
    SUBPATCH = 2
    LOCATION = 3
    NO_MORE_POINTS = 4


class State(enum.IntEnum):
    """Where an answer stands."""

    FREE = 0
    PATCH_CHOSEN = 1
    SUBPATCH_CHOSEN = 2
    CLOSED = 3


@dataclass(frozen=True)
class GroundingGrammar:
    """The transitions of one model.

    Attributes:
        has_locations: whether a point ends with a LOCATION token.
    """

    has_locations: bool = True

    def next_state(self, state: State, symbol: Symbol) -> State | None:
        """The state after this symbol, or None where it is not allowed."""
        after_slot = State.SUBPATCH_CHOSEN if self.has_locations else State.FREE
        return {
            (State.FREE, Symbol.TEXT): State.FREE,
            (State.FREE, Symbol.PATCH): State.PATCH_CHOSEN,
            (State.FREE, Symbol.NO_MORE_POINTS): State.CLOSED,
            (State.PATCH_CHOSEN, Symbol.SUBPATCH): after_slot,
            (State.SUBPATCH_CHOSEN, Symbol.LOCATION): State.FREE,
            (State.CLOSED, Symbol.TEXT): State.CLOSED,
        }.get((state, symbol))

    def allowed(self, state: State) -> frozenset[Symbol]:
        """Symbols that may follow."""
        return frozenset(symbol for symbol in Symbol if self.next_state(state, symbol) is not None)

    def forced(self, state: State) -> Symbol | None:
        """The only symbol that may follow, if there is but one besides text."""
        allowed = self.allowed(state)
        return next(iter(allowed)) if len(allowed) == 1 and Symbol.TEXT not in allowed else None

    def run(self, symbols: list[Symbol], start: State = State.FREE) -> State:
        """The state after a sequence.

        Raises:
            GroundingError: naming the first token that may not stand where it stands.
        """
        state = start
        for position, symbol in enumerate(symbols):
            following = self.next_state(state, symbol)
            if following is None:
                allowed = ", ".join(s.name for s in sorted(self.allowed(state)))
                raise GroundingError(
                    f"expected one of {allowed} at token {position} (state {state.name}), got {symbol.name}"
                )
            state = following
        return state
