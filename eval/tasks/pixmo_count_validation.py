"""The validation split of PixMo-Count; see `pixmo_count.py`."""

from __future__ import annotations

from molmopoint.eval.benchmark import Source
from molmopoint.eval.layouts.archives import HOW_TO
from molmopoint.eval.tasks.pixmo_count import PixmoCount


class PixmoCountValidation(PixmoCount):
    """As `PixmoCount`, on other rows."""

    name = "pixmo_count_validation"
    title = "PixMo-Count, validation (Molmo, arXiv 2409.17146)"
    split = "validation"
    source = Source("allenai/pixmo-count", patterns=("data/validation-*.parquet",), note=HOW_TO, licence="see the data set's card")
