"""Draws pages: which kit, icons, kind and size, what is held out from training, and shards of pages on disk.

A shard is a safetensors file with the pictures, as PNG, and a JSON file beside it with what is seen on them
and questions. Page i of shard n is drawn from the seed [TRAIN_SEED, n, i], without anything that is held out.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from molmopoint.files import open_picture
from molmopoint.screens.browser import Browser, View
from molmopoint.screens.elements import Screen
from molmopoint.screens.questions import ScreenQuery, draw_questions
from screens import icon_sets, kits, pages, words

TRAIN_SEED = 88_001
SIDE = 336
"""Side of the small pages, in pixels of the picture."""
SHARDS = "shard_*.safetensors"
"""Names of shards."""
SHARD_PAGES = 400
QUESTIONS = 12
"""Questions of each page."""
_PAGES_OF_A_KIT = 12
"""Pages that are drawn before the style sheets are changed."""
_RATIOS = (1.0, 1.0, 1.0, 1.0, 1.25, 1.5, 0.875)

PARTS = ("seen", "kit", "icons", "style", "page")
"""What a test page may have that no trained page has: nothing; its kit; its set of icons; the style of its
icons; its kind.
"""

_LETTERS = """() => {
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walk.nextNode(); node && found.length < 1500; node = walk.nextNode()) {
    const text = node.nodeValue, range = document.createRange();
    if (!text.trim()) continue;
    range.selectNodeContents(node);
    const place = range.getBoundingClientRect();
    if (!place.width || place.bottom < 0 || place.top > innerHeight) continue;
    const met = document.elementFromPoint(place.left + place.width / 2, place.top + place.height / 2);
    if (!met || !(met.contains(node) || (node.parentElement && node.parentElement.contains(met)))) continue;
    for (let i = 0; i < text.length; i++) {
      if (!text[i].trim()) continue;
      range.setStart(node, i); range.setEnd(node, i + 1);
      const box = range.getBoundingClientRect();
      found.push([text[i], box.left, box.top, box.right, box.bottom].map((v) => typeof v === "number" ? Math.round(10 * v) / 10 : v));
    }
  }
  return found;
}"""


@dataclass(frozen=True)
class Spec:
    """What a page is drawn with.

    Attributes:
        kit: of its parts.
        icon_set: of its drawings.
        kind: a key of `pages.TRAINED` or `pages.HELD_OUT`.
        dark: whether the dark form of the kit is asked for.
        held_out_names: whether names of the test may occur.
    """

    kit: kits.Kit
    icon_set: icon_sets.IconSet
    kind: str
    dark: bool = False
    held_out_names: bool = False


def sample_kit(rng: np.random.Generator) -> kits.Kit:
    """A kit of the training, or one of our own."""
    return kits.drawn_kit(rng) if rng.random() < 0.4 else kits.TRAINED[int(rng.integers(len(kits.TRAINED)))]


def sample_spec(rng: np.random.Generator, part: str | None = None, kit: kits.Kit | None = None) -> Spec:
    """What a page is drawn with.

    Args:
        rng: source of chance.
        part: one of `PARTS` for pages of the test, None for those of the training.
        kit: to use where the part does not ask for another one.
    """
    kit = kits.HELD_OUT if part == "kit" else kit or sample_kit(rng)
    icon_set = icon_sets.TRAINED[int(rng.integers(len(icon_sets.TRAINED)))]
    icon_set = {"icons": icon_sets.HELD_OUT_SET, "style": icon_sets.HELD_OUT_STYLE}.get(str(part), icon_set)
    kinds = list(pages.HELD_OUT if part == "page" else pages.TRAINED)
    kind = kinds[int(rng.integers(len(kinds)))]
    return Spec(kit, icon_set, kind, bool(rng.random() < 0.25), part is not None)


class Drawer:
    """Draws pages in a browser; use it in a `with` statement.

    Args:
        modules: folder `node_modules` of the cache that `fetch.py` fills.
        browser: path of Chromium.
    """

    def __init__(self, modules: Path, browser: str | None = None) -> None:
        self.modules, self.browser = modules, Browser(browser, seconds=60)
        self._icons: dict[str, icon_sets.Icons] = {}
        self._kit: kits.Kit | None = None

    def __enter__(self) -> Drawer:
        self.browser.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.__exit__()

    def draw(
        self, rng: np.random.Generator, spec: Spec, size: tuple[int, int] = (SIDE, SIDE), ratio: float = 1.0
    ) -> Screen:
        """A page as a picture of `size` (width, height) pixels."""
        if spec.kit is not self._kit:
            self.browser.write(
                "<!doctype "
                f"html><html><head><style>{spec.kit.style(self.modules)}</style></head><body></body></html>"
            )
            self._kit = spec.kit
        room = round(size[0] / ratio), round(size[1] / ratio)
        look = pages.Look(
            spec.kit,
            self._icons.setdefault(spec.icon_set.name, icon_sets.Icons(spec.icon_set, self.modules)),
            spec.dark,
        )
        body = pages.write_page(rng, spec.kind, look, spec.held_out_names, room)
        self.browser.replace(body, spec.kit.dark if spec.dark else "", pages.body_style(rng))
        return self.browser.look(View(*room, ratio), f"{spec.kit.name}/{spec.icon_set.name}/{spec.kind}")

    def letters(self) -> list[list[Any]]:
        """Every letter that is seen on the page: the letter, then left, top, right and bottom in pixels of
        the page.
        """
        return self.browser.ask_page(_LETTERS)


def absent_names(held_out: bool) -> list[str]:
    """Names to ask for where they are not."""
    every = (*words.ACTIONS, *words.FIELDS, *words.OPTIONS, *words.SECTIONS)
    return [name for name in every if held_out or not words.is_held_out(name)]


def questions_about(
    rng: np.random.Generator, screen: Screen, number: int, held_out: bool
) -> tuple[ScreenQuery, ...]:
    """Questions by what can be seen."""
    return draw_questions(rng, screen, number, unseen_names=False, absent_names=absent_names(held_out))


def draw_shard(
    folder: Path,
    index: int,
    modules: Path,
    size: tuple[int, int] = (SIDE, SIDE),
    number: int = SHARD_PAGES,
    practice: bool = False,
) -> Path:
    """Writes shard `index` of pages of one size, or of those that only the first stage sees; it appears
    complete or not at all.
    """
    path = folder / f"shard_{index:04d}.safetensors"
    if path.exists():
        return path
    pictures, rows, kit = [], [], kits.BOOTSTRAP
    with Drawer(modules) as drawer:
        for i in range(number):
            rng = np.random.default_rng([TRAIN_SEED, index, i])
            if i % _PAGES_OF_A_KIT == 0:
                kit = sample_kit(rng)
            ratio = float(rng.choice(_RATIOS))
            spec = sample_spec(rng, kit=kit)
            screen = drawer.draw(
                rng, dataclasses.replace(spec, kind="board") if practice else spec, size, ratio
            )
            letters = [
                [letter, *(round(ratio * value, 1) for value in box)] for letter, *box in drawer.letters()
            ]
            questions = 0 if practice else QUESTIONS * (1 if size == (SIDE, SIDE) else 2)
            queries = questions_about(rng, screen, questions, held_out=False)
            pictures.append(png_of(pixels_of(screen)))
            elements = list(map(element_fields, screen.elements))
            row = {
                "elements": elements,
                "letters": letters,
                "queries": list(map(query_fields, queries)),
                "address": screen.address,
            }
            rows.append(row)
    write_shard(path, pictures, rows)
    return path


def write_shard(path: Path, pictures: Sequence[bytes], rows: Sequence[dict[str, Any]]) -> None:
    """Writes pictures, as PNG, and rows of some pages to a shard that appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ends = torch.tensor(np.cumsum([len(picture) for picture in pictures]))
    joined = torch.frombuffer(bytearray(b"".join(pictures)), dtype=torch.uint8)
    path.with_suffix(".json").write_text(json.dumps(rows))
    beside = path.with_suffix(".partial")
    save_file({"png": joined, "ends": ends}, beside)
    beside.replace(path)


def read_shard(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Picture, as PNG, and row of each page of a shard."""
    tensors = load_file(path)
    joined, ends = tensors["png"].numpy().tobytes(), tensors["ends"].tolist()
    rows = json.loads(path.with_suffix(".json").read_text())
    pages: list[tuple[bytes, dict[str, Any]]] = []
    first = 0
    for last, row in zip(ends, rows, strict=True):
        pages.append((joined[first:last], row))
        first = last
    return pages


def decode(png: bytes) -> np.ndarray:
    """(height, width, 3) uint8."""
    with open_picture(io.BytesIO(png)) as file:
        return np.asarray(file.convert("RGB"))


def png_of(pixels: np.ndarray) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def pixels_of(screen: Screen) -> np.ndarray:
    """(height, width, 3) uint8 of a screen that was just drawn."""
    assert screen.pixels is not None
    return screen.pixels


def element_fields(element: Any) -> dict[str, Any]:
    """What training needs of an element."""
    return {
        "kind": element.kind, "boxes": rounded(element.boxes), "name": element.name, "text": element.text,
        "states": sorted(element.states), "colour": element.colour, "icon": element.icon,
    }  # fmt: skip


def query_fields(query: ScreenQuery) -> dict[str, Any]:
    """A question, with points and boxes of its targets."""
    return {
        "prompt": query.prompt, "label": query.label, "kind": query.kind, "mentions": query.mentions,
        "points": [[round(value, 1) for value in target.point] for target in query.targets],
        "boxes": [rounded(target.boxes) for target in query.targets],
    }  # fmt: skip


def rounded(boxes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Boxes to a tenth of a pixel."""
    return [[round(value, 1) for value in box] for box in boxes]
