"""The front door: pictures and a prompt in, points out."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from molmopoint.backends import Backend, backend_of
from molmopoint.backends.clips import ClipOptions
from molmopoint.backends.history import Turn
from molmopoint.backends.media import EncodedImage
from molmopoint.backends.options import DEFAULT_MAX_NEW_TOKENS, AnswerOptions
from molmopoint.backends.requests import Request
from molmopoint.backends.result import PointingResult, count_of
from molmopoint.backends.zoom import Zoom
from molmopoint.checkpoints.placing import single_device
from molmopoint.errors import CheckpointError, InputWarning, ProcessingError
from molmopoint.pipeline.batching import (
    DEFAULT_BATCH_SIZE,
    OnError,
    OnPhase,
    is_one_picture,
    paired,
    run_in_batches,
)
from molmopoint.pipeline.clip_answers import Progress, check_windows, moved, point_in_windows
from molmopoint.pipeline.clip_plans import ClipPlanner
from molmopoint.pipeline.streaming import AnswerStream, TextStream
from molmopoint.pipeline.track_result import TrackingResult
from molmopoint.pipeline.tracking import Ground, Tracker, TrackOptions
from molmopoint.pipeline.windows import as_clip
from molmopoint.pipeline.zooming import Looker

if TYPE_CHECKING:
    from molmopoint.metrics import Calibration

Stream = TypeVar("Stream", AnswerStream, TextStream)
Answer = Callable[[Sequence[Request], AnswerOptions], list[PointingResult]]
"""What answers a batch."""


class Pointer:
    """A model and its processor as one thing that points. `molmopoint.load` makes one.

    Every method takes the options of `point`. A picture is a path, a PIL picture, an array (H, W, 3) or (H,
    W), a tensor (3, H, W), or what `encode` returned; a list of pictures is one request about all of them.
    What a person types is sent literally: text that looks like a special token stays text.

    Args:
        model: a MolmoPoint, transformers' own Molmo2, or one of another family of the zoo; in evaluation mode,
            on its device.
        processor: of the same checkpoint, as the family reads it: `MolmoPointProcessor`,
            `Molmo2PointingProcessor`, or that of transformers.
        max_pixels: width times height of a picture at most. By default what the environment variable
            MOLMOPOINT_MAX_PIXELS says, or 268,435,456 (16,384 x 16,384).
        calibration: from scores to chances, fitted for these very weights, or the file of that map, which is
            read when chances are asked for.

    Raises:
        CheckpointError: model and processor do not belong together.
        ProcessingError: `max_pixels` is no whole number above 0.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        max_pixels: int | None = None,
        calibration: Calibration | Path | None = None,
    ) -> None:
        self.model = model
        self.processor = processor
        self._backend = backend_of(model, processor, max_pixels=max_pixels)
        self._backend.calibration = calibration
        self._builder = self._backend.requests
        if self._backend.ignored_settings:
            warnings.warn(
                "expected the checkpoint to name the tokens that end and pad answers, got settings of its "
                "own for "
                f"{', '.join(self._backend.ignored_settings)}, which are ignored; pass such options with a "
                "question",
                InputWarning,
                stacklevel=3,
            )
        self._planner = ClipPlanner(processor, self._backend.max_length)
        self._tracker = Tracker(self._builder, self._planner, self._answer)
        self._through: Answer | None = None

    def through(self, answer: Answer) -> Self:
        """The same model, whose batches a function answers; a server puts them into its queue.

        Args:
            answer: results of requests, in order, with the options of all of them.
        """
        other = copy.copy(self)
        other._through = answer
        other._tracker = Tracker(self._builder, self._planner, answer)
        return other

    @property
    def backend(self) -> Backend:
        """What a server or an engine of another kind makes rows and reads answers with."""
        return self._backend

    def __repr__(self) -> str:
        name = self.model.config.name_or_path or type(self.model).__name__
        return f"Pointer({name!r}, device={str(self.model.device)!r}, dtype={str(self.model.dtype).removeprefix('torch.')!r})"

    def to(self, device: torch.device | str | int) -> Self:
        """Moves the model, and returns this pointer; encoded pictures stay where they are.

        Args:
            device: such as "cpu", "cuda" or "cuda:1".

        Raises:
            CheckpointError: no such device exists here, or the model is spread over several.
        """
        target = single_device(device)
        if target is None or getattr(self.model, "hf_device_map", None) is not None:
            raise CheckpointError(
                f"expected one device for a model on one device, got {device!r}; load it again with "
                "device_map="
            )
        self.model.to(target)
        return self

    @overload
    def point(self, image: Any, prompt: str, **options: Any) -> PointingResult: ...
    @overload
    def point(self, image: Any, prompt: Sequence[str], **options: Any) -> list[PointingResult]: ...

    def point(
        self,
        image: Any,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS,
        max_points: int | None = None,
        single: bool = False,
        min_score: float | None = None,
        calibrated: bool = False,
        max_crops: int | None = None,
        template: str | None = None,
        history: Sequence[Turn] | None = None,
        allow_urls: bool = False,
        zoom: bool | Zoom = False,
        **sampling: Any,
    ) -> PointingResult | list[PointingResult]:
        """Points at what the prompt names.

        Args:
            image: a picture, a list of pictures, what `encode` returned, or None for text alone. A picture is
                a path, the bytes of a file, a `data:` address, a PIL picture, an array or a tensor.
            prompt: a noun phrase ("the red circles"), which becomes "Point to the red circles", or a request
                or question, which is sent as it is. A list of prompts looks at the picture once, and gives a
                list of results.
            max_new_tokens: length limit of the answer; `truncated` tells whether it cut it.
            max_points: most points of the answer.
            single: exactly one point, as screen benchmarks need it. The result's `absent` tells whether there
                should have been none.
            min_score: points with a lower score are left out, and not counted; of a stream they are left out
                of its result.
            calibrated: scores are chances that points are right, and so is what `min_score` is compared with,
                by the map that the checkpoint ships (`nano` and `nano-screens` do); for pictures only.
            max_crops: most crops per picture; more see smaller things and take longer.
            template: where the prompt goes instead; `"{}"` sends it exactly as typed.
            history: earlier turns about the same pictures: results, or pairs of a prompt and its points or
                plain answer.
            allow_urls: fetch pictures from addresses of the web, `https://...`, from public hosts alone.
            zoom: look again at native pixels around the likeliest places of one large picture, and decide by
                the scores of both looks; `molmopoint.Zoom` says how often and at how much. Each look costs
                about as much as a picture of its size. A picture that the first look saw at native pixels,
                and an answer without points, stay as they are.
            **sampling: arguments of `generate`, such as `temperature=0.7` or `top_p=0.9`; greedy without.

        Returns:
            Points in pixels of the displayed pictures, the answer in words, and what went wrong, if anything;
            a list of such results for a list of prompts.

        Raises:
            ProcessingError: a picture or the prompt cannot be used, or the checkpoint ships no calibration.
            GroundingError: the history does not fit the pictures.
        """
        options = AnswerOptions(
            max_new_tokens,
            max_points,
            single,
            max_crops,
            template,
            sampling,
            allow_urls,
            min_score,
            calibrated,
            zoom,
        )
        self._backend.check_options(options)
        if not isinstance(prompt, str) and isinstance(prompt, Sequence):
            answers = self._point_batch(self._seen_once(image, options), prompt, options, history)
            return [answer for answer in answers if isinstance(answer, PointingResult)]  # errors are raised
        sent = self._backend.complete_prompt(prompt, template)
        request = self._builder.about_pictures(image, sent, options, history)
        return self._answer([request], options)[0]

    def count(self, image: Any, phrase: str, **options: Any) -> int:
        """How many there are: asks for the number and counts the points of the answer.

        Args:
            image: as in `point`.
            phrase: what to count ("cups"), or a whole question.
            **options: as in `point`.
        """
        template = options.pop("template", None)
        question = self._backend.complete_count(phrase, template)
        return count_of(self.point(image, question, template="{}", **options))

    def point_batch(
        self,
        images: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        on_error: OnError = "raise",
        on_phase: OnPhase | None = None,
        **options: Any,
    ) -> Iterator[PointingResult | Exception]:
        """Answers many requests, in order, while the next pictures are being prepared.

        Args:
            images: one picture, or list of pictures, per request; may be a generator. One picture with
                several prompts is looked at once.
            prompts: one per request, or one for all.
            batch_size: requests per run of the model; a batch gives the answers of its rows.
            on_error: "raise" stops at the first broken picture; "yield" gives the error in its place and goes
                on.
            on_phase: is told the seconds of "prepare" (in a thread), "wait" (for it) and "answer" (the
                model), batch by batch.
            **options: as in `point`, for all requests.

        Yields:
            The result of each request; with `on_error="yield"` an exception for a request that cannot be
            made.

        Raises:
            ProcessingError: as in `point`; or there are more or fewer prompts than images.
        """
        history = options.pop("history", None)
        settings = AnswerOptions.of(**options)
        self._backend.check_options(settings)
        if is_one_picture(images):
            if isinstance(prompts, str):
                raise ProcessingError(
                    f"expected several images, got one ({type(images).__name__}); use `point`, or pass "
                    "[image]"
                )
            images = self._seen_once(images, settings)
        return self._point_batch(
            images, prompts, settings, history, batch_size=batch_size, on_error=on_error, on_phase=on_phase
        )

    def _seen_once(self, image: Any, options: AnswerOptions) -> Iterator[Any]:
        """One picture again and again, for any number of prompts, which is looked at once; None for requests
        of text alone.
        """
        if image is None or isinstance(image, EncodedImage):
            return repeat(image)
        return repeat(self.encode(image, max_crops=options.max_crops, allow_urls=options.allow_urls))

    def _point_batch(
        self,
        images: Iterable[Any],
        prompts: str | Iterable[str],
        options: AnswerOptions,
        history: Sequence[Turn] | None,
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        on_error: OnError = "raise",
        on_phase: OnPhase | None = None,
    ) -> Iterator[PointingResult | Exception]:
        """Answers pairs of pictures and prompts, in order."""

        def prepare(pair: tuple[Any, str]) -> Request:
            image, prompt = pair
            sent = self._backend.complete_prompt(prompt, options.template)
            return self._builder.about_pictures(image, sent, options, history)

        return run_in_batches(
            paired(images, prompts),
            prepare,
            lambda requests: self._answer(requests, options),
            batch_size=batch_size,
            on_error=on_error,
            on_phase=on_phase,
        )

    def stream(self, image: Any, prompt: str, **options: Any) -> AnswerStream:
        """Yields pieces of the answer's words and points as soon as they are complete.

        Args:
            image: as in `point`.
            prompt: as in `point`.
            **options: as in `point`.

        Returns:
            An iterator of `str` and `Point`. Once it is exhausted its `result` holds the whole answer, with
            scores.
        """
        history = options.pop("history", None)
        settings = AnswerOptions.of(**options)
        self._backend.check_options(settings)
        if settings.looks_again is not None:
            raise ProcessingError(
                "expected zoom=False for a stream, got zoom: what the points are is known when all looks are "
                "answered; use `point`, or leave zoom out"
            )
        sent = self._backend.complete_prompt(prompt, settings.template)
        request = self._builder.about_pictures(image, sent, settings, history)
        return self._stream(AnswerStream, request, settings)

    def ask(
        self,
        image: Any,
        question: str,
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
        **options: Any,
    ) -> str:
        """Answers a question in words; the question is sent exactly as it is.

        Args:
            image: a picture, a list of pictures, what `encode` returned, or None; or a video file (by its
                ending) or a `Clip`.
            question: what to ask.
            video: a clip as in `point_video`, in place of the image, which is then None.
            history: earlier turns about the same pictures or clip; a pair of a question and its answer for a
                plain one.
            **options: `max_new_tokens`, `max_crops` and arguments of `generate` as in `point`; for a clip
                `timestamps`, `start`, `end` and the others of `point_video`.

        Returns:
            The answer. Where the model points in it, the label of the list stands for the points.

        Raises:
            ProcessingError: as in `point` and `point_video`; or both pictures and a clip.
        """
        request, settings = self._builder.question(image, question, options, video=video, history=history)
        return self._answer([request], settings)[0].text

    def ask_stream(
        self,
        image: Any,
        question: str,
        *,
        video: Any = None,
        history: Sequence[Turn] | None = None,
        **options: Any,
    ) -> TextStream:
        """Yields the answer to a question piece by piece; arguments as in `ask`.

        Returns:
            An iterator of `str`. Once it is exhausted its `result` holds the whole answer, points included.
        """
        request, settings = self._builder.question(image, question, options, video=video, history=history)
        return self._stream(TextStream, request, settings)

    def point_video(
        self,
        video: Any,
        prompt: str,
        *,
        timestamps: Sequence[float] | None = None,
        frame_rate: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        max_frames: int | None = None,
        max_fps: float | None = None,
        subtitles: str | Path | Sequence[tuple[float, float, str]] | None = None,
        history: Sequence[Turn] | None = None,
        windows: bool = False,
        absolute: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> PointingResult:
        """Points in a clip; each point's `group` is its time in seconds from the start of the clip.

        A clip with more frames than the model takes is looked at less often, evenly, and `notes` tells how
        often; `windows=True` looks at all of it as often as the model is used to, some frames at a time.

        Args:
            video: a file (a video, or an animated GIF, WebP or PNG), a folder of pictures, or frames: an
                array (T, H, W, 3) or a list of pictures of one size.
            prompt: as in `point`.
            timestamps: (T,) seconds of given frames, rising; needed for frames without a frame rate, not
                allowed for a file.
            frame_rate: frames a second that given frames were taken with; then they are chosen as those of a
                file are. For a file only where it does not say itself when its frames are shown, such as raw
                H.264.
            start: second at which the part to look at begins.
            end: second at which it ends; None for the end of the video.
            max_frames: most frames to look at; None for the checkpoint's number, and for all frames with
                timestamps.
            max_fps: most frames to look at in a second; None as for `max_frames`.
            subtitles: a file with subtitles (.srt, .vtt, or a video that has some), or (start, end, text) in
                seconds of the video.
            history: earlier turns about the same clip.
            windows: look at a long clip in windows that share some frames. Each is asked the same, and an
                object that is pointed at in the shared part of two, at nearly the same place, has one number.
                `answers` has what was said of each.
            absolute: times of points count from the beginning of the video, and not from `start`.
            progress: for windows, is told how many were answered, and how many there are.
            **options: as in `point`, without `max_crops`.

        Returns:
            As `point`; `notes` tells if only a part of a damaged video was used, and how much of a long one
            was looked at.

        Raises:
            ProcessingError: the video cannot be read, frames come without times, or the frames do not fit the
                model.
        """
        settings = AnswerOptions.of(**options)
        self._backend.check_options(settings, clips=True)
        clip_options = ClipOptions(timestamps, frame_rate, start, end, max_frames, max_fps, subtitles)
        request_text = self._backend.complete_prompt(prompt, settings.template)
        if windows:
            check_windows(settings, max_frames, history)
            clip_options = replace(clip_options, timestamps=None)
            plan = self._planner.plan(
                as_clip(video, timestamps), clip_options, answer_tokens=settings.max_new_tokens
            )
            answer = partial(self._answer, options=settings)
            result = point_in_windows(plan, request_text, settings, self._builder, answer, progress)
        else:
            request = self._builder.about_video(video, request_text, clip_options, settings, history)
            result = self._answer([request], settings)[0]
        return moved(result, start) if absolute and start else result

    def track(
        self,
        video: Any,
        prompt: str,
        *,
        timestamps: Sequence[float] | None = None,
        frame_rate: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        max_fps: float | None = None,
        subtitles: str | Path | Sequence[tuple[float, float, str]] | None = None,
        fps: int | None = None,
        ground: Ground | None = None,
        point: tuple[float, float] | None = None,
        time: float = 0.0,
        interpolate: float | bool = False,
        max_gap: float | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> TrackingResult:
        """Follows objects through a clip of any length.

        Args:
            video: a file, a `molmopoint.video.Clip`, a folder of pictures, or frames: an array (T, H, W, 3)
                or a list of pictures of one size.
            prompt: a noun phrase ("the red cars"), which becomes "Track the red cars", or a request, which is
                sent as it is.
            timestamps: (T,) seconds of given frames, rising; needed for frames without a frame rate, not
                allowed for a file.
            frame_rate: frames a second that given frames were taken with; then they are chosen as those of a
                file are.
            start: second at which the part to look at begins; all times of the tracks, and `time`, count from
                here.
            end: second at which it ends; None for the end of the video.
            max_fps: most frames to look at in a second; None for the checkpoint's number (more where `fps`
                asks for more), and for all frames with timestamps.
            subtitles: as in `point_video`; each window reads those of its time.
            fps: points per second and object, a whole number, which is asked for in the prompt; the model may
                see more frames. None leaves it to the model.
            ground: "start_end" asks for the first and the last place of each object only.
            point: (x, y) in pixels: follows the object there, which `prompt` names.
            time: second of the clip at which `point` is.
            interpolate: points per second to fill in between those of the answer; True for the rate of the
                video.
            max_gap: seconds without a point beyond which an object counts as gone and nothing is filled in.
            progress: is told how many windows were answered, and how many there are.
            **options: as in `point`, without `single`, `max_crops` and `history`.

        Returns:
            Tracks with one number per object, the answer in words, and what went wrong, if anything. A clip
            with more frames than the model takes is seen in windows that share some frames, and objects are
            linked by their places there.

        Raises:
            ProcessingError: the video or the prompt cannot be used, or options do not fit each other.
        """
        part = {
            "frame_rate": frame_rate,
            "start": start,
            "end": end,
            "max_fps": max_fps,
            "subtitles": subtitles,
        }
        asked = {
            "fps": fps,
            "ground": ground,
            "point": point,
            "time": time,
            "interpolate": interpolate,
            "max_gap": max_gap,
        }
        settings = TrackOptions.of(**part, **asked, **options)
        clip = [(as_clip(video, timestamps), prompt)]
        self._backend.check_clips()
        (result,) = self._tracker.run(clip, settings, batch_size=1, on_error="raise", progress=progress)
        if isinstance(result, Exception):
            raise result
        return result

    def track_batch(
        self,
        videos: Iterable[Any],
        prompts: str | Iterable[str],
        *,
        batch_size: int = 2,
        on_error: OnError = "raise",
        on_phase: OnPhase | None = None,
        **options: Any,
    ) -> Iterator[TrackingResult | Exception]:
        """Tracks in many clips, in order, while the next ones are being prepared.

        Args:
            videos: files or `molmopoint.video.Clip`s; may be a generator.
            prompts: one per clip, or one for all.
            batch_size: windows (whole clips, where they are short enough) per run of the model; a batch gives
                the answers of its rows.
            on_error: as in `point_batch`.
            on_phase: as in `point_batch`.
            **options: as in `track`, for all clips, without `timestamps`.

        Yields:
            The result of each clip; with `on_error="yield"` an exception for a clip that cannot be asked
            about.

        Raises:
            ProcessingError: as in `track`; or there are more or fewer prompts than clips.
        """
        settings = TrackOptions.of(**options)
        self._backend.check_clips()
        return self._tracker.run(
            paired(videos, prompts, "clips"),
            settings,
            batch_size=batch_size,
            on_error=on_error,
            on_phase=on_phase,
        )

    def encode(self, image: Any, *, max_crops: int | None = None, allow_urls: bool = False) -> EncodedImage:
        """Looks at a picture, or a list of pictures, once, for any number of prompts.

        Args:
            image: a picture or a list of pictures.
            max_crops: as in `point`, fixed from here on.
            allow_urls: as in `point`.

        Returns:
            What `point`, `count`, `stream` and `point_batch` take in place of the picture. It lives on the
            model's device.
        """
        AnswerOptions(max_crops=max_crops, allow_urls=allow_urls)  # refuses what neither can be
        media = self._builder.process_images(image, max_crops, allow_urls=allow_urls)
        if not media.pixels:
            raise ProcessingError(
                "expected a picture to encode, got none; requests of text alone need no encoding"
            )
        return EncodedImage(media, self._backend.encode(media), max_crops)

    def _stream(self, kind: type[Stream], request: Request, options: AnswerOptions) -> Stream:
        """The answer to one request while it is being generated."""

        def generate(watcher: StoppingCriteria) -> PointingResult:
            return self._answer([request], options, stopping_criteria=StoppingCriteriaList([watcher]))[0]

        return kind(generate, self._backend.events(request, options), self._backend.eos_token_ids)

    def _answer(
        self, requests: Sequence[Request], options: AnswerOptions, **generate_arguments: Any
    ) -> list[PointingResult]:
        """Runs the model on one batch, and again on parts of its pictures where that was asked for."""
        if options.looks_again is not None:
            return self._look_twice(requests, options)
        if self._through is not None:
            return self._through(requests, options)
        return self._backend.answer(requests, options, **generate_arguments)

    def _look_twice(self, requests: Sequence[Request], options: AnswerOptions) -> list[PointingResult]:
        """Answers of a batch with a second look at native pixels."""
        one_look = options.for_one_look()
        firsts = self._answer(requests, one_look)
        return Looker(self._backend).look_again(
            requests, firsts, options, lambda _, asked: self._answer(asked, one_look)
        )
