"""Rates of a side-by-side study."""

from __future__ import annotations

import math

import pytest

from molmopoint.metrics.rankings import tally


def test_c24_win_rate_without_ties():
    found = tally(188, 130, 152)
    assert found.win_rate == pytest.approx(188 / 318) and round(100 * found.win_rate, 1) == 59.1
    assert found.tie_rate == pytest.approx(152 / 470)
    assert 0.5 < found.low < found.win_rate < found.high and found.p_value < 0.01


def test_even_votes_and_none():
    assert tally(10, 10).p_value == 1 and tally(10, 10).win_rate == 0.5
    assert (
        math.isnan(tally(0, 0, 3).win_rate) and tally(0, 0, 3).tie_rate == 1 and tally(0, 0, 3).p_value == 1
    )
    assert math.isnan(tally(0, 0).tie_rate)
    assert (tally(3, 0).low, tally(3, 0).high) == (pytest.approx(0.025 ** (1 / 3)), 1)
    with pytest.raises(ValueError, match="numbers of votes"):
        tally(-1, 2)
