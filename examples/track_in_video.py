"""Tracks objects in a clip: `python examples/track_in_video.py [clip.mp4] [phrase]`.

Without a file it draws a clip of moving shapes, tracks what one of its questions names with the embedded
model, and compares with where the shapes are. It writes `tracked.mp4` (which needs the extra `[video]`) and a
strip of all moments, `tracked_strip.png`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import molmopoint
from molmopoint.data.clips import SyntheticClip, sample_clip
from molmopoint.pipeline import TrackingResult

SEED = 6


def draw_clip() -> tuple[SyntheticClip, int]:
    """A clip of four seconds, and the number of its question that asks to track the most objects."""
    clip = sample_clip(np.random.default_rng(SEED))
    tracked = [i for i, query in enumerate(clip.queries) if query.style != "pointing"]
    return clip, max(tracked, key=lambda i: len(clip.queries[i].targets))


def compare(result: TrackingResult, clip: SyntheticClip, number: int) -> None:
    """Prints how far every point is from the nearest object that was asked for."""
    targets = clip.queries[number].targets
    for track in result.tracks:
        for point in track:
            frame = int(np.abs(clip.timestamps - point.time).argmin())
            away = min(
                (float(np.hypot(*(target.xy[frame] - (point.x, point.y)))) for target in targets),
                default=np.inf,
            )
            print(
                f"  {point.time:4.1f} s  object {point.object_id}  x {point.x:6.1f}  y {point.y:6.1f}  "
                f"{away:5.1f} pixels from the truth"
            )


def main() -> None:
    """Prints the tracks and draws them."""
    parser = argparse.ArgumentParser(description="Tracks objects in a clip.")
    parser.add_argument("video", nargs="?", help="a video file")
    parser.add_argument("phrase", nargs="?", default="the moving objects")
    parser.add_argument("--fps", type=int, default=2, help="points per second to ask for")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--out", type=Path, default=Path("tracked.mp4"), help="annotated video")
    parser.add_argument(
        "--strip", type=Path, default=Path("tracked_strip.png"), help="picture of the moments"
    )
    arguments = parser.parse_args()

    pointer = molmopoint.load(arguments.model)
    if arguments.video:
        result = pointer.track(arguments.video, arguments.phrase, fps=arguments.fps)
    else:
        clip, number = draw_clip()
        phrase = clip.queries[number].prompt
        result = pointer.track(
            clip.frames, phrase, timestamps=clip.timestamps.tolist(), fps=arguments.fps, max_new_tokens=512
        )
    print(f"{result.prompt!r} -> {result.text!r}")
    print(result.tracks)
    if not arguments.video:
        compare(result, clip, number)
    if not result.tracks:
        print("  no tracks; that is an answer, too")

    result.contact_sheet(cells=8, columns=4, width=240).save(arguments.strip)
    result.draw(arguments.out)
    print(f"drawn to {arguments.out} and {arguments.strip}: look whether every number stays on its object")


if __name__ == "__main__":
    main()
