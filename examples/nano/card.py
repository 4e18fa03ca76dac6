"""The model card, written from measured scores."""

from __future__ import annotations

import json
from pathlib import Path

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.synthetic import HELD_OUT_PAIRS
from nano.settings import CROP, PATCH, Settings

_CARD = """\
---
library_name: molmopoint
license: apache-2.0
pipeline_tag: image-text-to-text
tags: [pointing, grounding, molmopoint, synthetic]
---

# nano: a MolmoPoint in {megabytes:.0f} MB

A vision-language model that points with grounding tokens, small enough to ship inside the package: {parameters:.1f} million
parameters, bfloat16. It has every part of the large models (global view and tile, connector, message-tree training, patch,
subpatch and location heads, the released prompt layout and file names), and it knows one small world: flat coloured shapes.
Use it to learn the library, to test code and to see points a minute after installing. It is useless on photographs.

```python
import numpy as np
import molmopoint
from molmopoint.data.synthetic import sample_scene

pointer = molmopoint.load("nano")
scene = sample_scene(np.random.default_rng(7))
print(pointer.point(scene.image, "the red circles").points)
```

## What it understands

- colours: {colours}
- shapes: {shapes}
- questions: "the red circles", "every star", "the blue objects" (or things, shapes), "the largest square", "the small
  hearts" (big, large), "the leftmost cross" (rightmost, topmost, lowest), "the circles in the top half" (bottom, left,
  right), "How many red circles are there?", "Count the stars."; other words are spelled out in bytes and mean nothing to it.
- If nothing fits, it answers "There are none."
- never trained, scored apart: {held_out}

## Scores

{num_scenes} unseen scenes of `molmopoint.data.synthetic` (scene i from the seed [{seed}, i]), all questions; a point is right
inside the visible mask of a target of its own; a question without targets counts 1 for an empty answer, else 0.

| questions | number | F1 | precision | recall | exact count |
| --- | --- | --- | --- | --- | --- |
{rows}

Measured with `python examples/evaluate_nano.py` ({versions}; {processor}, {threads} thread{plural}, {seconds:.0f} s).

## How it was made

`examples/train_nano.py`, from nothing, on one core of a shared server processor (bfloat16 matrix products): {vit_steps} steps
of {vit_batch} pictures for the vision transformer with dense labels (colour, shape, size and point of the object at each
patch), then {point_steps} steps of {point_batch} pictures with up to {branches} questions each as a message tree: first
colours, then shapes and pairs, then all kinds. {scenes} drawn scenes, mirrored at random in the first stage; none shows a
held-out pair. All numbers of the recipe are in `examples/nano/settings.py`. {remarks}

## Limits

- Pictures are stretched to {crop} by {crop} pixels ({patch} px patches), one tile beside the global view: objects below about
  a tenth of the short side are guesses, and so are pictures much wider than high.
- It was trained on pictures of 144 to 168 pixels with 3 to 12 objects; several pictures per request, clips and long
  conversations run, but were not trained.
- Scores of points are probabilities of its choices, not calibrated.
- Synthetic data only: no people, no text, no licences to inherit.
"""


def write_card(target: Path, scores_path: Path, settings: Settings, facts: dict) -> None:
    """Writes README.md beside the weights.

    Args:
        target: folder of the weights.
        scores_path: JSON that `evaluate_nano.py --out` wrote.
        settings: of the run.
        facts: vit_steps, point_steps, scenes and remarks of the run.
    """
    report = json.loads(scores_path.read_text())
    rows = [
        f"| {name} | {row['questions']} | {row['f1']:.3f} | {row['precision']:.3f} | {row['recall']:.3f} | {row['exact_count']:.3f} |"
        for name, row in report["scores"].items()
    ]
    weights = (target / "model.safetensors").stat().st_size
    text = _CARD.format(
        megabytes=sum(path.stat().st_size for path in target.iterdir()) / 1e6,
        parameters=weights / 2e6,
        colours=", ".join(COLOURS),
        shapes=", ".join(SHAPES),
        held_out=", ".join(sorted(f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS)),
        num_scenes=report["scenes"],
        seed=report["seed"],
        rows="\n".join(rows),
        versions=", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        processor=report["machine"]["processor"],
        threads=report["machine"]["threads"],
        plural="s" if report["machine"]["threads"] > 1 else "",
        seconds=report["seconds"],
        crop=CROP,
        patch=PATCH,
        vit_batch=settings.vit_batch,
        point_batch=settings.point_batch,
        branches=settings.branches,
        **facts,
    )
    (target / "README.md").write_text(text)
