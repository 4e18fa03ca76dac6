"""What of an element is seen, its colour, its icon and its kind; and joining the two trees of the browser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from molmopoint.screens.accessibility import described, frames_in
from molmopoint.screens.colours import COLOURS, colour_of, is_blank, name_of
from molmopoint.screens.icons import STEMS, SYNONYMS, icon_of
from molmopoint.screens.visibility import read_screen, seen_boxes, seen_part
from molmopoint.screens.vocabulary import NOUNS, kind_of, states_of


def test_a_whole_rectangle_is_seen_whole():
    assert seen_part((10, 20, 40, 50), ["111", "111", "111"], 900) == ((10, 20, 40, 50), 1.0)


def test_what_is_covered_at_an_edge_is_cut_off():
    part = seen_part((0, 0, 30, 30), ["110", "110", "110"], 900)
    assert part is not None
    box, share = part
    assert box == (0, 0, 20, 30) and share == pytest.approx(2 / 3)


def test_round_corners_take_nothing_away():
    part = seen_part((0, 0, 50, 50), ["01110", "11111", "11111", "11111", "01110"], 2500)
    assert part is not None and part[0] == (0, 0, 50, 50)


def test_what_is_not_seen_is_nowhere():
    assert seen_part((0, 0, 30, 30), ["000", "000", "000"], 900) is None
    assert seen_boxes([{"box": [0, 0, 30, 30], "seen": ["000"] * 3, "whole": 900}]) == ()


@pytest.mark.parametrize(("whole", "seen"), [(900, True), (1700, True), (2000, False)])
def test_half_of_an_element_must_be_on_the_screen(whole: float, seen: bool):
    assert bool(seen_boxes([{"box": [0, 0, 30, 30], "seen": ["111"] * 3, "whole": whole}])) == seen


def test_large_elements_may_be_seen_in_part():
    part = {"box": [0, 0, 300, 200], "seen": ["111"] * 3, "whole": 200_000}
    assert seen_boxes([part]) == ((0, 0, 300, 200),)


def test_slivers_are_no_elements():
    assert seen_boxes([{"box": [0, 0, 100, 3], "seen": ["111"], "whole": 300}]) == ()


def test_of_broken_lines_the_largest_comes_first():
    parts = [
        {"box": [50, 0, 80, 20], "seen": ["111"] * 3, "whole": 600},
        {"box": [0, 20, 70, 40], "seen": ["111"] * 3, "whole": 1400},
    ]
    assert seen_boxes(parts) == ((0, 20, 70, 40), (50, 0, 80, 20))


@given(
    st.lists(st.text("01", min_size=4, max_size=4), min_size=3, max_size=6),
    st.floats(1, 500),
    st.floats(1, 500),
)
@settings(derandomize=True, max_examples=200)
def test_the_seen_part_lies_inside(seen: list[str], width: float, height: float):
    part = seen_part((5, 7, 5 + width, 7 + height), seen, width * height)
    assert (part is None) == ("1" not in "".join(seen))
    if part is not None:
        (left, top, right, bottom), share = part
        assert (
            5 <= left < right <= 5 + width + 1e-9
            and 7 <= top < bottom <= 7 + height + 1e-9
            and 0 < share <= 1
        )


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((13, 110, 253), "blue"),
        ((220, 53, 69), "red"),
        ((25, 135, 84), "green"),
        ((255, 193, 7), "yellow"),
        ((33, 37, 41), "black"),
        ((255, 255, 255), "white"),
        ((108, 117, 125), "gray"),
        ((111, 66, 193), "purple"),
        ((253, 126, 20), "orange"),
        ((233, 30, 99), "pink"),
        ((0, 209, 178), None),
        ((230, 240, 250), None),
        ((128, 128, 128), "gray"),
    ],
)
def test_colours_have_the_names_that_people_use(rgb: tuple[int, int, int], name: str | None):
    index = int(name_of(np.array(rgb, dtype=np.uint8)))
    assert (COLOURS[index] if index >= 0 else None) == name


def page(ground: int = 255) -> np.ndarray:
    return np.full((100, 100, 3), ground, dtype=np.uint8)


def test_a_surface_is_called_by_its_colour_whatever_is_written_on_it():
    pixels = page()
    pixels[20:40, 10:60] = (13, 110, 253)
    pixels[28:32, 20:50] = 255
    assert colour_of(pixels, (10, 20, 60, 40), True) == "blue"
    assert not is_blank(pixels, (10, 20, 60, 40))


def test_a_surface_like_the_ground_is_called_by_what_is_drawn_on_it():
    pixels = page()
    pixels[28:32, 20:50] = (220, 53, 69)
    assert colour_of(pixels, (10, 20, 60, 40), True) == "red"


def test_two_colours_have_no_name():
    pixels = page()
    pixels[20:30, 10:60], pixels[30:40, 10:60] = (220, 53, 69), (25, 135, 84)
    assert colour_of(pixels, (10, 20, 60, 40), False) is None


def test_what_cannot_be_told_from_the_ground_is_blank():
    assert is_blank(page(), (10, 20, 60, 40)) and is_blank(page(), (200, 200, 210, 210))
    assert colour_of(page(), (10, 20, 60, 40), True) is None


@pytest.mark.parametrize(
    ("hints", "icon"),
    [
        (["btn", "bi-trash-fill"], "trash"),
        (["fa-solid", "fa-magnifying-glass"], "search"),
        (["mdi-cog-outline"], "gear"),
        (["delete"], "trash"),
        (["icons.svg#home", "x"], None),
        (["home.svg"], "house"),
        (["ti-user"], "person"),
        (["Shopping cart"], "cart"),
        (["arrow_forward"], "right arrow"),
        (["made-up"], None),
        ([], None),
    ],
)
def test_icons_are_known_by_their_classes_and_files(hints: list[str], icon: str | None):
    assert icon_of(hints) == icon


def test_no_two_icons_share_a_name():
    names = [name for icon in SYNONYMS for name in (icon, *SYNONYMS[icon])]
    assert len(names) == len(set(names)) and len(SYNONYMS) >= 80
    assert all(STEMS[icon] for icon in SYNONYMS)


@pytest.mark.parametrize(
    ("role", "tag", "kind"),
    [
        ("button", "BUTTON", "button"),
        ("textbox", "INPUT", "text field"),
        ("combobox", "SELECT", "dropdown"),
        ("switch", "INPUT", "switch"),
        ("progressbar", "DIV", "progress bar"),
        ("menuitem", "LI", "menu item"),
        ("generic", "DIV", "text"),
        ("radio", "INPUT", "radio button"),
    ],
)
def test_kinds_by_role(role: str, tag: str, kind: str):
    assert kind_of(role, tag, "", "") == kind and kind in NOUNS


def test_states_are_said_as_people_say_them():
    assert states_of("checkbox", {"checked": False}) == {"empty"}
    assert states_of("switch", {"checked": True, "disabled": True}) == {"on", "disabled"}
    assert states_of("checkbox", {"checked": "mixed"}) == frozenset()
    assert states_of("text field", {"empty": True}) == {"empty"}
    assert states_of("tab", {"selected": True}) == {"selected"}
    assert states_of("button", {"empty": True, "pressed": True}) == {"selected"}


def told(number: int, **more: Any) -> dict[str, Any]:
    box = more.pop("box", [10, 20, 60, 40])
    part = {"box": box, "seen": ["111"] * 3, "whole": (box[2] - box[0]) * (box[3] - box[1])}
    fields = {
        "role": "button", "tag": "BUTTON", "type": "", "name": "", "text": "", "states": {}, "icon": False, "hints": [], "within": None,
        "number": number, "row": None, "series": None, "areas": [], "classes": "", "popup": "",
    }  # fmt: skip
    return {**fields, "parts": [part], **more}


def test_the_icon_of_a_button_without_words_is_the_button():
    pixels = page()
    pixels[20:40, 10:60] = (13, 110, 253)
    icon = {"role": "", "tag": "svg", "icon": True, "hints": ["trash"], "within": 1, "box": [25, 22, 41, 38]}
    wordless = [told(1, hints=["trash"]), told(2, **icon)]
    found = {"width": 100, "height": 100, "leftOut": 3, "missed": 0, "elements": wordless}
    shown = read_screen(found, pixels)
    assert [(element.kind, element.icon) for element in shown.elements] == [("button", "trash")]
    assert shown.left_out == 3 and shown.size == (100, 100)
    pixels[25:35, 30:36] = 255
    found["elements"] = [told(1, hints=["trash"], text="Delete"), told(2, **icon)]
    assert [element.kind for element in read_screen(found, pixels).elements] == ["button", "icon"]


def test_boxes_are_in_pixels_of_the_picture():
    pixels = np.full((200, 200, 3), 255, dtype=np.uint8)
    pixels[40:80, 20:120] = 0
    shown = read_screen(
        {"width": 100, "height": 100, "leftOut": 0, "missed": 0, "elements": [told(1, text="Save")]}, pixels
    )
    assert shown.elements[0].box == (20, 40, 120, 80) and shown.elements[0].point == (70, 60)


def node(number: int, name: str, kind: int = 1, **more: Any) -> dict[str, Any]:
    return {"backendNodeId": number, "nodeName": name, "nodeType": kind, **more}


def test_the_two_trees_are_joined_through_shadows_and_frames():
    inside = node(8, "#document", 9, children=[node(9, "BUTTON")])
    shadow = node(4, "#document-fragment", 11, shadowRootType="open", children=[node(5, "BUTTON")])
    hidden = node(6, "#document-fragment", 11, shadowRootType="user-agent", children=[node(7, "DIV")])
    host = node(3, "DIV", shadowRoots=[shadow, hidden], children=[node(10, "#text", 3), node(11, "I")])
    document = node(
        1,
        "#document",
        9,
        children=[node(2, "BODY", children=[host, node(12, "IFRAME", contentDocument=inside)])],
    )
    accessible = [
        {
            "backendDOMNodeId": 5,
            "role": {"value": "button"},
            "name": {"value": " Save \n it "},
            "properties": [
                {"name": "disabled", "value": {"value": True}},
                {"name": "focusable", "value": {"value": True}},
            ],
        },
        {
            "backendDOMNodeId": 9,
            "role": {"value": "switch"},
            "properties": [{"name": "checked", "value": {"value": "mixed"}}],
        },
        {"backendDOMNodeId": 11, "ignored": True, "role": {"value": "none"}},
    ]
    entries = described(document, accessible)
    assert [entry.tag for entry in entries] == ["BODY", "DIV", "BUTTON", "I", "IFRAME", "BUTTON"]
    assert (entries[2].role, entries[2].name, entries[2].states) == ("button", "Save it", {"disabled": True})
    assert (entries[5].role, entries[5].states) == ("switch", {"checked": "mixed"})
    assert entries[3].role == ""


def test_frames_of_frames_are_found():
    tree = {
        "frame": {"id": "a"},
        "childFrames": [
            {"frame": {"id": "b"}, "childFrames": [{"frame": {"id": "c"}}]},
            {"frame": {"id": "d"}},
        ],
    }
    assert frames_in(tree) == ["a", "b", "c", "d"]
