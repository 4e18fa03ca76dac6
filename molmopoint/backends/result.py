"""What a request returns.

How sure the model was, place by place, of one point.

Letters: P image tokens of a row, K slots per image token.
"""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from molmopoint.backends import exports
from molmopoint.backends.media import DisplayedMedia
from molmopoint.drawing import Labels, draw_heatmap, draw_points, draw_title, enlarged, phrases_of
from molmopoint.errors import GroundingError, ProcessingError
from molmopoint.files import max_picture_pixels, picture_limit
from molmopoint.geometry import PointingMetadata
from molmopoint.points import SCORE_DECIMALS, Point, Points

if TYPE_CHECKING:
    from molmopoint.metrics import Calibration
    from molmopoint.segmentation import Masks, Segmenter


@dataclass(frozen=True, eq=False)
class PointDistributions:
    """The choices behind the points of one answer, on the host and in half precision.

    Attributes:
        patch: (num_points, P) probability of every image token when the point's patch was chosen; what is
            missing to 1 went to no-more-points.
        subpatch: (num_points, K) probability of every slot of the chosen patch.
    """

    patch: np.ndarray
    subpatch: np.ndarray

    def __len__(self) -> int:
        return len(self.patch)


def spread_over_picture(
    distributions: PointDistributions,
    index: int,
    patch_id: int,
    metadata: PointingMetadata,
    picture: int,
    largest: int | None = None,
) -> np.ndarray:
    """One point's patch and subpatch probabilities, spread evenly over the area each ViT patch covers.

    The chosen patch is split by the subpatch probabilities; all others, whose split was never asked for,
    evenly over their slots.

    Args:
        distributions: of the answer.
        index: of the point in the answer.
        patch_id: patch the point chose.
        metadata: of the request.
        picture: index of the patch map: the picture, or the frame of a clip.
        largest: cells along the longer side at most; None for a cell per pixel.

    Returns:
        (height, width) float32 density of the displayed picture, or coarser; it sums to the probability that
        fell on this picture.

    Raises:
        GroundingError: there is no such point or picture.
    """
    if not 0 <= index < len(distributions):
        raise GroundingError(f"expected the index of one of {len(distributions)} points, got {index}")
    if not 0 <= picture < len(metadata.patch_maps):
        raise GroundingError(f"expected one of {len(metadata.patch_maps)} pictures, got {picture}")
    weights = _vit_patch_weights(distributions, index, patch_id, metadata.pooling)
    canvas = weights[metadata.patch_maps[picture]].astype(np.float32)
    width, height = metadata.image_sizes[0 if metadata.is_video else picture]
    shrink = 1.0 if largest is None else min(1.0, largest / max(width, height))
    width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
    return _shares(canvas.shape[0], height).T @ canvas @ _shares(canvas.shape[1], width)


def _shares(cells: int, pixels: int) -> np.ndarray:
    """(cells, pixels) float32, which share of each cell along an axis falls on each pixel; rows sum to 1."""
    cell_edges, pixel_edges = np.arange(cells + 1) / cells, np.arange(pixels + 1) / pixels
    end = np.minimum(cell_edges[1:, None], pixel_edges[None, 1:])
    start = np.maximum(cell_edges[:-1, None], pixel_edges[None, :-1])
    return (np.maximum(end - start, 0.0) * cells).astype(np.float32)


def _vit_patch_weights(
    distributions: PointDistributions, index: int, patch_id: int, pooling: np.ndarray
) -> np.ndarray:
    """(num_vit_patches + 1,) probability of every ViT patch; the last entry collects the empty slots."""
    filled = pooling >= 0
    per_patch = distributions.patch[index].astype(np.float64)
    per_slot = (per_patch / np.maximum(filled.sum(axis=1), 1))[:, None] * filled
    per_slot[patch_id] = (
        per_patch[patch_id] * distributions.subpatch[index].astype(np.float64) * filled[patch_id]
    )
    weights = np.zeros(int(pooling.max(initial=-1)) + 2)
    np.add.at(weights, pooling, per_slot)
    return weights


_HEAT_SIDE = 768
"""Cells along the longer side of a heatmap that is drawn; it is smooth, and scaled to the picture."""


@dataclass(frozen=True, eq=False)
class PointingResult:
    """The answer to one request. An answer without points is a valid result.

    Attributes:
        points: where, in pixels of the displayed pictures, with object ids and scores. A score is the product
            of the probabilities of the point's patch, subpatch and location among the choices left: 0..1,
            uncalibrated, unless `calibrated` says otherwise. NaN where the model writes coordinates as text.
        text: the answer in words; a point list reads as its label.
        raw_text: the answer as generated, with `<POINT_n>` tokens, which mean something for this very request
            only, or with coordinates as text.
        prompt: the request as it was sent.
        truncated: a limit of tokens or time cut the answer; `points` holds those that were complete.
        invalid: triples, or coordinates, that name no place of the pictures.
        image_sizes: (width, height) of every displayed picture; one entry for a clip.
        metadata: what turns grounding tokens of this request into pixels.
        displayed: the pictures or the clip, for `draw`.
        distributions: the choices behind the points, for `heatmap`.
        notes: what was wrong with the input, where a part of it was used all the same, such as a damaged
            video; and how much of a long clip was looked at.
        answers: of a clip in windows, what the model said of each, with times from its start; else empty.
        time_offset: seconds that were added to the times of points, so that they count from the beginning of
            a video.
        absent: with `single=True` the probability that the model would rather have pointed at nothing: what
            no-more-points would have got as the first choice, 0..1, uncalibrated. NaN without `single`, and
            where the model writes coordinates as text.
        left_out: points that `min_score` left out.
        calibrated: scores are chances that points are right, by the map that the checkpoint ships.
        looks: how often the model looked: once, and with `zoom` once more for each part of the picture.
    """

    points: Points
    text: str
    raw_text: str
    prompt: str
    truncated: bool
    invalid: int
    image_sizes: tuple[tuple[int, int], ...]
    metadata: PointingMetadata = field(repr=False)
    displayed: DisplayedMedia = field(default_factory=DisplayedMedia, repr=False)
    distributions: PointDistributions | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    answers: tuple[PointingResult, ...] = field(default=(), repr=False)
    time_offset: float = 0.0
    absent: float = math.nan
    left_out: int = 0
    calibrated: bool = False
    looks: int = 1

    def __repr__(self) -> str:
        found = f"{len(self.points)} point{'' if len(self.points) == 1 else 's'}"
        notes = ", truncated" * self.truncated + (f", {self.invalid} invalid" if self.invalid else "")
        return f"PointingResult({found}{notes}, text={self.text!r}, prompt={self.prompt!r})"

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        """The points, in the order of the answer."""
        return iter(self.points)

    def __getitem__(self, number: int) -> Point:
        """One point, by its place in the answer; negative numbers count from the end.

        Raises:
            GroundingError: there is no such point.
        """
        is_index = isinstance(number, Integral) and not isinstance(number, bool)
        if not is_index or not -len(self.points) <= number < len(self.points):
            raise GroundingError(
                f"expected the number of one of {len(self.points)} points, got {number!r}; for several use "
                "result.points[...]"
            )
        return self.points[int(number)]

    def at_least(self, min_score: float | None) -> PointingResult:
        """The result without points of a lower score, which are counted in `left_out`; None leaves it as it
        is.

        Raises:
            ProcessingError: it is no number in 0..1.
        """
        if min_score is None:
            return self
        if isinstance(min_score, bool) or not isinstance(min_score, Real) or not 0 <= min_score <= 1:
            raise ProcessingError(f"expected min_score to be a number in 0..1 or None, got {min_score!r}")
        keep = self.points.score >= min_score  # (n,)
        if keep.all():
            return self
        chosen = self.distributions
        if chosen is not None:
            chosen = PointDistributions(chosen.patch[keep], chosen.subpatch[keep])
        fewer = int(np.count_nonzero(~keep))
        return replace(self, points=self.points[keep], distributions=chosen, left_out=self.left_out + fewer)

    def with_chances(self, calibration: Calibration | None) -> PointingResult:
        """The result with chances that points are right in place of their scores.

        Args:
            calibration: of the model that answered.

        Raises:
            GroundingError: there is none, or the scores are chances already.
        """
        if calibration is None or self.calibrated:
            got = "no calibration" if calibration is None else "a result with chances"
            raise GroundingError(
                f"expected a calibration for a result with scores, got {got}; apply one once"
            )
        points = self.points.with_scores(calibration(self.points.score))
        return replace(self, points=points, calibrated=True)

    def draw(
        self,
        path: str | Path | None = None,
        *,
        heatmap: bool = False,
        numbers: bool = True,
        radius: float | None = None,
        labels: Labels = False,
        scores: bool = False,
        title: str | bool | None = None,
        style: str = "marker",
        font: str | Path | None = None,
        scale: int = 1,
    ) -> Image.Image | list[Image.Image]:
        """The pictures with a numbered marker per point.

        Numbers and words that have no room in or beside their marker stand a little away, and a line links
        them; nothing covers a marker or another label, and what has no free place at all is left out.

        Args:
            path: also writes them to a file, in the format of its ending; several are numbered, points-1.png.
            heatmap: also show where the model looked for points, below the markers.
            numbers: write object ids into the markers.
            radius: of a marker in pixels, where there is room; by default it follows the picture's size.
            labels: write the phrase of a point beside its marker; or what to write there, a text per point.
            scores: write the score of a point beside its marker.
            title: stands in a strip above each picture, which makes it higher; True for the prompt.
            style: "marker" (a disc with its number), "dot" (small, its number beside it) or "crosshair" (whose
                middle stays open).
            font: file of a TrueType font for the words. By default Pillow's own, and for letters that it lacks
                a font of this machine.
            scale: enlarges the pictures so many times before anything is drawn, for pictures of icons; the
                places of points are still those of the original.

        Returns:
            An RGB picture; a list of them if the request was a list of pictures or a clip (then the frames
            with points).

        Raises:
            ProcessingError: the request had no picture, the file's ending is that of none, or an option is
                out of range.
        """
        if not self.image_sizes:
            raise ProcessingError("expected a request with a picture to draw on, got one of text alone")
        phrases = phrases_of(self.points, labels)
        if title is not None and not isinstance(title, (str, bool)):
            raise ProcessingError(
                f"expected the title as text, or True for the prompt, got {type(title).__name__}; leave it out for none"
            )
        target = None if path is None else exports.target_of(path)
        heading = self.prompt if title is True else title or None
        drawn = []
        for group, picture in self.displayed.with_groups(self.points):
            here = np.flatnonzero(self.points.group == group).tolist()
            if heatmap and here:
                heats = [self._heat(i, _HEAT_SIDE) for i in here]
                picture = draw_heatmap(
                    picture, np.max([heat / (heat.max() or 1.0) for heat in heats], axis=0)
                )
            picture, points = enlarged(picture, [self.points[i] for i in here], scale)
            picture = draw_points(
                picture,
                points,
                numbers=numbers,
                radius=radius,
                labels=[phrases[i] for i in here],
                scores=scores,
                style=style,
                font=font,
            )
            drawn.append(picture if heading is None else draw_title(picture, heading, font=font))
        result = drawn if self.displayed.many else drawn[0]
        if target is not None:
            exports.write_pictures(result, target)
        return result

    def save(self, path: str | Path, **drawing: Any) -> list[Path]:
        """Writes the result: drawn pictures, or everything but the pixels for the endings .json and .csv.

        Args:
            path: of the file; several pictures are numbered, points-1.png.
            **drawing: of `draw`, for pictures.

        Returns:
            The files that were written.

        Raises:
            ProcessingError: another ending, or the request had no picture.
        """
        return exports.save(self, path, **drawing)

    def show(self, **drawing: Any) -> None:
        """Shows the pictures with their points: in a notebook below the cell, else in a window.

        Args:
            **drawing: of `draw`.
        """
        page = exports.page_of(self, **drawing)
        notebook = sys.modules.get("IPython")
        if notebook is not None and notebook.get_ipython() is not None:
            notebook.display.display(page)
        else:
            page.show()

    def _repr_png_(self) -> bytes | None:
        """What notebooks show of a result."""
        if not self.image_sizes:
            return None
        paper = io.BytesIO()
        exports.page_of(self).save(paper, format="PNG")
        return paper.getvalue()

    def heatmap(self, i: int, largest: int | None = None) -> np.ndarray:
        """Where point `i` might have been as well: its patch and subpatch probabilities over its picture or
        frame.

        Args:
            i: number of the point.
            largest: cells along the longer side at most; None for a cell per pixel.

        Returns:
            (height, width) float32 density over the displayed picture, or coarser; its sum is the probability
            of this picture.

        Raises:
            GroundingError: there is no point `i`, or the points did not come from a model's choice.
        """
        return self._heat(i, largest)

    def _heat(self, i: int, largest: int | None = None) -> np.ndarray:
        """The heatmap of point `i`, with at most `largest` cells along its longer side; None for a cell per
        pixel.
        """
        if len(self.answers) > 1:
            raise GroundingError(
                "expected the answer to one window, got a clip in windows; take "
                "`result.answers[k].heatmap(i)`"
            )
        if self.looks > 1:
            raise GroundingError(
                f"expected the answer of one look, got one of {self.looks}; ask without zoom for a heatmap"
            )
        if self.distributions is None or self.points.triples is None:
            raise GroundingError(
                "expected points that a model has just chosen, got points without distributions; ask the "
                "model again, "
                "a MolmoPoint if this one writes coordinates as text"
            )
        is_index = isinstance(i, Integral) and not isinstance(i, bool)
        if not is_index or not -len(self.points) <= i < len(self.points):
            raise GroundingError(f"expected the index of one of {len(self.points)} points, got {i!r}")
        if largest is not None and (not isinstance(largest, Integral) or largest < 1):
            raise GroundingError(
                f"expected largest as a whole number of cells above 0, or None for a cell per pixel, got {largest!r}"
            )
        i %= len(self.points)
        group = float(self.points.group[i]) - self.time_offset
        times = self.metadata.timestamps
        picture = int(group) if times is None else int(np.abs(times - group).argmin())
        return spread_over_picture(
            self.distributions, i, int(self.points.triples[i, 0]), self.metadata, picture, largest
        )

    def masks(
        self,
        segmenter: Segmenter,
        *,
        negative_others: bool = False,
        multimask: bool = True,
        fps: float | None = None,
    ) -> Masks:
        """Outlines: one mask per point of pictures; one mask per object and frame of a clip.

        Args:
            segmenter: what `molmopoint.load_segmenter` returned.
            negative_others: points of the nearest other objects of the same picture or frame say "not here".
            multimask: for pictures, the best of three masks by what the segmenter expects of them.
            fps: for a clip in a file, frames per second to draw on; more are easier to follow. By default the
                frames the model saw.

        Returns:
            `Masks` of the displayed pictures; none if there are no points.

        Raises:
            ProcessingError: the request had no picture, `fps` is not for it, or the segmenter is something
                else.
            CheckpointError: a clip, and a segmenter for pictures only.
        """
        from molmopoint.segmentation.segmenter import check_segmenter

        check_segmenter(segmenter)
        if not self.image_sizes:
            raise ProcessingError("expected a request with a picture to draw masks on, got one of text alone")
        if self.displayed.clip is not None:
            return self.displayed.follow(segmenter, self.points, fps, negative_others=negative_others)
        if fps is not None:
            raise ProcessingError("expected no fps for pictures, got one; it is for clips")
        pictures = self.displayed.pictures
        asked = list(pictures) if self.displayed.as_list else pictures[0]
        largest = max(picture.width * picture.height for picture in pictures)
        with picture_limit(max(largest, max_picture_pixels())):  # what was pointed in was allowed
            return segmenter.segment(asked, self.points, negative_others=negative_others, multimask=multimask)

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a row per point: object_id, group, x, y, score, label.

        Raises:
            ProcessingError: pandas is not installed.
        """
        return exports.to_pandas(self)

    def to_supervision(self) -> Any:
        """The points as `supervision.KeyPoints`; a list of them where `draw` gives a list.

        Raises:
            ProcessingError: supervision is not installed, or the request had no picture.
        """
        return exports.to_supervision(self)

    def to_fiftyone(self, label: str | None = None, *, frame_rate: float | None = None) -> Any:
        """The points as `fiftyone.Keypoints`; a list for a list of pictures, and by frame number, from 1, for
        a clip.

        Args:
            label: of points without a phrase; by default the prompt.
            frame_rate: frames per second of a video whose file does not say.

        Raises:
            ProcessingError: fiftyone is not installed, or the request had no picture.
        """
        return exports.to_fiftyone(self, label, frame_rate)

    def to_label_studio(self, images: exports.PictureNames, **options: Any) -> list[dict[str, Any]]:
        """Tasks with pre-annotations for Label Studio, ready for a JSON file.

        Args:
            images: address of each picture for Label Studio, such as "/data/local-files/?d=shapes.png".
            **options: `label`, `from_name`, `to_name`, `field` and `model_version`; see
                `molmopoint.backends.exports.to_label_studio`.

        Raises:
            ProcessingError: a clip, or more or fewer addresses than pictures.
        """
        return exports.to_label_studio(self, images, **options)

    def to_coco(self, images: exports.PictureNames = (), *, label: str | None = None) -> dict[str, Any]:
        """A COCO document in which every point is an object with a single keypoint.

        Args:
            images: `file_name` of each picture; not for a clip, whose frames have numbers and times.
            label: category of points without a phrase; by default the prompt.

        Raises:
            ProcessingError: more or fewer names than pictures.
        """
        return exports.to_coco(self, images, label=label)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels, ready for JSON; places have two decimals, scores four. `looks` is there
        where there were several.
        """
        looks = {"looks": self.looks} if self.looks > 1 else {}
        return {
            "prompt": self.prompt,
            "text": self.text,
            "truncated": self.truncated,
            "invalid": self.invalid,
            "points": self.points.rounded().to_dict(),
            "absent": None if math.isnan(self.absent) else round(self.absent, SCORE_DECIMALS),
            "left_out": self.left_out,
            "calibrated": self.calibrated,
            "notes": list(self.notes),
            **looks,
        }


_NUMBER = re.compile(r"\A\s*+(\d{1,18})\s*+(?:\.\s*+)?\Z")


def stated_number(text: str) -> int | None:
    """The number that an answer consists of; None where it says anything else."""
    found = _NUMBER.match(text)
    return int(found[1]) if found else None


def count_of(result: PointingResult) -> int:
    """How many the answer counts: its objects, or its number where it is a bare number without points."""
    if len(result.points) or result.left_out:
        return len(np.unique(result.points.object_id))
    return stated_number(result.text) or 0
