"""Your own app, tried out: the small model of screens learns an application that it has never seen.

    python examples/own_app.py draw --folder runs/panel
    molmopoint finetune runs/panel/train/data.jsonl --model nano-screens --out runs/panel/learned
    python examples/own_app.py score --folder runs/panel --model nano-screens
    python examples/own_app.py score --folder runs/panel --model runs/panel/learned/model

The app is the panel of a glasshouse in `own_app/panel`: nine pages of a look of their own, in light and dark,
whose content changes from day to day. `draw` serves it from this machine and draws it with `molmopoint data
screens`. Two of the pages, and all days of the test, are kept from the training. `score` asks a model about
the pages that were kept (`new-pages`), and about the others on other days (`new-days`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

APP = Path(__file__).resolve().parent / "own_app" / "panel"
TRAINED = ("beds", "climate", "water", "plan", "order", "people", "mode")
KEPT = ("alarms", "account")
"""Pages of the test alone."""
FIRST_TEST_DAY = 1001
SIZE = "480x320"
METRICS = ("f1", "exact_count", "click")


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files, and tells nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Tells nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address under which a folder is served to this machine alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def addresses(base: str, pages: Sequence[str], days: range) -> list[str]:
    """Every page on every day."""
    return [f"{base}?page={page}&day={day}" for day in days for page in pages]


def parts(days: int, test_days: int) -> dict[str, tuple[Sequence[str], range]]:
    """Pages and days of each folder that is drawn.

    Args:
        days: of the training.
        test_days: of each test.
    """
    later = range(FIRST_TEST_DAY, FIRST_TEST_DAY + test_days)
    return {
        "train": (TRAINED, range(1, days + 1)),
        "new-pages": (KEPT, later),
        "new-days": (TRAINED, later),
    }


def draw(folder: Path, days: int, test_days: int, questions: int, browser: str | None) -> None:
    """Draws the app for training and test; what was drawn before stays.

    Args:
        folder: gets a folder for each part.
        days: of the training.
        test_days: of each test.
        questions: about each picture.
        browser: program of Chromium; None for the one that is installed.
    """
    with serving(APP) as base:
        for number, (part, (pages, which)) in enumerate(parts(days, test_days).items()):
            if (folder / part / "targets.jsonl").exists():
                continue
            command = [*addresses(base, pages, which), "--out", folder / part, "--size", SIZE]
            command += ["--theme", "light", "--theme", "dark", "--questions", questions, "--seed", number]
            if browser is not None:
                command += ["--browser", browser]
            _molmopoint("data", "screens", *command)


def score(folder: Path, model: str, limit: int | None) -> dict[str, dict[str, float]]:
    """Scores of a model on each test, by metric.

    Args:
        folder: what `draw` wrote.
        model: zoo name, hub id or folder.
        limit: questions of each test; None for all.
    """
    scores = {}
    for part in ("new-pages", "new-days"):
        out = folder / "scores" / model.replace("/", "_").replace("\\", "_") / part
        command = ["eval", "screens", "--model", model, "--data", folder / part, "--out", out]
        if limit is not None:
            command += ["--limit", limit]
        _molmopoint(*command)
        metrics = json.loads((out / "screens" / "metrics.json").read_text(encoding="utf-8"))
        whole = {cell["metric"]: cell["value"] for cell in metrics["cells"] if not cell["view"]}
        scores[part] = {name: round(whole[name], 3) for name in METRICS if whole.get(name) is not None}
    return scores


def _molmopoint(*command: object) -> None:
    subprocess.run([sys.executable, "-m", "molmopoint", *map(str, command)], check=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw the app for training and test")
    scoring = commands.add_parser("score", help="ask a model about the pages of the test")
    for command in (drawing, scoring):
        command.add_argument("--folder", type=Path, default=Path("runs/panel"))
    drawing.add_argument("--days", type=int, default=20, help="of the training: 14 pictures each")
    drawing.add_argument("--test-days", type=int, default=5)
    drawing.add_argument("--questions", type=int, default=10, help="about each picture")
    drawing.add_argument("--browser", help="program of Chromium; by default the one installed")
    scoring.add_argument("--model", required=True, help="zoo name, hub id or folder")
    scoring.add_argument("--limit", type=int, help="questions of each test; all by default")
    arguments = parser.parse_args()
    if arguments.command == "draw":
        draw(arguments.folder, arguments.days, arguments.test_days, arguments.questions, arguments.browser)
    else:
        print(
            json.dumps(
                {"model": arguments.model, **score(arguments.folder, arguments.model, arguments.limit)}
            )
        )


if __name__ == "__main__":
    main()
