"""What a server costs: requests a second and waiting times beside `Pointer` alone, and whether answers,
memory and open files stay what they are under load.

    python -m molmopoint.eval.speed serve                    # rates and waiting times
    python -m molmopoint.eval.speed serve --soak 5000        # mixed requests, each compared with the single one

The server runs in a process of its own and is asked over loopback. Rates are measured turn by turn with
`Pointer.point_batch` on the same pictures, and the ratio is the median over the turns.
"""

from __future__ import annotations

import asyncio
import io
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from molmopoint.data.synthetic import sample_scene
from molmopoint.eval.speed import report
from molmopoint.pipeline import Pointer, load
from molmopoint.processing.pictures import load_picture
from molmopoint.serving.async_client import AsyncClient

EPILOG = "Exit codes: 0 measured, 1 answers differed or failed in a soak, 2 wrong usage."
app = report.new_app()

_COMPARED = 16
"""Clients at which the rate is compared with `point_batch`."""

_LEAST_RATIO = 0.85
"""Of the rate of `point_batch`, with so many clients."""

_MOST_ADDED = 8.0
"""Milliseconds that a server may add to one answer, with one client."""

Question = tuple[bytes, str]


@app.command(epilog=EPILOG)
def serve(
    model: Annotated[str, typer.Argument(help="What is served.")] = "nano",
    clients: Annotated[str, typer.Option(help="Clients that ask at the same time.")] = "1,4,16,64",
    requests: Annotated[int, typer.Option(min=8, help="Requests per turn, each about another picture.")] = 96,
    repeats: Annotated[int, typer.Option(min=1, help="Turns.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch, here and in the server.")] = 1,
    soak: Annotated[int, typer.Option(min=0, help="Mixed requests of a soak, in place of rates.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="Least time of a soak.")] = 0.0,
    json_output: report.JsonOutput = False,
) -> None:
    """Measures a server on this machine."""
    try:
        counts = [int(part) for part in clients.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"expected numbers with commas between them, got {clients!r}") from error
    torch.set_num_threads(threads)
    document: dict[str, Any] = {"machine": report.machine("cpu"), "model": model, "threads": threads}
    with served(model, threads) as server:
        if soak:
            document["soak"] = asyncio.run(Soak(server, max(counts)).run(soak, minutes))
        else:
            document |= measure(server, load(model, device_map="cpu"), counts, requests, repeats)
    if json_output:
        report.print_json(document)
    else:
        print_document(document)
    if soak and (document["soak"]["different"] or document["soak"]["failed"]):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Served:
    """A server in a process of its own.

    Attributes:
        address: of it.
        process: its number.
    """

    address: str
    process: int

    def memory(self) -> float:
        """Megabytes in use."""
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def open_files(self) -> int:
        """Files and connections that are open."""
        return len(os.listdir(f"/proc/{self.process}/fd"))  # noqa: PTH208  only their number


@contextmanager
def served(model: str, threads: int, *options: str) -> Iterator[Served]:
    """A server that is ready.

    Raises:
        RuntimeError: it does not start.
    """
    command = [sys.executable, "-m", "molmopoint", "serve", model, "--port", "0", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    reader: threading.Thread | None = None
    try:
        for line in process.stderr:
            if " at http://" in line:
                address = line.rsplit(" at ", 1)[1].strip()
                break
        else:
            raise RuntimeError("expected a server that says where it is, got one that ended")
        # Read on, so that a server that says much is not kept waiting.
        reader = threading.Thread(target=process.stderr.read, daemon=True)
        reader.start()
        asyncio.run(_ready(address))
        yield Served(address, process.pid)
    finally:
        process.terminate()
        process.wait(60)
        if reader is not None:
            reader.join(10)
        process.stderr.close()


async def _ready(address: str) -> None:
    """Waits until models are loaded."""
    import httpx

    async with httpx.AsyncClient(base_url=address) as http:
        while (await http.get("/health")).status_code != 200:
            await asyncio.sleep(0.2)


def questions(count: int, seed: int) -> list[Question]:
    """So many pictures, as PNG, and what is asked about each."""
    made = []
    for number in range(count):
        scene = sample_scene(np.random.default_rng([seed, number]))
        file = io.BytesIO()
        scene.image.save(file, "PNG")
        made.append((file.getvalue(), scene.queries[0].prompt))
    return made


def measure(
    server: Served, pointer: Pointer, counts: Sequence[int], requests: int, repeats: int
) -> dict[str, Any]:
    """Rates, waiting times, what a server adds to the time of one answer, and the time to the first point."""
    rows: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    alone, ratios, added, first = [], [], [], []
    before = server.memory()
    asyncio.run(_ask_all(server.address, questions(8, 999), 4))  # once, so that everything is there
    list(pointer.point_batch(*_columns(questions(8, 999))))
    for turn in range(repeats):
        asked = questions(requests, turn)
        begin = time.perf_counter()
        list(pointer.point_batch(*_columns(asked)))
        alone.append(requests / (time.perf_counter() - begin))
        for count in counts:
            row = asyncio.run(_ask_all(server.address, questions(requests, 1000 + 100 * turn + count), count))
            rows[count].append(row)
            if count == _COMPARED:
                ratios.append(row["rate"] / alone[-1])
        added.append(_added(server, pointer, questions(24, 50_000 + turn)))
        first.append(asyncio.run(_first_points(server.address, questions(12, 60_000 + turn))))
    figures = [{"clients": count, **_medians(rows[count])} for count in counts]
    return {
        "point_batch_rate": statistics.median(alone),
        "rows": figures,
        "ratio": statistics.median(ratios) if ratios else None,
        "added_ms": 1000 * statistics.median(added),
        "first_point_ms": 1000 * statistics.median(first),
        "memory_before_mb": before,
        "memory_after_mb": server.memory(),
        "open_files": server.open_files(),
    }


def _columns(asked: Sequence[Question]) -> tuple[list[bytes], list[str]]:
    return [image for image, _ in asked], [prompt for _, prompt in asked]


def _medians(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


async def _ask_all(address: str, asked: Sequence[Question], clients: int) -> dict[str, float]:
    """Rate and waiting times of requests that so many clients send, each one after the other."""
    waiting = iter(asked)
    seconds: list[float] = []

    async def one_client(client: AsyncClient) -> None:
        for image, prompt in waiting:
            begin = time.perf_counter()
            await client.point(image, prompt)
            seconds.append(time.perf_counter() - begin)

    async with AsyncClient(address) as client:
        begin = time.perf_counter()
        await asyncio.gather(*(one_client(client) for _ in range(clients)))
        taken = time.perf_counter() - begin
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(seconds, [50, 95, 99]))
    return {"rate": len(asked) / taken, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def _added(server: Served, pointer: Pointer, asked: Sequence[Question]) -> float:
    """Seconds that a server adds to an answer: the median over pictures, both ways right after each other."""
    differences = []

    async def compare() -> None:
        async with AsyncClient(server.address) as client:
            for image, prompt in asked:
                begin = time.perf_counter()
                pointer.point(image, prompt)
                alone = time.perf_counter() - begin
                begin = time.perf_counter()
                await client.point(image, prompt)
                differences.append(time.perf_counter() - begin - alone)

    asyncio.run(compare())
    return statistics.median(differences)


async def _first_points(address: str, asked: Sequence[Question]) -> float:
    """Seconds to the first event of a stream that is a point."""
    seconds = []
    async with AsyncClient(address) as client:
        for image, prompt in asked:
            begin = time.perf_counter()
            async for event in client.stream(image, prompt):
                if not isinstance(event, str):
                    seconds.append(time.perf_counter() - begin)
                    break
    return statistics.median(seconds) if seconds else float("nan")


Answer = Callable[[], Awaitable[Any]]


@dataclass
class Soak:
    """Mixed requests from many clients at once, each compared with what it gets alone.

    Attributes:
        server: that is asked.
        clients: at the same time.
        different: numbers of requests with another answer than alone.
        failed: what went wrong.
    """

    server: Served
    clients: int
    different: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def run(self, count: int, minutes: float) -> dict[str, Any]:
        """Sends so many requests, for so many minutes at least."""
        async with AsyncClient(self.server.address) as client:
            kinds = _mixed(client)
            expected = [await kind() for kind in kinds]
            order = np.random.default_rng(0)
            sent = 0
            readings = []
            begin = time.perf_counter()
            while sent < count or time.perf_counter() - begin < 60 * minutes:
                part = order.integers(len(kinds), size=min(500, max(count - sent, 100)))
                await self._send(kinds, expected, iter(part.tolist()))
                sent += len(part)
                readings.append((self.server.memory(), self.server.open_files()))
        seconds = time.perf_counter() - begin
        return {
            "requests": sent,
            "clients": self.clients,
            "kinds": len(kinds),
            "seconds": seconds,
            "rate": sent / seconds,
            "different": len(self.different),
            "failed": len(self.failed),
            "faults": self.failed[:5],
            "memory_mb": [round(memory, 1) for memory, _ in readings],
            "open_files": [files for _, files in readings],
        }

    async def _send(self, kinds: Sequence[Answer], expected: Sequence[Any], order: Iterator[int]) -> None:
        async def one_client() -> None:
            for number in order:
                try:
                    answer = await kinds[number]()
                except Exception as error:
                    self.failed.append(f"{type(error).__name__}: {error}")
                    continue
                if not _equal(answer, expected[number]):
                    self.different.append(number)

        await asyncio.gather(*(one_client() for _ in range(self.clients)))


def _mixed(client: AsyncClient) -> list[Answer]:
    """Requests of all kinds; pictures come again, so that features that were kept are used, too."""
    kinds: list[Answer] = []

    def add(ask: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> None:
        async def answer() -> Any:
            result = await ask(*arguments, **options)
            return (result.text, result.points.xy) if hasattr(result, "points") else result

        kinds.append(answer)

    async def streamed(image: bytes, prompt: str) -> Any:
        events = [event async for event in client.stream(image, prompt)]
        points = [(event.x, event.y) for event in events if not isinstance(event, str)]
        words = [event for event in events if isinstance(event, str)]
        return "".join(words), np.reshape(np.array(points, dtype=np.float64), (-1, 2))

    for image, prompt in questions(12, 7):
        add(client.point, image, prompt)
        add(client.point, image, prompt, single=True)
        add(client.point, image, prompt, max_points=1)
        add(client.count, image, prompt)
        add(client.ask, image, f"Is there {prompt}?")
        add(client.point, [image, image], prompt)
        add(streamed, image, prompt)
        add(client.point, _jpeg(image), prompt, max_crops=4)
    return kinds


def _jpeg(png: bytes) -> bytes:
    file = io.BytesIO()
    load_picture(png).save(file, "JPEG")
    return file.getvalue()


def _equal(answer: Any, expected: Any) -> bool:
    """Whether both say the same: words, and places to a thousandth of a pixel."""
    if not isinstance(answer, tuple):
        return answer == expected
    return (
        answer[0] == expected[0]
        and answer[1].shape == expected[1].shape
        and np.allclose(answer[1], expected[1], atol=1e-3)
    )


def _verdict(holds: bool) -> str:
    return "kept" if holds else "not kept"


def print_document(document: dict[str, Any]) -> None:
    """Lines for people."""
    paper = report.console()
    report.print_facts(paper, document["machine"])
    if "soak" in document:
        report.print_facts(paper, document["soak"])
        return
    paper.print(f"point_batch alone: {document['point_batch_rate']:.1f} requests a second")
    for row in document["rows"]:
        paper.print(
            f"{row['clients']:3} clients: {row['rate']:6.1f} requests a second, p50 {row['p50_ms']:.0f} ms, "
            f"p95 {row['p95_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms"
        )
    if document["ratio"] is not None:
        ratio = document["ratio"]
        verdict = _verdict(ratio >= _LEAST_RATIO)
        paper.print(f"{_COMPARED} clients to point_batch: {ratio:.2f}, at least {_LEAST_RATIO}: {verdict}")
    added = document["added_ms"]
    verdict = _verdict(added <= _MOST_ADDED)
    paper.print(f"added to an answer at 1 client: {added:.1f} ms, at most {_MOST_ADDED:g}: {verdict}")
    paper.print(f"first point of a stream: {document['first_point_ms']:.0f} ms")
    paper.print(
        f"memory of the server: {document['memory_before_mb']:.0f} MB before, "
        f"{document['memory_after_mb']:.0f} MB after, {document['open_files']} open files"
    )
