"""From what a user brings to one row of model input, and from rows to a batch.

A request is made in two steps: pictures to tensors (`see`), then text to ids (`ask`). So a picture that was encoded once
goes the same way as a new one, and earlier turns can be written for the crops at hand.

Letters: B rows, S tokens, N crops or frames of the call, G ViT patches per crop, K slots.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.files import picture_limit
from molmopoint.generation.loop import PIXELS
from molmopoint.geometry import PointingMetadata
from molmopoint.pipeline.clips import ClipOptions, check_budget, choose_frames, is_clip, seen_note
from molmopoint.pipeline.history import Turn, as_turns, conversation, turns_note
from molmopoint.pipeline.options import AnswerOptions, complete_prompt, question_options
from molmopoint.pipeline.visual import Displayed, EncodedImage, VisualInput
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.pictures import load_picture
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import IMAGE_PLACEHOLDER, LIST_OPENING, NO_SELECTION, VIDEO_PLACEHOLDER

POINT_LIST_START = f"<points{LIST_OPENING}"
"""How a point list begins."""


@dataclass(frozen=True, eq=False)
class Request:
    """One row of model input, and what was asked.

    Attributes:
        prompt: the request as it is sent.
        row: ids, the selections of earlier answers, and pixels.
        visual: the pictures or the clip.
        answer_start: beginning of the answer that is given and not generated; it opens a point list.
        features: what the model has seen of them, if they are encoded; None if not.
    """

    prompt: str
    row: Row
    visual: VisualInput
    answer_start: str = ""
    features: Any = field(default=None, repr=False)

    @property
    def input_ids(self) -> Tensor:
        """(S,) plain ids of the row."""
        return self.row.input_ids

    @property
    def metadata(self) -> PointingMetadata:
        """What turns the answer's grounding tokens into pixels."""
        return self.visual.metadata


class RequestBuilder:
    """Makes rows from pictures, clips and text; touches no weight, so it may run in a thread of its own.

    Args:
        processor: of the checkpoint.
        config: of the model.
        max_pixels: width times height of a picture at most; None for the limit of the environment, or the default.

    Raises:
        ProcessingError: `max_pixels` is no whole number above 0.
    """

    def __init__(self, processor: MolmoPointProcessor, config: Any, max_pixels: int | None = None) -> None:
        with picture_limit(max_pixels):  # refuses what is no limit
            self._max_pixels = max_pixels
        self._processor = processor
        self._max_length = config.text_config.max_position_embeddings
        self._max_turns: int | None = getattr(config, "max_turns", None)  # native configs do not know of it

    def about_pictures(self, image: Any, prompt: str, options: AnswerOptions, history: Sequence[Turn] | None = None) -> Request:
        """A request about one picture, a list of them, encoded ones, or none.

        Raises:
            ProcessingError: a picture cannot be read, or the request does not fit the model.
        """
        if isinstance(image, EncodedImage):
            if options.max_crops not in (None, image.max_crops):
                encoded = image.max_crops or "the default"
                raise ProcessingError(f"expected max_crops as encoded ({encoded}), got {options.max_crops}; pass it to `encode` instead")
            return self.ask(image.visual, prompt, options.single, history, image.features)
        visual = self.see(image, options.max_crops, allow_urls=options.allow_urls)
        return self.ask(visual, prompt, options.single, history)

    def about_video(
        self, video: Any, prompt: str, clip_options: ClipOptions, options: AnswerOptions, history: Sequence[Turn] | None = None
    ) -> Request:
        """A request about a clip.

        Raises:
            ProcessingError: the clip cannot be read, or the request does not fit the model.
        """
        if options.max_crops is not None:
            raise ProcessingError("expected no max_crops for a clip, got one; every frame is a single crop")
        return self.ask(self.watch(video, clip_options), prompt, options.single, history)

    def question(
        self, image: Any, question: str, options: Mapping[str, Any], *, video: Any = None, history: Sequence[Turn] | None = None
    ) -> tuple[Request, AnswerOptions]:
        """A plain question about pictures, a clip, or nothing, and how it is answered.

        Raises:
            ProcessingError: as `about_pictures` and `about_video`; or both pictures and a clip, or options of a clip without one.
        """
        if video is not None and image is not None:
            raise ProcessingError("expected pictures or a video, got both; a question is about one of them")
        of_clip = {name: value for name, value in options.items() if name in ClipOptions.__dataclass_fields__}
        settings = question_options({name: value for name, value in options.items() if name not in of_clip})
        prompt = complete_prompt(question, settings.template)
        clip = image if is_clip(image) else video
        if clip is not None:
            return self.about_video(clip, prompt, ClipOptions(**of_clip), settings, history), settings
        if of_clip:
            raise ProcessingError(f"expected a video with {', '.join(of_clip)}, got none; pass video=...")
        return self.about_pictures(image, prompt, settings, history), settings

    def see(self, image: Any, max_crops: int | None, *, allow_urls: bool = False) -> VisualInput:
        """Pictures as model input."""
        with picture_limit(self._max_pixels):
            pictures = tuple(load_picture(picture, allow_urls=allow_urls) for picture in _picture_list(image))
            return self._see(pictures, max_crops, as_list=isinstance(image, (list, tuple)))

    def _see(self, pictures: tuple[Image.Image, ...], max_crops: int | None, *, as_list: bool) -> VisualInput:
        options: dict[str, Any] = {} if max_crops is None or not pictures else {"max_crops": max_crops}
        output = self._processor(
            text=[IMAGE_PLACEHOLDER * len(pictures)],
            images=[list(pictures)] if pictures else None,
            return_tensors="pt",
            return_pointing_metadata=True,
            **options,
        )
        spans = tuple(
            self._processor.replace_image_token({"image_grids": output["image_grids"]}, image_idx=index) for index in range(len(pictures))
        )
        displayed = Displayed(pictures, as_list=as_list)
        return VisualInput(output["pointing_metadata"][0], _pixels_of(output), spans, displayed)

    def watch(self, video: Any, options: ClipOptions) -> VisualInput:
        """A clip as model input; subtitles follow its frames.

        Raises:
            ProcessingError: the clip cannot be read, or has more frames than the model has positions, which is told before any work.
        """
        cues = options.cues()
        clip = choose_frames(self._processor, video, options)
        check_budget(self._processor, clip, self._max_length)
        output = self._processor(text=[VIDEO_PLACEHOLDER], videos=[clip], return_tensors="pt", return_pointing_metadata=True)
        metadata = output["pointing_metadata"][0]
        times = clip.metadata.timestamps
        span = self._processor.get_video_string(output["video_grids"][0], times)
        span += self._processor.escape_user_text(options.subtitle_text(cues, times))
        displayed = Displayed(clip=clip.shown, timestamps=metadata.timestamps, start=options.start)
        seen = seen_note(clip, options.max_fps or self._processor.video_processor.max_fps)
        notes = tuple(clip.metadata.notes) if seen is None else (*clip.metadata.notes, seen)
        return VisualInput(metadata, _pixels_of(output), (span,), displayed, notes)

    def ask(
        self,
        visual: VisualInput,
        prompt: str,
        single: bool = False,
        history: Sequence[Turn] | None = None,
        features: Any = None,
    ) -> Request:
        """One row: the pictures, earlier turns, and the prompt, ready for an answer.

        A single point is asked for by opening the point list: whatever the model would have said first, it points next.

        Raises:
            ProcessingError: the row is longer than the model's positions, or there is nothing a single point could lie on.
        """
        if single and not visual.metadata.num_patches:
            raise ProcessingError("expected a picture for single=True, got a request of text alone")
        answer_start = POINT_LIST_START if single else ""
        kind = "video" if visual.metadata.is_video else "image"
        turns = as_turns(history)
        if turns and (note := turns_note(len(turns) + 1, self._max_turns)) is not None:
            warnings.warn(note, InputWarning, stacklevel=4)
            visual = replace(visual, notes=(*visual.notes, note))
        messages = conversation(kind, len(visual.spans), turns, prompt, keep_text=self._processor.points_are_text)
        rendered, earlier = self._processor.render_chat(messages, add_generation_prompt=True)
        ids, selections = self._processor.encode_chat(rendered, visual.spans, earlier, visual.metadata)
        ids += (opening := self._processor.tokenizer.encode(answer_start, add_special_tokens=False))
        selections += [NO_SELECTION] * len(opening)
        if len(ids) >= self._max_length:
            raise ProcessingError(
                f"expected a request of fewer than {self._max_length} tokens, pictures included, got {len(ids)}; "
                "shorten the prompt or the history, or pass fewer pictures or a smaller max_crops"
            )
        types = self._processor.create_mm_token_type_ids([ids])[0]
        row = visual.row(torch.tensor(ids), torch.tensor(types), torch.tensor(selections))
        return Request(prompt, row, visual, answer_start, features)


def collate_requests(requests: Sequence[Request], pad_token_id: int) -> dict[str, Tensor]:
    """Rows to one batch, padded on the left.

    Args:
        requests: B rows.
        pad_token_id: id of padding.

    Returns:
        What `processing.rows.collate` gives, clips apart, and `open_list` (B,): whether an answer begins inside a point list.
    """
    batch = collate([request.row for request in requests], pad_token_id, "left", clips_apart=True)
    batch["open_list"] = torch.tensor([bool(request.answer_start) for request in requests])
    return batch


def _picture_list(image: Any) -> list[Any]:
    """The pictures of a request: none, one, or those of a list.

    Raises:
        ProcessingError: an empty list, or an encoded picture inside one.
    """
    if image is None:
        return []
    if not isinstance(image, (list, tuple)):
        return [image]
    if not image:
        raise ProcessingError("expected at least one picture in the list, got none; pass None for a request of text alone")
    if any(isinstance(picture, (EncodedImage, list, tuple)) for picture in image):
        raise ProcessingError("expected a list of pictures, got one that holds lists or encoded pictures; encode the whole list at once")
    return list(image)


def _pixels_of(output: Any) -> dict[str, Tensor]:
    return {name: output[name] for name in PIXELS if name in output}
