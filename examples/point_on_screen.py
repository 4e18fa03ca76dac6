"""One click per instruction on a screen of 1920 by 1080: `python examples/point_on_screen.py`.

The example draws the screen itself: big icons on a desktop, and a small button. Screen benchmarks ask for
exactly one point, which is what `single=True` gives. The embedded model knows coloured shapes and looks at
one crop of 168 pixels, where the whole
screen is squeezed in: it can tell the big icons apart, but the button is two pixels high for it and text is
nothing at all. A model made for screens, such as `--model molmopoint-gui-8b --max-crops 48`, sees both.
"""

from __future__ import annotations

import argparse

from PIL import Image, ImageDraw

import molmopoint

SCREEN = (1920, 1080)
TARGETS = {
    "the red triangle": (160, 160, 460, 440),
    "the blue circle": (800, 170, 1080, 450),
    "the yellow square": (1380, 180, 1640, 440),
    "the green button": (1700, 1000, 1820, 1022),
}
"""Instruction and the box it means: left, top, right, bottom in pixels."""


def draw_screen() -> Image.Image:
    """A desktop with three big icons, a window and a small button in the task bar."""
    picture = Image.new("RGB", SCREEN, (203, 209, 214))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((520, 560, 1400, 900), fill=(246, 246, 244), outline=(120, 124, 130), width=3)
    pen.rectangle((520, 560, 1400, 600), fill=(120, 124, 130))
    pen.rectangle((0, 980, 1920, 1080), fill=(58, 62, 70))
    left, top, right, bottom = TARGETS["the red triangle"]
    pen.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=(220, 40, 40))
    pen.ellipse(TARGETS["the blue circle"], fill=(40, 80, 220))
    pen.rectangle(TARGETS["the yellow square"], fill=(235, 210, 40))
    pen.rectangle(TARGETS["the green button"], fill=(30, 160, 70))
    return picture


def main() -> None:
    """Prints for every instruction where the click goes and whether it hits."""
    parser = argparse.ArgumentParser(description="One click per instruction on a screen.")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--max-crops", type=int, help="more crops see smaller things and take longer")
    parser.add_argument("--out", default="clicks.png", help="where to draw the last click")
    arguments = parser.parse_args()

    pointer = molmopoint.load(arguments.model)
    screen = pointer.encode(draw_screen(), max_crops=arguments.max_crops)
    hits = 0
    for instruction, (left, top, right, bottom) in TARGETS.items():
        result = pointer.point(screen, instruction, single=True, max_new_tokens=64)
        if not result.points:  # the token limit came first; trained models answer in about ten tokens
            print(f"{instruction:18s} no click")
            continue
        click = result.points[0]
        hit = left <= click.x <= right and top <= click.y <= bottom
        hits += hit
        print(
            f"{instruction:18s} ({click.x:6.1f}, {click.y:6.1f})  score {click.score:.2f}  "
            f"{'hit' if hit else 'missed'}"
        )
        result.draw(numbers=False).save(arguments.out)
    print(f"{hits} of {len(TARGETS)} hit; the last click is drawn to {arguments.out}")


if __name__ == "__main__":
    main()
