"""Does tasks in a real browser: the agent gets the instructions of a task and a page, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from screens import icon_sets, kits
from screens.icon_sets import Icons

from agent.apps import KINDS, ROOM, Task, make_task
from molmopoint.agents import PageTarget, TargetNotFound, locate
from molmopoint.agents.targets import Points

SURE = 0.3
"""Score from which the model is asked no second time."""

NOUNS_ASKED = ("button", "tab", "link", "menu item", "icon", "switch", "checkbox", "radio button")
"""What instructions end with; "radio button" ends with "button", too."""

_STATE = "() => app"
_MIDDLE = """(id) => {
  const part = document.getElementById(id), box = part.getBoundingClientRect();
  if (!box.width || box.right > innerWidth || box.bottom > innerHeight) return null;
  return [box.left + box.width / 2, box.top + box.height / 2];
}"""


@dataclass
class Done:
    """What became of a click.

    Attributes:
        instruction: that was given.
        right: whether the app was in the state that it should be in after it.
        score: of the point; None where the agent abstained.
        absent: of the point, probability that nothing is there; None where the agent abstained.
        x: of the click, in pixels of the page; None where the agent abstained.
        y: of the click.
        asked: wordings that were tried.
        clicked: clicks, until the page looked different.
    """

    instruction: str
    right: bool
    score: float | None = None
    absent: float | None = None
    x: float | None = None
    y: float | None = None
    asked: int = 0
    clicked: int = 0


@dataclass
class Outcome:
    """What became of a task.

    Attributes:
        number: of the task.
        kind: of the app.
        look: kit and icons.
        done: whether the app ended in the state of the goal.
        clicks: one after the other; a task is given up at its first click that went wrong.
        length: clicks of the whole task.
    """

    number: int
    kind: str
    look: str
    done: bool
    clicks: list[Done]
    length: int

    def fields(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def draw_tasks(page: Any, seed: int, number: int, modules: Path | None) -> Iterator[Task]:
    """Tasks that a person could do: every part that is to be pressed is seen in the window, and presses on
    their middles, in order, lead to the goal.

    Args:
        page: of `playwright.sync_api`.
        seed: task i is drawn from [seed, i, try].
        number: of tasks.
        modules: folder `node_modules` of the cache of `train_screens.py fetch`; None for style sheets drawn by
            chance and a few drawings of our own.
    """
    names = list(KINDS)
    for index in range(number):
        for attempt in range(100):
            rng = np.random.default_rng([seed, index, attempt])
            kit, icons = _look(rng, modules)
            task = make_task(rng, names[index % len(names)], kit, icons, modules or Path())
            if _can_be_done(page, task):
                yield task
                break
        else:
            raise RuntimeError(f"expected a task of kind {names[index % len(names)]} that fits into {ROOM}")


def _look(rng: np.random.Generator, modules: Path | None) -> tuple[kits.Kit, Any]:
    """A kit of the training, or one of our own, and icons."""
    if modules is None:
        return kits.drawn_kit(rng), OwnIcons()
    kit = kits.drawn_kit(rng) if rng.random() < 0.4 else kits.TRAINED[int(rng.integers(len(kits.TRAINED)))]
    icon_set = icon_sets.TRAINED[int(rng.integers(len(icon_sets.TRAINED)))]
    return kit, Icons(icon_set, modules)


def _show(page: Any, task: Task) -> None:
    """Opens an app in a page that has forgotten the one before."""
    page.goto("about:blank")
    page.set_content(task.html)


def _can_be_done(page: Any, task: Task) -> bool:
    _show(page, task)
    for step in task.clicks:
        middle = page.evaluate(_MIDDLE, step.element)
        if middle is None:
            return False
        page.mouse.click(*middle)
        if page.evaluate(_STATE) != step.state:
            return False
    return True


def do_task(
    page: Any, number: int, task: Task, pointer: Points, folder: Path | None = None, **options: Any
) -> Outcome:
    """Lets an agent do a task; it ends at the first click after which the app is in another state than it
    should be.

    Args:
        page: of `playwright.sync_api`.
        number: of the task, for files.
        task: to do.
        pointer: the agent's eye.
        folder: where the screenshot before a wrong click is kept.
        **options: of `molmopoint.agents.locate`.
    """
    _show(page, task)
    outcome = Outcome(number, task.kind, task.look, False, [], len(task.clicks))
    for step in task.clicks:
        picture = page.screenshot()
        done = _one_click(page, step.instruction, pointer, options)
        done.right = page.evaluate(_STATE) == step.state
        outcome.clicks.append(done)
        if not done.right:
            if folder is not None:
                (folder / f"task_{number:02d}.png").write_bytes(picture)
            return outcome
    outcome.done = page.evaluate(_STATE) == task.goal
    return outcome


def _one_click(page: Any, instruction: str, pointer: Points, options: dict[str, Any]) -> Done:
    """Looks for what is meant and clicks there; in other words where the model is not sure, or where the page
    looks as before.
    """
    done = Done(instruction, False)
    unsure: list[PageTarget] = []
    for wording in wordings(instruction):
        done.asked += 1
        try:
            target = locate(page, wording, pointer=pointer, scroll=False, **options)
        except TargetNotFound:
            continue
        if target.score < SURE:
            unsure.append(target)
        elif _changes(page, target, done):
            return done
    for target in sorted(unsure, key=lambda target: -target.score):
        if _changes(page, target, done):
            break
    return done


def _changes(page: Any, target: PageTarget, done: Done) -> bool:
    """Clicks, and tells whether the page looks different."""
    before = page.screenshot()
    page.mouse.click(target.x, target.y)
    page.mouse.move(0, 0)  # what only glows below the pointer is no change
    done.clicked += 1
    done.x, done.y, done.score, done.absent = target.x, target.y, target.score, target.absent
    return page.screenshot() != before


def wordings(instruction: str) -> tuple[str, ...]:
    """An instruction, and other words for it.

    >>> wordings("the Save button")
    ('the Save button', 'the button that says Save', 'Save')
    >>> wordings("the trash icon")
    ('the trash icon', 'the trash button', 'trash')
    """
    words = instruction.removeprefix("the ")
    noun = max((noun for noun in NOUNS_ASKED if words.endswith(f" {noun}")), key=len)
    name = words.removesuffix(f" {noun}")
    if noun == "icon":
        return instruction, f"the {name} button", name
    return instruction, f"the {noun} that says {name}", name


class OwnIcons:
    """A few drawings, where no icons were fetched."""

    name = "own"
    _PATHS = {
        "plus": '<path d="M12 4v16M4 12h16"/>',
        "cross": '<path d="M5 5l14 14M19 5L5 19"/>',
        "check": '<path d="M4 13l5 5L20 6"/>',
        "search": '<circle cx="10" cy="10" r="6"/><path d="M15 15l6 6"/>',
        "menu": '<path d="M3 6h18M3 12h18M3 18h18"/>',
        "play": '<path d="M7 4l13 8-13 8z"/>',
        "download": '<path d="M12 3v13M6 11l6 6 6-6M4 21h16"/>',
    }
    names = tuple(_PATHS)

    def svg(self, icon: str, side: int) -> str:
        """The drawing in the colour of the text around it."""
        return (
            f'<svg data-icon="{icon}" aria-hidden="true" width="{side}" height="{side}" class="mp-icon" '
            'viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round">'
            f"{self._PATHS[icon]}</svg>"
        )
