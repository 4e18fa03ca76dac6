"""Models of full size on this machine: `python -m molmopoint.eval.speed full 4b 8b`.

A checkpoint with random weights is written as released ones are (float32 shards, released names), read by a
fresh process, and asked for one point. Nothing is downloaded; random weights take as long as trained ones, and
what they choose is forced. Memory is counted in two parts: what the process owns, and the pages of files it
has mapped, which the system takes back when it needs them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from safetensors.torch import save_file
from torch import Tensor

from molmopoint.checkpoints.quantising import FORMS, store_in_fewer_bits
from molmopoint.config import MolmoPointConfig
from molmopoint.eval.speed import report
from molmopoint.eval.speed.forced_answers import answer
from molmopoint.eval.speed.subjects import RANDOM, Subject, picture_prompt
from molmopoint.eval.speed.timing import Setting
from molmopoint.key_map import to_released
from molmopoint.load_checks import INDEX_FILE
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing import MolmoPointImageProcessor

SHARD_BYTES = 4_000_000_000
POINT_TOKENS = 3
STATUS = Path("/proc/self/status")
GB = 1e9
SIZES = ("toy", "4b", "8b")

app = report.new_app()


def stored_shapes(config: MolmoPointConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a released checkpoint of this config."""
    with torch.device("meta"):
        model = MolmoPointForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in to_released(model.state_dict(), config).items()}


def write_random(config: MolmoPointConfig, folder: Path, shard_bytes: int = SHARD_BYTES) -> int:
    """Writes a checkpoint with random weights, one shard in memory at a time.

    Args:
        config: of the model.
        folder: of the checkpoint; made if it is not there.
        shard_bytes: largest size of a file, but for a single tensor that is larger.

    Returns:
        Bytes of all tensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = list(_shards(stored_shapes(config), shard_bytes))
    draw = torch.Generator().manual_seed(0)
    weight_map = {}
    total = 0
    for number, shapes in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {name: _random(name, shape, draw) for name, shape in shapes.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
        del tensors
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)
    return total


def _shards(shapes: dict[str, tuple[int, ...]], shard_bytes: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors of each file."""
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        nbytes = 4 * torch.Size(shape).numel()
        if shard and size + nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += nbytes
    yield shard


def _random(name: str, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """Ones for norms, small numbers for all else: sums of thousands of products stay finite."""
    if len(shape) == 1 and "norm" in name:
        return torch.ones(shape)
    return torch.empty(shape).uniform_(-0.03, 0.03, generator=draw)


@dataclass
class MemoryWatch:
    """Largest memory of this process while it is open, read twenty times a second; Linux alone.

    Attributes:
        own: bytes that the process has for itself.
        mapped: bytes of files that it has mapped and that are in memory.
    """

    own: int = 0
    mapped: int = 0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> MemoryWatch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
            self.own = max(self.own, int(lines["RssAnon"].split()[0]) * 1024)
            self.mapped = max(self.mapped, int(lines["RssFile"].split()[0]) * 1024)
            if self._done.wait(0.05):
                return


def load_and_point(folder: str, dtype: str, quantize: str | None, threads: int) -> dict[str, Any]:
    """Reads a checkpoint and writes one forced point about a picture of 640 x 480; seconds and gigabytes."""
    setting = Setting(dtype=dtype, threads=threads)
    setting.activate()
    times = [time.perf_counter()]
    with MemoryWatch() as loading:
        model = MolmoPointForConditionalGeneration.from_pretrained(folder, dtype=setting.torch_dtype).eval()
        if quantize is not None:
            store_in_fewer_bits(model, quantize)
    times.append(time.perf_counter())
    subject = Subject("full", model, MolmoPointImageProcessor(), (8,))
    inputs = picture_prompt(subject, 1, 640, 480)
    with MemoryWatch() as pointing:
        answer(subject, setting, inputs, POINT_TOKENS, pointing=True)
    times.append(time.perf_counter())
    weights = 0
    for parameter in model.parameters():
        weights += parameter.numel() * parameter.element_size()
    return {
        "tokens": inputs["input_ids"].shape[1],
        "load_s": times[1] - times[0],
        "point_s": times[2] - times[1],
        "weights_gb": weights / GB,
        "own_while_loading_gb": loading.own / GB,
        "mapped_while_loading_gb": loading.mapped / GB,
        "own_while_pointing_gb": pointing.own / GB,
    }


def measure(name: str, place: Path, dtype: str, quantize: str | None, threads: int) -> dict[str, Any]:
    """Writes the checkpoint, measures in a fresh process, and removes the files.

    Args:
        name: of `SIZES`.
        place: folder with room for the files.
        dtype: of the weights in memory.
        quantize: fewer bits for the matrices of the text model, or None.
        threads: of torch.

    Raises:
        ValueError: there is not enough room on the disk.
        RuntimeError: the process failed, for instance for lack of memory.
    """
    config = RANDOM[name]()
    needed = 4 * sum(torch.Size(shape).numel() for shape in stored_shapes(config).values())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise ValueError(
            f"expected {needed / GB:.1f} GB of room in {place} for {name}, got {free / GB:.1f}; choose another "
            "place with --place"
        )
    with tempfile.TemporaryDirectory(dir=place) as folder:
        start = time.perf_counter()
        stored = write_random(config, Path(folder))
        written = time.perf_counter() - start
        case = json.dumps([folder, dtype, quantize, threads])
        command = [sys.executable, "-m", "molmopoint.eval.speed.full", "--case", case]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines()
        reason = told[-1] if told else f"exit code {done.returncode}"
        raise RuntimeError(f"expected {name} to load and point, got: {reason}; it may lack memory")
    measured = json.loads(done.stdout.splitlines()[-1])
    return {"name": name, "stored_gb": stored / GB, "write_s": written, **measured}


@app.command()
def full(
    models: Annotated[list[str], typer.Argument(help=f"Of {', '.join(SIZES)}.")],
    place: Annotated[
        Path | None,
        typer.Option(
            help="Folder with room for the files, 19 GB for 4b and 35 GB for 8b; by default that for temporary files."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Precision of the weights in memory.")] = "bfloat16",
    quantize: Annotated[str | None, typer.Option(help=f"Of {', '.join(FORMS)}.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    json_output: report.JsonOutput = False,
) -> None:
    """Writes random models of full size, loads each, asks for one point, and tells time and memory."""
    if unknown := [name for name in models if name not in SIZES]:
        raise typer.BadParameter(f"expected models of {', '.join(SIZES)}, got {unknown[0]!r}")
    try:
        folder = Path(tempfile.gettempdir()) if place is None else place
        measured = [measure(name, folder, dtype, quantize, threads) for name in models]
    except (ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error)) from error
    document = {"machine": report.machine("cpu"), "dtype": dtype, "quantize": quantize, "models": measured}
    if json_output:
        report.print_json(document)
        return
    console = report.console()
    report.print_facts(console, document["machine"])
    for case in measured:
        console.print(
            f"{case['name']}: {case['stored_gb']:.1f} GB written in {case['write_s']:.0f} s, loaded in "
            f"{case['load_s']:.0f} s, a prompt of {case['tokens']} tokens and a point in {case['point_s']:.0f} s"
        )
        above = case["own_while_loading_gb"] / case["weights_gb"]
        console.print(
            f"  weights {case['weights_gb']:.1f} GB; largest while loading {case['own_while_loading_gb']:.1f} GB "
            f"({above:.2f} times) and {case['mapped_while_loading_gb']:.1f} GB of mapped files; while pointing "
            f"{case['own_while_pointing_gb']:.1f} GB"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        sys.stdout.write(json.dumps(load_and_point(*json.loads(sys.argv[2]))) + "\n")
    else:
        app(prog_name="python -m molmopoint.eval.speed full")
