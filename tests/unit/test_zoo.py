"""The zoo: the table for programs, the table for people, and what names lead to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from molmopoint import checkpoints
from molmopoint.checkpoints import ZooEntry, registry
from molmopoint.errors import CheckpointError


def people_rows() -> dict[str, list[str]]:
    """Cells of the table in the README, by name."""
    rows = [
        line.strip("| \n").split(" | ")
        for line in (registry.ROOM / "README.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def test_names_are_unique():
    assert len(set(checkpoints.names())) == len(checkpoints.list_models())
    assert checkpoints.names() == list(people_rows())


@pytest.mark.parametrize("entry", checkpoints.list_models(), ids=lambda entry: entry.name)
def test_entry_is_complete_and_both_tables_agree(entry: ZooEntry):
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", entry.name)
    assert (entry.hub_id is None) != (entry.folder is None)
    assert entry.description.endswith(".") and entry.licence and entry.origin and entry.modalities
    assert all(score.source and 0 <= score.value <= 100 for score in entry.scores)
    weights, parameters, modalities, licence, scores = people_rows()[entry.name]
    assert (entry.hub_id or f"{entry.folder}/") in weights
    assert parameters == ("not counted" if entry.parameters is None else f"{entry.parameters:,}")
    assert modalities == ", ".join(entry.modalities)
    assert licence == entry.licence
    if entry.hub_id is not None:
        assert scores == (
            "; ".join(f"{score.benchmark} {score.value}" for score in entry.scores) or "see its card"
        )


def test_names_and_hub_ids_resolve():
    assert (
        checkpoints.resolve("MolmoPoint-8B")
        == checkpoints.resolve("allenai/molmopoint-8b")
        == "allenai/MolmoPoint-8B"
    )
    assert checkpoints.find("nothing") is None
    with pytest.raises(CheckpointError, match=r"nano, nano-reward, nano-screens, molmopoint-8b.*'nanno'"):
        checkpoints.resolve("nanno")


def test_models_that_come_with_the_package_are_there():
    for entry in checkpoints.list_models():
        if entry.folder is not None:
            assert Path(entry.source) == registry.ROOM / entry.folder
            assert entry.installed, f"{entry.source} has no {registry.CONFIGS[entry.gives]}"
            assert Path(checkpoints.resolve(entry.name)).is_dir()


def test_absent_models_are_said_to_be_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "ROOM", tmp_path)
    entry = next(entry for entry in checkpoints.list_models() if entry.folder is not None)
    assert not entry.installed
    with pytest.raises(CheckpointError, match="install the package again"):
        checkpoints.resolve(entry.name)
