"""Clicks in pages of a real browser by names: pixel ratios, scrolling, abstaining, sync and async pages."""

from __future__ import annotations

import asyncio
import io
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from made_results import metadata_of
from PIL import Image

import molmopoint
from molmopoint.agents import (
    AgentError,
    PageError,
    TargetNotFound,
    click,
    click_async,
    fill,
    fill_async,
    locate,
    locate_async,
)
from molmopoint.pipeline import Pointer, PointingResult
from molmopoint.points import Points

pytestmark = pytest.mark.browser

PAGE = """<!doctype html><body style="font-family: sans-serif; margin: 8px"><script>var log = ""</script>
<h3>Settings</h3>
<button style="background: #0a0; color: #fff" onclick="log += 'saved '" ondblclick="log += 'twice '">Save</button>
<p><input id="email" value="old" style="background: #00f; color: #fff"></p>
<p><label><input type="checkbox" id="dark"> Dark mode</label></p>
<div style="height: 900px"></div>
<button style="background: #d00; color: #fff" onclick="log += 'deleted '">Delete</button>
<div style="height: 30px"></div></body>"""
WINDOW: Any = {"width": 336, "height": 336}


def browser_path() -> str:
    pytest.importorskip(
        "playwright.sync_api", reason="no browser driver is installed: pip install playwright"
    )
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        path = shutil.which(name)
        if path is not None:
            return path
    pytest.skip("no browser is installed: apt install chromium")


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano-screens", device_map="cpu")


class ByColour:
    """Points at the middle of what has a colour, and at nothing where nothing has it."""

    CHANNELS = {"red": 0, "green": 1, "blue": 2}

    def point(self, image: Any, prompt: str, **_: Any) -> PointingResult:
        with Image.open(io.BytesIO(image)) as file:
            pixels = np.asarray(file.convert("RGB")).astype(int)
        channel = next(channel for name, channel in self.CHANNELS.items() if name in prompt)
        others = np.delete(pixels, channel, axis=2)
        down, across = np.nonzero((pixels[..., channel] > 120) & (others.max(axis=2) < 60))
        found = len(down) > 50
        size = pixels.shape[1], pixels.shape[0]
        one = np.ones(int(found), dtype=int)
        x, y = (
            values[:found] * 0 + values.sum() / max(len(values), 1) for values in (across + 0.5, down + 0.5)
        )
        points = Points(one, one - 1, x, y, 0.9 * one, image_sizes=(size,))
        return PointingResult(points, "", "", prompt, False, 0, (size,), metadata_of([size]))


EYE = ByColour()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = browser_path()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path)
        yield opened
        opened.close()


def page_of(browser: Any, ratio: float = 1.0) -> Any:
    page = browser.new_page(viewport=WINDOW, device_scale_factor=ratio)
    page.set_content(PAGE)
    return page


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_what_is_named_is_clicked(browser: Any, ratio: float):
    page = page_of(browser, ratio)
    box = page.locator("button").first.bounding_box()
    target = click(page, "click the green button", pointer=EYE)
    assert page.evaluate("log") == "saved " and target.ratio == pytest.approx(ratio, abs=0.01)
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    assert (target.x, target.y) == pytest.approx(middle, abs=2)
    click(page, "the green button", pointer=EYE, clicks=2)
    assert "twice" in page.evaluate("log")
    fill(page, "the blue field", "a@b.example", pointer=EYE)
    assert page.evaluate("document.getElementById('email').value") == "a@b.example"
    page.close()


def test_the_page_is_scrolled_to_what_is_named(browser: Any):
    page = page_of(browser)
    target = locate(page, "the red button", pointer=EYE)
    assert target.scrolled > 300 and page.evaluate("scrollY") == pytest.approx(target.scrolled)
    click(page, "the red button", pointer=EYE)
    assert page.evaluate("log") == "deleted "
    target = click(page, "the green button", pointer=EYE)
    assert page.evaluate("log") == "deleted saved " and target.scrolled < -300, "and back to the top"
    page.evaluate("document.body.innerHTML = '<div style=\"overflow:auto;height:300px\">' + "
                  "document.body.innerHTML + '</div>'")  # fmt: skip
    click(page, "the red button", pointer=EYE)
    assert page.evaluate("log") == "deleted saved deleted ", "what scrolls inside is searched, too"
    page.close()


def test_a_page_that_moves_is_waited_for(browser: Any):
    page = page_of(browser)
    page.evaluate(
        """() => { const button = document.querySelector("button"); let left = 0;
        const timer = setInterval(() => { left += 10; button.style.marginLeft = left + "px";
        if (left >= 200) clearInterval(timer); }, 30); }"""
    )
    click(page, "the green button", pointer=EYE)
    assert page.evaluate("log") == "saved "
    page.close()


def test_the_model_that_comes_along_clicks(browser: Any, pointer: Pointer):
    page = page_of(browser)
    click(page, "the Dark mode checkbox", pointer=pointer)
    assert page.evaluate("document.getElementById('dark').checked")
    click(page, "the Save button", pointer=pointer)
    assert page.evaluate("log") == "saved "
    page.close()


def test_nothing_is_clicked_where_nothing_fits(browser: Any):
    page = page_of(browser)
    page.evaluate("scrollTo(0, 120)")
    with pytest.raises(TargetNotFound) as caught:
        click(page, "the green button", pointer=EYE, min_score=1.0)
    assert caught.value.best is not None and caught.value.instruction == "the green button"
    assert page.evaluate("log") == "" and page.evaluate("scrollY") == 120, "the page is where it was"
    with pytest.raises(TargetNotFound):
        click(page, "the green button", pointer=EYE, min_score=1.0, scroll=False)
    page.close()


def test_faults_are_typed(browser: Any):
    page = page_of(browser)
    with pytest.raises(AgentError, match="buttons left, right, middle"):
        click(page, "the green button", pointer=EYE, button="odd")
    with pytest.raises(AgentError, match="min_score"):
        click(page, "the green button", pointer=EYE, min_score=7)
    page.close()
    with pytest.raises(PageError, match="closed"):
        click(page, "the green button", pointer=EYE)


def test_async_pages():
    path = browser_path()
    from playwright.async_api import async_playwright

    async def run() -> None:
        async with async_playwright() as playwright:
            opened = await playwright.chromium.launch(executable_path=path)
            page = await opened.new_page(viewport=WINDOW)
            await page.set_content(PAGE)
            await click_async(page, "the green button", pointer=EYE)
            assert await page.evaluate("log") == "saved "
            await fill_async(page, "the blue field", "new", pointer=EYE)
            assert await page.evaluate("document.getElementById('email').value") == "new"
            with pytest.raises(TargetNotFound):
                await locate_async(page, "the green button", pointer=EYE, min_score=1.0, scroll=False)
            with pytest.raises(AgentError, match="click_async"):
                click(page, "the green button", pointer=EYE)
            await opened.close()
            with pytest.raises(PageError):
                await click_async(page, "the green button", pointer=EYE)

    # Its own thread: the pages of the other tests keep a loop running in this one.
    failures: list[BaseException] = []

    def alone() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
