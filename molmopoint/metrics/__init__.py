"""Metrics: how good are the points of an answer."""

from molmopoint.metrics.matching import MatchScores, match_nearby, match_points
from molmopoint.metrics.preference_graphs import rank_by_preferences

__all__ = ["MatchScores", "match_nearby", "match_points", "rank_by_preferences"]
