"""Chromium, started through Playwright: opens pages, acts on them, and tells what can be seen.

One process serves many pages. A page that hangs or crashes costs its own pictures only; the browser is
started anew. Nothing outside of this machine is reached unless that was allowed: neither by name, nor by a
redirect.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np

from molmopoint.errors import MolmoPointError
from molmopoint.files import open_picture
from molmopoint.files.addresses import is_local_address, is_reached_by_host
from molmopoint.screens.accessibility import described, frames_in
from molmopoint.screens.elements import Screen
from molmopoint.screens.steps import Step
from molmopoint.screens.visibility import read_screen

MOST_ELEMENTS = 4000
"""Elements of a page that are looked at; the number of further ones is told."""

FAULT_KINDS = {
    "refused": "an address outside of this machine, without leave",
    "unreachable": "no page at the address",
    "slow": "the page did not finish in time",
    "crash": "the page or the browser ended by itself",
    "download": "the address is a file to save, not a page",
    "step": "a step of the script found nothing to act on",
    "broken": "the page cannot be read",
}
"""Kinds of faults."""

_ATTEMPTS = 4
_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "microsoft-edge",
)
_FLAGS = (
    "--disable-features=IsolateOrigins,site-per-process",  # frames of all origins can be looked into
    "--force-color-profile=srgb",
    "--disable-lcd-text",  # letters without coloured edges
    "--hide-scrollbars",
)
_NO_NAMES = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE *.localhost, EXCLUDE 127.0.0.1, EXCLUDE [::1]"
"""The second fence: redirects are not shown to the first one."""
_SCROLL = """(share) => {
  const page = document.scrollingElement || document.documentElement;
  const inner = [...document.querySelectorAll("*")].filter((e) => e.scrollHeight > e.clientHeight + 40
    && /auto|scroll/.test(getComputedStyle(e).overflowY)).sort((a, b) => b.clientHeight * b.clientWidth - a.clientHeight * a.clientWidth);
  const target = page.scrollHeight > innerHeight + 4 ? page : inner[0] || page;
  target.scrollTo({ top: share * (target.scrollHeight - target.clientHeight), behavior: "instant" });
}"""

_T = TypeVar("_T")


class PageFault(MolmoPointError):
    """A page that cannot be drawn.

    Attributes:
        kind: a key of `FAULT_KINDS`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class View:
    """How a page is looked at.

    Attributes:
        width: of the window, in pixels of the page.
        height: of the window.
        ratio: pixels of the picture for each pixel of the page.
        theme: "light" or "dark", which pages may follow or not.
        scroll: how far down the page is scrolled, from 0 to 1.
    """

    width: int = 1280
    height: int = 800
    ratio: float = 1.0
    theme: str = "light"
    scroll: float = 0.0

    def __str__(self) -> str:
        """A name for files."""
        ratio = "" if self.ratio == 1 else f"@{self.ratio:g}"
        scroll = f"-{round(100 * self.scroll)}" if self.scroll else ""
        return f"{self.width}x{self.height}{ratio}-{self.theme}{scroll}"


class Browser:
    """A Chromium process; use it in a `with` statement.

    Args:
        path: of the program; by default the one that is installed, or else Playwright's own.
        everywhere: allow addresses outside of this machine.
        seconds: that each page, and each look at it, may take.
        most: elements of a page that are looked at.

    Attributes:
        events: what pages did that nobody asked for: dialogs, downloads, windows, and requests that were
            blocked.
        version: of the browser.
        starts: how often a process was started; a new one has forgotten who was signed in.

    Raises:
        MolmoPointError: Playwright or the browser is missing, or does not start.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        everywhere: bool = False,
        seconds: float = 20.0,
        most: int = MOST_ELEMENTS,
    ) -> None:
        self.everywhere = everywhere
        self.seconds = seconds
        self.most = most
        self.events: Counter[str] = Counter()
        self.version = ""
        self.starts = 0
        self._path = path or _installed()
        self._runner: asyncio.Runner | None = None
        self._playwright: Any = None
        self._browser: Any = None
        self._context: Any = None
        self._page: Any = None
        self._devtools: Any = None
        self._world: int | None = None
        self._view: View | None = None
        self._crashed = False
        self._script = f"({files('molmopoint.screens').joinpath('collect.js').read_text(encoding='utf-8')})"

    def __enter__(self) -> Browser:
        try:
            from playwright.async_api import async_playwright
        except ImportError as error:
            raise MolmoPointError(
                "expected Playwright, got no such package; run pip install 'molmopoint[screens]'"
            ) from error
        if _loop_runs():
            raise MolmoPointError(
                "expected a program without a running event loop, got one with; use the browser in a thread "
                "of its own"
            )
        self._runner = asyncio.Runner()
        try:
            self._playwright = self._runner.run(async_playwright().start())
            self._runner.run(self._launch())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is None:
            return
        self._runner.run(self._shut())
        if self._playwright is not None:
            self._runner.run(self._playwright.stop())
        self._runner.close()
        self._runner = self._playwright = None

    def open(self, address: str) -> None:
        """Opens an address and waits until it is loaded.

        A page that is there but goes on loading counts in `events` and is used as it is.

        Raises:
            PageFault: there is no page, or it may not be opened.
        """
        if not self.everywhere and not is_local_address(address):
            raise PageFault(
                "refused",
                f"expected an address on this machine, got {address!r}; allow others with --allow-urls",
            )
        self._run(self._open(address), self.seconds + 10)

    def write(self, html: str) -> None:
        """Shows a page from its source text."""
        self._run(self._write(html), self.seconds + 10)

    def replace(self, body: str, attributes: str = "", style: str = "") -> None:
        """Puts another body into the page that is open, which keeps its style sheets."""
        self._run(self._replace(body, attributes, style), self.seconds)

    def ask_page(self, function: str) -> Any:
        """The value of a JavaScript function without arguments, run in a world of its own."""
        return self._run(self._evaluate(f"({function})()"), self.seconds)

    def act(self, steps: Sequence[Step]) -> None:
        """Acts on the page.

        Raises:
            PageFault: a step found nothing to act on.
        """
        self._run(self._act(steps), (len(steps) + 1) * self.seconds)

    def look(self, view: View, address: str = "") -> Screen:
        """A picture of the page that is open, and what is seen on it.

        Raises:
            PageFault: the page hangs or has crashed.
        """
        return self._run(self._look(view, address), self.seconds)

    def _run(self, doing: Coroutine[Any, Any, _T], seconds: float) -> _T:
        """Waits for something, for a while; starts the browser anew where it hangs or is gone."""
        if self._runner is None:
            doing.close()
            raise MolmoPointError(
                "expected a browser that is open, got one that is closed; use it in a with statement"
            )
        return self._runner.run(self._guarded(doing, seconds))

    async def _guarded(self, doing: Coroutine[Any, Any, _T], seconds: float) -> _T:
        from playwright.async_api import Error

        try:
            return await asyncio.wait_for(self._first_of(doing), seconds)
        except PageFault as fault:
            if fault.kind == "crash":
                await self._restart()
            raise
        except TimeoutError as error:
            await self._restart()
            raise PageFault(
                "slow",
                f"expected a page that answers within {seconds:g} s, got none; leave it out or allow more",
            ) from error
        except Error as error:
            told = _first_line(error)
            is_gone = self._crashed or not self._browser.is_connected()
            kind = "crash" if is_gone or "crash" in told.lower() or "closed" in told.lower() else "broken"
            await self._restart()
            raise PageFault(kind, f"expected a page that can be drawn, got: {told}; leave it out") from error

    async def _first_of(self, doing: Coroutine[Any, Any, _T]) -> _T:
        """The result, unless the page crashes first: calls to a crashed page may never come back."""
        task = asyncio.ensure_future(doing)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=0.5)
                if self._crashed and not task.done():
                    raise PageFault(
                        "crash", "expected a page that can be drawn, got one that crashed; leave it out"
                    )
            return task.result()
        finally:
            task.cancel()

    # ---- The process
    async def _launch(self) -> None:
        from playwright.async_api import Error

        flags: list[str] = list(_FLAGS)
        if not self.everywhere:
            flags.append(_NO_NAMES)
        try:
            self._browser = await self._playwright.chromium.launch(executable_path=self._path, args=flags)
        except Error as error:
            told = _first_line(error)
            where = self._path or "Playwright's folder"
            raise MolmoPointError(
                f"expected Chromium at {where}, got: {told}; install it (apt install chromium, or "
                "playwright install chromium), "
                "or name it with --browser"
            ) from error
        self.version = self._browser.version
        self.starts += 1
        context = await self._browser.new_context(
            service_workers="block", accept_downloads=False, reduced_motion="reduce"
        )
        if not self.everywhere:
            await context.route(is_reached_by_host, self._stop_far_requests)
            await context.route_web_socket(lambda address: not is_local_address(address), self._stop_socket)
        self._context, self._page = context, None
        await self._fresh_page()

    async def _fresh_page(self) -> None:
        """A page of its own, so that nothing the one before still does reaches it; who is signed in stays so."""
        old, self._page = self._page, await self._context.new_page()
        self._devtools = await self._context.new_cdp_session(self._page)
        self._world = self._view = None
        self._crashed = False
        self._page.on("dialog", self._dismiss)
        self._page.on("download", self._drop)
        self._page.on("crash", self._note_crash)
        self._page.on("popup", self._close_popup)
        if old is not None:
            await old.close()

    async def _shut(self) -> None:
        if self._browser is None:
            return
        try:
            await asyncio.wait_for(self._browser.close(), 10)
        except Exception:  # of a process that is gone already; nothing is left to be done
            self.events["browser that did not end"] += 1
        self._browser = None

    async def _restart(self) -> None:
        self.events["browser started anew"] += 1
        await self._shut()
        await self._launch()

    # ---- What pages do by themselves
    async def _stop_far_requests(self, route: Any) -> None:
        if is_local_address(route.request.url):
            await route.continue_()
            return
        self.events["request blocked"] += 1
        await route.abort("blockedbyclient")

    async def _stop_socket(self, socket: Any) -> None:
        self.events["request blocked"] += 1
        await socket.close()

    async def _dismiss(self, dialog: Any) -> None:
        self.events["dialog dismissed"] += 1
        await dialog.dismiss()

    async def _drop(self, download: Any) -> None:
        self.events["download stopped"] += 1
        await download.cancel()

    async def _close_popup(self, page: Any) -> None:
        self.events["window closed"] += 1
        await page.close()

    def _note_crash(self, _: Any) -> None:
        self._crashed = True

    # ---- Pages
    async def _open(self, address: str) -> None:
        from playwright.async_api import Error, TimeoutError

        await self._fresh_page()
        try:
            answer = await self._page.goto(address, wait_until="load", timeout=1000 * self.seconds)
        except TimeoutError:
            self.events["page still loading"] += 1
            await self._devtools.send("Page.stopLoading")
            if await self._page.evaluate("!document.body || !document.body.childElementCount"):
                raise PageFault(
                    "slow",
                    f"expected a page at {address} within {self.seconds:g} s, got nothing; leave it out",
                ) from None
            return
        except Error as error:
            told = _first_line(error)
            if self._crashed or "crash" in told.lower():
                raise PageFault(
                    "crash", f"expected a page at {address}, got one that crashed; leave it out"
                ) from error
            if "Download is starting" in told or "ERR_ABORTED" in told:
                raise PageFault(
                    "download", f"expected a page at {address}, got a file to save; leave it out"
                ) from error
            raise PageFault(
                "unreachable", f"expected a page at {address}, got: {told}; check the address"
            ) from error
        if answer is not None and answer.status >= 400:
            raise PageFault(
                "unreachable", f"expected a page at {address}, got status {answer.status}; check the address"
            )

    async def _write(self, html: str) -> None:
        await self._fresh_page()
        await self._page.set_content(html, wait_until="load", timeout=1000 * self.seconds)

    async def _replace(self, body: str, attributes: str, style: str) -> None:
        code = """([body, attributes, style]) => {
          const root = document.documentElement;
          for (const name of root.getAttributeNames()) root.removeAttribute(name);
          for (const [name, value] of attributes) root.setAttribute(name, value);
          document.body.setAttribute("style", style);
          document.body.innerHTML = body;
        }"""
        pairs = []
        for attribute in attributes.split():
            name, sign, value = attribute.partition("=")
            if sign:
                pairs.append([name, value.strip('"')])
        await self._page.evaluate(code, [body, pairs, style])

    async def _act(self, steps: Sequence[Step]) -> None:
        from playwright.async_api import Error

        for step in steps:
            try:
                await step.run(self._page, 1000 * self.seconds)
            except Error as error:
                told = _first_line(error)
                if self._crashed:
                    raise
                raise PageFault("step", f"expected to {step}, got: {told}; correct the step") from error

    async def _look(self, view: View, address: str) -> Screen:
        if view != self._view:
            await self._take_view(view)
        if view.scroll:
            await self._evaluate(f"({_SCROLL})({view.scroll})")
        picture = await self._devtools.send(
            "Page.captureScreenshot", {"format": "png", "optimizeForSpeed": True}
        )
        found = await self._collect()
        with open_picture(io.BytesIO(base64.b64decode(picture["data"]))) as file:
            pixels = np.asarray(file.convert("RGB"))
        return read_screen(found, pixels, address, str(view))

    async def _collect(self) -> Any:
        """What `collect.js` finds; asked again where the page changes in between."""
        for _ in range(_ATTEMPTS):
            document = (await self._devtools.send("DOM.getDocument", {"depth": -1, "pierce": True}))["root"]
            await self._devtools.send("DOM.disable")
            tree = await self._devtools.send("Page.getFrameTree")
            accessible = []
            for frame in frames_in(tree["frameTree"]):
                accessible += (await self._devtools.send("Accessibility.getFullAXTree", {"frameId": frame}))[
                    "nodes"
                ]
            entries = described(document, accessible)
            told = [
                (i, entry.role, entry.name, entry.states) for i, entry in enumerate(entries) if entry.role
            ]
            tags = " ".join(entry.tag for entry in entries)
            options = json.dumps({"most": self.most, "told": told, "tags": tags})
            found = await self._evaluate(f"{self._script}({options})")
            if found is not None:
                return found
        raise PageFault(
            "broken",
            "expected a page that holds still, got one that changes all the time; wait for it in a step",
        )

    async def _take_view(self, view: View) -> None:
        size = {"width": view.width, "height": view.height, "deviceScaleFactor": view.ratio, "mobile": False}
        await self._devtools.send("Emulation.setDeviceMetricsOverride", size)
        theme = [
            {"name": "prefers-color-scheme", "value": view.theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await self._devtools.send("Emulation.setEmulatedMedia", {"features": theme})
        self._view = view

    async def _evaluate(self, code: str) -> Any:
        """The value of an expression in a world that the page has no hand in."""
        if self._world is None:
            tree = await self._devtools.send("Page.getFrameTree")
            world = {
                "frameId": tree["frameTree"]["frame"]["id"],
                "worldName": "molmopoint",
                "grantUniveralAccess": True,
            }
            self._world = (await self._devtools.send("Page.createIsolatedWorld", world))["executionContextId"]
        asked = {"contextId": self._world, "expression": code, "returnByValue": True}
        try:
            answer = await self._devtools.send("Runtime.evaluate", asked)
        except Exception as error:
            # The page went elsewhere by itself, and our world with it.
            if "context" not in str(error).lower():
                raise
            self._world = None
            return await self._evaluate(code)
        if "exceptionDetails" in answer:
            told = (
                answer["exceptionDetails"]
                .get("exception", {})
                .get("description", "an exception")
                .split("\n", 1)[0]
            )
            raise PageFault("broken", f"expected a page that can be read, got: {told}; leave it out")
        return answer["result"].get("value")


def _installed() -> str | None:
    """The program of a browser that is installed, if one is."""
    for name in _BROWSERS:
        path = shutil.which(name)
        if path:
            return path
    return None


def _first_line(error: Exception) -> str:
    """What Playwright tells, without its log."""
    return str(error).strip().split("\n", 1)[0]


def _loop_runs() -> bool:
    """Whether this thread runs coroutines already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
