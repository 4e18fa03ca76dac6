"""Several pictures on several threads: the results of one thread, its errors, and no second reading."""

from __future__ import annotations

import io
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from molmopoint.errors import ProcessingError
from molmopoint.processing import MolmoPointImageProcessor, threads


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def cores(monkeypatch):
    """Four cores, and torch on one thread."""
    monkeypatch.setattr(threads, "_cores", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("inference", [False, True])
def test_pictures_are_those_of_one_thread(cores, monkeypatch, inference):
    processor = MolmoPointImageProcessor()
    pictures = [noise(width, 300) for width in (200, 431, 640, 200, 812)]
    with torch.inference_mode(inference):
        together = processor(pictures, return_tensors="pt", return_pointing_metadata=True)
        monkeypatch.setattr(threads, "_cores", lambda: 1)
        alone = processor(pictures, return_tensors="pt", return_pointing_metadata=True)
    for name in ("pixel_values", "image_token_pooling", "image_grids", "image_num_crops"):
        assert torch.equal(together[name], alone[name])
    assert together["image_sizes"] == alone["image_sizes"]


def test_items_are_worked_on_at_the_same_time_and_stay_in_order(cores):
    meeting = threading.Barrier(4)

    def work(item: int) -> int:
        meeting.wait(20)
        return 2 * item

    assert threads.in_threads(work, [3, 1, 2, 5]) == [6, 2, 4, 10]


def test_threads_of_torch_are_counted(cores):
    here = threading.get_ident()
    assert set(threads.in_threads(lambda _: threading.get_ident(), range(6), threads_each=3)) == {here}


def test_a_lazy_file_that_is_given_twice_is_read_once(cores):
    file = io.BytesIO()
    noise(300, 200).save(file, "png")
    lazy = Image.open(file)
    found = MolmoPointImageProcessor()([lazy] * 6, return_tensors="pt")["pixel_values"]
    parts = found.split(len(found) // 6)
    assert all(torch.equal(part, parts[0]) for part in parts)


def test_the_first_picture_that_cannot_be_read_is_named(cores, tmp_path):
    pictures = [noise(50, 50), str(tmp_path / "first.png"), str(tmp_path / "second.png")]
    with pytest.raises(ProcessingError, match=r"first\.png"):
        MolmoPointImageProcessor()(pictures)


PEAK = """
import torch
from molmopoint.eval.speed.memory import PeakMeter
from molmopoint.eval.speed.subjects import picture
from molmopoint.processing import MolmoPointImageProcessor

torch.set_num_threads(1)
processor = MolmoPointImageProcessor()
large = picture(3840, 2160)
processor([picture(64, 64)], return_tensors="pt")
meter = PeakMeter(torch.device("cpu"))
processor([large], max_crops=24, return_tensors="pt")
print((meter.peak() - meter.baseline) / 1e6)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets earlier peaks")
def test_a_4k_picture_takes_at_most_120_mb():
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 120
