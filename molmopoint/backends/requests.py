"""From what a user brings to one row of model input, and from rows to a batch.

A row is made in two steps: pictures to tensors (`process_images`, `process_video`), then text to ids
(`build_request` for a question, `build_trunk` for training). So a picture that was encoded once goes the same
way as a new one, earlier turns are written for the crops at hand, and training sees what `Pointer` sees.

Letters: B rows, S tokens, N crops or frames of the call, G ViT patches per crop, K slots.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from molmopoint.backends.clips import ClipOptions, check_budget, choose_frames, is_clip, seen_note
from molmopoint.backends.history import Turn, as_turns, conversation, turns_note
from molmopoint.backends.media import DisplayedMedia, EncodedImage, RequestMedia, ShownPictures
from molmopoint.backends.options import AnswerOptions, complete_prompt, question_options, refuse_zoom
from molmopoint.errors import InputWarning, ProcessingError
from molmopoint.files import picture_limit
from molmopoint.geometry import PointingMetadata
from molmopoint.processing import MolmoPointProcessor
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.pictures import load_with_file
from molmopoint.processing.rows import Row, collate
from molmopoint.tokens import LIST_OPENING, NO_SELECTION

POINT_LIST_START = f"<points{LIST_OPENING}"
"""How a point list begins."""


@dataclass(frozen=True, eq=False)
class Request:
    """One row of model input, and what was asked.

    Attributes:
        prompt: the request as it is sent.
        row: ids, the selections of earlier answers, and pixels.
        media: the pictures or the clip.
        answer_start: beginning of the answer that is given and not generated; it opens a point list.
        features: what the model has seen of them, if they are encoded; None if not.
    """

    prompt: str
    row: Row
    media: RequestMedia
    answer_start: str = ""
    features: Any = field(default=None, repr=False)

    @property
    def input_ids(self) -> Tensor:
        """(S,) plain ids of the row."""
        return self.row.input_ids

    @property
    def metadata(self) -> PointingMetadata:
        """What turns the answer's grounding tokens into pixels."""
        return self.media.metadata


class RequestBuilder:
    """Makes rows from pictures, clips and text; touches no weight, so it may run in a thread or process of
    its own.

    Args:
        processor: of the checkpoint.
        config: of the model, for its limits; None where rows are made without one, as in training, whose
            limit is the recipe's.
        max_pixels: width times height of a picture at most; None for the limit of the environment, or the
            default.
        max_crops: crops per picture where a request does not say; None for the processor's own number.

    Raises:
        ProcessingError: `max_pixels` is no whole number above 0.
    """

    def __init__(
        self,
        processor: MolmoPointProcessor,
        config: Any = None,
        *,
        max_pixels: int | None = None,
        max_crops: int | None = None,
    ) -> None:
        with picture_limit(max_pixels):  # refuses what is no limit
            self._max_pixels = max_pixels
        self._processor = processor
        self._max_crops = max_crops
        self._max_length: int | None = None if config is None else config.text_config.max_position_embeddings
        self._max_turns: int | None = getattr(config, "max_turns", None)  # native configs do not know of it

    def about_pictures(
        self, image: Any, prompt: str, options: AnswerOptions, history: Sequence[Turn] | None = None
    ) -> Request:
        """A request about one picture, a list of them, encoded ones, or none.

        Raises:
            ProcessingError: a picture cannot be read, or the request does not fit the model.
        """
        zooms = options.looks_again is not None
        if zooms and history:
            raise ProcessingError(
                "expected no history with zoom=True, got one: earlier points do not lie in the parts that are "
                "looked at again; leave zoom out"
            )
        if isinstance(image, EncodedImage):
            if zooms:
                check_one_picture(image.media)
            if options.max_crops not in (None, image.max_crops):
                encoded = image.max_crops or "the default"
                raise ProcessingError(
                    f"expected max_crops as encoded ({encoded}), got {options.max_crops}; pass it to "
                    "`encode` instead"
                )
            return self.build_request(image.media, prompt, options.single, history, image.features)
        media = self.process_images(image, options.max_crops, allow_urls=options.allow_urls)
        if zooms:
            check_one_picture(media)
        return self.build_request(media, prompt, options.single, history)

    def about_video(
        self,
        video: Any,
        prompt: str,
        clip_options: ClipOptions,
        options: AnswerOptions,
        history: Sequence[Turn] | None = None,
    ) -> Request:
        """A request about a clip.

        Raises:
            ProcessingError: the clip cannot be read, or the request does not fit the model.
        """
        refuse_zoom(options)
        if options.max_crops is not None:
            raise ProcessingError("expected no max_crops for a clip, got one; every frame is a single crop")
        return self.build_request(self.process_video(video, clip_options), prompt, options.single, history)

    def question(
        self,
        image: Any,
        question: str,
        options: Mapping[str, Any],
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
    ) -> tuple[Request, AnswerOptions]:
        """A plain question about pictures, a clip, or nothing, and how it is answered.

        Raises:
            ProcessingError: as `about_pictures` and `about_video`; or both pictures and a clip, or options of
                a clip without one.
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

    def process_images(
        self, image: Any, max_crops: int | None = None, *, allow_urls: bool = False
    ) -> RequestMedia:
        """A picture, a list of them, or none, as model input.

        Raises:
            ProcessingError: a picture cannot be read, or there are more places in them than the model has
                names for.
        """
        with picture_limit(self._max_pixels):
            loaded = [load_with_file(picture, allow_urls=allow_urls) for picture in _picture_list(image)]
            most = max_crops or self._max_crops
            settings: dict[str, Any] = {} if most is None or not loaded else {"max_crops": most}
            inputs = self._processor.media([picture for picture, _ in loaded], **settings)
        self._processor.check_places(inputs.metadata.num_patches, inputs.metadata.num_slots)
        displayed = DisplayedMedia(ShownPictures(loaded), as_list=isinstance(image, (list, tuple)))
        return RequestMedia(inputs.metadata, inputs.pixels, inputs.spans, displayed)

    def process_video(self, video: Any, options: ClipOptions) -> RequestMedia:
        """A clip as model input; subtitles follow its frames.

        Raises:
            ProcessingError: the clip cannot be read, or has more frames than the model has positions, which
                is told before any work.
        """
        cues = options.cues()
        clip = choose_frames(self._processor, video, options)
        check_budget(self._processor, clip, self._max_length)
        inputs = self._processor.media(videos=[clip])
        times = clip.metadata.timestamps
        (frames,) = inputs.spans
        span = frames + self._processor.escape_user_text(options.subtitle_text(cues, times))
        displayed = DisplayedMedia(
            clip=clip.shown, timestamps=inputs.metadata.timestamps, start=options.start
        )
        notes = list(clip.metadata.notes)
        seen = seen_note(clip, options.max_fps or self._processor.video_processor.max_fps)
        if seen is not None:
            notes.append(seen)
        return RequestMedia(inputs.metadata, inputs.pixels, (span,), displayed, tuple(notes))

    def build_trunk(self, media: MediaInputs) -> Row:
        """The row up to where the user's words begin, which all conversations about these pictures share."""
        text = self._processor.chat.media_text(media.kind, len(media.spans))
        ids, selections = self._processor.encode_chat(text, media.spans, [], media.metadata)
        return self._row(media, ids, selections)

    def build_request(
        self,
        media: RequestMedia,
        prompt: str,
        single: bool = False,
        history: Sequence[Turn] | None = None,
        features: Any = None,
    ) -> Request:
        """One row: the pictures, earlier turns, and the prompt, ready for an answer.

        A single point is asked for by opening the point list: whatever the model would have said first, it
        points next.

        Raises:
            ProcessingError: the row is longer than the model's positions, or there is nothing a single point
                could lie on.
        """
        if single and not media.metadata.num_patches:
            raise ProcessingError("expected a picture for single=True, got a request of text alone")
        answer_start = POINT_LIST_START if single else ""
        turns = as_turns(history)
        note = turns_note(len(turns) + 1, self._max_turns) if turns else None
        if note is not None:
            warnings.warn(note, InputWarning, stacklevel=4)
            media = replace(media, notes=(*media.notes, note))
        messages = conversation(
            media.kind, len(media.spans), turns, prompt, keep_text=self._processor.points_are_text
        )
        rendered, earlier = self._processor.render_chat(messages, add_generation_prompt=True)
        ids, selections = self._processor.encode_chat(rendered, media.spans, earlier, media.metadata)
        opening = self._processor.tokenizer.encode(answer_start, add_special_tokens=False)
        ids += opening
        selections += [NO_SELECTION] * len(opening)
        if self._max_length is not None and len(ids) >= self._max_length:
            raise ProcessingError(
                f"expected a request of fewer than {self._max_length} tokens, pictures included, got "
                f"{len(ids)}; "
                "shorten the prompt or the history, or pass fewer pictures or a smaller max_crops"
            )
        return Request(prompt, self._row(media, ids, selections), media, answer_start, features)

    def _row(self, media: MediaInputs, ids: list[int], selections: list[int]) -> Row:
        types = self._processor.create_mm_token_type_ids([ids])[0]
        return media.row(torch.tensor(ids), torch.tensor(types), torch.tensor(selections))


def collate_requests(
    requests: Sequence[Request], pad_token_id: int, *, clips_apart: bool = True
) -> dict[str, Tensor]:
    """Rows to one batch, padded on the left.

    Args:
        requests: B rows.
        pad_token_id: id of padding.
        clips_apart: frames of clips are not joined with crops of pictures.

    Returns:
        What `processing.rows.collate` gives, and `open_list` (B,): whether an answer begins inside a point
        list.
    """
    batch = collate([request.row for request in requests], pad_token_id, "left", clips_apart=clips_apart)
    batch["open_list"] = torch.tensor([bool(request.answer_start) for request in requests])
    return batch


def check_one_picture(media: RequestMedia) -> None:
    """Refuses to look again at anything but one picture.

    Raises:
        ProcessingError: the request is about several, or about none.
    """
    number = len(media.spans)
    if number != 1:
        raise ProcessingError(
            f"expected one picture with zoom=True, got {number}; ask about one picture at a time, or leave "
            "zoom out"
        )


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
        raise ProcessingError(
            "expected at least one picture in the list, got none; pass None for a request of text alone"
        )
    if any(isinstance(picture, (EncodedImage, list, tuple)) for picture in image):
        raise ProcessingError(
            "expected a list of pictures, got one that holds lists or encoded pictures; encode the whole "
            "list at once"
        )
    return list(image)
