"""How sure a number is: 95 % intervals of shares, of means over clusters, and of differences between two
runs.

Items of one picture or one video are not independent, so whole clusters are drawn, with replacement.
Everything is seeded: the same scores give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy  # its parts are imported when they are used

RESAMPLES = 10_000
"""Draws of a bootstrap."""
LEVEL = 0.95
"""Share of repetitions whose interval holds the true value."""
_SEED = 20_260_328
_CHUNK = 4_000_000
"""Largest number of weights in memory at once."""


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`; NaN without items."""

    low: float
    high: float


NOTHING = Interval(math.nan, math.nan)


def wilson(successes: int, total: int) -> Interval:
    """Of a share of independent yes-or-no items. Source: Wilson (1927)."""
    if not total:
        return NOTHING
    interval = scipy.stats.binomtest(successes, total).proportion_ci(LEVEL, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def bootstrap_mean(
    values: Sequence[float], clusters: Sequence[Hashable], strata: Sequence[Hashable] | None = None
) -> Interval:
    """Of the mean over items, or of the unweighted mean over strata.

    Args:
        values: (n,) a number per item.
        clusters: (n,) what each item belongs to.
        strata: (n,) groups whose means are averaged; clusters are drawn within them. One group if absent.

    Source: percentile bootstrap over clusters.
    """
    if not len(values):
        return NOTHING
    if strata is None:
        strata = [None] * len(values)
    means = []
    for number, group in enumerate(_groups(strata)):
        of_group = np.array([values[i] for i in group])
        clusters_of_group = [clusters[i] for i in group]
        means.append(_resampled_means(of_group, clusters_of_group, number))
    return _percentiles(np.mean(means, axis=0))


def bootstrap_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable]
) -> Interval:
    """Of the mean of `second - first` over the same items (n,) each: the items are drawn once for both."""
    return bootstrap_mean(np.subtract(second, first).tolist(), clusters)


def mcnemar(only_first: int, only_second: int) -> float:
    """Probability of flips at least as uneven as these if both runs were equally good (exact, two-sided)."""
    flips = only_first + only_second
    return float(scipy.stats.binomtest(only_first, flips).pvalue) if flips else 1.0


def _groups(labels: Sequence[Hashable]) -> list[list[int]]:
    """Items of each label, in the order the labels come."""
    groups: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(label, []).append(i)
    return list(groups.values())


def _resampled_means(values: np.ndarray, clusters: Sequence[Hashable], stream: int) -> np.ndarray:
    """(RESAMPLES,) means of drawn clusters."""
    members = _groups(clusters)
    sums = np.array([values[group].sum() for group in members])
    counts = np.array([len(group) for group in members], dtype=np.float64)
    drawn = _drawn(len(members), stream)
    rows = _rows_at_once(len(members))
    means = []
    for start in range(0, RESAMPLES, rows):
        weights = drawn[start : start + rows].astype(np.float64)  # (rows, clusters)
        means.append((weights @ sums) / (weights @ counts))
    return np.concatenate(means)


@lru_cache(maxsize=2)
def _drawn(num_clusters: int, stream: int) -> np.ndarray:
    """(RESAMPLES, clusters) uint8, how often each cluster is drawn; the same for all metrics of a table, so
    it is kept.
    """
    rng = np.random.default_rng([_SEED, stream])
    rows = _rows_at_once(num_clusters)
    found = np.empty((RESAMPLES, num_clusters), dtype=np.uint8)
    for start in range(0, RESAMPLES, rows):
        some = min(rows, RESAMPLES - start)
        # Counting drawn numbers is ten times quicker than drawing counts (`rng.multinomial`), and has the
        # same distribution.
        numbers = rng.integers(num_clusters, size=(some, num_clusters))
        of_row = num_clusters * np.arange(some)[:, None]  # so that every row counts numbers of its own
        counts = np.bincount((numbers + of_row).ravel(), minlength=some * num_clusters)
        found[start : start + some] = np.minimum(counts.reshape(some, num_clusters), np.iinfo(np.uint8).max)
    return found


def _rows_at_once(num_clusters: int) -> int:
    """Resamples that are held as numbers of eight bytes at once."""
    return max(1, _CHUNK // num_clusters)


def _percentiles(values: np.ndarray) -> Interval:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(float(low), float(high))
