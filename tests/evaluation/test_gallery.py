"""The gallery: outlines, faults, which items are shown, the page itself, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from molmopoint.eval.benchmark import (
    Benchmark,
    DatasetSource,
    GenerationSettings,
    Item,
    Items,
    Metric,
    Missing,
    ParsedAnswer,
    ShownTarget,
    ShownTruth,
    VideoSegment,
    View,
    score_items,
)
from molmopoint.eval.outlines import box_outline, distance, inside, mask_outlines
from molmopoint.eval.predictions.records import PredictedPoint, Prediction
from molmopoint.eval.reports.cards import Thumbnails
from molmopoint.eval.reports.faults import FAULTS, find_faults
from molmopoint.eval.reports.gallery import write_gallery
from molmopoint.eval.reports.summary import summarise

BOX = (20.0, 20.0, 40.0, 30.0)
SIZE = (200, 100)


def answer(*xy: tuple[float, float], moments: tuple[float, ...] | None = None, **fields: Any) -> ParsedAnswer:
    group = np.zeros(len(xy)) if moments is None else np.array(moments)
    return ParsedAnswer(np.array(xy, dtype=float).reshape(-1, 2), group, np.full(len(xy), -1), **fields)


def boxes(*corners: tuple[float, ...], count: int | None = None, moment: float = 0.0) -> ShownTruth:
    return ShownTruth(tuple(ShownTarget(box_outline(box), moment) for box in corners), count=count)


# Outlines


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_an_outline_encloses_exactly_the_pixels_of_its_mask(height, width, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    ys, xs = np.mgrid[:height, :width]
    centres = np.stack([xs.ravel() + 0.5, ys.ravel() + 0.5], axis=1)
    np.testing.assert_array_equal(inside(mask_outlines(mask), centres), mask.ravel())


def test_a_large_mask_gets_a_short_outline_that_covers_it():
    mask = np.zeros((2000, 3000), dtype=bool)
    ys, xs = np.mgrid[:2000, :3000]
    mask[(xs - 1500) ** 2 + (ys - 900) ** 2 < 700**2] = True
    rings = mask_outlines(mask)
    assert sum(map(len, rings)) < 500
    covered = np.argwhere(mask)[::997, ::-1] + 0.5
    assert inside(rings, covered).all()
    assert np.concatenate(rings).max(axis=0).tolist() == [2200, 1600]


def test_an_empty_mask_has_no_outline():
    assert mask_outlines(np.zeros((5, 5), dtype=bool)) == ()


def test_distances_to_a_box_are_to_its_nearest_side():
    xy = np.array([(30.0, 25.0), (50.0, 25.0), (43.0, 34.0)])
    assert distance(box_outline(BOX), xy) == pytest.approx([0, 10, 5])
    assert np.isinf(distance((), xy)).all()


# Faults


@pytest.mark.parametrize(
    ("given_answer", "truth", "faults"),
    [
        (None, boxes(BOX), {"failed"}),
        (answer(), boxes(BOX, count=1), {"no output"}),
        (answer(), ShownTruth(count=0), set()),  # rightly declined
        (answer(), None, {"no output"}),
        (answer((5, 5)), ShownTruth(count=0), {"wrong count"}),
        (answer((30, 25)), boxes(BOX, count=1), set()),
        (answer((44, 25)), boxes(BOX, count=1), {"near miss"}),  # in the larger box
        (
            answer((30, 34.4)),
            boxes(BOX, count=1),
            {"near miss"},
        ),  # 2 % of the diagonal of 223.6 pixels are 4.47
        (answer((30, 34.6)), boxes(BOX, count=1), {"far miss"}),
        (answer((150, 80)), boxes(BOX), {"far miss"}),
        (answer((30, 25), (150, 80)), boxes(BOX, count=1), {"wrong count", "far miss"}),
        (answer((30, 25), (30.5, 25)), boxes(BOX), {"duplicate point"}),
        (
            answer((22, 25), (38, 25)),
            boxes(BOX, (100, 20, 120, 40), count=2),
            {"duplicate point"},
        ),  # both in the first object
        (answer((22, 25), (38, 25)), boxes(BOX, count=2), set()),  # one outline of two objects
        (answer((30, 25), moments=(1.0,)), boxes(BOX, moment=3.0), {"wrong time"}),
        (answer((30, 25), moments=(1.0,)), boxes(BOX, moment=1.05), set()),
        (answer((30, 25), truncated=True), boxes(BOX), {"truncated"}),
        (answer((32, 20)), ShownTruth((ShownTarget(point=(30.0, 20.0)),)), {"near miss"}),
    ],
)
def test_faults(given_answer, truth, faults):
    assert set(find_faults(given_answer, truth, SIZE).faults) == faults


def test_the_distance_is_that_of_the_worst_point():
    found = find_faults(answer((30, 25), (50, 25)), boxes(BOX), SIZE)
    assert found.distance == pytest.approx(10 / np.hypot(*SIZE))
    assert find_faults(answer(), boxes(BOX), SIZE).distance is None


# The page


class Boxes(Benchmark):
    name, title = "boxes", "Boxes & <script>alert(1)</script>"
    source, generation = DatasetSource(None), GenerationSettings(16)
    rules, headline = ("strict",), ("correct", None)
    metrics = (Metric("correct", "binary"),)
    views = (View(("kind",)),)

    def read(self, folder: Path) -> Items:
        raise NotImplementedError

    def score(
        self, item: Item, answer: ParsedAnswer, rule: str, *, ref_compat: bool = False
    ) -> dict[str, float]:
        hit = bool(len(answer)) and bool(inside(box_outline(item.truth), answer.xy).all())
        return {"correct": float(hit)}

    def shown_truth(self, item: Item) -> ShownTruth:
        return boxes(item.truth, count=1)


def prediction(item: Item, *xy: tuple[float, float], **fields: Any) -> Prediction:
    points = tuple(PredictedPoint(None, 0.0, *place) for place in xy)
    return Prediction(
        item.item_id,
        "boxes",
        1,
        item.prompt,
        points=points,
        **{"image_sizes": (SIZE,), "raw_text": "</script><b>", **fields},
    )


def boxes_run(folder: Path, number: int = 12) -> tuple[Items, dict[str, Prediction]]:
    """Items about two pictures, of which the second is missing: right, near and far in turn."""
    Image.effect_noise(SIZE, 40).convert("RGB").save(folder / "a.png")
    items = []
    for i in range(number):
        categories = {"kind": ("icon", "text")[i % 2], "tags": ("odd", "all") if i % 2 else ("all",)}
        picture = folder / f"{'ab'[i % 2]}.png"
        items.append(Item(f"i{i:03}", f"item {i} <b>", images=(picture,), truth=BOX, categories=categories))
    places = ((30.0, 25.0), (44.0, 25.0), (150.0, 80.0))
    predictions = {item.item_id: prediction(item, places[i % 3]) for i, item in enumerate(items)}
    if number > 5:
        predictions["i005"] = prediction(items[5], error="OSError: gone & lost", finish_reason="error")
    return Items(tuple(items), (Missing("m1", "no picture file", "<m>.png"),)), predictions


def write(
    folder: Path, benchmark: Benchmark, items: Items, predictions: dict[str, Prediction], **options: Any
) -> Path:
    answers = {item_id: each.answer() for item_id, each in predictions.items() if each.error is None}
    scores = score_items(benchmark, items.found, answers, "strict")
    summary = summarise(benchmark, items, scores, answers, "strict", failed=1)
    write_gallery(folder / "gallery.html", benchmark, items, scores, predictions, summary, **options)
    return folder / "gallery.html"


class Page(HTMLParser):
    """What tests need of a page: cards, addresses, and open elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.cards: list[dict[str, Any]] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.paths = self.marks = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")
        ]
        if tag == "article":
            self.cards.append(values)
        self.paths += values.get("class") == "target"
        self.marks += values.get("class") == "mark"

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_holds_every_item_and_nothing_external(tmp_path):
    items, predictions = boxes_run(tmp_path)
    page = Page(write(tmp_path, Boxes(), items, predictions))
    assert [card["data-id"] for card in page.cards] == [item.item_id for item in items.found]
    assert page.addresses == [] and "link" not in page.tags
    assert page.paths == 12 and page.marks == 11
    verdicts = [card["data-verdict"] for card in page.cards]
    assert verdicts == ["right", "wrong", "wrong"] * 4
    faults = [json.loads(card["data-faults"]) for card in page.cards]
    assert (
        faults[0] == []
        and faults[1] == ["near miss"]
        and faults[2] == ["far miss"]
        and faults[5] == ["failed"]
    )
    assert json.loads(page.cards[1]["data-groups"]) == {"kind": ["text"], "tags": ["odd", "all"]}
    assert page.cards[5]["data-distance"] == "" and float(page.cards[0]["data-distance"]) == 0


def test_what_models_and_data_say_is_text(tmp_path):
    items, predictions = boxes_run(tmp_path)
    page = Page(write(tmp_path, Boxes(), items, predictions))
    assert page.tags.count("script") == 2 and "b" not in page.tags
    text = "".join(page.words)
    for said in (
        "</script><b>",
        "item 3 <b>",
        "OSError: gone & lost",
        "<m>.png",
        "Boxes & <script>alert(1)</script>",
    ):
        assert said in text


def test_a_picture_is_stored_once_and_a_missing_one_is_a_placeholder(tmp_path):
    items, predictions = boxes_run(tmp_path)
    text = write(tmp_path, Boxes(), items, predictions).read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 1
    assert text.count('class="placeholder"') == 6
    assert text.count('viewBox="0 0 200 100"') == 12


def test_a_page_without_room_shows_the_worst_items_and_a_sample(tmp_path):
    items, predictions = boxes_run(tmp_path, 60)
    page = Page(write(tmp_path, Boxes(), items, predictions, limit=20))
    verdicts = [card["data-verdict"] for card in page.cards]
    assert len(verdicts) == 20 and verdicts.count("wrong") >= 16
    assert [card["data-id"] for card in page.cards] == sorted(card["data-id"] for card in page.cards)
    assert "20 of 60 scored items: the 16 worst ones" in "".join(page.words)


def test_pictures_beyond_the_budget_are_left_out_and_counted(tmp_path):
    for name in "ab":
        Image.effect_noise((300, 300), 40).save(tmp_path / f"{name}.png")
    small = Thumbnails(budget=70_000)
    assert small.picture(tmp_path / "a.png").key == "p0"
    assert small.picture(tmp_path / "b.png") == small.picture(tmp_path / "b.png")
    assert small.picture(tmp_path / "b.png").key is None and small.without_room == 1
    assert small.picture(tmp_path / "b.png").size == (300, 300)


def test_unreadable_media_are_placeholders(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8nothing")
    thumbnails = Thumbnails()
    assert thumbnails.picture(tmp_path / "broken.jpg").key is None
    assert [
        each.key
        for each in thumbnails.frames(VideoSegment(tmp_path / "none.mp4"), GenerationSettings(16), [0.0, 1.0])
    ] == [None, None]


class Clips(Boxes):
    def shown_truth(self, item: Item) -> ShownTruth:
        return boxes(item.truth, moment=1.0)


def test_clips_show_frames_at_predicted_and_at_true_times(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(6):
        Image.new("RGB", SIZE, (40 * i, 0, 0)).save(frames / f"{i:03}.jpg")
    item = Item("clip", "the box", clip=VideoSegment(frames, frames_per_second=2.0), truth=BOX)
    late = Prediction(
        "clip", "boxes", 1, "the box", points=(PredictedPoint(3, 2.5, 30.0, 25.0),), image_sizes=(SIZE,)
    )
    path = write(tmp_path, Clips(), Items((item,)), {"clip": late})
    page = Page(path)
    assert [word for word in page.words if word in ("1 s", "2.5 s")] == ["1 s", "2.5 s"]
    assert json.loads(page.cards[0]["data-faults"]) == ["wrong time"]
    assert path.read_text(encoding="utf-8").count("data:image/jpeg") == 2
    assert "point 1, object 3: x 30.0, y 25.0" in page.words


def test_truth_in_another_size_is_drawn_in_that_of_the_points(tmp_path):
    class Halved(Boxes):
        def shown_truth(self, item: Item) -> ShownTruth:
            return ShownTruth(
                (ShownTarget(box_outline(np.array(BOX) / 2), point=(15.0, 12.5)),), count=1, size=(100, 50)
            )

    items, predictions = boxes_run(tmp_path, 1)
    text = write(tmp_path, Halved(), items, predictions).read_text(encoding="utf-8")
    assert 'd="M20 20L40 20L40 30L20 30Z"' in text and 'translate(30.0 25.0) scale(2.0)"><path' in text


def test_a_tiny_target_is_also_shown_from_near(tmp_path):
    Image.effect_noise((1600, 800), 40).save(tmp_path / "screen.png")
    item = Item("tiny", "the button", images=(tmp_path / "screen.png",), truth=(1580.0, 10.0, 1600.0, 20.0))
    path = write(
        tmp_path,
        Boxes(),
        Items((item,)),
        {"tiny": prediction(item, (1599.0, 15.0), image_sizes=((1600, 800),))},
    )
    text = path.read_text(encoding="utf-8")
    assert 'viewBox="0 0 1600 800"' in text and 'viewBox="1500 0 100 64"' in text
    assert text.count("data:image/jpeg") == 2 and "close-up" in text
    assert 'text-anchor="end"' in text  # its number would be cut at the right edge


@pytest.mark.slow
def test_three_hundred_photographs_stay_small(tmp_path):
    rng = np.random.default_rng(0)
    items, predictions = [], {}
    for i in range(300):
        coarse = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        coarse.resize((1280, 960), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg", quality=80)
        items.append(Item(f"{i}", "it", images=(tmp_path / f"{i}.jpg",), truth=BOX))
        predictions[f"{i}"] = prediction(items[-1], (30.0, 25.0), image_sizes=((1280, 960),))
    assert write(tmp_path, Boxes(), Items(tuple(items)), predictions).stat().st_size < 15_000_000


# In a browser


def browsers() -> list[str]:
    return [
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (found := shutil.which(name))
    ]


@pytest.fixture
def page(tmp_path) -> Iterator[Any]:
    """The page of 12 items in a headless browser without a network; faults of its JavaScript fail the test."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no browser driver is installed: pip install playwright"
    )
    items, predictions = boxes_run(tmp_path)
    path = write(tmp_path, Boxes(), items, predictions)
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(
                executable_path=next(iter(browsers()), None), args=["--no-sandbox"]
            )
        except playwright.Error as error:
            pytest.skip(
                "no browser is installed (apt install chromium, or playwright install chromium): "
                f"{str(error).splitlines()[0]}"
            )
        complaints: list[str] = []
        opened = browser.new_page(viewport={"width": 1200, "height": 900}, offline=True)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on(
            "console",
            lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        opened.goto(path.as_uri())
        yield opened
        browser.close()
        assert complaints == []


def shown(page: Any) -> list[str]:
    """Ids of visible cards in the order of the page; the counter must agree."""
    ids = page.eval_on_selector_all(
        "#cards > .card", "cards => cards.filter(c => c.checkVisibility()).map(c => c.dataset.id)"
    )
    assert page.inner_text("#shown") == str(len(ids))
    return ids


def numbers(*wanted: int) -> list[str]:
    return [f"i{i:03}" for i in wanted]


@pytest.mark.browser
def test_filters_and_counters(page):
    assert shown(page) == numbers(*range(12))
    page.select_option('select[data-key="kind"]', "icon")
    assert shown(page) == numbers(0, 2, 4, 6, 8, 10)
    assert page.inner_text('output[data-of="right"]') == "2"
    page.check('input[value="wrong"]')
    assert shown(page) == numbers(2, 4, 8, 10)
    page.check('input[value="near miss"]')
    assert shown(page) == numbers(4, 10)
    assert page.inner_text('output[data-of="far miss"]') == "2"
    assert "fault=near+miss" in page.url and "group%3Akind=icon" in page.url
    page.click('button[type="reset"]')
    # The page allows no eval, by which the driver would wait for an expression.
    page.locator("#shown", has_text=re.compile("^12$")).wait_for()
    page.fill('input[name="text"]', "ITEM 7")
    assert shown(page) == numbers(7)
    page.fill('input[name="text"]', "no such thing")
    assert shown(page) == [] and page.is_visible("#nothing")
    assert set(FAULTS) == set(
        page.eval_on_selector_all('input[name="fault"]', "boxes => boxes.map(box => box.value)")
    )


@pytest.mark.browser
def test_sorting(page):
    page.select_option('select[name="sort"]', "far")
    assert shown(page)[:3] == numbers(2, 8, 11) and shown(page)[-1] == "i005"
    page.select_option('select[name="sort"]', "near")
    assert shown(page)[:4] == numbers(1, 4, 7, 10)
    page.select_option('select[name="sort"]', "worst")
    assert shown(page)[-4:] == numbers(0, 3, 6, 9)


@pytest.mark.browser
def test_the_keyboard(page):
    page.keyboard.press("/")
    page.keyboard.type("item 1")
    assert shown(page) == numbers(1, 10, 11)
    page.keyboard.press("Escape")
    page.fill('input[name="text"]', "")
    page.evaluate("document.activeElement.blur()")
    for _ in range(3):
        page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    assert page.is_visible("dialog[open]") and "item 1 <b>" in page.inner_text("dialog .prompt")
    page.keyboard.press("ArrowRight")
    assert "item 2 <b>" in page.inner_text("dialog .prompt")
    page.keyboard.press("Escape")
    assert page.is_hidden("dialog")


@pytest.mark.browser
def test_pictures_are_decoded_and_marks_can_be_hidden(page):
    until = time.monotonic() + 30
    while not page.evaluate("document.querySelector('img').naturalWidth"):
        assert time.monotonic() < until, "the picture is not shown"
        time.sleep(0.02)
    assert page.eval_on_selector("img", "image => image.naturalWidth") == 200
    dot = page.locator(".card .mark .heart").first.bounding_box()
    canvas = page.locator(".card .canvas").first.bounding_box()
    middle = ((dot["x"] - canvas["x"]) / canvas["width"], (dot["y"] - canvas["y"]) / canvas["height"])
    assert middle == pytest.approx((30 / 200, 25 / 100), abs=0.03)
    page.uncheck("#points")
    assert (
        not page.locator(".card .mark").first.is_visible()
        and page.locator(".card .target").first.is_visible()
    )


@pytest.mark.browser
def test_an_address_keeps_a_view(page):
    page.goto(page.url.split("#")[0] + "#verdict=right&sort=worst")
    page.reload()
    assert shown(page) == numbers(0, 3, 6, 9)
