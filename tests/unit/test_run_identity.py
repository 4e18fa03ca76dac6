"""What makes two runs the same: recipe, model and the content of files, but not how often is logged, scored
and saved.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molmopoint.errors import TrainingError
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.run_folder import MAY_CHANGE, check_same_run, differences, identity_of

PLACE = Path("out")


def identity(*changes: str, model: str = "nano", **files: object) -> dict:
    """As it comes back from a file."""
    return json.loads(json.dumps(identity_of(load_recipe("lora", changes), model, files)))


@pytest.mark.parametrize(
    "change",
    [
        "logging.every=3",
        "saving.keep=9",
        "scoring.every=1",
        "compile=true",
        "gradient_checkpointing=false",
        "data.workers=5",
    ],
)
def test_what_may_change_is_the_same_run(change):
    assert change.partition("=")[0].startswith(MAY_CHANGE)
    check_same_run(PLACE, identity(), identity(change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.seed=1", r"recipe\.data\.seed 50189, now 1"),
        ("lora.rank=8", r"recipe\.lora\.rank 64, now 8"),
        ("lora=false", r"recipe\.lora\.rank 64, now nothing"),
        ("optimiser.betas=[0.9, 0.99]", r"recipe\.optimiser\.betas \[0\.9, 0\.95\], now \[0\.9, 0\.99\]"),
    ],
)
def test_another_recipe_is_another_run(change, words):
    with pytest.raises(TrainingError, match=words):
        check_same_run(PLACE, identity(), identity(change))


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(text)
    one, copy, other = (identity(train=tmp_path / name) for name in "abc")
    assert differences(one, copy) == []
    with pytest.raises(TrainingError, match=r"files\.train is another file"):
        check_same_run(PLACE, one, other)
    assert differences(identity(replay="synthetic"), identity(replay=None)) == [
        "files.replay is another file"
    ]


def test_numbers_and_lists_are_what_json_makes_of_them():
    assert differences({"a": 200, "b": (1, 2)}, {"a": 200.0, "b": [1, 2]}) == []
    assert differences({"recipes": 1, "logging": 2}, {"recipes": 2, "logging": 3}) == [
        "recipes 1, now 2",
        "logging 2, now 3",
    ]
