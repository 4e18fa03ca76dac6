"""MR2Bench-Image: best of four responses about a picture, ranked by people; 240 prompts. Source: arXiv 2604.10966.

The number of prompts is inferred from the published scores. See `layouts/mr2bench.py` for the data and `layouts/preferences.py` for
the rules.
"""

from __future__ import annotations

from molmopoint.eval.benchmark import View
from molmopoint.eval.layouts.mr2bench import MR2Bench


class MR2BenchImage(MR2Bench):
    """See the module."""

    name = "mr2bench_image"
    title = "MR2Bench-Image (arXiv 2604.10966)"
    medium = "image"
    views = (View(("category",), macro=True, order=("vqa", "reasoning", "safety")),)
