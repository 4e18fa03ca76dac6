"""How long it takes to see a video: `python -m molmopoint.eval.speed video`.

Decoding: the frames of a long clip that a model is to see, as the processor reads them, against the same
library asked for the same frames directly. Vision: ViT and connector, per frame. Tracking with nano: a clip
that fits into one window of the model, and a longer one in windows that share frames, in which objects keep
their numbers.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.table import Table

from molmopoint.data.clips import sample_clip
from molmopoint.errors import EvaluationError
from molmopoint.eval.speed import report
from molmopoint.eval.speed.phases import Check
from molmopoint.eval.speed.subjects import build, clip_prompt
from molmopoint.eval.speed.timing import Run, Setting, Summary, Timings, interleave, paired_ratio, seconds_of
from molmopoint.pipeline import Pointer, load
from molmopoint.processing.clips import FRAMES_AT_ONCE
from molmopoint.video import Clip, VideoReader, open_video, sample_times
from molmopoint.video.av_reader import AvReader
from molmopoint.video.containers import import_av, new_media, open_media
from molmopoint.video.torchcodec_reader import torchcodec_decoder

LARGEST_DECODING_RATIO = 1.3
"""Largest cost of reading the frames of a clip, in plain decodings of them by the same library."""

MODELS = ("nano", "0.1b")
TRACKED_WINDOWS = 4
"""Length of the longer clip that is tracked, in windows without shared frames."""

TRACKED_TOKENS = 128
"""Tokens that are written about each window: about 30 points."""

app = report.new_app()


@dataclass(frozen=True)
class Film:
    """A clip to decode: H.264, gradients that move below noise.

    Attributes:
        seconds: its length.
        size: (width, height).
        rate: frames a second.
        num_frames: most frames to look at.
    """

    seconds: int = 60
    size: tuple[int, int] = (1920, 1080)
    rate: int = 30
    num_frames: int = 384

    def write(self, path: Path) -> None:
        """Encodes it, with a key frame every 250 frames, as encoders do when they are not told."""
        if (av := import_av()) is None:
            raise EvaluationError('expected PyAV to make a video, got none; pip install "molmopoint[video]"')
        width, height = self.size
        with new_media(path, "mp4") as container:
            stream = container.add_stream(
                "libx264", rate=self.rate, options={"preset": "veryfast", "g": "250"}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for planes in self._frames():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
            container.mux(stream.encode())

    def _frames(self) -> Iterator[np.ndarray]:
        """(height * 3 / 2, width) uint8 planes."""
        rng = np.random.default_rng(0)
        width, height = self.size
        noise = rng.integers(0, 12, (4, height * 3 // 2, width), dtype=np.uint8)
        slope = (np.arange(4 * width) * 190 // (4 * width)).astype(np.uint8)
        wave = np.concatenate([slope, slope[::-1]])
        ramp = (np.arange(height * 3 // 2)[:, None] * 40 // height).astype(np.uint8)
        for i in range(self.seconds * self.rate):
            shift = 7 * i % (6 * width)
            yield noise[i % 4] + wave[None, shift : shift + width] + ramp


def decoding_runs(path: Path, film: Film, setting: Setting) -> dict[tuple[str, str], Run]:
    """(library, "ours" or "plain") -> run; seconds per frame that is looked at."""
    times = sample_times(AvReader(path).duration, film.num_frames)
    works: dict[tuple[str, str], Callable[[], object]] = {
        ("PyAV", "ours"): partial(_ours, partial(AvReader, path), film),
        ("PyAV", "plain"): partial(_plain_av, path, times),
    }
    if torchcodec_decoder(path) is not None:
        works["torchcodec", "ours"] = partial(_ours, partial(open_video, path), film)
        works["torchcodec", "plain"] = partial(_plain_torchcodec, path, times)

    return {key: partial(_per_frame, work, len(times), setting) for key, work in works.items()}


def _ours(opened: Callable[[], VideoReader], film: Film) -> None:
    """What the processor does with a file, without what it does with the frames."""
    reader = opened()
    times = sample_times(reader.duration, film.num_frames, frame_rate=reader.frame_rate)
    for start in range(0, len(times), FRAMES_AT_ONCE):
        reader.frames_at(times[start : start + FRAMES_AT_ONCE])


def _plain_torchcodec(path: Path, times: np.ndarray) -> None:
    decoder = torchcodec_decoder(path)
    assert decoder is not None
    last = decoder.metadata.end_stream_seconds or 0.0
    inside = np.minimum(times, last - 1e-3).tolist()
    for start in range(0, len(inside), FRAMES_AT_ONCE):
        decoder.get_frames_played_at(inside[start : start + FRAMES_AT_ONCE])


def _plain_av(path: Path, times: np.ndarray) -> None:
    wanted = iter(times.tolist())
    moment = next(wanted)
    with open_media(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if frame.time >= moment - 1e-6:
                frame.to_ndarray(format="rgb24")
                moment = next(wanted, float("inf"))


def vision_runs(names: tuple[str, ...], setting: Setting, frames: int = 8) -> dict[tuple[str, str], Run]:
    """(model, "vision") -> run of ViT and connector; seconds per frame."""

    def run(model: Any, pixels: dict[str, Any]) -> Timings:
        setting.activate()
        with torch.inference_mode():
            return {"frame": seconds_of(lambda: model.get_visual_features(**pixels), setting) / frames}

    runs: dict[tuple[str, str], Run] = {}
    for name in names:
        subject = build(name, setting)
        inputs = clip_prompt(subject, frames)
        pixels = {key: inputs[key] for key in ("pixel_values_videos", "video_token_pooling")}
        runs[name, "vision"] = partial(run, subject.model, pixels)
    return runs


def tracking_runs(setting: Setting) -> dict[tuple[str, str], Run]:
    """("nano", "tracking in n windows") -> run of `Pointer.track` on frames in memory; seconds per frame of
    the clip.

    Answers have one length, whatever they say, so that only the frames differ.
    """
    pointer = load(
        "nano", dtype=setting.torch_dtype, device_map=setting.device, attn_implementation=setting.attn
    )
    limit = int(pointer.processor.video_processor.num_frames)
    runs: dict[tuple[str, str], Run] = {}
    for frames in (limit, TRACKED_WINDOWS * limit):
        clip = sample_clip(np.random.default_rng(0), frames, num_queries=1)
        work = partial(_tracked, pointer, Clip(clip.frames, clip.timestamps))
        windows = work()
        in_windows = "1 window" if windows == 1 else f"{windows} windows"
        runs["nano", f"tracking, {frames} frames in {in_windows}"] = partial(
            _per_frame, work, frames, setting
        )
    return runs


def _tracked(pointer: Pointer, clip: Clip) -> int:
    """Tracks, and tells in how many windows."""
    tracked = pointer.track(clip, "the shapes", max_new_tokens=TRACKED_TOKENS, min_new_tokens=TRACKED_TOKENS)
    return len(tracked.answers)


def _per_frame(work: Callable[[], object], frames: int, setting: Setting) -> Timings:
    setting.activate()
    return {"frame": seconds_of(work, setting) / frames}


def measure(film: Film, names: tuple[str, ...], setting: Setting, repeats: int) -> dict[str, Any]:
    """Measures everything; the document that is printed."""
    network = vision_runs(names, setting)
    if "nano" in names:
        network |= tracking_runs(setting)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        film.write(path)
        values = interleave(decoding_runs(path, film, setting), repeats)
    values |= interleave(network, repeats)
    rows, checks = [], []
    for (what, kind), measured in values.items():
        seconds = measured["frame"]
        rows.append({"what": what, "kind": kind, "ms_per_frame": Summary.of(seconds).to_dict(1e3)})
        if kind == "ours":
            ratio = paired_ratio(seconds, values[what, "plain"]["frame"])
            checks.append(Check(f"{what}: reading / plain decoding", ratio, LARGEST_DECODING_RATIO))
    return {
        "machine": report.machine(setting.device),
        "setting": setting.to_dict(),
        "rows": rows,
        "checks": [check.to_dict() for check in checks],
    }


@app.command(
    epilog="Exit codes: 0 measured, 2 wrong usage. A ratio above its limit is named in the output and is no error."
)
def video(
    models: Annotated[
        list[str] | None, typer.Argument(help=f"Whose vision is timed; by default {' and '.join(MODELS)}.")
    ] = None,
    change: Annotated[
        str, typer.Option("--set", help="Changes of the setting, such as threads=2,clock=processor.")
    ] = "",
    repeats: Annotated[
        int, typer.Option(min=1, help="Turns; one more comes before them and does not count.")
    ] = 3,
    seconds: Annotated[
        int, typer.Option(min=1, help="Length of the clip, 1920 x 1080 with 30 frames a second.")
    ] = 60,
    json_output: report.JsonOutput = False,
) -> None:
    """Times reading a long clip, ViT and connector per frame, and tracking in windows."""
    try:
        setting = Setting().changed(change) if change else Setting()
        with contextlib.redirect_stdout(sys.stderr):
            document = measure(Film(seconds=seconds), tuple(models or MODELS), setting, repeats)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if json_output:
        report.print_json(document)
    else:
        _print(document)


def _print(document: dict[str, Any]) -> None:
    console = report.console()
    report.print_facts(console, document["machine"])
    table = Table("what", "kind", "ms per frame, median (quartiles)", title="a clip")
    for row in document["rows"]:
        table.add_row(row["what"], row["kind"], report.in_range(row["ms_per_frame"]))
    console.print(table)
    for check in document["checks"]:
        report.print_check(console, check)
