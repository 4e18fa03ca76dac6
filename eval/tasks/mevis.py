"""MeViS valid_u: follow what a sentence about motion means. Source: MeViS, arXiv 2308.08544, as Molmo2 (arXiv 2601.10611) asks it.

The split `valid_u` has masks, the larger `valid` is judged by a server only. See `layouts/tracks.py` for the rules.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Source
from molmopoint.eval.layouts.track_masks import RunLengthTracks, by_frame, length_of
from molmopoint.eval.layouts.tracks import VIDEOS_NOTE, AcademicTracks, Question

MASKS = "mask_dict.json"
_NOTE = f"{VIDEOS_NOTE}; put {MASKS} of MeViS (a list of COCO run-lengths per mask id) beside them"


class Mevis(AcademicTracks):
    """See the module."""

    name = "mevis"
    title = "MeViS valid_u (arXiv 2308.08544)"
    split = "valid_u"
    source = Source("allenai/molmo2-mevis", patterns=("*valid_u-*.parquet",), note=_NOTE, licence="see the data set's card")

    def masks(self, folder: Path, questions: Sequence[Question]) -> RunLengthTracks:
        """From the file of MeViS."""
        if (path := next(iter(sorted(folder.rglob(MASKS))), None)) is None:
            raise EvaluationError(f"expected {MASKS} in {folder}, found none; {_NOTE}")
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise EvaluationError(f"expected JSON in {path}, got {error}; download it again") from error
        tracks = {question.item_id: {each: by_frame(stored.get(each)) for each in question.objects} for question in questions}
        lengths = {question.item_id: length_of(stored.get(each) for each in question.objects) for question in questions}
        return RunLengthTracks(tracks, lengths)
