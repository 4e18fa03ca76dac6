"""Makes the pictures of the page of `molmopoint serve` again: `python examples/make_page_images.py [--out
examples/images]`.

Needs the extras `serve` and `screens`, and Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

import molmopoint
from molmopoint.files import open_picture
from molmopoint.serving import app

IMAGES = Path(__file__).parent / "images"
DESKTOP: ViewportSize = {"width": 1200, "height": 760}
PHONE: ViewportSize = {"width": 390, "height": 800}
PROMPTS = ("the red circles", "the orange circles", "the diamonds")
COLOURS = 256
"""Of a picture; a page has few."""


@contextmanager
def running() -> Iterator[str]:
    """The address of a server with `nano`."""
    application = app({"nano": molmopoint.load("nano")})
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


def asked(browser: Browser, url: str, size: ViewportSize, scheme: Literal["light", "dark"]) -> Page:
    """The page with a picture and a few answers."""
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.goto(url)
    page.set_input_files("#file", IMAGES / "shapes.png")
    for number, prompt in enumerate(PROMPTS, 1):
        page.fill("#prompt", prompt)
        page.press("#prompt", "Enter")
        page.wait_for_function(FINISHED.format(number=number))
    page.evaluate("document.activeElement.blur()")
    return page


FINISHED = "() => document.querySelectorAll('.card[aria-busy=false]').length === {number}"


def write(page: Page, path: Path) -> None:
    """Writes what is seen, in few colours."""
    page.wait_for_timeout(300)
    with open_picture(io.BytesIO(page.screenshot()), decode=True) as screenshot:
        seen = screenshot.convert("RGB")
    seen.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}  {seen.width} x {seen.height}, {path.stat().st_size:,} bytes")


def main() -> None:
    """Writes page.png and page_phone.png."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the page again.")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the pictures")
    arguments = parser.parse_args()

    with running() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = asked(browser, url, DESKTOP, "light")
        page.locator(".card").last.locator(".points button").first.hover()
        write(page, arguments.out / "page.png")
        write(asked(browser, url, PHONE, "dark"), arguments.out / "page_phone.png")
        browser.close()


if __name__ == "__main__":
    main()
