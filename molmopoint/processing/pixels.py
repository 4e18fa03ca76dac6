"""From RGB bytes to the normalised ViT patches that the vision tower reads, for pictures and frames alike.

Letters: N pictures of one size, G ViT patches per crop. Values inside a patch run over its rows, then columns, then RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import SizeDict

from molmopoint.errors import ProcessingError


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
        mean, std = (tuple(kwargs[name]) for name in ("image_mean", "image_std"))
        return cls(kwargs["resample"], kwargs["do_rescale"], kwargs["rescale_factor"], kwargs["do_normalize"], mean, std)


def stretch(backend: TorchvisionBackend, pixels: torch.Tensor, hw: tuple[int, int], settings: PixelSettings) -> torch.Tensor:
    """Pictures at another size, in whole bytes before they are normalised.

    Args:
        backend: the processor, for its `resize`.
        pixels: (N, 3, height, width) float32 in 0..255.
        hw: height and width in pixels of the result; the aspect ratio is not kept.
        settings: of the processor.

    Returns:
        (N, 3, *hw) float32.

    Source: released processors resize uint8 pictures without antialiasing, so the result is rounded to bytes; without that step
        the network would see values it was not trained on.
    """
    # Planes one by one: with three channels, PyTorch rounds differently when it runs on a single thread, and the same picture
    # would give other bytes on another machine.
    planes = pixels.flatten(0, 1).unsqueeze(1)
    resized = backend.resize(planes, size=SizeDict(height=hw[0], width=hw[1]), resample=settings.resample, antialias=False)
    whole = resized.round().clamp_(0, 255).view(*pixels.shape[:2], *hw)
    if not (settings.do_rescale and settings.do_normalize):
        mean: Any = settings.image_mean  # transformers annotates a list, and caches by it, which takes a tuple
        std: Any = settings.image_std
        return backend.rescale_and_normalize(whole, settings.do_rescale, settings.rescale_factor, settings.do_normalize, mean, std)
    scale = 1.0 / settings.rescale_factor
    mean, std = (torch.tensor(values, device=whole.device).view(-1, 1, 1) * scale for values in (settings.image_mean, settings.image_std))
    return whole.sub_(mean).div_(std)


def cut_into_patches(stretched: torch.Tensor, crop_size: int, stride: int, patch_size: int, out: torch.Tensor) -> None:
    """Cuts pictures into overlapping crops and those into ViT patches, written in place.

    Native transformers stacks, permutes, concatenates and re-cuts the crops, a copy of all pixels each time; strided views do
    it with one.

    Args:
        stretched: (N, 3, height, width), both sides a crop plus a multiple of the stride.
        crop_size: side of a crop in pixels.
        stride: pixels from one crop to the next.
        patch_size: side of a ViT patch in pixels.
        out: (N * crops of a picture, G, patch values), filled picture by picture, crops row by row.
    """
    side = crop_size // patch_size
    crops = stretched.unfold(2, crop_size, stride).unfold(3, crop_size, stride)  # (N, 3, rows, cols, height, width)
    patches = crops.unflatten(5, (side, patch_size)).unflatten(4, (side, patch_size)).permute(0, 2, 3, 4, 6, 5, 7, 1)
    out.view(patches.shape).copy_(patches)


def checked_crop_size(size: SizeDict, patch_size: int) -> int:
    """Side of a crop in pixels.

    Raises:
        ProcessingError: the size is not square or no multiple of the patch size.
    """
    if not size.height or size.height != size.width or size.height % patch_size:
        raise ProcessingError(
            f"expected a square size that is a multiple of patch_size {patch_size}, got height {size.height} and width {size.width}; "
            "pass size={'height': n, 'width': n}"
        )
    return int(size.height)
