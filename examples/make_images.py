"""Makes the pictures of the README again: `python examples/make_images.py [--out examples/images]`.

Run it after the weights of `nano` or `nano-screens` have changed; `shapes.png` and `screen.png` do not depend
on them. `--browser` also draws `screen.png` anew from `screen.html`, which needs the extra `[screens]` and
Chromium; fonts differ from one machine to the next, so it is only done when it is asked for.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import molmopoint
from molmopoint.data.synthetic import sample_scene
from molmopoint.drawing import colour_of, draw_points
from molmopoint.files import open_picture
from molmopoint.points import Point

IMAGES = Path(__file__).parent / "images"

SEED = (28069, 88)
"""A scene with two red circles, and with other red things and other circles beside them."""

ENLARGED = 3
"""Scenes are about 150 pixels wide, which is little for people; for the model smooth enlarging changes
nothing.
"""

PROMPT = "the red circles"

SCREEN_SIZE = (600, 336)
"""Of the window; the picture has two pixels for each of its own."""

SCREEN_CROPS = 2
"""`nano-screens` learned pages with one pixel for each of the window: two crops of 336 see this one so."""

SCREEN_TARGETS = {
    "the search icon": [(936, 16, 1000, 80)],
    "the checked checkboxes": [(798, 230, 830, 262), (798, 372, 830, 404)],
    "the empty checkbox": [(798, 301, 830, 333)],
    "the trash icon next to Clover": [(634, 349, 698, 413)],
    "the red button": [(798, 440, 925, 507)],
    "the export button": [(202, 545, 343, 612)],
}
"""Questions about `screen.png`, and the boxes that they mean: left, top, right, bottom in pixels."""

PANEL = 470
"""Width of the list of questions beside the screen, in pixels."""

RING, BADGE_SHIFT = 27, 23
"""Radius of the rings around points, and how far to the right and above the number stands, in pixels."""

SMOOTH = 4
"""Rings are drawn this much larger and shrunk, because PIL draws without antialiasing."""

DARK, LIGHT = (20, 20, 24), (255, 255, 255)


def draw_shapes() -> Image.Image:
    """The picture of shapes without points."""
    scene = sample_scene(np.random.default_rng(SEED)).image
    return scene.resize((scene.width * ENLARGED, scene.height * ENLARGED), Image.Resampling.BICUBIC)


def point_at_shapes(folder: Path, model: str) -> None:
    """Writes shapes.png, shapes_points.png and shapes_heatmap.png."""
    picture = draw_shapes()
    result = molmopoint.load(model).point(picture, PROMPT, max_new_tokens=256)
    write(picture, folder / "shapes.png")
    for name, heatmap in (("shapes_points", False), ("shapes_heatmap", True)):
        path = folder / f"{name}.png"
        result.draw(path, heatmap=heatmap)
        print(path)
    print(result)


def draw_screen(path: Path) -> None:
    """Draws screen.html with Chromium, without its frame."""
    from molmopoint.screens import Browser, View

    with Browser() as browser:
        browser.open((IMAGES / "screen.html").as_uri())
        screen = browser.look(View(*SCREEN_SIZE, ratio=2))
    assert screen.pixels is not None  # `look` always takes the picture
    write(Image.fromarray(screen.pixels), path)


def answer_screen(model: str) -> list[Point]:
    """What the model answers to every question about the screen; the object id is the number of the question."""
    questions = list(SCREEN_TARGETS)
    pointer = molmopoint.load(model)
    results = pointer.point(IMAGES / "screen.png", questions, max_crops=SCREEN_CROPS)
    answers = []
    for number, result in enumerate(results, 1):
        for point in result:
            answers.append(Point(number, point.group, point.x, point.y, point.score, questions[number - 1]))
    return answers


def point_at_screen(folder: Path, model: str) -> None:
    """Writes screen_points.png: the screen with all answers, and the questions beside it."""
    answers = answer_screen(model)
    with open_picture(IMAGES / "screen.png") as screen:
        page = Image.new("RGB", (screen.width + PANEL, screen.height), DARK)
        page.paste(screen, (0, 0))
        left = screen.width + 44

    # Rings leave what is pointed at in sight; the number sits on the ring.
    page = draw_rings(page, answers)
    badges = [replace(point, x=point.x + BADGE_SHIFT, y=point.y - BADGE_SHIFT) for point in answers]
    step = page.height // (len(SCREEN_TARGETS) + 1)
    for number in range(1, len(SCREEN_TARGETS) + 1):
        badges.append(Point(number, 0, left, number * step))
    page = draw_points(page, badges, radius=15)

    font = ImageFont.load_default(size=27)
    pen = ImageDraw.Draw(page)
    for number, question in enumerate(SCREEN_TARGETS, 1):
        pen.text((left + 36, number * step), question, font=font, fill=LIGHT, anchor="lm")
    write(page, folder / "screen_points.png")
    for point in answers:
        print(f"{point.label:32s} ({point.x:6.1f}, {point.y:6.1f})  score {point.score:.2f}")


def draw_rings(page: Image.Image, points: list[Point]) -> Image.Image:
    """A coloured ring in a white one around every point."""
    large = Image.new("RGBA", (page.width * SMOOTH, page.height * SMOOTH), (*LIGHT, 0))
    pen = ImageDraw.Draw(large)
    for point in points:
        middle = (point.x * SMOOTH, point.y * SMOOTH)
        pen.circle(middle, (RING + 3) * SMOOTH, outline=LIGHT, width=11 * SMOOTH)
        pen.circle(middle, RING * SMOOTH, outline=colour_of(point.object_id), width=5 * SMOOTH)
    rings = large.resize(page.size, Image.Resampling.LANCZOS)
    page.paste(rings, (0, 0), rings)
    return page


def write(picture: Image.Image, path: Path) -> None:
    """Writes a picture as small as PNG can, and says so."""
    picture.save(path, optimize=True)
    print(f"{path}  {picture.width} x {picture.height}")


def main() -> None:
    """Writes the pictures of shapes and of a screen."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the README again.")
    parser.add_argument("--model", default="nano", help="of the shapes: zoo name, hub id or folder")
    parser.add_argument("--screen-model", default="nano-screens", help="of the screen: the same")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures")
    parser.add_argument("--browser", action="store_true", help="also draw screen.png anew")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    point_at_shapes(arguments.out, arguments.model)
    if arguments.browser:
        draw_screen(arguments.out / "screen.png")
    point_at_screen(arguments.out, arguments.screen_model)


if __name__ == "__main__":
    main()
