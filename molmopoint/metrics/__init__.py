"""Metrics: how good are the points of an answer."""

from molmopoint.metrics.calibration import (
    Calibration,
    ReliabilityCurve,
    fit_calibration,
    reliability_curve,
)
from molmopoint.metrics.matching import MatchScores, match_nearby, match_points, right_points
from molmopoint.metrics.preference_graphs import rank_by_preferences

__all__ = [
    "Calibration",
    "MatchScores",
    "ReliabilityCurve",
    "fit_calibration",
    "match_nearby",
    "match_points",
    "rank_by_preferences",
    "reliability_curve",
    "right_points",
]
