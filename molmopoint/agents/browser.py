"""Clicks in a page of Playwright by what a person calls things: screenshot, point, click.

The page is only looked at and pressed, never read: no selector, no accessibility tree. So it works for what is
drawn into a canvas as well, and it sees what a person sees. Every function comes twice, for sync and for async
pages; both run the same steps.
"""

from __future__ import annotations

import asyncio
import inspect
import io
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from molmopoint.agents.targets import (
    DEFAULT_MAX_ABSENT,
    DEFAULT_MIN_SCORE,
    AgentError,
    Points,
    Target,
    TargetNotFound,
    find_target,
)
from molmopoint.files import open_picture

DEFAULT_TIMEOUT = 10.0
"""Seconds that each step of the browser may take."""

BUTTONS = ("left", "right", "middle")
"""Buttons of a mouse."""

_STILL_AFTER = 100
"""Milliseconds between two looks that must be equal."""

_MOST_LOOKS = 20
"""Looks at a page that does not hold still, before it is used as it is."""

_MOST_SCROLLS = 25
"""Screens of a page that are searched."""

_SHARE_SCROLLED = 0.8
"""Part of a screen that is scrolled at once; the rest is seen twice, so that nothing is cut in two."""

_SIZE = "() => [innerWidth, innerHeight]"

_SCROLL = """([share, start]) => {
  const page = document.scrollingElement || document.documentElement;
  const scrolls = (e) => e.scrollHeight > e.clientHeight + 40 && /auto|scroll/.test(getComputedStyle(e).overflowY);
  const area = (e) => e.clientWidth * e.clientHeight;
  const inner = [...document.querySelectorAll("*")].filter(scrolls).sort((a, b) => area(b) - area(a));
  const target = page.scrollHeight > innerHeight + 4 ? page : inner[0] || page;
  const before = target.scrollTop;
  const top = start === null ? before + share * target.clientHeight : start;
  target.scrollTo({ top, behavior: "instant" });
  return [before, target.scrollTop];
}"""
"""Scrolls the page, or its largest part that scrolls; [where it was, where it is]."""

_T = TypeVar("_T")


class PageError(AgentError):
    """A page that cannot be looked at or pressed: it is closed, has crashed or does not answer."""


@dataclass(frozen=True)
class PageTarget:
    """A place in a page.

    Attributes:
        x: pixels of the page (CSS) from the left edge of the window.
        y: pixels of the page from the upper edge of the window, as scrolled now.
        score: 0..1, uncalibrated; NaN where the model gives none.
        absent: probability that nothing is there, uncalibrated; NaN where the model gives none.
        ratio: pixels of the screenshot for each pixel of the page.
        scrolled: how far the page was scrolled to find it, in pixels of the page.
    """

    x: float
    y: float
    score: float
    absent: float
    ratio: float
    scrolled: float


# ---- Steps, the same for both kinds of pages


@dataclass(frozen=True)
class _Call:
    """A method of the page that is to be called, such as "mouse.click"."""

    method: str
    args: tuple[Any, ...] = ()
    options: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Ask:
    """A picture that the model is to look at."""

    picture: bytes


Steps = Generator["_Call | _Ask", Any, _T]
"""What is to be done one after the other; each step is sent its result."""


@dataclass(frozen=True)
class _Look:
    """How a page is looked at and searched."""

    scroll: bool
    settle: float
    timeout: float

    @property
    def milliseconds(self) -> float:
        return 1000 * self.timeout


def _locating(look: _Look) -> Steps[PageTarget]:
    """The place that an instruction means: where the page stands, or else from its top to its end."""
    try:
        return (yield from _seen_now(look, 0.0))
    except TargetNotFound as error:
        if not look.scroll:
            raise
        not_here = error
    first, _ = yield _Call("evaluate", (_SCROLL, [0, 0]))
    before = -1.0
    _, now = yield _Call("evaluate", (_SCROLL, [0, None]))
    for _ in range(_MOST_SCROLLS):
        if now == before:  # its end
            break
        if now != first:  # what was seen already
            try:
                return (yield from _seen_now(look, now - first))
            except TargetNotFound as error:
                not_here = max(not_here, error, key=_score_of)
        before, now = yield _Call("evaluate", (_SCROLL, [_SHARE_SCROLLED, None]))
    yield _Call("evaluate", (_SCROLL, [0, first]))
    raise not_here


def _score_of(error: TargetNotFound) -> float:
    return -1.0 if error.best is None else error.best.score


def _seen_now(look: _Look, scrolled: float) -> Steps[PageTarget]:
    """The place on the screen as it stands."""
    picture = yield from _screenshot(look)
    width, _ = yield _Call("evaluate", (_SIZE,))
    with open_picture(io.BytesIO(picture), decode=False) as file:
        ratio = file.width / width
    target: Target = yield _Ask(picture)
    return PageTarget(target.x / ratio, target.y / ratio, target.score, target.absent, ratio, scrolled)


def _screenshot(look: _Look) -> Steps[bytes]:
    """A picture of the page in the pixels of its screen, once it holds still."""
    yield _Call("wait_for_load_state", ("domcontentloaded",), {"timeout": look.milliseconds})
    taking = _Call(
        "screenshot",
        options={"type": "png", "scale": "device", "animations": "disabled", "timeout": look.milliseconds},
    )
    picture = yield taking
    waited = 0.0
    for _ in range(_MOST_LOOKS):
        if waited >= look.settle:
            break
        yield _Call("wait_for_timeout", (_STILL_AFTER,))
        waited += _STILL_AFTER / 1000
        before, picture = picture, (yield taking)
        if picture == before:
            break
    return picture


def _clicking(look: _Look, button: str, clicks: int) -> Steps[PageTarget]:
    if button not in BUTTONS or clicks < 1:
        raise AgentError(
            f"expected one of the buttons {', '.join(BUTTONS)} and one or more clicks, got {button!r}, {clicks}"
        )
    target = yield from _locating(look)
    yield _Call("mouse.click", (target.x, target.y), {"button": button, "click_count": clicks})
    return target


def _filling(look: _Look, text: str) -> Steps[PageTarget]:
    """Clicks, selects what stands there, and types over it."""
    target = yield from _clicking(look, "left", 1)
    yield _Call("keyboard.press", ("ControlOrMeta+A",))
    yield _Call("keyboard.insert_text", (text,))
    return target


# ---- Running them


def _run(page: Any, steps: Steps[_T], pointer: Points, asked: dict[str, Any]) -> _T:
    """Does the steps on a sync page."""
    if inspect.iscoroutinefunction(getattr(page, "screenshot", None)):
        steps.close()
        raise AgentError("expected a page of playwright.sync_api, got an async one; await click_async(...)")
    send: Any = None
    failed: TargetNotFound | None = None
    while True:
        try:
            step = steps.send(send) if failed is None else steps.throw(failed)
        except StopIteration as end:
            return end.value
        send = failed = None
        try:
            if isinstance(step, _Call):
                send = _method(page, step)(*step.args, **(step.options or {}))
            else:
                send = find_target(pointer, step.picture, **asked)
        except TargetNotFound as error:
            failed = error
        except Exception as error:
            if not _is_of_browser(error):
                raise
            raise _fault(error) from error


async def _run_async(page: Any, steps: Steps[_T], pointer: Points, asked: dict[str, Any]) -> _T:
    """Does the steps on an async page; the model runs in a thread."""
    if not inspect.iscoroutinefunction(getattr(page, "screenshot", None)):
        steps.close()
        raise AgentError("expected a page of playwright.async_api, got a sync one; call click(...)")
    send: Any = None
    failed: TargetNotFound | None = None
    while True:
        try:
            step = steps.send(send) if failed is None else steps.throw(failed)
        except StopIteration as end:
            return end.value
        send = failed = None
        try:
            if isinstance(step, _Call):
                send = await _method(page, step)(*step.args, **(step.options or {}))
            else:
                send = await asyncio.to_thread(find_target, pointer, step.picture, **asked)
        except TargetNotFound as error:
            failed = error
        except Exception as error:
            if not _is_of_browser(error):
                raise
            raise _fault(error) from error


def _method(page: Any, step: _Call) -> Any:
    found = page
    for name in step.method.split("."):
        found = getattr(found, name)
    return found


def _is_of_browser(error: Exception) -> bool:
    """Whether Playwright raised it."""
    from playwright.async_api import Error

    return isinstance(error, Error)


def _fault(error: Exception) -> PageError:
    """The first line of what Playwright tells, without its log."""
    told = str(error).strip().split("\n", 1)[0]
    return PageError(f"expected a page that can be looked at and pressed, got: {told}; open it again")


# ---- For sync pages


def locate(
    page: Any,
    instruction: str,
    *,
    pointer: Points,
    min_score: float = DEFAULT_MIN_SCORE,
    max_absent: float = DEFAULT_MAX_ABSENT,
    scroll: bool = True,
    settle: float = 2.0,
    timeout: float = DEFAULT_TIMEOUT,
    **options: Any,
) -> PageTarget:
    """Where on a page something is; the page is scrolled until it is seen.

    Args:
        page: of `playwright.sync_api`.
        instruction: "the search button", or "click the search button".
        pointer: a `Pointer` or a `Client`.
        min_score: a place with a lower score is none.
        max_absent: a place is none where the model thinks with a higher probability that nothing is there.
        scroll: search all of the page, from its top to its end, where nothing is seen at once.
        settle: seconds that the page may take to hold still; then it is used as it is.
        timeout: seconds that each step of the browser may take.
        **options: as in `Pointer.point`, such as `max_crops`.

    Raises:
        TargetNotFound: nothing is there, or the model is not sure enough; the page is scrolled back.
        PageError: the page is closed, has crashed or does not answer.
        AgentError: the page is an async one.
    """
    asked = {"instruction": instruction, "min_score": min_score, "max_absent": max_absent, **options}
    return _run(page, _locating(_Look(scroll, settle, timeout)), pointer, asked)


def click(
    page: Any, instruction: str, *, pointer: Points, button: str = "left", clicks: int = 1, **options: Any
) -> PageTarget:
    """Clicks what an instruction means, and tells where that was.

    Args:
        page: of `playwright.sync_api`.
        instruction: "the search button", or "click the search button".
        pointer: a `Pointer` or a `Client`.
        button: "left", "right" or "middle".
        clicks: 2 for a double click.
        **options: of `locate`.

    Raises:
        TargetNotFound: as in `locate`; nothing was clicked.
        PageError: as in `locate`.
        AgentError: the page is an async one, or there is no such button.
    """
    look, asked = _taken_apart(instruction, options)
    return _run(page, _clicking(look, button, clicks), pointer, asked)


def fill(page: Any, instruction: str, text: str, *, pointer: Points, **options: Any) -> PageTarget:
    """Clicks a field and types over what stands in it.

    Args:
        page: of `playwright.sync_api`.
        instruction: "the email field".
        text: what is typed.
        pointer: a `Pointer` or a `Client`.
        **options: of `locate`.

    Raises:
        TargetNotFound: as in `locate`; nothing was typed.
        PageError: as in `locate`.
        AgentError: the page is an async one.
    """
    look, asked = _taken_apart(instruction, options)
    return _run(page, _filling(look, text), pointer, asked)


# ---- For async pages


async def locate_async(page: Any, instruction: str, *, pointer: Points, **options: Any) -> PageTarget:
    """`locate` for a page of `playwright.async_api`; the model runs in a thread, the loop goes on.

    Args:
        page: of `playwright.async_api`.
        instruction: as in `locate`.
        pointer: as in `locate`.
        **options: of `locate`.

    Raises:
        TargetNotFound: as in `locate`.
        PageError: as in `locate`.
        AgentError: the page is a sync one.
    """
    look, asked = _taken_apart(instruction, options)
    return await _run_async(page, _locating(look), pointer, asked)


async def click_async(
    page: Any, instruction: str, *, pointer: Points, button: str = "left", clicks: int = 1, **options: Any
) -> PageTarget:
    """`click` for a page of `playwright.async_api`; the model runs in a thread, the loop goes on.

    Args:
        page: of `playwright.async_api`.
        instruction: as in `click`.
        pointer: as in `click`.
        button: as in `click`.
        clicks: as in `click`.
        **options: of `locate`.

    Raises:
        TargetNotFound: as in `click`.
        PageError: as in `click`.
        AgentError: the page is a sync one.
    """
    look, asked = _taken_apart(instruction, options)
    return await _run_async(page, _clicking(look, button, clicks), pointer, asked)


async def fill_async(
    page: Any, instruction: str, text: str, *, pointer: Points, **options: Any
) -> PageTarget:
    """`fill` for a page of `playwright.async_api`; the model runs in a thread, the loop goes on.

    Args:
        page: of `playwright.async_api`.
        instruction: as in `fill`.
        text: as in `fill`.
        pointer: as in `fill`.
        **options: of `locate`.

    Raises:
        TargetNotFound: as in `fill`.
        PageError: as in `fill`.
        AgentError: the page is a sync one.
    """
    look, asked = _taken_apart(instruction, options)
    return await _run_async(page, _filling(look, text), pointer, asked)


def _taken_apart(instruction: str, options: dict[str, Any]) -> tuple[_Look, dict[str, Any]]:
    """Options of looking, and those of pointing."""
    scroll = options.pop("scroll", True)
    settle = options.pop("settle", 2.0)
    timeout = options.pop("timeout", DEFAULT_TIMEOUT)
    return _Look(scroll, settle, timeout), {"instruction": instruction, **options}
