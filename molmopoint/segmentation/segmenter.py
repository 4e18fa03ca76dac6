"""Points in, masks out: the segmenter, and from a name to one.

A SAM 2 for videos has all parts of the one for pictures, under the same names. So one set of weights in
memory serves both: the model for pictures is built without weights and given the other one's parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError

from molmopoint.errors import CheckpointError, GroundingError, ProcessingError
from molmopoint.files import is_folder
from molmopoint.load_checks import FILE_ERRORS
from molmopoint.metrics.tracking import PredictedTracks
from molmopoint.points import Points
from molmopoint.remote_code import check_kernels, refuse_trust, running_no_code
from molmopoint.segmentation.masks import Mask, Masks
from molmopoint.segmentation.media import ClipFrames, PictureList
from molmopoint.segmentation.sam2 import FrameMask, follow_objects, masks_in_picture, prompt_of


class ModelClasses(NamedTuple):
    """Names of the classes in transformers.

    Attributes:
        video: class of the model for videos.
        still: class of the model for pictures.
    """

    video: str
    still: str


CLASSES = {
    "sam2": ModelClasses("Sam2VideoModel", "Sam2Model"),
    "edgetam": ModelClasses("EdgeTamVideoModel", "EdgeTamModel"),
}
"""By model type of the picture half; the one of the whole ends in `_video`."""

_PARTS = ("vision_config", "prompt_encoder_config", "mask_decoder_config")


def classes_of(model_type: str, source: str) -> ModelClasses:
    """The classes for a model type.

    Raises:
        CheckpointError: it is none of SAM 2.
    """
    classes = CLASSES.get(model_type.removesuffix("_video"))
    if classes is None:
        raise CheckpointError(
            f"expected SAM 2, SAM 2.1 or EdgeTAM in {source!r}, got type {model_type!r}; use "
            "facebook/sam2.1-hiera-large, for example"
        )
    return classes


def still_model_of(model: Any) -> Any:
    """The model for pictures: the model itself, or one that shares its weights.

    Raises:
        CheckpointError: the model is of another class.
    """
    import transformers

    kind = type(model).__name__
    for classes in CLASSES.values():
        if kind == classes.still:
            return model
        if kind == classes.video:
            return _half_of(model, getattr(transformers, classes.still))
    known = ", ".join(", ".join(classes) for classes in CLASSES.values())
    raise CheckpointError(f"expected a model of {known}, got {kind}; molmopoint.load_segmenter loads one")


def _half_of(model: Any, still: Any) -> Any:
    """A model of class `still` made of the parts of the model for videos."""
    config = still.config_class(**{part: getattr(model.config, part).to_dict() for part in _PARTS})
    with torch.device("meta"):
        half = still(config)
    for name, _ in [*half.named_children(), *half.named_parameters(recurse=False)]:
        setattr(half, name, getattr(model, name))
    return half.eval()


class Segmenter:
    """Draws masks around points, in pictures and clips. `molmopoint.load_segmenter` makes one.

    Args:
        model: `Sam2VideoModel`, which does both, or `Sam2Model`, which does pictures; used where and as
            precise as it is.
        processor: of the model.

    Raises:
        CheckpointError: the model is of another class.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model.eval()
        self.processor = processor
        self._still_model = still_model_of(model)

    def __repr__(self) -> str:
        name = self.model.config.name_or_path or type(self.model).__name__
        return f"Segmenter({name!r}, device={str(self.model.device)!r}, dtype={str(self.model.dtype).removeprefix('torch.')!r})"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    def segment(
        self, images: Any, points: Points, *, negative_others: bool = False, multimask: bool = True
    ) -> Masks:
        """One mask per point of pictures, in the order of the points.

        Args:
            images: a picture, or a list of pictures; a point's `group` is the index of its picture.
            points: in pixels of the displayed pictures.
            negative_others: points of the nearest other objects of the picture say "not here"; helps where
                objects touch.
            multimask: the best of three masks, by what the segmenter expects of them; else the one it would
                rather give.

        Raises:
            ProcessingError: a picture cannot be read.
            GroundingError: points of a clip, or points outside of their picture.
        """
        many = isinstance(images, (list, tuple))
        source = PictureList(images if many else [images], many=many)
        sizes = [picture.size for picture in source.loaded]
        if len(points) and points.is_video:
            raise GroundingError(
                "expected points of pictures, got points with seconds as groups; use `follow` for a clip"
            )
        if len(points) and points.group.max() >= len(sizes):
            raise GroundingError(
                f"expected a picture for every group, got {len(sizes)} pictures and group "
                f"{points.group.max()}"
            )
        _check_inside(points.xy, np.array(sizes).reshape(-1, 2)[points.group.astype(np.int64)])
        order: list[int] = []
        rows = self._segmented(source, points, order, negative_others=negative_others, multimask=multimask)
        return Masks.collect(rows, video=False, image_sizes=sizes, source=source)[np.argsort(order)]

    def follow(
        self,
        clip: Any,
        points: Points,
        *,
        timestamps: Sequence[float] | np.ndarray | None = None,
        fps: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        negative_others: bool = False,
    ) -> Masks:
        """One mask per object and frame of a clip, by object and time; empty where the object is not to be
        seen.

        Args:
            clip: a file, or frames: (T, height, width, 3) uint8 or a list of pictures of one size.
            points: with seconds as groups; each is a click at the frame nearest to its time. Points of one
                object share an id.
            timestamps: (T,) rising seconds of the frames; of a file the moments to look at, by default those
                of the points.
            fps: frames per second of a file to look at instead, the moments of the points among them.
            start: second of a file from which all times count.
            end: second of a file at which looking with `fps` ends.
            negative_others: as in `segment`, for the points of the same frame.

        Raises:
            CheckpointError: the model is for pictures only.
            ProcessingError: the clip cannot be read, or frames come without times or with `fps`.
            GroundingError: points of pictures, or outside of the frame.
        """
        if len(points) and not points.is_video:
            raise GroundingError(
                "expected points of a clip, with seconds as groups, got indices of pictures; use `segment` "
                "for pictures"
            )
        frames = _frames_of(clip, points, timestamps, fps, (start, end))
        _check_inside(points.xy, np.array(frames.size))
        clicks = PredictedTracks(points.xy, frames.nearest(points.group), points.object_id)
        rows = (
            Mask(found.object_id, frames.times[found.frame].item(), found.mask, found.score)
            for found in self.follow_clicks(frames, clicks, negative_others=negative_others)
        )
        masks = Masks.collect(rows, video=True, image_sizes=[frames.size], source=frames)
        return masks[np.lexsort((masks.group, masks.object_id))]

    def follow_clicks(
        self, frames: Any, clicks: PredictedTracks, *, negative_others: bool = False
    ) -> Iterator[FrameMask]:
        """The same by numbers of frames, one mask at a time; see `sam2.follow_objects`."""
        if not hasattr(self.model, "propagate_in_video_iterator"):
            raise CheckpointError(
                f"expected a segmenter for clips, got {type(self.model).__name__}, which is for pictures; "
                "load a checkpoint for videos, such as facebook/sam2.1-hiera-large"
            )
        return follow_objects(self.model, self.processor, frames, clicks, negative_others=negative_others)

    def _segmented(
        self, source: PictureList, points: Points, order: list[int], *, negative_others: bool, multimask: bool
    ) -> Iterator[Mask]:
        """Masks picture by picture, and in `order` the points they belong to; pictures without points are not
        looked at.
        """
        for group in np.unique(points.group).tolist():
            rows = np.flatnonzero(points.group == group)
            xy, object_id = points.xy[rows], points.object_id[rows]
            prompts = []
            for i in range(len(rows)):
                others = xy[object_id != object_id[i]] if negative_others else None
                prompts.append(prompt_of(xy[i : i + 1], others))
            picture = source.loaded[group]
            found = masks_in_picture(self._still_model, self.processor, picture, prompts, multimask=multimask)
            for i, mask, score in found:
                order.append(int(rows[i]))
                yield Mask(int(object_id[i]), group, mask, score)


def check_segmenter(segmenter: Any) -> Segmenter:
    """The segmenter itself.

    Raises:
        ProcessingError: it is something else.
    """
    if not isinstance(segmenter, Segmenter):
        raise ProcessingError(
            f"expected what molmopoint.load_segmenter returns, got {type(segmenter).__name__}; load a "
            "segmenter first"
        )
    return segmenter


def _frames_of(
    clip: Any, points: Points, timestamps: Any, fps: float | None, part: tuple[float, float | None]
) -> ClipFrames:
    """The frames to look at; see `Segmenter.follow`."""
    if fps is not None:
        if timestamps is not None:
            raise ProcessingError("expected timestamps or fps, got both; pass one of them")
        return ClipFrames.at_rate(clip, fps, points.group, *part)
    if timestamps is not None:
        return ClipFrames(clip, timestamps, part[0])
    if not isinstance(clip, (str, Path)):
        raise ProcessingError("expected timestamps with frames, got none; pass the seconds of every frame")
    return ClipFrames(clip, np.unique(points.group) if len(points) else np.zeros(1), part[0])


def _check_inside(xy: np.ndarray, sizes: np.ndarray) -> None:
    """Raises GroundingError where one of (n, 2) points lies outside of its picture of (n, 2) or (2,) width
    and height.
    """
    outside = ((xy < 0) | (xy > sizes)).any(axis=1)
    if outside.any():
        number = int(np.flatnonzero(outside)[0])
        x, y = xy[number]
        width, height = np.broadcast_to(sizes, xy.shape)[number]
        raise GroundingError(
            f"expected points within their picture of {width} x {height} pixels, got point {number} at "
            f"({x:g}, {y:g})"
        )


PUBLISHED_MODEL = "facebook/sam2.1-hiera-large"
"""What published J&F of pointing models was measured with."""


def load_segmenter(
    name_or_path: str | Path = PUBLISHED_MODEL,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    **kwargs: Any,
) -> Segmenter:
    """A SAM 2 that draws masks around points, for `result.masks` and `tracks.masks`.

    One checkpoint serves pictures and clips, and is in memory once.

    Args:
        name_or_path: an id on the hub, or a folder: SAM 2, SAM 2.1 or EdgeTAM in the layout of transformers.
        device: by default the GPU if there is one, else the CPU.
        dtype: of the weights, as in transformers; float32 by default.
        revision: branch, tag or commit on the hub.
        **kwargs: further arguments of `from_pretrained`, such as `local_files_only`.

    Raises:
        CheckpointError: there is no such model, it is of another kind, weights are missing, or it needs code
            of its own.
    """
    import transformers

    folder = Path(name_or_path).expanduser()
    source = str(folder) if isinstance(name_or_path, Path) or is_folder(folder) else name_or_path
    kwargs |= {} if revision is None else {"revision": revision}
    refuse_trust(kwargs)
    safely = {**kwargs, "trust_remote_code": False}
    try:
        check_kernels(transformers.PretrainedConfig.get_config_dict(source, **kwargs)[0], source)
        with running_no_code(source):
            model_type = transformers.AutoConfig.from_pretrained(source, **safely).model_type
        classes = classes_of(model_type, source)
        if model_type.endswith("_video"):
            kind, processor_kind = getattr(transformers, classes.video), transformers.Sam2VideoProcessor
        else:
            kind, processor_kind = getattr(transformers, classes.still), transformers.Sam2Processor
        with running_no_code(source):
            processor = processor_kind.from_pretrained(source, **safely)
        placed = {**safely, "dtype": dtype or torch.float32, "use_safetensors": True}
        model, report = kind.from_pretrained(source, output_loading_info=True, **placed)
    except CheckpointError:
        raise
    except (*FILE_ERRORS, SafetensorError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise CheckpointError(
            f"expected a SAM 2 model at {source!r}, got: {reason}; check the name and the connection, or "
            "pass a folder that holds the files"
        ) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(
            f"expected all weights at {source!r}, got none of {', '.join(missing[:3])}; download the folder "
            "again"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Segmenter(model.to(device), processor)
