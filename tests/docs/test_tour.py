"""The notebook runs from its first cell to its last and prints what is stored in it."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from stated_values import same_text

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_notebook_is_small_and_has_the_outputs_of_all_its_cells():
    text = (EXAMPLES / "tour.ipynb").read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert not any(output["output_type"] == "error" for output in outputs)
    assert "/tmp/" not in text


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_notebook_runs_and_prints_what_is_stored(monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tour = runpy.run_path(str(EXAMPLES / "make_tour.py"))
    stored = nbformat.read(EXAMPLES / "tour.ipynb", as_version=4)
    again = tour["execute"](EXAMPLES / "tour.ipynb")
    for before, now in zip(tour["printed"](stored), tour["printed"](again), strict=True):
        # What a training run of ten seconds comes to depends on the processor.
        if "->" not in before:
            assert same_text(before, now)
