"""Drawing places: distributions reshaped per request, and random numbers that follow from seed and position.

Letters: B rows, n classes.

A row draws the same whatever batch it is in, on every worker, and again after it was put off, because its
random numbers are a function of its seed, the position of the token, and the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_32_BITS = 0xFFFFFFFF
_STREAM = 0x706F696E
"""Keeps random numbers of places apart from those of words, which vLLM draws by the same seeds."""


@dataclass(frozen=True)
class Sampling:
    """How each row draws.

    Attributes:
        temperature: (B,) float32; 0 for the likeliest place.
        seeds: (B,) int64.
        positions: (B,) int64 of the token.
        top_k: (B,) int32; None where no row has one.
        top_p: (B,) float32; None where no row has one.
        min_p: (B,) float32; None where no row has one.
    """

    temperature: Tensor
    seeds: Tensor
    positions: Tensor
    top_k: Tensor | None = None
    top_p: Tensor | None = None
    min_p: Tensor | None = None

    def draw(self, scores: Tensor) -> Tensor:
        """(B,) a class of each row of masked scores (B, n)."""
        is_greedy = self.temperature <= 0
        scale = torch.where(is_greedy, 1.0, self.temperature).unsqueeze(1)
        reshaped = self._reshaped(scores / scale)
        noise = gumbel_noise(self.seeds, self.positions, scores.shape[1])
        drawn = (reshaped.double() + noise).argmax(-1)
        return torch.where(is_greedy, scores.argmax(-1), drawn)

    def _reshaped(self, scores: Tensor) -> Tensor:
        """(B, n) with what is not to be drawn at minus infinity; the same as transformers does it, in its order."""
        if self.top_k is not None:
            k = self.top_k.long().clamp(min=1, max=scores.shape[1])
            lowest = scores.sort(-1, descending=True).values.gather(1, k.unsqueeze(1) - 1)
            scores = scores.masked_fill(scores < lowest, -torch.inf)
        if self.top_p is not None:
            ascending, order = scores.sort(-1)
            tail = ascending.softmax(-1).cumsum(-1) <= 1 - self.top_p.unsqueeze(1)
            tail[:, -1] = False
            scores = scores.masked_fill(torch.zeros_like(tail).scatter(1, order, tail), -torch.inf)
        if self.min_p is not None:
            odds = scores.softmax(-1)
            least = odds.amax(-1, keepdim=True) * self.min_p.unsqueeze(1)
            scores = scores.masked_fill(odds < least, -torch.inf)
        return scores


def gumbel_noise(seeds: Tensor, positions: Tensor, classes: int) -> Tensor:
    """(B, classes) float64 noise of Gumbel's distribution, by seeds (B,) and positions (B,)."""
    state = torch.full_like(seeds, _STREAM)
    for word in (seeds & _32_BITS, (seeds >> 32) & _32_BITS, positions & _32_BITS):
        state = _mixed(state, word)
    numbers = torch.arange(classes, device=seeds.device)
    bits = _finished(_mixed(state.unsqueeze(1), numbers.unsqueeze(0)))  # (B, classes)
    uniform = (bits.double() + 0.5) / 2**32
    return -torch.log(-torch.log(uniform))


def _mixed(state: Tensor, word: Tensor) -> Tensor:
    """One round of a 32-bit multiplicative hash; products keep their low 32 bits whatever their sign."""
    word = (word * 0xCC9E2D51) & _32_BITS
    word = ((word << 15) | (word >> 17)) & _32_BITS
    state = state ^ ((word * 0x1B873593) & _32_BITS)
    state = ((state << 13) | (state >> 19)) & _32_BITS
    return (state * 5 + 0xE6546B64) & _32_BITS


def _finished(state: Tensor) -> Tensor:
    """Spreads every bit over all 32."""
    state = state ^ (state >> 16)
    state = (state * 0x85EBCA6B) & _32_BITS
    state = state ^ (state >> 13)
    state = (state * 0xC2B2AE35) & _32_BITS
    return state ^ (state >> 16)
