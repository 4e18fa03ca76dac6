"""ReasonVOS: follow what a question that needs thought asks for. Source: VideoLISA, arXiv 2409.19603, as Molmo2 (arXiv 2601.10611)
asks it.

Masks are pictures, white (255) where the object is. See `layouts/tracks.py` for the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from molmopoint.eval.benchmark import Source
from molmopoint.eval.layouts.track_masks import PictureTracks
from molmopoint.eval.layouts.tracks import VIDEOS_NOTE, AcademicTracks, Question, picture_masks

_NOTE = f"{VIDEOS_NOTE}, and the masks into `Annotations/VIDEO/MASK_ID/FRAME.png`"


class ReasonVos(AcademicTracks):
    """See the module."""

    name = "reasonvos"
    title = "ReasonVOS (VideoLISA, arXiv 2409.19603)"
    split = "test"
    source = Source("allenai/molmo2-reasonvos", patterns=("*test-*.parquet",), note=_NOTE, licence="see the data set's card")

    def masks(self, folder: Path, questions: Sequence[Question]) -> PictureTracks:
        """A folder of pictures per object."""
        return picture_masks(folder, questions, numbered=False)
