"""The page about the format: every row in it is read, every line of Python runs, every column is there."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from molmopoint.backends.molmopoint import GroundingWriter
from molmopoint.data.records import (
    COLUMNS,
    FULL_SCALE,
    POINT_COLUMNS,
    POINT_STYLES,
    parse_record,
    record_fields,
)
from molmopoint.geometry import PointingMetadata
from molmopoint.training.formatting import NO_TRACKS, expressions, format_record
from molmopoint.training.rules import FINETUNING_WEIGHTS, FormattingRules, Stage

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data_format.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
ROWS = [
    json.loads(text)
    for kind, block in BLOCKS
    for text in ({"json": [block], "jsonl": block.splitlines()}.get(kind, []))
]
TASKS = (
    "Points",
    "Counting",
    "Clicks in a graphical interface",
    "Several pictures",
    "Points in a clip",
    "Tracks",
    "Several turns",
    "Question answering",
    "Captions",
)


def metadata(record):
    """Of pictures or a clip of 4 by 4 ViT patches, large enough for every point of the page."""
    canvases = 7 if record.video else max(len(record.images), 1)
    maps = [16 * i + np.arange(16).reshape(4, 4) for i in range(canvases)]
    sizes = [(2000, 2000)] * (1 if record.video else canvases)
    pooling = np.arange(16 * canvases).reshape(-1, 1)
    timestamps = np.arange(canvases) / 2 if record.video else None
    return PointingMetadata(pooling, np.ones(len(pooling), dtype=bool), maps, sizes, timestamps)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.get("label") or row.get("prompt") or str(row)[:40])
def test_every_row_is_read_and_becomes_a_conversation(row):
    record = parse_record(row, 1)
    assert parse_record(record_fields(record), 1) == record
    for expression in expressions(record):
        made = format_record(expression, GroundingWriter(metadata(expression)), np.random.default_rng(0))
        assert made.prompt and made.answer


def test_every_task_has_an_example():
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))
    assert tuple(sections) == TASKS
    assert all("```json" in section for section in sections.values())


def test_every_column_style_and_space_is_explained():
    explained = set(re.findall(r"^\| (`.*?`.*?) \|", PAGE, re.MULTILINE))
    names = {name for cell in explained for name in re.findall(r"`(\w+)`", cell)}
    assert names == {*COLUMNS, *POINT_COLUMNS, *POINT_STYLES, *FULL_SCALE, "pixel", *get_args(Stage)}


def test_the_numbers_of_the_page_are_those_of_the_code():
    rules = {field.name: field.default for field in dataclasses.fields(FormattingRules)}
    assert f"at most {rules['max_points']} (`max_points`)" in PAGE
    assert (
        f"{FINETUNING_WEIGHTS['points'].factor} for points, {FINETUNING_WEIGHTS['video_caption'].factor} "
        "for captions of clips" in PAGE
    )
    assert f'"{NO_TRACKS}" for tracks' in PAGE


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = [block for kind, block in BLOCKS if kind == "python"]
    pytest.importorskip("datasets")
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "data_format.md", "exec"), names)
