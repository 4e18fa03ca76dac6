"""The embedded model of screens points at what stands on a page that no browser drew."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw, ImageFont

import molmopoint

SAVE, CANCEL, EMAIL = (20, 40, 90, 76), (110, 40, 190, 76), (20, 120, 316, 152)


@pytest.fixture(scope="module")
def pointer() -> molmopoint.Pointer:
    return molmopoint.load("nano-screens")


@pytest.fixture(scope="module")
def page() -> Image.Image:
    """Two buttons and a field with its name above."""
    picture = Image.new("RGB", (336, 336), "white")
    pen, letters = ImageDraw.Draw(picture), ImageFont.load_default(16)
    for name, box, colour in (("Save", SAVE, "#0d6efd"), ("Cancel", CANCEL, "#dc3545")):
        pen.rounded_rectangle(box, 5, fill=colour)
        pen.text(
            ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), name, fill="white", font=letters, anchor="mm"
        )
    pen.text((20, 100), "Email", fill="#222", font=letters)
    pen.rounded_rectangle(EMAIL, 4, outline="#999")
    return picture


@pytest.mark.parametrize(
    ("asked", "boxes"),
    [
        ("the buttons", [SAVE, CANCEL]),
        ("the blue button", [SAVE]),
        ("the Save button", [SAVE]),
        ("the button that says Cancel", [CANCEL]),
        ("the text field", [EMAIL]),
        ("the Email field", [EMAIL]),
    ],
)
def test_kinds_colours_and_words_are_found(
    pointer: molmopoint.Pointer, page: Image.Image, asked: str, boxes: list
):
    points = pointer.point(page, asked).points
    assert len(points) == len(boxes)
    for point, (left, top, right, bottom) in zip(points, boxes, strict=True):
        assert left <= point.x <= right and top <= point.y <= bottom
