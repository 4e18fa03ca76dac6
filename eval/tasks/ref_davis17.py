"""Ref-DAVIS17: follow the object that a phrase names, 61 objects, each named by four people. Source: Khoreva et al., "Video Object
Segmentation with Language Referring Expressions" (ACCV 2018), as Molmo2 (arXiv 2601.10611) asks it.

Masks are pictures with a palette, whose pixels are numbers of objects. The four questions about an object are one cluster. See
`layouts/tracks.py` for the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from molmopoint.eval.benchmark import Source
from molmopoint.eval.layouts.track_masks import PictureTracks
from molmopoint.eval.layouts.tracks import VIDEOS_NOTE, AcademicTracks, Question, picture_masks

_NOTE = f"{VIDEOS_NOTE}, and the masks of DAVIS 2017 into `Annotations/VIDEO/FRAME.png`"


class RefDavis17(AcademicTracks):
    """See the module."""

    name = "ref_davis17"
    title = "Ref-DAVIS17 (ACCV 2018)"
    split = "valid"
    source = Source("allenai/molmo2-ref-davis17", patterns=("*valid-*.parquet",), note=_NOTE, licence="see the data set's card")

    def masks(self, folder: Path, questions: Sequence[Question]) -> PictureTracks:
        """A picture of numbers per frame."""
        return picture_masks(folder, questions, numbered=True)

    def cluster(self, video: str, objects: Sequence[str]) -> str:
        """An object."""
        return f"{video}/{'+'.join(objects)}"
