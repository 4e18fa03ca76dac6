"""The processor of a graft: tokenizer, image processor and chat template of its host, used as
`MolmoPointProcessor` is.

The tokenizer has the grounding tokens in spare rows of the host's tables, and names of places behind them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.processing_utils import ProcessorMixin

from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.graft.hosts import host_of
from molmopoint.graft.pictures import READERS, HostSizes
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.chat import ChatWriter
from molmopoint.processing.grounding_answers import TURN_START, grounding_token_ids
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.pictures import picture_to_tensor, using_image_processor
from molmopoint.processing.samples import Samples, SampleTables, sort_by_sample
from molmopoint.remote_code import running_no_code
from molmopoint.tokens import LOW_RES_PATCH, VIDEO_PLACEHOLDER, cells_per_side

PIXELS = ("pixel_values", "image_token_pooling", "image_grids")
"""What a graft is given of pictures."""

_MOST_PATCHES = 1024
"""ViT patches along a side of a tile or of an image token, at most."""


class GraftProcessor(MolmoPointProcessor):
    """See the module. Clips are refused: two of their frames share an image token in most hosts."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        host_type: str = "",
        image_token: str = "",
        picture_format: str = "{}",
        tile_patches: int = 0,
        token_side: int = 2,
        patch_location: str | None = "3x3",
    ) -> None:
        """Puts the parts together.

        Args:
            image_processor: of the host.
            tokenizer: of the host, with the tokens of a graft.
            chat_template: of the host, Jinja text.
            host_type: model type of the host.
            image_token: placeholder of a picture in the template, and token of its image tokens.
            picture_format: what stands for a placeholder, around its image tokens "{}".
            tile_patches: ViT patches along a side of a tile; 0 where the host does not cut pictures.
            token_side: ViT patches along a side of an image token.
            patch_location: "NxN" location cells per ViT patch, None without; the model's config.json decides
                where there is one.

        Raises:
            CheckpointError: such a model is no host, or a value has another type or is out of range.
            ProcessingError: the tokenizer lacks the tokens of a graft or of the host.
        """
        _check_fields(image_token, picture_format, tile_patches, token_side)
        cells_per_side(patch_location)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
        self.host_type = host_type
        self.host = host_of(host_type)
        self.image_token = image_token
        self.video_token = VIDEO_PLACEHOLDER
        self.picture_format = picture_format
        self.tile_patches = tile_patches
        self.token_side = token_side
        self.patch_location = patch_location
        self.use_low_res_token_for_global_crops = False
        grounding_token_ids(tokenizer)
        known = tokenizer.get_vocab()
        if missing := [token for token in (image_token, LOW_RES_PATCH) if token not in known]:
            raise ProcessingError(
                f"expected a tokenizer with {' and '.join(missing)}, got one without; take that of the graft"
            )
        self.image_token_ids: Any = [known[image_token], known[LOW_RES_PATCH]]

    @property
    def opening(self) -> str:
        """Nothing: what a row starts with is in the template."""
        return ""

    @property
    def chat(self) -> ChatWriter:
        """Writes conversations with the chat template of the host."""
        template: Any = self.chat_template
        return ChatWriter(self.tokenizer, template, image_token=self.image_token, opening=TURN_START)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Reads the folder or repository of a graft; no code of it is run.

        Raises:
            CheckpointError: the tokenizer needs such code.
        """
        path = pretrained_model_name_or_path
        kwargs.pop("trust_remote_code", None)
        settings, unused = cls.get_processor_dict(path, **kwargs)
        with running_no_code(path):
            image = AutoImageProcessor.from_pretrained(path, trust_remote_code=False, **kwargs)
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **kwargs)
        return cls.from_args_and_dict([image, tokenizer], settings, **unused)

    def media(self, images: Sequence[Any] = (), videos: Sequence[Any] = (), **settings: Any) -> MediaInputs:
        """Pictures as model input before any text; see `MolmoPointProcessor.media`.

        Raises:
            ProcessingError: a clip, or a picture that cannot be read.
        """
        self._refuse_clips(videos)
        placeholders = self.image_token * len(images)
        samples = sort_by_sample(placeholders, [list(images)], None, self.image_token, self.video_token)
        pictures, texts = self._encode_pictures(samples, settings)
        metadata = self._tables(samples, pictures, {}).metadata(0)
        pixels = {name: torch.as_tensor(pictures[name]) for name in PIXELS if name in pictures}
        return MediaInputs(metadata, pixels, tuple(texts))

    def create_mm_token_type_ids(self, input_ids: Any) -> list[list[int]]:
        """1 at image tokens, 0 elsewhere."""
        return [np.isin(np.asarray(ids), self.image_token_ids).astype(int).tolist() for ids in input_ids]

    def _encode_pictures(self, samples: Samples, kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        pictures = [picture_to_tensor(picture) for picture in samples.all_pictures]
        if not pictures:
            return {}, []
        settings = {name: value for name, value in kwargs.items() if name not in _NOT_OF_PICTURES}
        reader = READERS[self.host_type]
        most = settings.pop("max_crops", None)
        sizes = HostSizes(self.tile_patches, self.token_side)
        with using_image_processor():
            if most is not None:
                settings |= reader.settings(self.image_processor, most)
            seen = reader.read(self.image_processor, pictures, settings, sizes)
        texts = []
        tables, maps, first = [], [], 0
        for number, table in enumerate(seen.pooling):
            overview = int(seen.grids[number, :2].prod())
            tokens = self.image_token * (len(table) - overview) + LOW_RES_PATCH * overview
            texts.append(self.picture_format.format(tokens))
            tables.append(table + first)
            maps.append(seen.patch_maps[number] + first)
            first += seen.num_patches[number]
        output = {
            "pixel_values": seen.pixel_values,
            "image_token_pooling": torch.from_numpy(np.concatenate(tables)),
            "image_grids": seen.grids,
            "patch_maps": maps,
            "image_sizes": [(picture.shape[2], picture.shape[1]) for picture in pictures],
        }
        return output, texts

    def _encode_clips(self, samples: Samples, kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        self._refuse_clips(samples.all_clips)
        return {}, []

    def _refuse_clips(self, clips: Sequence[Any]) -> None:
        if clips:
            raise ProcessingError(NO_CLIPS)

    def _tables(self, samples: Samples, pictures: dict[str, Any], clips: dict[str, Any]) -> SampleTables:
        return _GraftTables(
            samples,
            pictures,
            clips,
            patches_per_frame_side=0,
            low_res_selectable=True,
            location_grid=self.location_grid,
        )

    def _check_image_tokens(self, input_ids: Any, tables: SampleTables) -> None:
        for row, ids in enumerate(input_ids):
            got, expected = int(np.isin(np.asarray(ids), self.image_token_ids).sum()), tables.num_patches(row)
            if got != expected:
                raise ProcessingError(
                    f"expected {expected} image tokens in sample {row}, got {got}; truncation must not cut "
                    f"into them (raise max_length), and text must not contain {self.image_token} itself"
                )


NO_CLIPS = "expected pictures, got a clip: grafts see no clips; ask about its frames as pictures, or use a MolmoPoint"

_NOT_OF_PICTURES = ("return_tensors", "return_pointing_metadata")


class _GraftTables(SampleTables):
    """Tables of each sample; hosts show the canvas of a picture first, then its overview, if there is one."""

    def _metadata_of_pictures(self, pictures: slice) -> PointingMetadata:
        metadata = super()._metadata_of_pictures(pictures)
        indexable = []
        for low_rows, low_columns, rows, columns in self._image_grids[pictures].tolist():
            indexable += [True] * (rows * columns) + [False] * (low_rows * low_columns)
        return replace(metadata, indexable=np.array(indexable))


def _check_fields(image_token: Any, picture_format: Any, tile_patches: Any, token_side: Any) -> None:
    """Refuses values of another type, or out of range, as a damaged file has them.

    Raises:
        CheckpointError: as said.
    """
    for name, text in (("image_token", image_token), ("picture_format", picture_format)):
        if not isinstance(text, str):
            raise CheckpointError(
                f"expected {name} of a graft's processor as text, got {text!r:.80}; load the files of the graft"
            )
    around = picture_format.split("{}")
    if len(around) != 2 or any(brace in part for part in around for brace in "{}"):
        raise CheckpointError(
            f"expected picture_format of a graft's processor with one {{}}, got {picture_format!r:.80}; load the "
            "files of the graft"
        )
    for name, number, least in (("tile_patches", tile_patches, 0), ("token_side", token_side, 1)):
        if type(number) is not int or not least <= number <= _MOST_PATCHES:
            raise CheckpointError(
                f"expected {name} of a graft's processor as a whole number in {least}..{_MOST_PATCHES}, got "
                f"{number!r:.80}; load the files of the graft"
            )
