"""Points in a clip: `python examples/point_in_video.py [clip.mp4]`.

Without a file it draws a clip itself: a red circle that crosses the picture. Reading files needs the extra
`[video]`. The embedded model knows clips of coloured shapes; use a video model of the zoo for more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import molmopoint

FRAMES, SIZE = 6, (320, 180)


def position(frame: int) -> tuple[float, float]:
    """Centre of the circle in pixels."""
    return 40 + 48.0 * frame, 90 + 8.0 * frame


def draw_clip() -> np.ndarray:
    """(6, 180, 320, 3) uint8: a red circle moves to the right, a blue square stays."""
    frames = []
    for frame in range(FRAMES):
        picture = Image.new("RGB", SIZE, (214, 216, 205))
        pen = ImageDraw.Draw(picture)
        pen.rectangle((250, 20, 295, 65), fill=(40, 80, 220))
        pen.circle(position(frame), 24, fill=(220, 40, 40))
        frames.append(np.asarray(picture))
    return np.stack(frames)


def main() -> None:
    """Prints time and place of every point, and writes the frames that have points."""
    parser = argparse.ArgumentParser(description="Points in a clip.")
    parser.add_argument("video", nargs="?", help="a video file")
    parser.add_argument("--phrase", default="the red circle")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--out", type=Path, default=Path("frames"), help="folder for the frames with points")
    arguments = parser.parse_args()

    pointer = molmopoint.load(arguments.model)
    if arguments.video:
        result = pointer.point_video(arguments.video, arguments.phrase)
    else:
        seconds = [frame / 2 for frame in range(FRAMES)]
        result = pointer.point_video(draw_clip(), arguments.phrase, timestamps=seconds, max_new_tokens=256)

    times = result.metadata.timestamps
    print(
        f"{0 if times is None else len(times)} frames, {result.image_sizes[0][0]} x "
        f"{result.image_sizes[0][1]}: {result.prompt!r}"
    )
    for point in result.points:
        x, y = position(round(point.group * 2))
        truth = "" if arguments.video else f"  the circle is at ({x:.0f}, {y:.0f})"
        print(f"  {point.group:5.1f} s  object {point.object_id}  x {point.x:7.1f}  y {point.y:7.1f}{truth}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    drawings = list(result.draw())  # type: ignore[arg-type]  # of a clip it is a list: the frames with points
    for number, drawing in enumerate(drawings):
        drawing.save(arguments.out / f"frame_{number:03d}.png")
    print(f"{len(drawings)} frames with points written to {arguments.out}")


if __name__ == "__main__":
    main()
