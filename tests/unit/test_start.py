"""What starting costs: which modules a first point brings, and which wrong input is told before any of them."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from molmopoint.lazy import without_collecting

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "examples" / "images" / "shapes.png"

NOT_NEEDED = (
    "bitsandbytes",
    "datasets",
    "fastapi",
    "matplotlib",
    "molmopoint.eval",
    "molmopoint.metrics.segmentation",
    "molmopoint.reward",
    "molmopoint.segmentation",
    "molmopoint.training",
    "pandas",
    "peft",
    "pyarrow",
    "pydantic",
    "scipy.ndimage",
    "scipy.sparse.csgraph",
    "scipy.stats",
    "torch.utils.tensorboard",
    "torchao",
    "transformers.trainer",
    "trl",
)
"""What a first point can do without. Inductor, triton, sympy and torch's distributed package are not here:
`transformers.modeling_utils` imports them, with torchvision and with kernels of its own.
"""

LIBRARIES_OF_MODELS = ("torch", "transformers", "torchvision")


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_first_point_brings_nothing_that_it_does_not_use():
    code = f"""
import sys, molmopoint
result = molmopoint.load("nano").point({str(PICTURE)!r}, "the red circles")
brought = [name for name in {NOT_NEEDED} if name in sys.modules]
sys.exit(f"brought {{brought}}" if brought or not len(result) else 0)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "load('nanoo')",
        "load('nano', dtype='flaot16')",
        "load('nano', no_such_option=1)",
        "load('nano', device='cpu', device_map='auto')",
        "load('/no/such/folder')",
    ],
)
def test_what_cannot_be_loaded_is_told_before_the_libraries_of_models(call: str):
    code = f"""
import sys, molmopoint
try:
    molmopoint.{call}
except (molmopoint.errors.CheckpointError, TypeError) as error:
    assert "expected" in str(error)
else:
    sys.exit("no error")
sys.exit(str([name for name in {LIBRARIES_OF_MODELS} if name in sys.modules] or 0).strip("0") or 0)
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("point", str(PICTURE), "circles", "--template", "no place"),
        ("point", str(PICTURE), " "),
        ("point", str(PICTURE), "circles", "--heatmap"),
        ("ask", str(PICTURE), " "),
    ],
)
def test_wrong_usage_is_told_before_the_libraries_of_models(arguments: tuple[str, ...]):
    code = f"""
import sys
from molmopoint.cli import app
try:
    app(sys.argv[1:], prog_name="molmopoint")
except SystemExit as stop:
    brought = [name for name in {LIBRARIES_OF_MODELS} if name in sys.modules]
    sys.exit(f"code {{stop.code}}, brought {{brought}}" if stop.code != 2 or brought else 0)
"""
    done = run(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert "expected" in done.stderr


def test_collecting_goes_on_after_imports_as_it_was():
    assert gc.isenabled()
    with pytest.raises(ImportError), without_collecting():
        assert not gc.isenabled()
        with without_collecting():
            pass
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
