"""Sentences that ask for points, by task, and the drawing of one.

A template has `{label}`, and may have `{medium}` (image or video), `{images}` (which of several pictures) and
`{rate}` (points per second of a track); requests to follow one object have `{points}` instead: the label and
where it is. The wording is our own; how many there are of each kind, and how styles are mixed, follows the
published training: a model that met one sentence only fails at the second.

Style tags in front of prompts, as published.

Pre-training writes no sentences: `pointing: boats`, `long_caption 61:`. Behind the tag of a text stands how
long its answer is, so that the length can be chosen. Fine-tuning writes a tag only where its style is none of
the everyday ones.

Finds questions that a model which counts by pointing would answer with points, though their answers have
none.

Such a question of a plain question-answering set gets one of many short requests not to point in front, so
that the model learns to point when it is not told otherwise. The rule finds most of them and some others, on
purpose.

Source: the public training code, reworded.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from molmopoint.data.records import TRACK_STYLES, Record
from molmopoint.errors import ProcessingError
from molmopoint.processing.text_points import tagged

NO_POINTS_PLEASE = (
    "No points please.",
    "no points please",
    "No pointing.",
    "no pointing please",
    "Please do not point.",
    "Please don't point.",
    "please dont point",
    "Do not point.",
    "Don't point.",
    "dont point",
    "Don't point to anything.",
    "Do not use points.",
    "Don't use points.",
    "dont use points",
    "Do not give points.",
    "Don't output points.",
    "Don't show me points.",
    "Answer without points.",
    "Answer without pointing.",
    "answer without pointing",
    "Without pointing:",
    "without points:",
    "No points needed.",
    "No need to point.",
    "no need to point",
    "You need not point.",
    "You do not have to point.",
    "Points are not needed.",
    "Just answer, no points.",
    "Just the answer, no pointing.",
    "Skip the points.",
    "no piont please",
)
"""As many as published, with slips of the pen among them."""

_AMOUNTS = (
    r"times?|seconds?|minutes?|hours?|days?|weeks?|months?|years?|(?:kilo|centi|milli)?met(?:er|re)s?|feet|inches|miles?|acres?|"
    r"dollars?|euros?|cents?|pounds?|knots?|mph|lit(?:er|re)s?|gallons?|(?:kilo)?grams?|tons?|ounces?|calories|degrees?|percent|watts?|"
    r"(?:kilo|mega|giga|tera)?bytes?|more|fewer|less|ways?"
)
"""Words after "how many" that name an amount rather than things in a picture."""

_COUNTING = re.compile(
    rf"\bhow\s?many\s+(?!(?:{_AMOUNTS})\b)"
    r"|(?<!do not )(?<!don't )\b(?:count|tally)\s+(?:all|every|each|the)\b"
    r"|\b(?:there are|a total of)\s+_{3,4}"
    r"|\b(?:what\s+(?:is|was|were)|what's|states?|indicates?)\s+(?:the\s+)?(?:exact\s+|precise\s+)?(?:count|total|number|amount)\b[^.?!]*?\bof\s+"
    rf"(?!(?:{_AMOUNTS})\b)",
    re.IGNORECASE,
)


def asks_to_count(question: str) -> bool:
    """Whether a question could be read as a request to count things.

    >>> asks_to_count("How many ducks are there?"), asks_to_count("How many minutes does it take?")
    (True, False)
    """
    return not question.lower().startswith("approximately") and _COUNTING.search(question) is not None


def without_points(question: str, rng: np.random.Generator) -> str:
    """The question, with a request not to point in front if it asks to count."""
    if not asks_to_count(question):
        return question
    return f"{NO_POINTS_PLEASE[int(rng.integers(len(NO_POINTS_PLEASE)))]} {question}"


UNTAGGED = frozenset({
    "a_okvqa_mc", "ai2_diagram", "ai2_diagram_no_letter", "correction_qa", "cosyn_point", "demo", "long_caption", "mantis_instruct_mc",
    "multi_image_mc", "multi_image_mc_exp", "science_qa", "short_caption", "text_sft", "user_qa", "video_clip_caption_start_end",
    "video_clip_caption_start_end_in_seconds", "video_clip_transcript_start_end", "video_clip_transcript_start_end_in_seconds",
    "video_frame_caption_timestamp", "video_frame_caption_timestamp_in_seconds", "video_long_caption", "video_multiple_choice",
    "video_multiple_choice_count_without_pointing", "video_multiple_choice_multiple_correct", "video_multiple_choice_w_subtitle",
    "video_short_caption", "video_transcript",
})  # fmt: skip
"""Styles of text rows that fine-tuning leaves out of the prompt. Source: chat template of the released
models.
"""

_NUMBER_LEFT_OUT, _NOISE, _CHARACTERS = 0.1, 25.0, 15
_WITHOUT_LENGTH = frozenset({"text_sft"})

_POINT_TAGS = {
    "image": {
        "pointing": "pointing",
        "point_count": "point_count",
        "count_then_point": "count_then_point",
        "count": "only_count",
    },
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


Task = Literal["pointing", "point_count", "count_then_point", "count", "track"]

POINTING = (
    "Point to {label}",
    "Point at {label}",
    "Point to {label}.",
    "Point to all {label}",
    "Point to every {label}",
    "Point out {label}",
    "Point out all {label} you can see",
    "Point to {label} in the {medium}",
    "Point to all {label} in this {medium}.",
    "Please point to {label}",
    "Please point at all {label} in the {medium}.",
    "Can you point to {label}?",
    "Could you point out {label} in the {medium}?",
    "Point to {label}. If the {medium} shows none, say \"There are none.\"",
    "Find {label}",
    "Find all {label}",
    "Find every {label} in the {medium}",
    "Find the {label} in this {medium}.",
    "Please find {label} and point to them",
    "Can you find {label}?",
    "Locate {label}",
    "Locate all {label}",
    "Locate every {label} in the {medium}.",
    "Locate {label} with points",
    "Please locate {label} in this {medium}",
    "Where are {label}?",
    "Where are the {label}?",
    "Where is {label}?",
    "Where in the {medium} are {label}?",
    "Where can I see {label} in this {medium}?",
    "Show me {label}",
    "Show me where {label} are",
    "Show me all {label} in the {medium}.",
    "Show {label} with points",
    "Mark {label}",
    "Mark every {label} in the {medium}",
    "Mark the position of {label}",
    "Give the positions of {label}",
    "Give a point for each of the {label}",
    "Indicate {label} in the {medium}",
    "I am looking for {label}. Point to them.",
    "{label}: where are they in the {medium}?",
    "points for {label}",
)  # fmt: skip

POINT_COUNT = (
    "How many {label} are there?",
    "How many {label}?",
    "how many {label} are there",
    "How many {label} are in the {medium}?",
    "How many {label} are in this {medium}?",
    "How many {label} do you see?",
    "How many {label} can you see in the {medium}?",
    "How many {label} can be seen?",
    "How many {label} are visible?",
    "How many {label} are visible in this {medium}?",
    "How many {label} does the {medium} show?",
    "How many {label} does this {medium} contain?",
    "How many {label} are shown?",
    "How many {label} appear in the {medium}?",
    "How many {label} can you find?",
    "How many {label} can you point to?",
    "How many {label} are there in total?",
    "How many {label} are there in this {medium}? Point to each.",
    "How many {label} are there? Point to them.",
    "How many {label}? Show each with a point.",
    "Count {label}",
    "Count the {label}",
    "Count the {label}.",
    "Count all {label}",
    "Count every {label} in the {medium}",
    "Count the {label} in the {medium}",
    "Count the {label} in this {medium}.",
    "Count all {label} you can see.",
    "Count the visible {label}.",
    "Count {label} by pointing",
    "Count the {label} by pointing to each",
    "Count and point to {label}",
    "Please count the {label}",
    "Please count all {label} in the {medium}.",
    "Please count {label} by pointing.",
    "Can you count the {label}?",
    "Can you count all {label} in this {medium}?",
    "Could you count {label} for me?",
    "Could you tell me how many {label} there are?",
    "Can you tell me how many {label} the {medium} shows?",
    "Tell me how many {label} there are.",
    "Tell me how many {label} you see",
    "Tell me the number of {label}",
    "Give me the number of {label} in the {medium}.",
    "Give the total number of {label}",
    "Give a count of {label}.",
    "What is the number of {label}?",
    "What is the number of {label} in this {medium}?",
    "What is the total number of {label}?",
    "What is the count of {label} in the {medium}?",
    "State the number of {label}",
    "Find the number of {label}.",
    "Determine how many {label} are present",
    "Point to {label} and give the total",
    "Point to all {label} and say how many there are.",
    "Point to each of the {label}, then give their number.",
    "Point to the {label} in the {medium} and count them",
    "Find all {label} and count them.",
    "Locate {label} and give the total number",
    "number of {label}",
)  # fmt: skip

COUNT_THEN_POINT = (
    "Count the {label}, then point to them",
    "Count {label} first, then point to each.",
    "How many {label} are in the {medium}? Give the number first, then point to them.",
    "Say how many {label} there are, then point to each",
    "First the number of {label}, then a point for each.",
    "Give the number of {label} and then point to all of them.",
)

COUNT = (
    "Count {label} without pointing",
    "How many {label} are there? Answer with a number only.",
    "How many {label} are in the {medium}? Just the number.",
    "Give only the number of {label}.",
    "State the number of {label}, nothing else.",
    "Only count the {label}; do not point.",
)

SEVERAL_POINTING = (
    "Point to {label} in {images}",
    "Point at {label} in {images}.",
    "Point to all {label} in {images}",
    "Point out every {label} in {images}.",
    "Find {label} in {images}",
    "Find all {label} in {images}.",
    "Locate {label} in {images}",
    "Where are {label} in {images}?",
    "In {images}, point to {label}",
    "Show me {label} in {images}.",
    "Mark {label} in {images}",
)

SEVERAL_POINT_COUNT = (
    "How many {label} are in {images}?",
    "How many {label} are there in {images}?",
    "How many {label} can you see in {images}?",
    "How many {label} are visible in {images}?",
    "How many {label} does one find in {images}?",
    "In {images}, how many {label} are there?",
    "Count {label} in {images}",
    "Count the {label} in {images}.",
    "Count all {label} in {images}.",
    "Count the {label} in {images} by pointing.",
    "Point to {label} in {images} and give the total",
    "Tell me how many {label} are in {images}.",
    "Give the number of {label} in {images}",
    "What is the number of {label} in {images}?",
)

SEVERAL_COUNT_THEN_POINT = (
    "Count {label} in {images}, then point to them",
    "Count the {label} in {images} first, then point to each.",
    "How many {label} are in {images}? The number first, then the points.",
    "Say how many {label} are in {images}, then point to them.",
    "Give the number of {label} in {images}, then point to each.",
    "First count {label} in {images}, then show where they are.",
    "In {images}, count {label}, then point to them.",
    "The number of {label} in {images}, then a point for each.",
    "State how many {label} there are in {images} and then point to all.",
)

SEVERAL_COUNT = (
    "How many {label} are in {images}? Answer with a number only.",
    "How many {label} are there in {images}? Just the number.",
    "Give only the number of {label} in {images}.",
    "Count {label} in {images} without pointing",
    "State the number of {label} in {images}, nothing else.",
    "In {images}, how many {label} are there? Number only.",
    "Only count the {label} in {images}; do not point.",
    "The number of {label} in {images}, as a number",
    "Total of {label} in {images}? Only the number.",
)

TRACK_AT_RATE = (
    "Track {label} at {rate} FPS",
    "Track {label} at {rate} frames per second.",
    "Track the {label} in the video at {rate} FPS.",
    "Track every {label} at {rate} FPS",
    "Follow {label} at {rate} FPS",
    "Follow {label} through the video at {rate} FPS.",
    "Please track {label}, {rate} points per second.",
    "Point to {label} over time, {rate} times per second",
    "Can you track {label} at {rate} FPS?",
    "Give the tracks of {label} at {rate} FPS. Each object keeps its number.",
)

TRACK = (
    "Track {label}",
    "Track {label}.",
    "Track the {label} in the video",
    "Track every {label} through the video.",
    "Follow {label}",
    "Follow {label} over time",
    "Please track {label}",
    "Can you track {label}?",
)

TRACK_START_END = (
    "Point to {label} where each first appears and where it is last seen",
    "Give the first and the last position of each of {label}.",
    "Where do {label} first appear, and where are they last seen?",
    "Show the start and the end of the track of {label}",
    "Mark where {label} can be seen first and last.",
    "Find the first and last visible position of {label} in the video.",
    "First and last position of {label}, with the number of each object",
)

TRACK_FROM_POINT_AT_RATE = (
    "Track {points} at {rate} FPS",
    "Track {points} at {rate} FPS.",
    "Follow {points} at {rate} frames per second.",
    "Follow the object at {points}, {rate} points per second.",
    "Here is an object: {points}. Track it at {rate} FPS.",
    "Starting from {points}, track the object at {rate} FPS.",
)

TRACK_FROM_POINT = (
    "Track {points}",
    "Track the object at {points}.",
    "Follow {points} through the video",
    "Here is an object: {points}. Where does it go?",
    "Starting from {points}, track the object.",
    "Where does {points} move from here on?",
)

PICTURE_CAPTION = (
    "Describe this image.",
    "Describe the image in detail.",
    "What does this image show?",
    "Write a caption for this image",
    "Tell me what you see in this image.",
)

SEVERAL_CAPTION = (
    "Describe these images.",
    "What do these images show?",
    "Write one caption for these images",
)

VIDEO_CAPTION = (
    "Describe this video.",
    "What happens in this video?",
    "Write a caption for this video",
    "Tell me what this video shows.",
)

_ONE_INPUT = {
    "pointing": POINTING,
    "point_count": POINT_COUNT,
    "count_then_point": COUNT_THEN_POINT,
    "count": COUNT,
}
_SEVERAL = {
    "pointing": SEVERAL_POINTING,
    "point_count": SEVERAL_POINT_COUNT,
    "count_then_point": SEVERAL_COUNT_THEN_POINT,
    "count": SEVERAL_COUNT,
}


def draw_prompt(
    task: Task, label: str, rng: np.random.Generator, *, medium: Literal["image", "video"] = "image"
) -> str:
    """A request for the points of `label` in one picture or clip.

    Raises:
        ProcessingError: an unknown task; tracks have `draw_track_prompt`.
    """
    return _fill(_draw(_templates(_ONE_INPUT, task), rng), label, medium=medium)


def draw_prompt_for_several(task: Task, label: str, images: str, rng: np.random.Generator) -> str:
    """A request for the points of `label` in some of several pictures.

    Args:
        task: as in `draw_prompt`.
        label: what to point at.
        images: which pictures, as `name_images` writes it.
        rng: draws the template.
    """
    return _fill(_draw(_templates(_SEVERAL, task), rng), label, images=images)


def draw_track_prompt(label: str, rate: int | None, rng: np.random.Generator) -> str:
    """A request for tracks, with points per second or without.

    A rate of 2 is the usual one and is left out half of the time.

    Source: public training code of the released model.
    """
    if rate is None or (rate == 2 and rng.random() < 0.5):
        return _fill(_draw(TRACK, rng), label)
    return _fill(_draw(TRACK_AT_RATE, rng), label, rate=str(rate))


def draw_start_end_prompt(label: str, rng: np.random.Generator) -> str:
    """A request for the first and the last point of each object."""
    return _fill(_draw(TRACK_START_END, rng), label)


def draw_from_point_prompt(points: str, rate: int | None, rng: np.random.Generator) -> str:
    """A request to follow one object from a point that is written in the request; the rate as in
    `draw_track_prompt`.
    """
    if rate is None or (rate == 2 and rng.random() < 0.5):
        return _draw(TRACK_FROM_POINT, rng).replace("{points}", points)
    return _draw(TRACK_FROM_POINT_AT_RATE, rng).replace("{rate}", str(rate)).replace("{points}", points)


def draw_caption_prompt(num_images: int, rng: np.random.Generator) -> str:
    """A request to describe `num_images` pictures, or a clip where there are none."""
    kinds = {0: VIDEO_CAPTION, 1: PICTURE_CAPTION}
    return _draw(kinds.get(num_images, SEVERAL_CAPTION), rng)


def name_images(chosen: list[int], num_images: int) -> str:
    """Pictures as a prompt names them, from 1: "image_1, image_3", or all of them.

    >>> name_images([0, 2], 3), name_images([0, 1], 2)
    ('image_1, image_3', 'all images')
    """
    return "all images" if len(chosen) == num_images else ", ".join(f"image_{i + 1}" for i in chosen)


def _templates(tables: dict[str, tuple[str, ...]], task: str) -> tuple[str, ...]:
    if task not in tables:
        raise ProcessingError(f"expected one of the tasks {', '.join(tables)}, got {task!r}")
    return tables[task]


def _draw(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]


def _fill(template: str, label: str, **words: str) -> str:
    """Puts the words in, the label last and untouched: braces in it mean nothing."""
    for name, word in words.items():
        template = template.replace(f"{{{name}}}", word)
    return template.replace("{label}", label)
