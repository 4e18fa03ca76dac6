"""Every number of the recipe, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from nano.loop import LoopSettings

CROP = 336
"""Side of a crop in pixels: a small page at native pixels."""
PATCH = 14
"""Side of a ViT patch in pixels."""
GRID = CROP // PATCH
"""ViT patches per side of a crop."""
WINDOW = 2
"""ViT patches per side of an image token."""
LOCATIONS = 3
"""Location cells per side of a ViT patch."""
MAX_CROPS = 24
"""Most crops of a picture, the global one not counted: enough for 1280x800 at native pixels."""


@dataclass(frozen=True)
class ScreenSettings(LoopSettings):
    """The recipe, beside what every stage shares.

    Attributes:
        vit_width: width of the vision transformer.
        vit_layers: its blocks; the last and the third last are tapped.
        vit_mlp: width inside its perceptrons.
        text_width: width of the decoder.
        text_layers: its blocks.
        text_mlp: width inside its gated perceptrons.
        head_dim: width of an attention head, in both.
        pointing_width: E, width of the space in which patches are chosen.
        vocabulary: text tokens.
        vit_batch: pages per step of the first stage, half of them boards.
        point_batch: pages per step of the second stage.
        branches: questions of one page in a training example.
        large_every: every so many steps of the second stage is of large pages, one at a time.
        vit_rate: peak learning rate of the first stage; Muon's rates are `muon` times these.
        point_rate: peak learning rate of the second stage, decoder and heads.
        point_vit_rate: the same for the vision transformer.
        vit_frozen: part of the second stage in which the vision transformer is left alone.
        first_lesson: part of the second stage that asks for types, colours and icons only.
        dense_part: weight of the first stage's loss in the second one, while the vision transformer learns.
        alignment_part: weight of the push in `alignment` when the second stage starts.
        alignment_until: part of the second stage after which it has faded out.
        shift: pixels by which pages are moved at most, each time they are seen.
    """

    vit_width: int = 256
    vit_layers: int = 6
    vit_mlp: int = 768
    text_width: int = 256
    text_layers: int = 4
    text_mlp: int = 640
    head_dim: int = 64
    pointing_width: int = 192
    vocabulary: int = 1024
    vit_batch: int = 6
    point_batch: int = 4
    branches: int = 10
    large_every: int = 10
    vit_rate: float = 1e-3
    point_rate: float = 1e-3
    point_vit_rate: float = 5e-4
    vit_frozen: float = 0.06
    first_lesson: float = 0.05
    dense_part: float = 0.15
    alignment_part: float = 1.0
    alignment_until: float = 0.7
    shift: int = 14
    warmup: int = 100
    falling: float | None = 0.6
    muon: float | None = 3.0
    save_minutes: float = 5.0
