"""After every few stages: weights in 16 bit and all files of the released layout, ready for
`molmopoint.load`; and the model card.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from molmopoint.data.drawing import COLOURS, SHAPES
from molmopoint.data.synthetic import HELD_OUT_PAIRS
from molmopoint.files import filled_whole
from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.files import nano_config, write_files
from nano.form_training import Sight
from nano.loop import load_checkpoint
from nano.pointing import build_model
from nano.settings import CROP, PATCH, Settings


def release(
    folder: Path, start: Path, target: Path, settings: Settings, tokenizer: PreTrainedTokenizerFast
) -> dict:
    """Writes the model of the latest stage in `folder` to `target`; returns the progress of its training.

    The weights are stored in bfloat16. Files appear whole or not at all, and a card that is there already
    stays: it is written by `write_card`.

    Args:
        folder: of the run.
        start: model whose sight the stage of forms trained; what that stage left alone comes from there.
        target: folder to write to.
        settings: of the run.
        tokenizer: written beside the weights.
    """
    model, progress = _latest(folder, start, settings)
    with filled_whole(target) as beside:
        model.to(torch.bfloat16).save_pretrained(beside)
        write_files(beside, tokenizer)
        if (target / "README.md").exists():
            (beside / "README.md").unlink(missing_ok=True)
        for path in beside.iterdir():
            path.chmod(0o644)
    return progress


def _latest(folder: Path, start: Path, settings: Settings) -> tuple[Any, dict]:
    forms, clips, points = (folder / f"{stage}.safetensors" for stage in ("forms", "clip", "point"))
    model: Any = build_model(nano_config(settings))
    if forms.exists():
        model.load_state_dict(
            MolmoPointForConditionalGeneration.from_pretrained(start, dtype=torch.float32).state_dict()
        )
        return model, load_checkpoint(forms, {"sight": Sight(model)})
    if clips.exists():
        return model, load_checkpoint(clips, {"averaged": model})
    if points.exists():
        return model, load_checkpoint(points, {"model": model})
    return model, {"step": 0}


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
print(pointer.point(scene.image, "the black triangles").points)
```

It does the same in short clips:

```python
from molmopoint.data.synthetic import sample_clip

clip = sample_clip(np.random.default_rng(7))
print(pointer.point_video(clip.frames, "Track the moving shapes at 2 FPS", timestamps=clip.timestamps.tolist()).points)
```

## What it understands

- colours: {colours}
- shapes: {shapes}
- questions: "the red circles", "every star", "the blue objects" (or things, shapes), "the largest square", "the small
  hearts" (big, large), "the leftmost cross" (rightmost, topmost, lowest), "the circles in the top half" (bottom, left,
  right), "How many red circles are there?", "Count the stars."; other words are spelled out in bytes and mean nothing to it.
- about clips: "the red circles" points once to each, where it is seen first; "Track the red circles", "Track the red circles at
  2 FPS" (1 FPS) follows them with numbers; besides looks "the moving shapes", "the still circles", "the stars that move left"
  (right, up, down), "the object that enters" (leaves).
- If nothing fits, it answers "There are none.", and to a request for tracks "No tracks available."
- never trained, scored apart: {held_out}

## Scores

{num_scenes} unseen scenes of `molmopoint.data.synthetic` (scene i from the seed [{seed}, i]), all questions; a point is right
inside the visible mask of a target of its own; a question without targets counts 1 for an empty answer, else 0.

| questions | number | F1 | precision | recall | exact count |
| --- | --- | --- | --- | --- | --- |
{rows}

{num_clips} unseen clips of 8 frames at 2 a second (clip i from the seed [{clip_seed}, i]), all questions. Pointing: a point is right
inside the visible mask of a target of its own, at a frame at most 1.5 seconds from the one in which the target is seen first;
"same frame" asks for that very frame. Tracking: HOTA on points, over all frames.

| pointing in clips | number | F1 | F1, same frame | exact count |
| --- | --- | --- | --- | --- |
{point_rows}

| tracking in clips | number | HOTA | detection | association |
| --- | --- | --- | --- | --- |
{track_rows}

Measured with `python examples/evaluate_nano.py` ({versions}; {processor}, {threads} thread{plural}, {seconds:.0f} s for the pictures and
{clip_seconds:.0f} s for the clips).

## How it was made

`examples/train_nano.py`, on cores of shared server processors (bfloat16 matrix products), in four stages.

{first_stages}

The third stage goes on from there and teaches clips: {clip_steps} steps of {clip_batch} clips and {replayed} pictures of the stages
before with up to {clip_branches} questions each; the vision transformer stays as it is. {clips} drawn clips, each also played backwards,
some cut short or with their last frame twice. Two losses that fade out push it over plateaus: words of questions and image
tokens, as in the second stage, and two attention heads that are told to look at the first and at the last place of an object.
What goes on is a moving average of the weights.

The fourth stage widens the sight, so that new shapes can be learned from a few hundred pictures: {forms_steps} steps of {form_batch}
pictures of {num_forms} forms without names (polygons, strokes and pieces of ellipses, cut by chance, turned to any side, in any
colour, on patterned grounds). Vision transformer and connector learn to tell their outlines, and a code that is the same whatever
way they are turned, at every patch and image token; beside them are {form_replayed} scenes of the stages before, about which both
have to say what they said before. Decoder and pointing heads are not touched. Forms that look like an arrow, a crescent or a
lightning bolt, the new shapes of `examples/own_data.py`, are left out.
All numbers of the recipe are in `examples/nano/settings.py`.
{remarks}

## Limits

- Pictures are stretched to {crop} by {crop} pixels ({patch} px patches), one tile beside the global view: objects below about
  a tenth of the short side are guesses, and so are pictures much wider than high.
- It was trained on pictures of 144 to 168 pixels with 3 to 12 objects, and on clips of 4 to 9 frames, half a second apart, with
  2 to 6 objects of medium and large size that move in straight lines; several pictures per request, longer or faster clips and
  long conversations run, but were not trained.
- Motion is its weak side: questions about it are scored apart above.
- Scores of points are probabilities of its choices, not calibrated.
- Synthetic data only: no people, no text, no licences to inherit.
"""


FIRST_STAGES = """\
The first two are those of 2026-11-22: 5000 steps of 32 pictures for the vision transformer with dense labels (colour, shape,
size and point of the object at each patch), then 11500 steps of 8 pictures with up to 5 questions each as a message tree: first
colours, then shapes and pairs, then all kinds. 64000 drawn scenes, mirrored at random in the first stage; none shows a held-out
pair. 100 minutes by the clock on two cores of an AMD EPYC processor that did other work at the same time. It was not one
clean pass: the second stage started from step 3000 of the first and took over the vision transformer of its step 5000 at its own
step 3639; the part of the alignment loss that concerns places joined at step 1939; and the length of the second stage, which
sets the learning rate, was changed twice on the way (12000, 12500, 11500 steps)."""
"""What is known of the run whose weights the third stage started from."""


def write_card(target: Path, scores_path: Path, settings: Settings, facts: dict) -> None:
    """Writes README.md beside the weights.

    Args:
        target: folder of the weights.
        scores_path: JSON that `evaluate_nano.py --out` wrote.
        settings: of the run.
        facts: clip_steps, forms_steps, clips and remarks of the run.
    """
    report = json.loads(scores_path.read_text())
    of_clips = report["clips"]["scores"]
    weights = (target / "model.safetensors").stat().st_size
    text = _CARD.format(
        megabytes=sum(path.stat().st_size for path in target.iterdir()) / 1e6,
        parameters=weights / 2e6,
        colours=", ".join(COLOURS),
        shapes=", ".join(SHAPES),
        held_out=", ".join(sorted(f"{colour} {shape}" for colour, shape in HELD_OUT_PAIRS)),
        num_scenes=report["scenes"],
        seed=report["seed"],
        rows=_rows(report["scores"], "f1", "precision", "recall", "exact_count"),
        versions=", ".join(f"{name} {version}" for name, version in report["versions"].items()),
        processor=report["machine"]["processor"],
        threads=report["machine"]["threads"],
        plural="s" if report["machine"]["threads"] > 1 else "",
        seconds=report["seconds"],
        crop=CROP,
        patch=PATCH,
        num_clips=report["clips"]["clips"],
        clip_seed=report["clips"]["seed"],
        clip_seconds=report["clips"]["seconds"],
        point_rows=_rows(of_clips["pointing"], "f1", "strict_f1", "exact_count"),
        track_rows=_rows(of_clips["track"], "hota", "detection", "association"),
        first_stages=FIRST_STAGES,
        clip_batch=settings.clip_batch,
        replayed=settings.replayed,
        clip_branches=settings.clip_branches,
        form_batch=settings.form_batch,
        form_replayed=settings.form_replayed,
        num_forms=settings.num_forms,
        **facts,
    )
    (target / "README.md").write_text(text)


def _rows(table: dict[str, dict[str, float]], *columns: str) -> str:
    """Lines of a table: group, number of questions, and the columns."""
    lines: list[str] = []
    for name, row in table.items():
        numbers = [f"{row[column]:.3f}" for column in columns]
        lines.append(f"| {name} | {row['questions']} | {' | '.join(numbers)} |")
    return "\n".join(lines)
