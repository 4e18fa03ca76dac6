"""MR2Bench-Video: best of four responses about a video, ranked from many judgments of pairs. Source: arXiv 2604.10966.

See `layouts/mr2bench.py` for the data, `layouts/preferences.py` for the rules, and `molmopoint.metrics.preference_graphs` for how
such judgments become ranks.
"""

from __future__ import annotations

from molmopoint.eval.benchmark import View
from molmopoint.eval.layouts.mr2bench import MR2Bench


class MR2BenchVideo(MR2Bench):
    """See the module."""

    name = "mr2bench_video"
    title = "MR2Bench-Video (arXiv 2604.10966)"
    medium = "video"
    views = (View(("source",)),)
