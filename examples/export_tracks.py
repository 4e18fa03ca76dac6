"""Tracks in files for other tools: `python examples/export_tracks.py [tracks.csv|.json|.txt] [--fps 25]`.

Without a file it makes tracks of two objects, one of which is hidden for a while. It fills the gaps, writes
all four forms into a folder, reads each back, and says what it kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from molmopoint import Tracks

FORMS = {"csv": "tracks.csv", "json": "tracks.json", "mot": "tracks.txt", "coco": "tracks_coco.json"}


def made_up() -> Tracks:
    """Two objects, looked for twice a second for four seconds; nobody saw the second one between 1 and 3 s."""
    moments = np.arange(9) / 2
    seen = moments[(moments <= 1) | (moments >= 3)]
    return Tracks(
        object_id=np.repeat([1, 2], [len(moments), len(seen)]),
        time=np.concatenate([moments, seen]),
        x=np.concatenate([40 + 60 * moments, 300 - 30 * seen]),
        y=np.concatenate([90 + 5 * moments, 60 + 10 * seen]),
        size=(320, 180),
        fps=25,
        moments=moments,
        labels={1: "the red car", 2: "the bicycle"},
    )


def main() -> None:
    """Writes every form and compares what it reads back."""
    parser = argparse.ArgumentParser(description="Tracks in files for other tools.")
    parser.add_argument("file", nargs="?", help="tracks to convert")
    parser.add_argument("--fps", type=float, default=25.0, help="frames per second of the video")
    parser.add_argument("--out", type=Path, default=Path("exported"), help="folder for the files")
    arguments = parser.parse_args()

    needs_rate = {"fps": arguments.fps} if str(arguments.file).endswith((".txt", ".csv")) else {}
    tracks = Tracks.load(arguments.file, **needs_rate) if arguments.file else made_up()
    filled = tracks.interpolated(arguments.fps)
    hidden = int((~filled.visible).sum())
    print(
        f"{tracks}\n{tracks.num_points} points, {filled.num_points} at {arguments.fps:g} a second, {hidden} "
        "of them out of sight"
    )

    arguments.out.mkdir(parents=True, exist_ok=True)
    for form, name in FORMS.items():
        path = arguments.out / name
        filled.save(path, form)
        again = Tracks.load(path, form, **({"fps": arguments.fps} if form in ("csv", "mot") else {}))
        kept = (
            "everything"
            if again == filled
            else "rows and numbers"
            if np.allclose(again.xy, filled.xy)
            else "something else"
        )
        print(f"  {path}  {path.stat().st_size:7,d} bytes  keeps {kept}")


if __name__ == "__main__":
    main()
