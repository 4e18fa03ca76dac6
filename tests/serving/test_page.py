"""The page in a real browser, against a real server with `nano`: what people see is what `Pointer` says."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api", reason="no browser driver is installed: pip install playwright")

import httpx
import uvicorn
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

import molmopoint
from molmopoint.data.clips import sample_clip
from molmopoint.pipeline import Pointer
from molmopoint.pipeline.video_writing import write_video
from molmopoint.serving import app

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "molmopoint" / "serving" / "page"
SHAPES = ROOT / "examples" / "images" / "shapes.png"
PROMPT = "the red circles"
COLOURS = ((0xD8, 0x1B, 0x60), (0x0B, 0x6B, 0xCB))
"""Of the first two questions."""

MARGIN = 12
"""CSS pixels between a picture that is shown whole and the edge of the stage."""

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
KEY = "open sesame"


@contextlib.contextmanager
def running(application: Any) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server starts"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return molmopoint.load("nano", device_map="cpu")


@pytest.fixture(scope="module")
def address(pointer: Pointer) -> Iterator[str]:
    with running(app({"nano": pointer})) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if executable is None:
        pytest.skip("no browser is installed: apt install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Visit:
    """One visit of the page.

    Attributes:
        page: of the browser.
        faults: what the page did wrong, such as asking another host.
    """

    page: Page
    faults: list[str] = field(default_factory=list)

    @property
    def cards(self) -> Locator:
        return self.page.locator(".card")

    @property
    def readout(self) -> str:
        return self.page.locator("#readout").inner_text()

    def drop(self, name: str, content: bytes, kind: str = "image/png") -> None:
        """Lets a file fall onto the stage."""
        script = """([name, kind, content]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, {type: kind}));
            const event = new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true});
            document.getElementById("stage").dispatchEvent(event);
        }"""
        self.page.evaluate(script, [name, kind, base64.b64encode(content).decode()])

    def show(self, picture: Path = SHAPES) -> None:
        self.drop(picture.name, picture.read_bytes())
        expect(self.page.locator("#canvas")).to_be_visible()

    def ask(self, prompt: str = PROMPT) -> Locator:
        """The card of the answer, once it is whole."""
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")
        card = self.cards.first
        expect(card.locator("h3")).to_have_text(prompt)
        expect(card).to_have_attribute("aria-busy", "false")
        return card

    def stage(self) -> dict[str, float]:
        """Where the stage is: x, y, width, height."""
        box: Any = self.page.locator("#canvas").bounding_box()
        return box

    def cursor(self, x: float, y: float) -> np.ndarray:
        """The place of the picture that the page tells for a place of the stage."""
        box = self.stage()
        self.page.mouse.move(box["x"] + x, box["y"] + y)
        return np.array([float(number) for number in re.findall(r"[xy] (-?[\d.]+)", self.readout)])

    def markers(self, colour: tuple[int, int, int], near: np.ndarray, reach: int = 14) -> np.ndarray:
        """The middle of what has this colour near a place of the stage."""
        self.page.mouse.move(2, 2)  # a point that is looked at has a ring in the same colour
        self.page.wait_for_timeout(60)
        pixels = Image.open(io.BytesIO(self.page.locator("#canvas").screenshot())).convert("RGB")
        left, top = np.round(near).astype(int) - reach
        seen = np.asarray(pixels)[top : top + 2 * reach + 1, left : left + 2 * reach + 1].astype(int)
        rows, columns = np.nonzero(np.abs(seen - colour).max(axis=2) <= 3)
        assert len(rows) > 10, "there is a marker"
        middle = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2
        return middle + (left, top) + 0.5


@pytest.fixture()
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Visit]]:
    """Opens the page; whatever a test does, no other host is asked and no script fails."""
    contexts: list[Any] = []
    visits: list[Visit] = []

    def open_it(url: str = address, **options: Any) -> Visit:
        chosen: dict[str, Any] = {"viewport": {"width": 1200, "height": 800}, **options}
        context = browser.new_context(**chosen)
        context.set_default_timeout(8000)
        context.grant_permissions(["clipboard-read", "clipboard-write", "camera"])
        visit = Visit(context.new_page())
        contexts.append(context)
        visits.append(visit)
        visit.page.on("pageerror", lambda error: visit.faults.append(str(error)))

        def look(request: Any) -> None:
            if not request.url.startswith((url, "blob:", "data:")):
                visit.faults.append(request.url)

        visit.page.on("request", look)
        visit.page.on("console", lambda said: note(visit, said.text))
        visit.page.goto(url)
        return visit

    def note(visit: Visit, text: str) -> None:
        if "Content Security Policy" in text:
            visit.faults.append(text)

    yield open_it
    for context in contexts:
        context.close()
    assert [fault for visit in visits for fault in visit.faults] == []


def fitted(visit: Visit, size: tuple[int, int]) -> tuple[float, np.ndarray]:
    """Scale and offset of a picture that is shown whole."""
    box = visit.stage()
    room = np.array([box["width"], box["height"]])
    scale = float(np.min((room - 2 * MARGIN) / size))
    return scale, (room - np.array(size) * scale) / 2


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_points_are_where_the_pointer_says(open_page: Callable[..., Visit], pointer: Pointer):
    expected = pointer.point(SHAPES, PROMPT)
    visit = open_page()
    visit.show()
    card = visit.ask()
    expect(card.locator(".count")).to_have_text(str(len(expected)))
    lines = card.locator(".points button")
    assert lines.count() == len(expected) == 2
    scale, offset = fitted(visit, expected.image_sizes[0])
    for number, point in enumerate(expected):
        expect(lines.nth(number)).to_contain_text(f"x {point.x:.1f}, y {point.y:.1f}")
        expect(lines.nth(number).locator("small")).to_have_text(f"{point.score:.2f}")
        place = np.array([point.x, point.y]) * scale + offset
        np.testing.assert_allclose(visit.markers(COLOURS[0], place), place, atol=1)
        np.testing.assert_allclose(visit.cursor(*place), (point.x, point.y), atol=0.06)
        assert visit.readout.startswith(f"{PROMPT} {point.object_id} · ") and "score" in visit.readout


def test_points_come_before_the_answer_is_whole(open_page: Callable[..., Visit]):
    visit = open_page()
    visit.show()
    visit.page.evaluate("""() => {
        window.seen = [];
        const look = () => {
            const card = document.querySelector(".card");
            if (card) window.seen.push([card.ariaBusy, card.querySelectorAll(".points li").length]);
        };
        const options = {subtree: true, childList: true, attributes: true, characterData: true};
        new MutationObserver(look).observe(document.getElementById("cards"), options);
    }""")
    visit.ask()
    seen = visit.page.evaluate("window.seen")
    assert ["true", 0] in seen and ["true", 1] in seen and ["true", 2] in seen and seen[-1] == ["false", 2]


def test_where_else_a_point_might_be_glows(open_page: Callable[..., Visit], pointer: Pointer):
    prompt = "the orange circles"
    expected = pointer.point(SHAPES, prompt)
    least = int(expected.points.score.argmin())
    assert expected.points.score[least] < 0.5, "the model hesitates"
    visit = open_page()
    visit.show()
    card = visit.ask(prompt)
    before = seen_on(visit)
    card.locator(".points button").nth(least).hover()
    visit.page.wait_for_timeout(200)
    after = seen_on(visit)
    scale, offset = fitted(visit, expected.image_sizes[0])
    column, row = expected.points.xy[least] * scale + offset
    rows, columns = np.mgrid[: len(before), : before.shape[1]]
    is_elsewhere = (np.hypot(rows - row, columns - column) > 25) & (rows < len(before) - 60)
    changed = (np.abs(after - before).max(axis=2) > 25) & is_elsewhere  # (height, width)
    assert changed.sum() > 50
    # It glows where the heat is, and nowhere else.
    heat = expected.heatmap(least)
    places = ((np.argwhere(changed)[:, ::-1] - offset) / scale).astype(int)  # (n, 2)
    levels = heat[places[:, 1], places[:, 0]] / heat.max()
    assert levels.mean() > 3 * (heat / heat.max()).mean()


def seen_on(visit: Visit) -> np.ndarray:
    """(height, width, 3) what is on the stage."""
    shot = visit.page.locator("#canvas").screenshot()
    with Image.open(io.BytesIO(shot)) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_words_and_counts(open_page: Callable[..., Visit], pointer: Pointer):
    visit = open_page()
    visit.show()
    visit.page.get_by_label("Count", exact=True).check()
    card = visit.ask("red circles")
    expect(card.locator(".count")).to_have_text(str(pointer.count(SHAPES, "red circles")))
    visit.page.get_by_label("Words", exact=True).check()
    card = visit.ask("Describe this image.")
    expect(card.locator(".words")).to_have_text(pointer.ask(SHAPES, "Describe this image."))


def test_what_goes_wrong_is_told_with_what_to_do(open_page: Callable[..., Visit]):
    visit = open_page()
    visit.page.fill("#prompt", PROMPT)
    visit.page.press("#prompt", "Enter")
    expect(visit.page.get_by_role("alert")).to_contain_text("There is no picture yet. Drop one")
    visit.drop("notes.txt", b"hello", "text/plain")
    expect(visit.page.get_by_role("alert")).to_contain_text("That was no picture and no clip. Drop")
    visit.drop("broken.png", b"\x89PNG nothing more")
    expect(visit.page.get_by_role("alert")).to_contain_text("This browser cannot read broken.png. Try")
    visit.show()
    expect(visit.page.get_by_role("alert")).to_be_hidden()

    visit.page.get_by_text("Options").click()
    visit.page.get_by_label("Most points").fill("5000")
    card = visit.ask()
    expect(card.locator(".fault")).to_contain_text("expected max_points of at most 1000, got 5000")
    visit.page.get_by_label("Most points").fill("1")
    card = visit.ask("all red circles")
    expect(card.locator(".count")).to_have_text("1")

    visit.page.context.set_offline(True)
    card = visit.ask("the squares")
    expect(card.locator(".fault")).to_contain_text("The server cannot be reached. See whether")
    visit.page.context.set_offline(False)
    card.get_by_role("button", name="Ask again").click()
    expect(visit.cards.first.locator(".copies")).to_be_visible()


@pytest.mark.parametrize("kind", ["Point", "Track"])
def test_clips(open_page: Callable[..., Visit], pointer: Pointer, tmp_path: Path, kind: str):
    pytest.importorskip("av")
    clip = sample_clip(np.random.default_rng(4))
    path = tmp_path / "clip.mp4"
    write_video([Image.fromarray(frame).resize((480, 480)) for frame in clip.frames], 2, path)
    prompt = clip.queries[0].prompt
    ask = pointer.point_video if kind == "Point" else pointer.track
    result: Any = ask(str(path), prompt)
    points = result.points if kind == "Point" else result.tracks
    visit = open_page()
    visit.drop(path.name, path.read_bytes(), "video/mp4")
    expect(visit.page.locator("#canvas")).to_be_visible()
    visit.page.get_by_label(kind, exact=True).check()
    card = visit.ask(prompt)
    lines = card.locator(".points button")
    assert lines.count() == len(points.x) > 0
    last = lines.last
    seconds, x, y = re.findall(r"[\d.]+", last.inner_text().partition("\n")[2])[:3]
    times = points.group if kind == "Point" else points.time
    assert [float(seconds), float(x), float(y)] == pytest.approx(
        [times[-1], points.x[-1], points.y[-1]], abs=0.06
    )
    last.click()
    expect(visit.page.locator("#clip")).to_have_js_property("currentTime", float(times[-1]))
    visit.page.wait_for_timeout(200)
    scale, offset = fitted(visit, (480, 480))
    place = np.array([points.x[-1], points.y[-1]]) * scale + offset
    np.testing.assert_allclose(visit.markers(COLOURS[0], place), place, atol=1.5)


def test_html_is_text(open_page: Callable[..., Visit]):
    visit = open_page()
    visit.drop("<b onclick=alert(1)>.png", SHAPES.read_bytes())
    prompt = """<img src=x onerror="document.title='run'"><script>document.title='run'</script>"""
    card = visit.ask(prompt)
    assert card.locator("h3").inner_html().startswith("&lt;img") and card.locator("img").count() == 0
    assert visit.page.title() == "molmopoint"


def test_questions_have_colours_and_can_be_taken_back(open_page: Callable[..., Visit], pointer: Pointer):
    visit = open_page()
    visit.show()
    visit.ask()
    visit.ask("the blue circles")
    scale, offset = fitted(visit, size_of(SHAPES))
    places = []
    for prompt, colour in zip((PROMPT, "the blue circles"), COLOURS, strict=True):
        found = pointer.point(SHAPES, prompt).points.xy[0] * scale + offset
        np.testing.assert_allclose(visit.markers(colour, found), found, atol=1)
        places.append(found)

    visit.cards.first.get_by_role("button", name="Hide").click()
    with pytest.raises(AssertionError, match="there is a marker"):
        visit.markers(COLOURS[1], places[1])
    visit.cards.first.get_by_role("button", name="Remove").click()
    expect(visit.cards).to_have_count(1)
    visit.page.get_by_role("button", name="Undo").click()
    expect(visit.cards).to_have_count(2)
    visit.page.get_by_role("button", name="Undo").click()
    expect(visit.cards).to_have_count(1)
    expect(visit.cards.locator("h3")).to_have_text(PROMPT)


def test_earlier_pictures_come_back_with_their_answers(open_page: Callable[..., Visit], tmp_path: Path):
    visit = open_page()
    visit.show()
    visit.ask()
    other = tmp_path / "other.png"
    Image.new("RGB", (300, 200), (90, 120, 150)).save(other)
    visit.show(other)
    expect(visit.cards).to_have_count(0)
    visit.page.get_by_role("button", name="shapes.png, 1 question").click()
    expect(visit.cards.locator("h3")).to_have_text(PROMPT)
    kept = visit.page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert kept == "[{},{}]"


def test_copies_give_the_answer_again(
    open_page: Callable[..., Visit],
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    visit = open_page()
    name = "it's $HOME.png"
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(SHAPES, name)
    visit.show(tmp_path / name)
    prompt = 'the "red" circles, it\'s $HOME \\n %s'
    card = visit.ask(prompt)

    def copied(kind: str) -> str:
        card.get_by_role("button", name=kind, exact=True).click()
        expect(card.get_by_role("button", name="Copied")).to_have_count(1)
        text = visit.page.evaluate("navigator.clipboard.readText()")
        expect(card.get_by_role("button", name="Copied")).to_have_count(0)
        return text

    image = "data:image/png;base64," + base64.b64encode(SHAPES.read_bytes()).decode()
    expected = httpx.post(f"{address}v1/point", json={"image": image, "prompt": prompt}, timeout=30).json()
    answer = json.loads(copied("JSON"))
    assert without_seconds(answer) == without_seconds(expected)
    if shutil.which("curl"):
        given = subprocess.run(["sh", "-c", copied("curl")], capture_output=True, text=True, check=True)
        assert without_seconds(json.loads(given.stdout)) == without_seconds(expected)
    exec(copied("Python"), {})
    assert f"PointingResult({len(expected['points'])} point" in capsys.readouterr().out


def without_seconds(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs from run to run, and without what only the page asks for."""
    points = [
        {name: value for name, value in point.items() if name != "heatmap"} for point in answer["points"]
    ]
    return answer | {"points": points, "usage": answer["usage"] | {"seconds": 0}}


def test_everything_can_be_done_with_keys(open_page: Callable[..., Visit]):
    visit = open_page()
    keyboard = visit.page.keyboard
    for _ in range(20):
        keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.textContent") == "Example":
            break
    keyboard.press("Enter")
    expect(visit.page.locator("#prompt")).to_be_focused()
    keyboard.type(PROMPT)
    keyboard.press("Enter")
    expect(visit.cards.first.locator(".copies")).to_be_visible()
    assert visit.cards.first.locator(".count").inner_text() == "2", "nano finds the two of the example"

    visit.page.locator("#canvas").focus()
    keyboard.press("n")
    assert visit.readout.startswith(f"{PROMPT} 1 ·")
    keyboard.press("n")
    assert visit.readout.startswith(f"{PROMPT} 2 ·")
    whole = visit.page.locator("#zoom").inner_text()
    for key in ("+", "+", "ArrowLeft", "-"):
        keyboard.press(key)
    assert visit.page.locator("#zoom").inner_text() != whole
    keyboard.press("0")
    expect(visit.page.locator("#zoom")).to_have_text(whole)

    keyboard.press("/")
    expect(visit.page.locator("#prompt")).to_be_focused()
    visit.page.locator("#canvas").focus()
    keyboard.press("?")
    expect(visit.page.get_by_role("dialog")).to_be_visible()
    keyboard.press("Escape")
    keyboard.press("Control+z")
    expect(visit.cards).to_have_count(0)


def test_large_pictures_can_be_zoomed_and_moved(open_page: Callable[..., Visit], pointer: Pointer):
    with Image.open(SHAPES) as small:
        picture = small.convert("RGB").resize((7680, 4320), Image.Resampling.BICUBIC)
    content = png(picture)
    expected = pointer.point(content, PROMPT)
    visit = open_page()
    visit.drop("large.png", content)
    expect(visit.page.locator("#canvas")).to_be_visible()
    card = visit.ask()
    assert card.locator(".points button").count() == len(expected) >= 1
    scale, offset = fitted(visit, (7680, 4320))
    point = expected.points.xy[0]
    np.testing.assert_allclose(
        visit.markers(COLOURS[0], point * scale + offset), point * scale + offset, atol=1
    )

    aim = point * scale + offset + (30, 10)
    visit.cursor(*aim)
    # Before the picture fills the stage it is kept in the middle, so it is what comes later that stays put.
    for _ in range(4):
        visit.page.mouse.wheel(0, -150)
    before = visit.cursor(aim[0] + 1, aim[1])
    for _ in range(4):
        visit.page.mouse.wheel(0, -150)
    closer = float(visit.page.locator("#zoom").inner_text().removesuffix(" %")) / 100
    assert closer > 5 * scale
    np.testing.assert_allclose(visit.cursor(*aim), before, atol=2 / scale)

    box = visit.stage()
    visit.page.mouse.move(box["x"] + 200, box["y"] + 200)
    start = visit.cursor(200, 200)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 260, box["y"] + 150, steps=6)
    visit.page.mouse.up()
    np.testing.assert_allclose(visit.cursor(261, 150), start, atol=12 / closer)

    visit.page.keyboard.press("Escape")
    visit.page.locator("#canvas").focus()
    visit.page.keyboard.press("n")
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_timeout(100)
    middle = np.array([box["width"], box["height"]]) / 2
    left, top = visit.cursor(10, 300), visit.cursor(middle[0], 300)
    per_pixel = (top - left)[0] / (middle[0] - 10)
    place = middle + (point - visit.cursor(*middle)) / per_pixel
    np.testing.assert_allclose(visit.markers(COLOURS[0], place), place, atol=2)


def test_a_phone_scrolls_down_only(open_page: Callable[..., Visit]):
    visit = open_page(viewport={"width": 320, "height": 640}, has_touch=True, is_mobile=True)
    assert sideways(visit) == 0
    visit.show()
    visit.ask("a-very-long-word-" * 20)
    visit.page.get_by_text("Options").click()
    assert sideways(visit) == 0


def sideways(visit: Visit) -> int:
    """Pixels that the page could be scrolled to the side."""
    return visit.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_the_camera_gives_a_picture(open_page: Callable[..., Visit]):
    visit = open_page()
    visit.page.get_by_role("button", name="Camera").click()
    expect(visit.page.locator("#camera-picture")).to_have_js_property("videoWidth", 1920)
    visit.page.get_by_role("button", name="Take the picture").click()
    expect(visit.page.locator("#canvas")).to_have_attribute(
        "aria-label", re.compile(r"camera.jpg, \d+ by \d+")
    )


def test_keys_and_several_models(open_page: Callable[..., Visit], pointer: Pointer):
    with running(app({"small": pointer, "other": pointer}, keys=[KEY])) as url:
        visit = open_page(url)
        field = visit.page.get_by_label("This server asks for a key")
        field.fill("wrong")
        field.press("Enter")
        expect(field).to_be_visible()
        field.fill(KEY)
        field.press("Enter")
        visit.page.get_by_label("Model").select_option("other")
        visit.show()
        card = visit.ask()
        card.get_by_role("button", name="JSON").click()
        assert json.loads(visit.page.evaluate("navigator.clipboard.readText()"))["model"] == "other"
        card.get_by_role("button", name="curl").click()
        assert KEY not in visit.page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_and_reach_it(open_page: Callable[..., Visit], scheme: str):
    visit = open_page(color_scheme=scheme)
    faults = audit(visit)
    visit.show()
    visit.page.get_by_text("Options").click()
    visit.ask()
    visit.page.context.set_offline(True)
    visit.ask("the squares")
    visit.page.evaluate(
        "document.getElementById('notice').hidden = document.getElementById('key-form').hidden = false"
    )
    visit.cards.last.locator(".points button").first.hover()
    visit.page.wait_for_timeout(250)
    faults += audit(visit)
    visit.page.get_by_role("button", name="Shortcuts").click()
    faults += audit(visit)
    assert faults == []


def audit(visit: Visit) -> list[str]:
    """Controls without a name, ids that occur twice, targets that are too small, and text with a contrast below 4.5."""
    return visit.page.evaluate("""() => {
        const faults = [];
        const isSeen = (element) =>
            element.checkVisibility({visibilityProperty: true}) && !element.closest(".unseen");
        const labelled = (element) => [...(element.labels ?? [])].some((label) => label.innerText);
        const named = (element) => element.ariaLabel || element.innerText || labelled(element);
        const fault = (what, element) => faults.push(`${what}: ${element.outerHTML.slice(0, 80)}`);
        const controls = "button, input, select, canvas[tabindex], summary, dialog, section";
        for (const element of document.querySelectorAll(controls)) {
            if (!isSeen(element)) continue;
            if (!named(element)) fault("no name", element);
            const {width, height} = element.getBoundingClientRect();
            // Those with a label are as large as their label.
            const isLarge = Math.min(width, height) >= 24 || element.matches("[type=radio], [type=checkbox]");
            if (!isLarge) fault("small", element);
        }
        const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
        for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`twice: ${id}`);

        const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const light = (colour) => {
            const [red, green, blue] = numbers(colour).slice(0, 3).map((value) => {
                const part = value / 255;
                return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        };
        const behind = (element) => {
            for (let each = element; each; each = each.parentElement) {
                const colour = getComputedStyle(each).backgroundColor;
                if ((numbers(colour)[3] ?? 1) === 1) return colour;
            }
        };
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const element = walker.currentNode.parentElement;
            if (!walker.currentNode.data.trim() || !isSeen(element) || element.matches("option")) continue;
            const pair = [light(getComputedStyle(element).color), light(behind(element))];
            const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
            if (contrast < 4.5) faults.push(`${contrast.toFixed(2)}: ${walker.currentNode.data.trim()}`);
        }
        return faults;
    }""")


def test_it_is_small_and_brings_nothing_of_others():
    files = [file for file in PAGE.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 60_000
    for file in files:
        addresses = re.findall(r"https?://[^\s\"'`)]+", file.read_text())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}
