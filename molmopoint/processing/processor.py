"""From prompts, pictures and clips to tensors, and from answers back to points.

Released folders load as they are: they name `Molmo2Processor`, and `MolmoPointProcessor.from_pretrained`
reads their files with the image and video processors of this library.

Letters: B samples, S tokens per row, P image tokens of a sample, K slots per image token, L location cells.
"""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from transformers import AutoTokenizer, BatchFeature
from transformers.models.molmo2.processing_molmo2 import Molmo2Processor
from transformers.utils.hub import cached_file

from molmopoint.decoding import Answer, read_answer
from molmopoint.errors import ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.points import Points
from molmopoint.processing.chat import ChatWriter
from molmopoint.processing.escaping import MARK, text_escaper
from molmopoint.processing.grounding_answers import grounding_token_ids
from molmopoint.processing.history import (
    EarlierPoints,
    place_selections,
    prepare_messages,
    write_earlier_points,
)
from molmopoint.processing.image_processor import MolmoPointImageProcessor
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.rows import PIXELS_OF
from molmopoint.processing.samples import Samples, SampleTables, sort_by_sample
from molmopoint.processing.video_processor import MolmoPointVideoProcessor
from molmopoint.remote_code import running_no_code
from molmopoint.tokens import (
    IMAGE_PATCH,
    IMAGE_START,
    LIST_OPENING,
    LOW_RES_PATCH,
    NO_SELECTION,
    VISION_TOKENS,
    ExtendedVocabulary,
    cells_per_side,
    point_text,
)

_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


class MolmoPointProcessor(Molmo2Processor):
    """Tokenizer, image processor and video processor of a MolmoPoint model.

    Batches are padded to their longest row unless told otherwise. What the caller passes as `text` is raw:
    placeholders, special tokens and `<POINT_n>` in it have their meaning. `apply_chat_template` takes user
    text literally instead.
    """

    points_are_text = False
    """Whether answers name places by coordinates as text; else by grounding tokens."""

    def __init__(
        self,
        image_processor: Any = None,
        video_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        image_use_col_tokens: bool | None = True,
        use_single_crop_col_tokens: bool | None = False,
        use_single_crop_start_token: bool | None = True,
        video_use_col_tokens: bool | None = False,
        use_frame_special_tokens: bool | None = True,
        use_low_res_token_for_global_crops: bool = True,
        patch_location: str | None = "3x3",
    ) -> None:
        """Puts the parts together.

        Args:
            image_processor: for pictures.
            video_processor: for clips.
            tokenizer: with the released special tokens.
            chat_template: Jinja text.
            image_use_col_tokens: end each row of the canvas with `<im_col>`.
            use_single_crop_col_tokens: the same for the global crop.
            use_single_crop_start_token: open the global crop with `<low_res_im_start>`.
            video_use_col_tokens: end each row of a frame with `<im_col>`.
            use_frame_special_tokens: put frames between `<frame_start>` and `<frame_end>`.
            use_low_res_token_for_global_crops: fill the global crop with `<im_low>`, which cannot be chosen.
            patch_location: "NxN" location cells per ViT patch, None without; the model's config.json decides
                where there is one.
        """
        super().__init__(
            image_processor,
            video_processor,
            tokenizer,
            chat_template=chat_template,
            image_use_col_tokens=image_use_col_tokens,
            use_single_crop_col_tokens=use_single_crop_col_tokens,
            use_single_crop_start_token=use_single_crop_start_token,
            video_use_col_tokens=video_use_col_tokens,
            use_frame_special_tokens=use_frame_special_tokens,
        )
        self.use_low_res_token_for_global_crops = use_low_res_token_for_global_crops
        self.patch_location = patch_location
        added = tokenizer.get_added_vocab()
        if missing := [
            name for name in (*VISION_TOKENS, self.image_token, self.video_token) if name not in added
        ]:
            raise ProcessingError(
                "expected a tokenizer with the released special tokens, got one without "
                f"{', '.join(missing)}; add them"
            )

    @property
    def location_grid(self) -> int:
        """Location cells along a side of a ViT patch; 0 without a location head."""
        return cells_per_side(self.patch_location)

    @property
    def extended_start(self) -> int:
        """First id of the extended vocabulary, that of `<POINT_0>`.

        Raises:
            ProcessingError: the tokenizer has no such token.
        """
        start = self._id_of_place(0)
        if start is None:
            raise ProcessingError(
                "expected a tokenizer with <POINT_0> to read points, got one without; take that of a "
                "MolmoPoint model"
            )
        return start

    @property
    def opening(self) -> str:
        """The token every row starts with."""
        return self.tokenizer.bos_token or self.tokenizer.eos_token

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings of a folder or repository; where a model's config.json lies beside them, it alone decides
        `patch_location`.
        """
        settings, unused = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        config = _stored_config(pretrained_model_name_or_path, **kwargs)
        if "patch_location" in config:
            settings["patch_location"] = config["patch_location"]
        return settings, unused

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Reads a released folder, one of ours, or a repository on the hub; keyword arguments as in
        transformers.

        Code of a repository is never run, whatever `trust_remote_code` says.

        Raises:
            CheckpointError: the tokenizer needs such code.
        """
        path = pretrained_model_name_or_path
        kwargs.pop("trust_remote_code", None)
        settings, unused = cls.get_processor_dict(path, **kwargs)
        image = MolmoPointImageProcessor.from_pretrained(path, **kwargs)
        video = MolmoPointVideoProcessor.from_pretrained(path, **kwargs)
        with running_no_code(path):
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **kwargs)
        return cls.from_args_and_dict([image, video, tokenizer], settings, **unused)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        *,
        return_pointing_metadata: bool | None = None,
        earlier_points: Sequence[Sequence[EarlierPoints]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Model input for one or more samples, which may have no, one or several pictures, or a clip.

        Args:
            images: pictures in the order of the placeholders `<|image|>`, or one list (or None) per sample.
            text: raw prompts. BOS is put in front of those that do not start with it.
            videos: clips in the order of the placeholders `<|video|>`, at most one per sample.
            return_pointing_metadata: add what `decode_points` needs. Samples then have pictures or a clip;
                without it both are encoded, as in transformers, but no model takes them in one row.
            earlier_points: point lists of earlier answers per sample, as `apply_chat_template` passes them
                on.
            **kwargs: settings of the parts for this call (`max_crops`, `num_frames`, `video_metadata`,
                `padding`, `padding_side`, `return_tensors`, ...), as in transformers.

        Returns:
            `input_ids`, `attention_mask`, `mm_token_type_ids` (1 on image tokens and the tokens around them),
            each (B, S); what the image and video processors return for the whole call, if there are pictures
            or clips; with points of earlier answers `selection_ids` (B, S), what each grounding token
            selects, -1 elsewhere; if a prompt ends where a point list begins, `open_list` (B,), which lets
            `generate` start with a point there; and `pointing_metadata`, a list of one `PointingMetadata` per
            sample, if asked for.

        Raises:
            ProcessingError: placeholders and pictures do not match, one of them cannot be read, or image
                tokens were cut off.
        """
        samples = sort_by_sample(text, images, videos, self.image_token, self.video_token)
        if "padding" not in (kwargs.get("text_kwargs") or {}):
            kwargs.setdefault("padding", True)
        merged = self._settings_of_call(kwargs)
        pictures, picture_texts = self._encode_pictures(samples, merged["images_kwargs"])
        clips, clip_texts = self._encode_clips(samples, merged["videos_kwargs"])
        tables = self._tables(samples, pictures, clips)
        metadata: list[PointingMetadata] = []
        if return_pointing_metadata or earlier_points:
            metadata = [tables.metadata(row) for row in range(len(samples.texts))]

        text_kwargs = merged["text_kwargs"]
        return_types = text_kwargs.pop(
            "return_mm_token_type_ids", merged.get("return_mm_token_type_ids", True)
        )
        return_offsets = text_kwargs.pop(
            "return_text_replacement_offsets", merged.get("return_text_replacement_offsets", False)
        )
        prompts = [self._opened(prompt) for prompt in samples.texts]
        prompts, selections = self._with_earlier_points(prompts, earlier_points, metadata)
        prompts, offsets = self.get_text_with_replacements(prompts, picture_texts, clip_texts)
        output: dict[str, Any] = dict(self._tokenize(prompts, text_kwargs))
        self._check_image_tokens(output["input_ids"], tables)
        if return_types:
            output["mm_token_type_ids"] = self.create_mm_token_type_ids(output["input_ids"])
        if return_offsets:
            output["text_replacement_offsets"] = offsets
        has_open_list = [prompt.endswith(LIST_OPENING) for prompt in samples.texts]
        if any(has_open_list):
            output["open_list"] = has_open_list
        if any(selections):
            output["selection_ids"] = self._placed(output["input_ids"], selections)
        if return_pointing_metadata:
            for known in metadata:
                self.check_places(known.num_patches, known.num_slots)
            output["pointing_metadata"] = metadata
        hidden = {"patch_maps", "image_sizes"}
        if not kwargs.get("return_metadata"):
            hidden.add("video_metadata")
        output |= {name: value for name, value in (pictures | clips).items() if name not in hidden}
        skip = [*self.skip_tensor_conversion, "pointing_metadata"]
        return BatchFeature(
            output, tensor_type=text_kwargs.get("return_tensors"), skip_tensor_conversion=skip
        )

    def media(self, images: Sequence[Any] = (), videos: Sequence[Any] = (), **settings: Any) -> MediaInputs:
        """Pictures or a clip as model input before any text: what requests, training rows and rows of rewards
        are made from.

        Args:
            images: pictures, in the order of their placeholders.
            videos: one clip at most.
            **settings: of the image or video processor for this call, such as `max_crops` or `num_frames`.

        Raises:
            ProcessingError: pictures and a clip together, more than one clip, or one of them cannot be read.
        """
        placeholders = self.image_token * len(images) + self.video_token * len(videos)
        samples = sort_by_sample(
            placeholders, [list(images)], [list(videos)], self.image_token, self.video_token
        )
        merged = self._settings_of_call({**settings, "return_tensors": "pt"})
        pictures, picture_texts = self._encode_pictures(samples, merged["images_kwargs"])
        clips, clip_texts = self._encode_clips(samples, merged["videos_kwargs"])
        metadata = self._tables(samples, pictures, clips).metadata(0)
        seen = pictures | clips
        names = [name for pair in PIXELS_OF.values() for name in pair if name in seen]
        pixels = {name: torch.as_tensor(seen[name]) for name in names}
        return MediaInputs(metadata, pixels, (*picture_texts, *clip_texts))

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        *,
        return_pointing_metadata: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Renders messages, and with `tokenize=True` turns them into model input; other arguments as in
        transformers.

        Text is literal: names of placeholders, special tokens and places in it become plain text (see
        `molmopoint.processing.escaping`). Points of earlier answers are parts of assistant messages,
        `{"type": "points", "points": points, "label": phrase}`, and become `selection_ids`.

        Args:
            conversation: messages with role and content, or a list of conversations.
            chat_template: Jinja text instead of the processor's own.
            return_pointing_metadata: as in a call of the processor.
            processor_kwargs: settings for the call of the processor, such as `max_crops`.
            **kwargs: `add_generation_prompt`, `tokenize`, `return_dict`, `return_tensors`, and variables of
                the template.

        Returns:
            The rendered text; with `tokenize=True` the token ids, or with `return_dict=True` too what the
            processor returns.

        Raises:
            ProcessingError: the template does not accept the messages, or an earlier answer holds ids of
                another input.
        """
        kwargs.pop("sanitize_control_tokens", None)  # that is what escaping does, for `<POINT_n>` as well
        prepared = prepare_messages(conversation, self.escape_user_text)
        processor_kwargs = dict(processor_kwargs or {})
        if return_pointing_metadata:
            processor_kwargs["return_pointing_metadata"] = True
        if any(prepared.earlier):
            if not kwargs.get("tokenize"):
                raise ProcessingError(
                    "expected tokenize=True for messages with points, got tokenize=False; text cannot hold "
                    "selections"
                )
            processor_kwargs["earlier_points"] = prepared.earlier
        return self._render(prepared.messages, chat_template, processor_kwargs=processor_kwargs, **kwargs)

    def render_chat(
        self, conversation: Sequence[Mapping[str, Any]], **kwargs: Any
    ) -> tuple[str, list[EarlierPoints]]:
        """The text of one conversation, literal and with marks for points of earlier answers, and those
        points.

        Args:
            conversation: messages with role and content.
            **kwargs: as in `apply_chat_template`.

        Raises:
            ProcessingError: as in `apply_chat_template`.
        """
        prepared = prepare_messages(conversation, self.escape_user_text)
        return self._render(prepared.messages, None, **kwargs), prepared.earlier[0]

    @property
    def chat(self) -> ChatWriter:
        """Writes conversations with the chat template.

        Raises:
            ProcessingError: there is none.
        """
        template: Any = self.chat_template
        return ChatWriter(self.tokenizer, template)

    def encode_chat(
        self,
        rendered: str,
        spans: Sequence[str],
        earlier: Sequence[EarlierPoints],
        metadata: PointingMetadata,
    ) -> tuple[list[int], list[int]]:
        """Ids and selections (S,) of a rendered conversation about pictures that were processed before.

        Args:
            rendered: what `render_chat` returned.
            spans: text of the image tokens for each placeholder, in order.
            earlier: the points it returned.
            metadata: of the pictures.
        """
        text, selected = self._with_lists(self._opened(rendered), earlier, metadata)
        placeholder = self.video_token if metadata.is_video else self.image_token
        pieces = text.split(placeholder)  # user text is escaped, so every placeholder is the template's
        if len(pieces) - 1 != len(spans):
            raise ProcessingError(
                f"expected a chat template with a placeholder for each of {len(spans)} pictures, got "
                f"{len(pieces) - 1}"
            )
        expanded = [pieces[0]]
        for span, piece in zip(spans, pieces[1:], strict=True):
            expanded += [span, piece]
        ids = text_escaper(self.tokenizer).encode("".join(expanded))
        if not selected:
            return ids, [NO_SELECTION] * len(ids)
        return ids, self._placed([ids], [selected])[0].tolist()

    def _render(self, messages: Any, chat_template: str | None, **kwargs: Any) -> Any:
        try:
            return super().apply_chat_template(messages, chat_template, **kwargs)
        except Exception as error:
            if not isinstance(error, TemplateError) and not _is_of_template(error):
                raise
            raise ProcessingError(
                f"expected messages that the chat template accepts, got: {error}; check roles and their order"
            ) from error

    def escape_user_text(self, text: str) -> str:
        """The text for a raw prompt, such that nothing in it is a placeholder, a special token or a place."""
        return text_escaper(self.tokenizer).escape(text)

    def read_answer(self, answer: Any, metadata: PointingMetadata, **kwargs: Any) -> Answer:
        """Points of an answer, given as (T,) ids after the prompt or as text, and what could not become one.

        Raises:
            ProcessingError: the metadata is not that of one sample.
        """
        if not isinstance(metadata, PointingMetadata):
            raise ProcessingError(
                f"expected the PointingMetadata of one sample, got {type(metadata).__name__}; "
                "pass `pointing_metadata[row]` of the processor call that made the input"
            )
        return read_answer(answer, metadata, self.extended_start, self.tokenizer.decode, **kwargs)

    def decode_points(self, answer: Any, metadata: PointingMetadata) -> Points:
        """Points of an answer, given as (T,) ids after the prompt or as text; `metadata` is that of the same
        input.
        """
        return self.read_answer(answer, metadata).points

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """The tokens of one picture; those of the global crop are `<im_low>` if the model was trained so."""
        text = super().replace_image_token(image_inputs, image_idx, **kwargs)
        if not self.use_low_res_token_for_global_crops:
            return text
        canvas = text.rindex(IMAGE_START)
        return text[:canvas].replace(IMAGE_PATCH, LOW_RES_PATCH) + text[canvas:]

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The tokens of one clip, each frame after its time."""
        timestamps = video_inputs["video_metadata"][video_idx].timestamps
        return self.get_video_string(video_inputs["video_grids"][video_idx], timestamps)

    def _settings_of_call(self, given: dict[str, Any]) -> Any:
        """Settings of the parts for one call, sorted by part."""
        try:
            return self._merge_kwargs(
                self.valid_processor_kwargs,  # pyright: ignore[reportArgumentType] (older transformers need it; newer take any)
                tokenizer_init_kwargs=self.tokenizer.init_kwargs,
                **given,
            )
        except StrictDataclassError as error:
            raise ProcessingError(
                f"expected settings of the types that transformers documents, got: {error}"
            ) from error

    def _opened(self, prompt: str) -> str:
        return prompt if prompt.startswith(self.opening) else self.opening + prompt

    def _encode_pictures(self, samples: Samples, kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        pictures = samples.all_pictures
        if not pictures:
            return {}, []
        seen = dict(self.image_processor(pictures, **(kwargs | {"return_pointing_metadata": True})))
        return seen, [self.replace_image_token(seen, i) for i in range(len(pictures))]

    def _encode_clips(self, samples: Samples, kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        clips = samples.all_clips
        if not clips:
            return {}, []
        seen = dict(self.video_processor(clips, **(kwargs | {"return_metadata": True})))
        return seen, [self.replace_video_token(seen, i) for i in range(len(clips))]

    def _tables(self, samples: Samples, pictures: dict[str, Any], clips: dict[str, Any]) -> SampleTables:
        frame_side = round(clips["pixel_values_videos"].shape[1] ** 0.5) if clips else 0
        return SampleTables(
            samples,
            pictures,
            clips,
            patches_per_frame_side=frame_side,
            low_res_selectable=not self.use_low_res_token_for_global_crops,
            location_grid=self.location_grid,
        )

    def _with_earlier_points(
        self,
        prompts: list[str],
        earlier: Sequence[Sequence[EarlierPoints]] | None,
        metadata: list[PointingMetadata],
    ) -> tuple[list[str], list[list[int]]]:
        if not earlier:
            return prompts, []
        if len(earlier) != len(prompts):
            raise ProcessingError(
                f"expected earlier_points for each of {len(prompts)} samples, got {len(earlier)} lists; "
                "pass [] for none"
            )
        texts = []
        selections = []
        for prompt, lists, known in zip(prompts, earlier, metadata, strict=True):
            text, selected = self._with_lists(prompt, lists, known)
            texts.append(text)
            selections.append(selected)
        return texts, selections

    def _with_lists(
        self, prompt: str, earlier: Sequence[EarlierPoints], metadata: PointingMetadata
    ) -> tuple[str, list[int]]:
        """The rendered prompt of a sample with its earlier point lists, and what their grounding tokens
        select.
        """
        return write_earlier_points(prompt, earlier, metadata, self.escape_user_text)

    def _placed(self, input_ids: Any, selections: Sequence[Sequence[int]]) -> np.ndarray:
        """`selection_ids` (B, S) of rows and what their grounding tokens select."""
        return place_selections(input_ids, selections, grounding_token_ids(self.tokenizer))

    def _tokenize(self, prompts: list[str], kwargs: dict[str, Any]) -> Mapping[str, Any]:
        if not any(MARK in prompt for prompt in prompts):
            return self.tokenizer(prompts, **kwargs)
        if kwargs.get("return_offsets_mapping"):
            raise NotImplementedError(
                "token offsets of prompts with escaped user text; leave the names of special tokens out of it"
            )
        rows = [text_escaper(self.tokenizer).encode(prompt) for prompt in prompts]
        if kwargs.get("truncation") and (length := kwargs.get("max_length")):
            left = self.tokenizer.truncation_side == "left"
            rows = [row[-length:] if left else row[:length] for row in rows]
        wanted = (
            "padding",
            "max_length",
            "pad_to_multiple_of",
            "padding_side",
            "return_attention_mask",
            "return_tensors",
        )
        return self.tokenizer.pad(
            {"input_ids": rows}, **{name: kwargs[name] for name in wanted if name in kwargs}
        )

    def _check_image_tokens(self, input_ids: Any, tables: SampleTables) -> None:
        wanted = self.tokenizer.convert_tokens_to_ids([IMAGE_PATCH, LOW_RES_PATCH])
        for row, ids in enumerate(input_ids):
            got, expected = int(np.isin(np.asarray(ids), wanted).sum()), tables.num_patches(row)
            if got != expected:
                raise ProcessingError(
                    f"expected {expected} image tokens in sample {row}, got {got}; truncation must not cut "
                    "into them "
                    f"(raise max_length), and text must not contain {IMAGE_PATCH} itself"
                )

    def _id_of_place(self, n: int) -> int | None:
        found = self.tokenizer.convert_tokens_to_ids(point_text(n))
        return None if found == self.tokenizer.unk_token_id else found

    def check_places(self, num_patches: int, num_slots: int) -> None:
        """Refuses a sample with more places than the tokenizer has names for.

        Args:
            num_patches: image tokens of the sample.
            num_slots: ViT patches per image token.

        Raises:
            ProcessingError: there are more.
        """
        vocabulary = ExtendedVocabulary(0, num_patches, num_slots, self.location_grid**2)
        if self._id_of_place(vocabulary.size - 1) is None:
            names = sum(1 for name in self.tokenizer.get_added_vocab() if re.fullmatch(r"<POINT_\d+>", name))
            raise ProcessingError(
                f"expected at most {names} places, as many as the tokenizer has names for, got "
                f"{vocabulary.size}; "
                "lower max_crops or the number of frames, or pass fewer pictures"
            )


def _is_of_template(error: Exception) -> bool:
    """Whether an error arose inside a chat template, whose frames jinja names so."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_filename == "<template>" for frame, _ in frames)


def stored_model_type(source: str | os.PathLike[str], **where: Any) -> str | None:
    """What the config.json of a folder or repository says it is; None without one.

    Args:
        source: folder or hub id.
        **where: `revision`, `cache_dir`, `token` and the like; other arguments of `from_pretrained` do not
            matter.

    Raises:
        ProcessingError: the file is no JSON object.
    """
    return _stored_config(source, **where).get("model_type")


def _stored_config(source: str | os.PathLike[str], **where: Any) -> dict[str, Any]:
    hub = {name: where[name] for name in _HUB_ARGUMENTS if where.get(name) is not None}
    path = cached_file(str(source), "config.json", _raise_exceptions_for_missing_entries=False, **hub)
    if path is None:
        return {}
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ProcessingError(f"expected JSON in {path}, got: {error}; copy the file again") from error
    if not isinstance(config, dict):
        raise ProcessingError(
            f"expected an object with the fields of a model in {path}, got {type(config).__name__}; copy "
            "the file again"
        )
    return config
