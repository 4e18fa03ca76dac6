"""Style tags in front of prompts, as published.

Pre-training writes no sentences: `pointing: boats`, `long_caption 61:`. Behind the tag of a text stands how long its answer is, so
that the length can be chosen. Fine-tuning writes a tag only where its style is none of the everyday ones.
"""

from __future__ import annotations

import numpy as np

from molmopoint.data.records import TRACK_STYLES, Record
from molmopoint.processing.track_requests import tagged

UNTAGGED = frozenset({
    "a_okvqa_mc", "ai2_diagram", "ai2_diagram_no_letter", "correction_qa", "cosyn_point", "demo", "long_caption", "mantis_instruct_mc",
    "multi_image_mc", "multi_image_mc_exp", "science_qa", "short_caption", "text_sft", "user_qa", "video_clip_caption_start_end",
    "video_clip_caption_start_end_in_seconds", "video_clip_transcript_start_end", "video_clip_transcript_start_end_in_seconds",
    "video_frame_caption_timestamp", "video_frame_caption_timestamp_in_seconds", "video_long_caption", "video_multiple_choice",
    "video_multiple_choice_count_without_pointing", "video_multiple_choice_multiple_correct", "video_multiple_choice_w_subtitle",
    "video_short_caption", "video_transcript",
})  # fmt: skip
"""Styles of text rows that fine-tuning leaves out of the prompt. Source: chat template of the released models."""

_NUMBER_LEFT_OUT, _NOISE, _CHARACTERS = 0.1, 25.0, 15
_WITHOUT_LENGTH = frozenset({"text_sft"})

_POINT_TAGS = {
    "image": {"pointing": "pointing", "point_count": "point_count", "count_then_point": "count_then_point", "count": "only_count"},
    "images": {
        "pointing": "multi_image_pointing",
        "point_count": "multi_image_point_then_count",
        "count_then_point": "multi_image_count_then_point",
        "count": "multi_image_counting",
    },
    "video": {
        "pointing": "video_point",
        "point_count": "video_point_count",
        "count_then_point": "video_count_point",
        "count": "video_count",
    },
}


def tagged_points(record: Record, style: str, request: str) -> str:
    """A pre-training request for points: `style: label`, or the row's own prompt behind the tag of questions."""
    if style in TRACK_STYLES:
        return tagged(style, request)
    medium = "video" if record.video is not None else "images" if len(record.images) > 1 else "image"
    if medium == "image" and style == "pointing" and record.prompt is not None:
        return f"cosyn_point: {request}"
    return f"{_POINT_TAGS[medium][style]}: {request}"


def tagged_text(record: Record, rng: np.random.Generator) -> str:
    """A pre-training request for text: style, length of the answer, and the question if there is one.

    The length is its characters, with noise of 25, in units of 15; one request in ten goes without.

    Source: public training code, "style_and_length_v2".
    """
    style = record.style or _text_style(record)
    answer = record.answer or record.caption or ""
    length = (len(answer) + int(rng.normal(scale=_NOISE))) // _CHARACTERS
    numbered = style not in _WITHOUT_LENGTH and rng.random() >= _NUMBER_LEFT_OUT
    tag = f"{style} {length}:" if numbered else f"{style}:"
    return f"{tag} {record.prompt}" if record.prompt else tag


def tagged_prompt(record: Record, prompt: str) -> str:
    """A fine-tuning request for text: the prompt, behind the row's style unless that is an everyday one."""
    return prompt if record.style is None or record.style in UNTAGGED else f"{record.style}: {prompt}"


def _text_style(record: Record) -> str:
    """Published name of what a row without style is."""
    if record.caption is not None:
        return "long_caption" if record.video is None else "video_long_caption"
    return "user_qa" if any(record.visual) else "text_sft"
