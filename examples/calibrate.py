"""Fits the calibration of a model on one half of some data and measures it on the other.

`python examples/calibrate.py scenes --model nano` asks about synthetic scenes: scene i from the seed
[20263, i] to fit, from [20264, i] to measure, none of which the model or its scores ever saw.
`python examples/calibrate.py pages --answers runs/screens-scores/screens --data runs/screens-test` reads
answers that `examples/evaluate_screens.py` has kept: pages of even numbers to fit, of odd ones to measure.

`--out DIR` writes `calibration.json` into the folder of a checkpoint, `--card README.md` the tables into its
card, and `--picture FILE` draws the curves.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import molmopoint
from molmopoint.data.synthetic import sample_scene
from molmopoint.metrics import Calibration, ReliabilityCurve, fit_calibration, reliability_curve, right_points
from molmopoint.metrics.lookup import in_box
from molmopoint.metrics.matching import matched_rows

FIT_SEED, FIT_SCENES = 20_263, 600
TEST_SEED, TEST_SCENES = 20_264, 300
BEGIN, END = "<!-- calibration -->", "<!-- end of calibration -->"

CURVE_SIDE = 360
"""Pixels along the sides of the drawn curves."""


class Answered(NamedTuple):
    """Points whose answers were checked.

    Attributes:
        scores: (n,) as the model gives them.
        hits: (n,) whether each is right.
    """

    scores: np.ndarray
    hits: np.ndarray

    @classmethod
    def joined(cls, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> Answered:
        """The points of several answers."""
        scores, hits = zip(*parts, strict=True)
        return cls(np.concatenate(scores), np.concatenate(hits))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("scenes", "pages"))
    parser.add_argument("--model", default="nano", help="of scenes: zoo name, hub id or folder")
    parser.add_argument("--fit-scenes", type=int, default=FIT_SCENES)
    parser.add_argument("--test-scenes", type=int, default=TEST_SCENES)
    parser.add_argument("--answers", type=Path, help="of pages: folder with predictions.jsonl")
    parser.add_argument("--data", type=Path, help="of pages: folder with targets.jsonl")
    parser.add_argument("--out", type=Path, help="folder of the checkpoint")
    parser.add_argument("--card", type=Path, help="model card whose tables are written anew")
    parser.add_argument("--picture", type=Path, help="where the curves are drawn")
    arguments = parser.parse_args()
    if arguments.what == "scenes":
        pointer = molmopoint.load(arguments.model)
        fit = of_scenes(pointer, FIT_SEED, arguments.fit_scenes)
        tests = {"all": of_scenes(pointer, TEST_SEED, arguments.test_scenes)}
        asked = (pointer, TEST_SEED, arguments.test_scenes)
        tests["single=True, things that are there"] = of_scenes(*asked, absent=False, single=True)
        tests["single=True, all questions"] = of_scenes(*asked, single=True)
        about = f"{arguments.fit_scenes} scenes of molmopoint.data.synthetic, seeds [{FIT_SEED}, i]"
    else:
        fit, tests = of_pages(arguments.answers, arguments.data)
        about = "test pages of examples/evaluate_screens.py with even numbers"
    calibration = fit_calibration(*fit, about=about)
    parts = [*tables(calibration, tests), how_measured(arguments, calibration)]
    print("\n\n".join(parts))
    if arguments.out:
        calibration.save(arguments.out)
    if arguments.picture:
        draw_curves(calibration, tests["all"]).save(arguments.picture, optimize=True)
    if arguments.card:
        write_between_marks(arguments.card, parts)


def of_scenes(pointer: Any, seed: int, number: int, *, absent: bool = True, **options: Any) -> Answered:
    """The questions of scenes that are drawn from named seeds, with or without those about absent things."""
    scenes = [sample_scene(np.random.default_rng([seed, i])) for i in range(number)]
    asked = [(scene, query) for scene in scenes for query in scene.queries if query.targets or absent]
    pictures = [scene.image for scene, _ in asked]
    prompts = [query.prompt for _, query in asked]
    answers = pointer.point_batch(pictures, prompts, batch_size=25, **options)
    parts = []
    for (_, query), result in zip(asked, answers, strict=True):
        masks = [target.mask for target in query.targets]
        parts.append((result.points.score, right_points(result.points.xy, masks)))
    return Answered.joined(parts)


def of_pages(answers: Path, data: Path) -> tuple[Answered, dict[str, Answered]]:
    """Answers of an evaluation on drawn pages: those about even pages, and those about odd ones by group."""
    targets = {}
    for row in rows_of(data / "targets.jsonl"):
        targets[f"{row['image']}/{row['prompt']}"] = row
    fit, tests = [], {"all": []}
    for answer in rows_of(answers / "predictions.jsonl"):
        row = targets[answer["item_id"]]
        scores = np.array([point["score"] for point in answer["points"]], dtype=np.float64)
        xy = np.array([(point["x"], point["y"]) for point in answer["points"]]).reshape(-1, 2)
        part = (scores, matched_rows(hits_of(xy, row["boxes"])))
        page = int(re.findall(r"\d+", Path(row["image"]).stem)[-1])
        if page % 2 == 0:
            fit.append(part)
        else:
            tests["all"].append(part)
            tests.setdefault(row["group"], []).append(part)
    return Answered.joined(fit), {name: Answered.joined(parts) for name, parts in tests.items()}


def hits_of(xy: np.ndarray, targets: list[list[tuple[float, float, float, float]]]) -> np.ndarray:
    """(points, targets) bool: whether each point (points, 2) lies in a box of each target."""
    hits = np.zeros((len(xy), len(targets)), dtype=bool)
    for column, boxes in enumerate(targets):
        for box in boxes:
            hits[:, column] |= in_box(xy, box)
    return hits


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSONL file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def tables(calibration: Calibration, tests: dict[str, Answered]) -> Iterator[str]:
    """Calibration errors by group, and the reliability curve of all, before and after."""
    lines = ["| points of | number | right | expected calibration error | calibrated |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, (scores, hits) in tests.items():
        before = reliability_curve(scores, hits).error
        after = reliability_curve(calibration(scores), hits).error
        lines.append(f"| {name} | {len(hits)} | {hits.mean():.3f} | {before:.3f} | {after:.3f} |")
    yield "\n".join(lines)
    scores, hits = tests["all"]
    lines = ["| score | calibrated | right | points |", "| --- | --- | --- | --- |"]
    before = reliability_curve(scores, hits)
    for score, right, count in zip(*before, strict=True):
        lines.append(f"| {score:.3f} | {calibration([score])[0]:.3f} | {right:.3f} | {count} |")
    yield "\n".join(lines)


def how_measured(arguments: argparse.Namespace, calibration: Calibration) -> str:
    """Command, day and data."""
    command = f"scenes --model {arguments.model}"
    if arguments.what == "pages":
        command = "pages --answers runs/screens-scores/screens --data runs/screens-test"
    return (
        f"Fitted on {calibration.points} points ({calibration.about}), measured on others, with\n"
        f"`python examples/calibrate.py {command}`\non "
        f"{datetime.now(UTC):%Y-%m-%d} (molmopoint {molmopoint.__version__}); ten bins with equally many points each."
    )


def draw_curves(calibration: Calibration, test: Answered) -> Image.Image:
    """What is said of points (across) and how often they are right (up): grey before, blue after."""
    scale = 2  # drawn larger, then shrunk: PIL draws lines without antialiasing
    side, edge = CURVE_SIDE * scale, 24 * scale
    paper = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(paper)
    length = side - 2 * edge
    pen.rectangle((edge, edge, edge + length, edge + length), outline=(200, 200, 200), width=scale)
    pen.line((edge, edge + length, edge + length, edge), fill=(200, 200, 200), width=scale)
    font = ImageFont.load_default(size=13 * scale)
    middle = edge + length / 2
    pen.text((middle, side - edge / 2), "what is said: 0 to 1", font=font, fill=(60, 60, 60), anchor="mm")
    pen.text((middle, edge / 2), "right: 0 (below) to 1 (above)", font=font, fill=(60, 60, 60), anchor="mm")
    curves = (
        (reliability_curve(test.scores, test.hits), (130, 130, 130)),
        (reliability_curve(calibration(test.scores), test.hits), (0, 90, 220)),
    )
    for curve, colour in curves:
        places = places_of(curve, edge, length)
        pen.line(places, fill=colour, width=2 * scale)
        for x, y in places:
            pen.ellipse((x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale), fill=colour)
    return paper.resize((CURVE_SIDE, CURVE_SIDE), Image.Resampling.LANCZOS).quantize(32)


def places_of(curve: ReliabilityCurve, edge: int, length: int) -> list[tuple[float, float]]:
    """Where the bins of a curve are drawn, in pixels."""
    return [
        (edge + score * length, edge + (1 - right) * length)
        for score, right in zip(curve.score, curve.right, strict=True)
    ]


def write_between_marks(card: Path, parts: Iterable[str]) -> None:
    """Puts tables between the marks of a card.

    Raises:
        ValueError: the card has no marks.
    """
    text = card.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected {BEGIN} and {END} in {card}, got a card without them")
    card.write_text(before + "\n\n".join([BEGIN, *parts, END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
