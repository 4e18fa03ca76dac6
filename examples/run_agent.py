"""An agent does tasks in a real browser by names alone: `python examples/run_agent.py --cache runs/npm`.

Each task is a made-up app of some screens and three to six instructions, such as "the Settings tab", "the Dark
mode switch", "the Save button". The agent sees screenshots and presses; the state of the app decides. A task
counts if the app ends in the state of its goal, with nothing else pressed or switched.

Kits and icons come from the cache that `train_screens.py fetch` fills; without `--cache` pages have style
sheets drawn by chance and a few drawings of our own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from agent.apps import ROOM
from agent.running import Outcome, do_task, draw_tasks

import molmopoint

SEED = 4100
"""Of the published run."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano-screens", help="zoo name, hub id or folder")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cache", type=Path, help="where `train_screens.py fetch` put kits and icons")
    parser.add_argument("--out", type=Path, default=Path("runs/agent"), help="outcomes and failed screens")
    parser.add_argument("--browser", help="program of Chromium; by default the one that is installed")
    arguments = parser.parse_args()

    # Missing packages are told before the model is loaded.
    from playwright.sync_api import sync_playwright

    arguments.out.mkdir(parents=True, exist_ok=True)
    pointer = molmopoint.load(arguments.model)
    modules = None if arguments.cache is None else arguments.cache / "node_modules"
    path = arguments.browser or shutil.which("chromium") or shutil.which("google-chrome")
    outcomes = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport={"width": ROOM[0], "height": ROOM[1]})
        tasks = list(draw_tasks(page, arguments.seed, arguments.tasks, modules))
        start = time.perf_counter()
        for number, task in enumerate(tasks):
            # No page moves by itself here, and every place is tried that the model names.
            outcome = do_task(
                page, number, task, pointer, arguments.out, settle=0, min_score=0.0, max_absent=1.0
            )
            outcomes.append(outcome)
            last = outcome.clicks[-1]
            told = "done" if outcome.done else f"wrong at {last.instruction!r} (score {last.score})"
            print(f"{number:3d}  {task.kind:8s} {task.look:28s} {len(task.clicks)} clicks  {told}")
        seconds = time.perf_counter() - start
        browser.close()
    (arguments.out / "outcomes.json").write_text(
        json.dumps([outcome.fields() for outcome in outcomes], indent=1), encoding="utf-8"
    )
    print(summary(outcomes, seconds))


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Tasks that were done, in all and by kind of app, and clicks that were right among those that were tried."""
    done = sum(outcome.done for outcome in outcomes)
    tried = sum(len(outcome.clicks) for outcome in outcomes)
    right = sum(click.right for outcome in outcomes for click in outcome.clicks)
    asked = sum(click.asked for outcome in outcomes for click in outcome.clicks)
    lines = [
        f"{done} of {len(outcomes)} tasks done ({done / len(outcomes):.2f}); {right} of {tried} clicks right "
        f"({right / tried:.2f}); {asked} questions, {seconds:.0f} s"
    ]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.kind == kind]
        lines.append(f"  {kind}: {sum(outcome.done for outcome in own)} of {len(own)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
