"""Peak memory, each case in a fresh process; and what the state of a long clip holds.

On the CPU the peak is that of the process (`VmHWM`, reset before the case on Linux), on a GPU that of torch's
allocator. Both are given above what the process held with the model and its inputs in place.

Letters: N ViT patches of the call, F width of the tapped ViT features, S tokens per row.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molmopoint.eval.speed.forced_answers import answer, points_per_cycle
from molmopoint.eval.speed.subjects import Subject, build, clip_prompt, picture_prompt
from molmopoint.eval.speed.timing import Setting, now

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
POINTS = 4
MB = 1e6


class PeakMeter:
    """Largest memory from its start on, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.baseline = torch.cuda.memory_allocated(device)
        elif STATUS.is_file():
            CLEAR.write_text(RESET_PEAK)
            self.baseline = _status("VmRSS")
        else:
            self.baseline = _largest_ever()

    def peak(self) -> int:
        """The peak so far; where the system cannot forget earlier peaks, that of the whole process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status("VmHWM") if STATUS.is_file() else _largest_ever()


def measure_in_child(case: dict[str, Any]) -> dict[str, Any]:
    """Runs one case (see `run_case`) in a fresh process.

    Raises:
        RuntimeError: the process failed, for instance for lack of memory.
    """
    command = [sys.executable, "-m", "molmopoint.eval.speed.memory", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines()
        reason = told[-1] if told else f"exit code {done.returncode}"
        raise RuntimeError(
            f"expected the memory case {case} to run, got: {reason}; try a smaller batch or fewer frames"
        )
    return json.loads(done.stdout.splitlines()[-1])


def run_case(case: dict[str, Any]) -> dict[str, Any]:
    """One case in this process.

    Args:
        case: `model`, `setting`, and either `batch` and `size` (width, height), or `frames` of a clip.
    """
    setting = Setting(**case["setting"])
    setting.activate()
    subject = build(case["model"], setting)
    if "frames" in case:
        return _clip_case(subject, setting, case["frames"])
    inputs = picture_prompt(subject, case["batch"], *case["size"])
    meter = PeakMeter(subject.model.device)
    answer(subject, setting, inputs, POINTS * points_per_cycle(subject), pointing=True)
    return {"baseline_mb": meter.baseline / MB, "above_mb": (meter.peak() - meter.baseline) / MB}


def _clip_case(subject: Subject, setting: Setting, frames: int) -> dict[str, Any]:
    """A prompt with a long clip, its vision included: time of one pass, peak, and the tensors that later
    steps keep.
    """
    inputs = clip_prompt(subject, frames)
    meter = PeakMeter(subject.model.device)
    with torch.inference_mode():
        start = now(setting)
        output = subject.model(**inputs, use_cache=True, logits_to_keep=1)
        seconds = now(setting) - start
    peak = meter.peak()
    state = vars(output.grounding_state)
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    vit = tensors["vit_features"]
    patches = inputs["pixel_values_videos"].shape[1]
    expected = frames * patches * subject.model.config.vit_feature_dim * vit.element_size()
    # Each storage counts once, however many tensors look into it.
    storages = {}
    for value in tensors.values():
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    as_large = [nbytes for nbytes in storages.values() if nbytes == expected]
    once = vit.untyped_storage().nbytes() == expected and len(as_large) == 1
    return {
        "frames": frames,
        "tokens": inputs["input_ids"].shape[1],
        "prefill_s": seconds,
        "baseline_mb": meter.baseline / MB,
        "above_mb": (peak - meter.baseline) / MB,
        "state_mb": {name: value.nbytes / MB for name, value in tensors.items()},
        "vit_features_dtype": str(vit.dtype).removeprefix("torch."),
        "vit_features_held_once": once,
        "vit_features_in_compute_dtype": vit.dtype == subject.model.dtype,
    }


def _status(name: str) -> int:
    """Bytes of a line of the process status, which counts in kB of 1024."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def _largest_ever() -> int:
    """Largest memory of the process so far, in bytes; macOS counts in bytes, others in kB."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_case(json.loads(sys.argv[1]))) + "\n")
