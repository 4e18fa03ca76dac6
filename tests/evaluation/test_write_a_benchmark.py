"""A benchmark in anyone's own file: the example, and files that are none."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmarks import find_benchmark
from molmopoint.eval.evaluation import predict
from molmopoint.eval.predictions.records import read_folder
from molmopoint.eval.runner.data import open_data
from molmopoint.eval.runner.scoring import score_predictions, write_report
from molmopoint.pipeline import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "write_a_benchmark.py"


def test_the_example_is_a_benchmark(tmp_path, capsys):
    runpy.run_path(str(EXAMPLE))["make"](tmp_path / "shapes", 2)
    assert "2 pictures" in capsys.readouterr().out
    benchmark = find_benchmark(str(EXAMPLE))
    data = open_data(benchmark, tmp_path / "shapes", tmp_path)
    assert len(data.items.found) > 4 and not data.items.missing
    predict(
        load("nano"),
        benchmark,
        data,
        tmp_path / "run",
        settings=benchmark.generation,
        identity={"model": "nano"},
    )
    summary, scores = score_predictions(benchmark, data, read_folder(tmp_path / "run"), "box")
    write_report(tmp_path / "run", summary, scores, data)
    assert summary.headline.value > 0.5, "the embedded model knows these shapes"
    with pytest.raises(EvaluationError, match="make it with"):
        benchmark.read(tmp_path)


def test_a_file_may_define_dataclasses(tmp_path):
    """They look their module up by its name."""
    file = tmp_path / "own.py"
    file.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n\n"
        f"{EXAMPLE.read_text().split('if __name__')[0].replace('from __future__ import annotations', '')}\n"
        "@dataclass\nclass Truth:\n    count: int\n"
    )
    assert find_benchmark(str(file)).name == "shapes"


def test_a_file_holds_exactly_one_benchmark(tmp_path):
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(EvaluationError, match="got none"):
        find_benchmark(str(tmp_path / "none.py"))
    with pytest.raises(EvaluationError, match="not a file"):
        find_benchmark(str(tmp_path / "gone.py"))
