"""What a recipe decides about formatting, and the rules of the four published stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from molmopoint.data.records import Record
from molmopoint.processing.grounding_answers import Style
from molmopoint.processing.message_tree import LossWeighting

Kind = Literal["points", "answer", "caption", "video_caption"]
"""What a row teaches, as far as loss weights care."""

TrackStyle = Literal["track", "track_start_end", "track_from_point"]
"""All points of tracks; the first and the last point of each object; or one object onwards from a point in
the request.
"""

Stage = Literal["pretraining", "fine_tuning", "long_context", "gui"]

FINETUNING_WEIGHTS: Mapping[Kind, LossWeighting] = MappingProxyType(
    {
        "points": LossWeighting(factor=0.2),
        "answer": LossWeighting(root_length=2.0, root_branches=True),
        "caption": LossWeighting(root_length=2.0, root_branches=True),
        "video_caption": LossWeighting(factor=0.1),
    }
)
"""Of the published fine-tuning on a mixture. Source: Molmo2 report and public training code."""

PLAIN_WEIGHTS: Mapping[Kind, LossWeighting] = MappingProxyType(
    dict.fromkeys(FINETUNING_WEIGHTS, LossWeighting())
)
"""Of the published pre-training: every target counts once."""

GUI_SOURCE = "guisyn"
"""Source of the rows that the importer of MolmoPoint-GUISyn writes."""


@dataclass(frozen=True)
class FormattingRules:
    """What a recipe decides about formatting.

    Attributes:
        weights: loss weighting by kind of row.
        source_weights: loss weighting of the rows of a source, instead of that of their kind.
        styles: drawn from, each as likely, for rows with a label and no style.
        track_styles: drawn from, each as likely, for rows of style "track" without a prompt.
        requests: "templates" asks in sentences, as published fine-tuning does; "tags" writes `style: label`,
            as pre-training does.
        prompt_share: how likely a row with both `prompts` and a label is asked by one of its prompts.
        keep_case: sources whose labels keep their case on single pictures too, such as names of buttons.
        clip: sources whose points outside the picture move to its edge; tracks always do. Elsewhere they are
            refused.
        no_points_please: sources of plain question answering whose counting questions get a request not to
            point in front.
        multi_turn: how likely the requests about one clip become turns of one conversation instead of
            branches.
        max_points: of an expression, and of all expressions of a tree; tracks may have more.
        track_tolerance: seconds a point of a track may be away from the frame it belongs to.
        some_images: how likely a request about several pictures names only some of them.
    """

    weights: Mapping[Kind, LossWeighting] = field(default_factory=lambda: FINETUNING_WEIGHTS)
    source_weights: Mapping[str, LossWeighting] = field(default_factory=dict)
    styles: tuple[Style, ...] = ("pointing", "point_count")
    track_styles: tuple[TrackStyle, ...] = ("track",)
    requests: Literal["templates", "tags"] = "templates"
    prompt_share: float = 0.8
    keep_case: frozenset[str] = frozenset({GUI_SOURCE})
    clip: frozenset[str] = frozenset()
    no_points_please: frozenset[str] = frozenset()
    multi_turn: float = 0.0
    max_points: int = 60
    track_tolerance: float = 0.01
    some_images: float = 0.5


def published_rules(stage: Stage) -> FormattingRules:
    """Rules of a published stage; sources with rules of their own are named with `dataclasses.replace`.

    Source: public training code. The GUI stage does not set weights for points, so they count as other text
    does.
    """
    if stage == "pretraining":
        return FormattingRules(weights=PLAIN_WEIGHTS, requests="tags")
    if stage == "gui":
        return FormattingRules(
            weights={**FINETUNING_WEIGHTS, "points": FINETUNING_WEIGHTS["answer"]}, styles=("pointing",)
        )
    return FormattingRules(multi_turn=0.2)


def weighting_of(record: Record, rules: FormattingRules) -> LossWeighting:
    """Loss weighting of a row: by its source if the rules name it, else by its kind; times the row's own
    weight.
    """
    kind: Kind = (
        "points"
        if record.is_pointing
        else "caption"
        if any(turn.caption for turn in record.requests)
        else "answer"
    )
    if kind == "caption" and record.video is not None:
        kind = "video_caption"
    weighting = rules.source_weights.get(record.source or "", rules.weights[kind])
    return weighting if record.weight is None else replace(weighting, factor=weighting.factor * record.weight)
