"""Which checkpoint is best, when scores are known only so well."""

from itertools import pairwise

import numpy as np
import pytest

from molmopoint.training.run_checkpoints import best_step, standard_error


def history(*scores, errors=()):
    lines = [{"step": 10 * (i + 1), "score/f1": score} for i, score in enumerate(scores)]
    for line, error in zip(lines, errors, strict=False):
        line["score/f1_error"] = error
    return [{"step": 1, "loss": 2.0}, *lines, {"step": 99, "loss": 1.0}]


def test_without_errors_the_highest_score_wins_and_of_equal_ones_the_newest():
    assert best_step(history(0.2, 0.9, 0.8), "score/f1") == (20, 0.9)
    assert best_step(history(0.9, 0.2, 0.9), "score/f1") == (30, 0.9)
    assert best_step([{"step": 1, "loss": 1.0}], "score/f1") is None


def test_the_newest_within_the_error_of_the_highest_wins():
    assert best_step(history(0.5, 0.79, 0.76, 0.73, errors=[0.1, 0.06, 0.06, 0.06]), "score/f1") == (40, 0.73)
    assert best_step(history(0.5, 0.79, 0.76, 0.72, errors=[0.1, 0.06, 0.06, 0.06]), "score/f1") == (30, 0.76)
    # It is measured from the highest score ever: small steps down do not add up.
    assert best_step(history(0.8, 0.77, 0.74, 0.71, errors=[0.04] * 4), "score/f1") == (20, 0.77)
    # The error of the highest decides, not that of the one that is chosen.
    assert best_step(history(0.8, 0.7, errors=[0.01, 0.5]), "score/f1") == (10, 0.8)


def test_the_choice_never_goes_back_while_a_run_goes_on():
    """Checkpoints that are not best are deleted, so one that was passed over must never be wanted again."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        lines = history(*rng.random(12), errors=rng.random(12) * 0.3)
        chosen = [found[0] for n in range(2, len(lines)) if (found := best_step(lines[:n], "score/f1"))]
        assert chosen == sorted(chosen)
        assert all(now == before or now == 10 * (i + 2) for i, (before, now) in enumerate(pairwise(chosen)))


def test_the_error_is_that_of_a_mean_of_independent_values():
    values = np.random.default_rng(0).random((2000, 25))
    errors = [standard_error(row.tolist()) for row in values]
    assert np.mean(errors) == pytest.approx(values.mean(axis=1).std(), rel=0.05)
    assert standard_error([0.3]) == standard_error([]) == standard_error([0.5, 0.5]) == 0.0
