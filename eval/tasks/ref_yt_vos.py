"""Ref-YT-VOS: follow the object that a phrase names. Source: Seo et al., URVOS (ECCV 2020), as Molmo2 (arXiv 2601.10611) asks it.

Masks are pictures, white (255) where the object is. See `layouts/tracks.py` for the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from molmopoint.eval.benchmark import Source
from molmopoint.eval.layouts.track_masks import PictureTracks
from molmopoint.eval.layouts.tracks import VIDEOS_NOTE, AcademicTracks, Question, picture_masks

_NOTE = f"{VIDEOS_NOTE}, and the masks into `Annotations/VIDEO/MASK_ID/FRAME.png`"


class RefYtVos(AcademicTracks):
    """See the module."""

    name = "ref_yt_vos"
    title = "Ref-YT-VOS (URVOS, ECCV 2020)"
    split = "valid"
    source = Source("allenai/molmo2-ref-yt-vos", patterns=("*valid-*.parquet",), note=_NOTE, licence="see the data set's card")

    def masks(self, folder: Path, questions: Sequence[Question]) -> PictureTracks:
        """A folder of pictures per object."""
        return picture_masks(folder, questions, numbered=False)
