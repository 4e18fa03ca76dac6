"""Made rows in the layouts of data sets on the hub, and a folder with what they name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from PIL import Image

ADDRESS = "http://x/a.jpg"

HUB_SETS: dict[str, list[dict[str, Any]]] = {
    "pixmo_count": [
        {
            "image_url": ADDRESS,
            "image_sha256": "aa",
            "label": "cups",
            "count": 2,
            "points": {"x": [10.0, 30.0], "y": [20.0, 5.5]},
        },
        {
            "image_url": ADDRESS,
            "image_sha256": "bb",
            "label": "dogs",
            "count": 0,
            "points": {"x": [], "y": []},
        },
    ],
    "cosyn_point": [
        {
            "id": "chart-1",
            "image": None,
            "questions": ["Which bar is highest?", "Where is the legend?"],
            "answer_points": [[{"x": 12.5, "y": 80.0}], []],
            "names": ["Highest bar", "Legend"],
        }
    ],
    "pixmo_cap": [
        {
            "image_url": ADDRESS,
            "caption": "A cup on a table.",
            "transcripts": ["so there is a cup", "a table with a cup"],
        }
    ],
    "multi_image_point": [
        {
            "image_sha256s": ["aa", "bb"],
            "labels": ["Cups", "cups"],
            "points": [[{"x": 10.0, "y": 1.0}], [{"x": 20.0, "y": 2.0}, {"x": 30.0, "y": 3.0}]],
            "counts": [1, 2],
        },
        {
            "image_sha256s": ["aa", "bb"],
            "labels": ["dogs", "dogs"],
            "points": [[], []],
            "counts": [0, 0],
        },
    ],
    "video_point": [
        {
            "video_id": "abc",
            "video_source": "youtube",
            "label": "cyclists",
            "question": "How many cyclists are there?",
            "count": 3,
            "points": [[{"x": 20.0, "y": 55.0}], [{"x": 64.0, "y": 51.0}, {"x": 8.0, "y": 60.0}]],
            "two_fps_timestamps": [0.5, 3.0],
            "clip_start": 0.0,
            "clip_end": 8.0,
            "video_duration": 8.2,
            "annotator_unsure": False,
        },
        {
            "video_id": "abc",
            "video_source": "youtube",
            "label": None,
            "question": "Where does the dog jump?",
            "count": 0,
            "points": [],
            "two_fps_timestamps": [],
            "clip_start": None,
            "clip_end": None,
            "video_duration": 8.2,
            "annotator_unsure": None,
        },
    ],
    "video_track": [
        {
            "clip": "pond/abc",
            "exp": "the ducks",
            "fps": 4.0,
            "n_frames": 5,
            "mask_id": ["7", "9"],
            "points": [
                {"object_id": "7", "points": [[10.0, 1.0], [11.0, 1.0], [12.0, 1.0], [0.0, 0.0], [0.0, 0.0]]},
                {
                    "object_id": "9",
                    "points": [[50.0, 2.0], [51.0, 2.0], [52.0, 2.0], [53.0, 2.0], [54.0, 2.0]],
                },
                {"object_id": "8", "points": [[90.0, 3.0]]},
            ],
            "segments": [{"object_id": "9", "segments": [[2, 4]]}],
        }
    ],
    "molmoweb_ground": [
        {
            "image": "1.png",
            "metadata": {"website": "shop", "url": "http://x", "image_w": 1280, "image_h": 720},
            "messages": [
                {
                    "question": "Open the cart",
                    "thought": "The cart is in the corner.",
                    "answer": json.dumps({"thought": "", "action": {"name": "click", "x": 71.1, "y": 3.1}}),
                    "bbox": "[70, 2, 72, 4]",
                }
            ],
        }
    ],
}
"""Rows by the format that reads them."""


def hub_folder(folder: Path) -> Path:
    """Makes a folder with the pictures and, empty, the clip that the rows name."""
    folder.mkdir()
    for name in (
        "aa.jpg",
        "bb.png",
        "chart-1.png",
        "1.png",
        f"{hashlib.sha256(ADDRESS.encode()).hexdigest()}.jpg",
    ):
        Image.new("RGB", (40, 30)).save(folder / name)
    (folder / "abc.mp4").touch()
    return folder
