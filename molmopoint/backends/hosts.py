"""What families have in common that see whole pictures with the processor of transformers, and only point.

A request is about one picture. Its row is written here, from text and image tokens, so that what a person types
stays text; its pixels are those of the host's own image processor.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor

from molmopoint.backends.base import Backend, PointWriter
from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.history import Turn
from molmopoint.backends.media import DisplayedMedia, RequestMedia, ShownPictures
from molmopoint.backends.requests import Request, RequestBuilder
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.files import picture_limit
from molmopoint.geometry import PointingMetadata
from molmopoint.processing.escaping import text_escaper
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.pictures import load_with_file, using_image_processor
from molmopoint.processing.rows import NO_PATCH_TOKEN, Row
from molmopoint.remote_code import running_no_code

_SIZES = (
    ("patch_size", "patch_size"),
    ("merge_size", "spatial_merge_size"),
    ("temporal_patch_size", "temporal_patch_size"),
)
"""Sizes by which pictures are cut: what image processors call them, and what configs of ViTs do."""


class HostRequests(RequestBuilder):
    """Makes rows about one picture; subclasses say how it is seen and what is written."""

    title: ClassVar[str]
    """The family's name for people."""

    @abstractmethod
    def see(self, picture: Image.Image) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """What the image processor makes of an RGB picture, and the (rows, columns) of its image tokens."""

    @abstractmethod
    def write(self, prompt: str) -> str:
        """The text of a row, with one image token for the whole picture; `prompt` is escaped."""

    @property
    @abstractmethod
    def image_token_id(self) -> int:
        """The token that stands for a part of the picture."""

    def num_image_tokens(self, media: MediaInputs) -> int:
        """Tokens that stand for the picture in a row."""
        return media.metadata.num_patches

    def process_images(
        self, image: Any, max_crops: int | None = None, *, allow_urls: bool = False
    ) -> RequestMedia:
        """One picture as model input.

        Raises:
            ProcessingError: none, several, or one that cannot be read or seen.
        """
        pictures = list(image) if isinstance(image, list | tuple) else [image]
        if len(pictures) != 1 or pictures[0] is None:
            got = "none" if pictures in ([], [None]) else f"{len(pictures)} pictures"
            raise ProcessingError(f"expected one picture for a {self.title}, got {got}")
        with picture_limit(self._max_pixels):
            picture, file = load_with_file(pictures[0], allow_urls=allow_urls)
            with using_image_processor():
                pixels, (rows, cols) = self.see(picture)
        tokens = np.arange(rows * cols)
        metadata = PointingMetadata(
            pooling=tokens[:, None],  # (P, 1): an image token is its only ViT patch
            indexable=np.ones(len(tokens), dtype=bool),
            patch_maps=[tokens.reshape(rows, cols)],
            image_sizes=[picture.size],
            location_grid=0,
        )
        displayed = DisplayedMedia(ShownPictures([(picture, file)]), as_list=isinstance(image, list | tuple))
        return RequestMedia(metadata, pixels, ("",), displayed)

    def process_video(self, video: Any, options: ClipOptions) -> NoReturn:
        """Refuses.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(
            f"expected a picture for a {self.title}, got a clip; ask a MolmoPoint or a Molmo2 about clips"
        )

    def build_trunk(self, media: MediaInputs) -> NoReturn:
        """Refuses.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(f"expected a model that can be trained here, got a {self.title}")

    def build_request(
        self,
        media: RequestMedia,
        prompt: str,
        single: bool = False,
        history: Sequence[Turn] | None = None,
        features: Any = None,
    ) -> Request:
        """One row: the picture, the prompt, and what of the answer is given.

        Raises:
            ProcessingError: there is a history, or the row is longer than the model's positions.
        """
        if history:
            raise ProcessingError(
                f"expected no history for a {self.title}, which takes one request at a time, got {len(history)} "
                "earlier turns; leave it out"
            )
        escaper = text_escaper(self._processor.tokenizer)
        ids = escaper.encode(self.write(escaper.escape(prompt)))
        at = ids.index(self.image_token_id)
        ids[at : at + 1] = [self.image_token_id] * self.num_image_tokens(media)
        if self._max_length is not None and len(ids) >= self._max_length:
            raise ProcessingError(
                f"expected a request of fewer than {self._max_length} tokens, the picture included, got {len(ids)}; "
                "shorten the prompt, or pass a smaller picture"
            )
        input_ids = torch.tensor(ids)
        row = Row(input_ids, (input_ids == self.image_token_id).long())
        return self._request(prompt, row, media, features)

    def _request(self, prompt: str, row: Row, media: RequestMedia, features: Any) -> Request:
        return Request(prompt, row, media, features=features)


class HostBackend(Backend):
    """See `Backend`: the part that families of this kind share."""

    takes_clips = False
    takes_crops = False
    trains = False
    has_own_form = True
    patch_token_id = NO_PATCH_TOKEN

    def __init__(self, processor: Any, model: Any = None, **settings: Any) -> None:
        super().__init__(processor, model, **settings)
        if model is not None:
            self._check_sizes(processor.image_processor, getattr(model.config, "vision_config", None))

    def _check_sizes(self, images: Any, vision: Any) -> None:
        """Refuses an image processor that cuts pictures into other patches than the model was trained with.

        Raises:
            CheckpointError: as said.
        """
        for name, model_name in _SIZES:
            cut, wanted = getattr(images, name, None), getattr(vision, model_name, None)
            if isinstance(cut, int) and isinstance(wanted, int) and cut != wanted:
                raise CheckpointError(
                    f"expected an image processor with a {name} of {wanted}, as in the config of the {self.title}, "
                    f"got {cut}; load both from the same folder"
                )

    def seen_size(self, metadata: PointingMetadata) -> tuple[int, int]:
        """See `Backend`; a place of a patch map is an image token, and some hosts see one size only."""
        images = self.processor.image_processor
        side = getattr(images, "patch_size", None)
        if isinstance(side, int) and hasattr(images, "merge_size"):
            rows, cols = metadata.patch_maps[0].shape
            pitch = side * int(images.merge_size)
            return cols * pitch, rows * pitch
        size = dict(images.size)
        width, height = metadata.image_sizes[0]
        return int(size.get("width") or width), int(size.get("height") or height)

    @classmethod
    def check_processor(cls, processor: Any) -> None:
        """See `Backend`."""
        parts = [name for name in ("tokenizer", "image_processor") if getattr(processor, name, None) is None]
        if parts:
            raise CheckpointError(
                f"expected the processor of a {cls.title}, got {type(processor).__name__} without "
                f"{' and '.join(parts)}; load the model's own with transformers.AutoProcessor"
            )

    @classmethod
    def read_processor(cls, source: str, **where: Any) -> Any:
        """See `Backend`; it is the processor of transformers."""
        with running_no_code(source):
            processor = AutoProcessor.from_pretrained(source, trust_remote_code=False, **where)
        cls.check_processor(processor)
        return processor

    @classmethod
    def read_for_training(cls, source: str, attention: str, settings: dict[str, Any]) -> NoReturn:
        """Refuses.

        Raises:
            CheckpointError: always.
        """
        cls.check_trains(source)
        raise AssertionError("families of this kind are not trained")

    def point_writer(self, metadata: PointingMetadata) -> PointWriter:
        """Refuses.

        Raises:
            ProcessingError: always.
        """
        raise ProcessingError(f"expected a model that can be trained here, got a {self.title}")
