"""Pictures to crops of ViT patches, with the tables that say which patch lies where.

Every picture becomes one global crop (the whole picture at ViT size) followed by `tiling` overlapping crops
of a larger copy, the canvas. Both are plain stretches: the aspect ratio is not kept and nothing is padded.

Letters: N crops of the call, G ViT patches per crop, K slots per image token, P image tokens of the call.
`image_token_pooling` and `patch_maps` number the ViT patches of the whole call, as native transformers does.
Values inside a patch run over its rows, then columns, then RGB.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import torch
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict
from transformers.models.molmo2.image_processing_molmo2 import (
    Molmo2ImageProcessor,
    Molmo2ImageProcessorKwargs,
    arange_for_pooling,
    compute_crop_geometry,
)

from molmopoint.errors import ProcessingError
from molmopoint.processing.pictures import picture_to_tensor
from molmopoint.processing.threads import in_threads

_LARGE_PLANE = 2**18
"""Pixels above which the colours of a picture are resized one after the other: one plane of floats stays in the
cache, and of 24 megapixels all three would take 288 MB.
"""


@dataclass(frozen=True)
class PixelSettings:
    """How bytes become numbers; the fields are the settings of the same name of transformers' processors."""

    resample: Any
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> PixelSettings:
        """Picks the settings out of the keyword arguments of a processor call."""
        return cls(
            resample=kwargs["resample"],
            do_rescale=kwargs["do_rescale"],
            rescale_factor=kwargs["rescale_factor"],
            do_normalize=kwargs["do_normalize"],
            image_mean=tuple(kwargs["image_mean"]),
            image_std=tuple(kwargs["image_std"]),
        )


def stretch(
    backend: TorchvisionBackend,
    picture: torch.Tensor,
    sizes: Sequence[tuple[int, int]],
    settings: PixelSettings,
) -> list[torch.Tensor]:
    """A picture at other sizes, in whole bytes.

    Args:
        backend: the processor, for its `resize`.
        picture: (3, height, width) uint8.
        sizes: heights and widths in pixels of the results; the aspect ratio is not kept.
        settings: of the processor.

    Returns:
        One (height, width, 3) uint8 per size: the colours of a pixel lie side by side, so that a row of a ViT
        patch is one stretch of memory.

    Source: released processors resize uint8 pictures without antialiasing, so the result is rounded to bytes;
    without that step the network would see values it was not trained on.
    """
    results = []
    for height, width in sizes:
        results.append(torch.empty(height, width, 3, dtype=torch.uint8, device=picture.device))
    at_once = 1 if picture[0].numel() > _LARGE_PLANE else 3
    floats = new_floats((at_once, 1, *picture.shape[1:]), picture.device)
    for colour in range(0, 3, at_once):
        colours = slice(colour, colour + at_once)
        floats.copy_(picture[colours, None])
        for result in results:
            # Planes one by one: with three channels, PyTorch rounds differently when it runs on a single
            # thread, and the same picture would give other bytes on another machine.
            size = SizeDict(height=result.shape[0], width=result.shape[1])
            resized = backend.resize(floats, size=size, resample=settings.resample, antialias=False)
            result.permute(2, 0, 1)[colours] = resized.round_().clamp_(0, 255)[:, 0]
    return results


def new_floats(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """A tensor of float32 that is still to be written.

    On a processor its memory is NumPy's, which asks Linux for large pages: for the crops of a picture, fetching
    small ones takes longer than all that is computed.
    """
    if device.type != "cpu":
        return torch.empty(shape, device=device)
    return torch.from_numpy(np.empty(shape, dtype=np.float32))


def _normalise(backend: TorchvisionBackend, whole: torch.Tensor, settings: PixelSettings) -> None:
    """Turns whole numbers in 0..255 into what the network takes, in place.

    Args:
        backend: the processor, for settings that are rare.
        whole: (G, patch values) float32.
        settings: of the processor.
    """
    if not (settings.do_rescale and settings.do_normalize):
        # Transformers annotates a list, and caches by it, which takes a tuple.
        mean: Any = settings.image_mean
        std: Any = settings.image_std
        planes = whole.view(-1, 3).t().unsqueeze(-1)  # (3, pixels, 1)
        normalised = backend.rescale_and_normalize(
            planes, settings.do_rescale, settings.rescale_factor, settings.do_normalize, mean, std
        )
        whole.view(-1, 3).copy_(normalised.squeeze(-1).t())
        return
    full_scale = 1.0 / settings.rescale_factor
    pixels = whole.shape[1] // 3
    mean = torch.tensor(settings.image_mean, device=whole.device) * full_scale  # (3,), of bytes
    std = torch.tensor(settings.image_std, device=whole.device) * full_scale
    whole.sub_(mean.repeat(pixels)).div_(std.repeat(pixels))


def cut_into_patches(
    backend: TorchvisionBackend,
    stretched: torch.Tensor,
    crop_size: int,
    stride: int,
    patch_size: int,
    settings: PixelSettings,
    out: torch.Tensor,
) -> None:
    """Cuts a picture into overlapping crops and those into ViT patches, written in place, and normalises them.

    Native transformers stacks, permutes, concatenates and re-cuts the crops, a copy of all pixels each time;
    strided views of bytes do it with one, crop by crop, so that what is normalised is still in the cache.

    Args:
        backend: the processor.
        stretched: (height, width, 3) uint8, both sides a crop plus a multiple of the stride.
        crop_size: side of a crop in pixels.
        stride: pixels from one crop to the next.
        patch_size: side of a ViT patch in pixels.
        settings: of the processor.
        out: (crops, G, patch values) float32, crops row by row.
    """
    side = crop_size // patch_size
    crops = stretched.unfold(0, crop_size, stride).unfold(
        1, crop_size, stride
    )  # (rows, cols, 3, height, width)
    patches = crops.unflatten(4, (side, patch_size)).unflatten(3, (side, patch_size))
    patches = patches.permute(0, 1, 3, 5, 4, 6, 2)  # (rows, cols, side, side, patch_size, patch_size, 3)
    num_cols = patches.shape[1]
    for number, crop in enumerate(out):
        of_crop = patches[number // num_cols, number % num_cols]
        crop.view(of_crop.shape).copy_(of_crop)
        _normalise(backend, crop, settings)


def checked_crop_size(size: SizeDict, patch_size: int) -> int:
    """Side of a crop in pixels.

    Raises:
        ProcessingError: the size is not square or no multiple of the patch size.
    """
    if not size.height or size.height != size.width or size.height % patch_size:
        raise ProcessingError(
            f"expected a square size that is a multiple of patch_size {patch_size}, got height "
            f"{size.height} and width {size.width}; "
            "pass size={'height': n, 'width': n}"
        )
    return int(size.height)


MAX_CROPS = 1024
"""Most crops of a picture: more than fit any model's positions, and few enough that looking for the best
tiling stays quick.
"""


class MolmoPointImageProcessorKwargs(Molmo2ImageProcessorKwargs, total=False):
    """
    return_pointing_metadata (`bool`, *optional*, defaults to `False`):
        Add `patch_maps` and `image_sizes` to the output.
    """

    return_pointing_metadata: bool


@dataclass(frozen=True)
class CropLayout:
    """Where the ViT patches of one picture lie; shared by all pictures of its size, so never written to.

    Attributes:
        tiling: rows and columns of crops, the global crop not counted.
        canvas_hw: height and width in pixels of the stretched copy that the crops cover.
        stride: pixels from one crop to the next, in both directions.
        patch_map: (rows, cols) int64, number of the ViT patch at each place of the canvas; the global crop
            has the first numbers, so none of them appears.
        pooling: (P, K) int64, ViT patches of each image token, -1 for an empty slot; the global crop's tokens
            first.
        grid: rows and columns of image tokens of the global crop, then of the canvas.
    """

    tiling: tuple[int, int]
    canvas_hw: tuple[int, int]
    stride: int
    patch_map: np.ndarray
    pooling: torch.Tensor
    grid: tuple[int, int, int, int]

    @property
    def num_crops(self) -> int:
        """Crops of the picture, the global one included."""
        return 1 + self.tiling[0] * self.tiling[1]


@functools.lru_cache(maxsize=64)
def crop_layout(
    height: int,
    width: int,
    max_crops: int,
    crop_size: int,
    patch_size: int,
    margins: tuple[int, int],
    window: tuple[int, int],
) -> CropLayout:
    """Tiling, patch map and pooling table of a picture of the given size.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        max_crops: largest number of crops, the global one not counted.
        crop_size: side of a crop in pixels.
        patch_size: side of a ViT patch in pixels.
        margins: ViT patches of a crop before and after the part that it owns.
        window: rows and columns of ViT patches that make one image token.

    Source: Molmo2 paper, section on cropping; the tiling is the native (and released) one, small sides
    included.
    """
    rows, cols, canvas_height, canvas_width = compute_crop_geometry(
        height, width, max_crops, list(margins), crop_size, patch_size
    )
    side = crop_size // patch_size
    stride = side - sum(margins)

    def owner(length: int, crops: int) -> tuple[np.ndarray, np.ndarray]:
        """Which crop owns each place along one axis, and where inside the crop it is."""
        places = np.arange(length)
        crop = np.clip((places - margins[0]) // stride, 0, crops - 1)
        return crop, places - stride * crop

    crop_row, row = owner(canvas_height // patch_size, rows)
    crop_col, col = owner(canvas_width // patch_size, cols)
    crop = (
        1 + crop_row[:, None] * cols + crop_col[None, :]
    )  # (rows, cols) of the canvas; crop 0 is the global one
    patch_map = side * side * crop + side * row[:, None] + col[None, :]
    patch_map.flags.writeable = False

    global_patches = torch.arange(side * side).reshape(side, side)
    global_table, global_rows, global_cols = arange_for_pooling(global_patches, *window)
    canvas_table, canvas_rows, canvas_cols = arange_for_pooling(torch.tensor(patch_map), *window)
    return CropLayout(
        tiling=(rows, cols),
        canvas_hw=(canvas_height, canvas_width),
        stride=stride * patch_size,
        patch_map=patch_map,
        pooling=torch.cat([global_table, canvas_table]),
        grid=(global_rows, global_cols, canvas_rows, canvas_cols),
    )


class MolmoPointImageProcessor(Molmo2ImageProcessor):
    """The native Molmo2 image processor with the released MolmoPoint values and pointing metadata.

    Pixels, tables and grids equal the native ones. Differences: pictures are read as they are displayed (see
    `molmopoint.processing.pictures`), floats in [0, 1] become bytes first, and the pooling table is int64
    like that of clips.
    """

    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    return_pointing_metadata = False
    valid_kwargs = MolmoPointImageProcessorKwargs

    def __init__(self, **kwargs: Unpack[MolmoPointImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)

    def __call__(self, images: Any, **kwargs: Unpack[MolmoPointImageProcessorKwargs]) -> BatchFeature:
        """See `preprocess`."""
        return self.preprocess(images, **kwargs)

    def preprocess(self, images: Any, **kwargs: Unpack[MolmoPointImageProcessorKwargs]) -> BatchFeature:
        """Crops and tables of one picture or a (nested) list of them.

        Args:
            images: what `load_picture` accepts, or lists of it.
            **kwargs: any setting of the processor for this call, such as `max_crops`; `return_tensors` ("pt"
                or "np").

        Returns:
            `pixel_values` (N, G, patch values) float32; `image_token_pooling` (P, K) int64, absolute over the
            call, -1 for an empty slot; `image_grids` (pictures, 4): rows and columns of image tokens of the
            global crop, then of the canvas; `image_num_crops` (pictures,). With
            `return_pointing_metadata=True` also `patch_maps`, a list of (rows, cols) arrays with the numbers
            of `image_token_pooling`, and `image_sizes`, a list of (width, height) in pixels.

        Raises:
            ProcessingError: a picture cannot be read, or the settings do not fit each other.
        """
        return super().preprocess(images, **kwargs)

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Leaves everything as it is: files are opened by `process_image`, and nothing is downloaded."""
        return image_url_or_urls

    def process_image(self, image: Any, device: Any = None, **kwargs: Any) -> torch.Tensor:
        """One picture as uint8 tensor (3, height, width), as displayed."""
        pixels = picture_to_tensor(image)
        return pixels if device is None else pixels.to(device)

    def _prepare_image_like_inputs(
        self, images: Any, *args: Any, expected_ndims: int = 3, **kwargs: Any
    ) -> list[Any]:
        """Reads pictures, several at a time; an object that is given twice is read once."""
        flat = self._prepare_images_structure(images, expected_ndims=expected_ndims)
        distinct = {id(image): image for image in flat}
        read = in_threads(lambda image: self.process_image(image, *args, **kwargs), list(distinct.values()))
        by_id = dict(zip(distinct, read, strict=True))
        return [by_id[id(image)] for image in flat]

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> list[Any]:
        if flat := list(_flatten(images)):
            return flat
        raise ProcessingError(
            "expected at least one picture, got an empty list; leave images out for text-only samples"
        )

    def _preprocess(
        self,
        images: list[torch.Tensor],
        size: SizeDict,
        max_crops: int,
        overlap_margins: Sequence[int],
        patch_size: int,
        pooling_size: Sequence[int],
        return_pointing_metadata: bool | None = False,
        return_tensors: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        crop_size = checked_crop_size(size, patch_size)
        _check_tiling(crop_size // patch_size, overlap_margins, max_crops)
        margins = (int(overlap_margins[0]), int(overlap_margins[1]))
        window = (int(pooling_size[0]), int(pooling_size[1]))
        layouts = []
        for image in images:
            height, width = image.shape[1:]
            layouts.append(
                crop_layout(height, width, int(max_crops), crop_size, int(patch_size), margins, window)
            )

        device = images[0].device
        patches_per_crop = (crop_size // patch_size) ** 2
        num_crops = [layout.num_crops for layout in layouts]
        starts = np.cumsum([0, *num_crops])
        crops_NGv = new_floats((int(starts[-1]), patches_per_crop, 3 * patch_size**2), device)
        settings = PixelSettings.of(kwargs)

        def write(number: int) -> None:
            layout, start = layouts[number], int(starts[number])
            crops = crops_NGv[start : start + layout.num_crops]
            self._write_crops(images[number], layout, crop_size, patch_size, settings, out=crops)

        in_threads(write, range(len(images)), threads_each=torch.get_num_threads())

        # Tables of a picture count from its own first patch; those of the call from the first patch of all.
        offsets = (starts[:-1] * patches_per_crop).tolist()
        tables = []
        patch_maps = []
        for layout, offset in zip(layouts, offsets, strict=True):
            tables.append(torch.where(layout.pooling >= 0, layout.pooling + offset, -1))
            patch_maps.append(layout.patch_map + offset)
        output: dict[str, Any] = {
            "pixel_values": crops_NGv,
            "image_token_pooling": torch.cat(tables).to(device),
            "image_grids": torch.tensor([layout.grid for layout in layouts], device=device),
            "image_num_crops": torch.tensor(num_crops, device=device),
        }
        if return_pointing_metadata:
            output["patch_maps"] = patch_maps
            output["image_sizes"] = [(image.shape[2], image.shape[1]) for image in images]
        return BatchFeature(
            output, tensor_type=return_tensors, skip_tensor_conversion=["patch_maps", "image_sizes"]
        )

    def _write_crops(
        self,
        image: torch.Tensor,
        layout: CropLayout,
        crop_size: int,
        patch_size: int,
        settings: PixelSettings,
        out: torch.Tensor,
    ) -> None:
        """Fills (crops, G, patch values) with the global crop of a picture (3, height, width) and the crops
        of its canvas.
        """
        sizes = ((crop_size, crop_size), layout.canvas_hw)
        overview, canvas = stretch(self, image, sizes, settings)
        cut_into_patches(self, overview, crop_size, crop_size, patch_size, settings, out[:1])
        cut_into_patches(self, canvas, crop_size, layout.stride, patch_size, settings, out[1:])


def _flatten(images: Any) -> Any:
    if isinstance(images, (list, tuple)):
        for image in images:
            yield from _flatten(image)
    elif images is not None:
        yield images


def _check_tiling(side: int, overlap_margins: Sequence[int], max_crops: int) -> None:
    if min(overlap_margins) < 0 or sum(overlap_margins) >= side:
        raise ProcessingError(
            f"expected overlap margins that leave a part of the {side} patches of a crop, got "
            f"{list(overlap_margins)}"
        )
    if not 1 <= max_crops <= MAX_CROPS:
        raise ProcessingError(
            f"expected max_crops in 1..{MAX_CROPS}, got {max_crops}; the global crop is not counted"
        )
