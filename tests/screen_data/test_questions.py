"""Questions about screens: their answers are right, clear, and in the number of their words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_screens import element, files_screen, screen

from molmopoint.screens.elements import Element, Screen
from molmopoint.screens.icons import SYNONYMS
from molmopoint.screens.questions import KINDS, ScreenQuery, draw_questions
from molmopoint.screens.vocabulary import NOUNS, STATES


def questions(shown: Screen, seeds: int = 40, **more: Any) -> list[ScreenQuery]:
    asked: list[ScreenQuery] = []
    for seed in range(seeds):
        asked += draw_questions(np.random.default_rng(seed), shown, 12, **more)
    return asked


def test_all_kinds_of_questions_are_asked_and_answered_rightly():
    shown = files_screen()
    asked = questions(shown)
    assert {query.kind for query in asked} == set(KINDS)
    for query in asked:
        for group, word in query.mentions:
            for target in query.targets:
                if query.kind == "relation":
                    continue
                if group == "kind":
                    assert target.kind == word, query
                elif group == "colour":
                    assert target.colour == word, query
                elif group == "icon":
                    assert target.icon == word, query
                elif group == "state":
                    assert word in target.states, query


def test_a_question_by_look_names_every_element_that_looks_so():
    for query in questions(files_screen()):
        wanted = dict(query.mentions)
        if query.kind not in ("type", "colour", "state") or not query.targets:
            continue
        all_such = [
            other
            for other in files_screen().elements
            if other.kind == wanted["kind"]
            and wanted.get("colour") in (None, other.colour)
            and ("state" not in wanted or wanted["state"] in other.states)
        ]
        assert len(query.targets) == len(all_such), query.prompt


def test_relations_find_the_one_in_the_row():
    asked = [
        query
        for query in questions(files_screen())
        if query.kind == "relation" and "report-3.pdf" in query.prompt
    ]
    assert asked
    for query in asked:
        assert [target.row for target in query.targets] == [0], query.prompt


def test_absent_things_have_no_targets_and_are_not_there():
    shown = files_screen()
    absent = [query for query in questions(shown, absent_names=["Print", "Save"]) if not query.targets]
    assert {query.kind for query in absent} >= {"type", "colour", "state", "icon", "name"}
    for query in absent:
        wanted = dict(query.mentions)
        assert wanted.get("name", "Print") != "Save"
        if query.kind == "type":
            assert all(other.kind != wanted["kind"] for other in shown.elements)
        if query.kind == "icon":
            assert all(other.icon != wanted["icon"] for other in shown.elements)


def test_names_that_occur_twice_are_asked_for_together_and_in_the_plural():
    shown = screen(
        element("button", 0, 0, text="Edit"),
        element("button", 0, 40, text="Edit"),
        element("button", 0, 80, text="Save"),
    )
    asked = [
        query for query in questions(shown) if query.kind == "name" and dict(query.mentions)["name"] == "Edit"
    ]
    assert asked
    for query in asked:
        assert len(query.targets) == 2
        assert not query.prompt.startswith("the Edit button ") and query.prompt not in (
            "the Edit button",
            "the Edit",
            "Edit",
        )


def test_one_is_asked_for_in_the_singular_and_several_in_the_plural():
    singular = {word for noun in NOUNS.values() for word in noun.singular}
    for query in questions(files_screen()):
        if query.kind == "type" and query.targets:
            word = query.label
            is_single = word in singular
            assert is_single == (len(query.targets) == 1), query
            assert query.prompt.startswith(("every ", "each ")) <= (len(query.targets) > 1), query


def test_colours_that_are_not_sure_are_not_asked_for():
    shown = screen(element("button", 0, 0, text="A", colour="blue"), element("button", 0, 40, text="B"))
    assert not [query for query in questions(shown) if query.kind == "colour"]


def test_icons_that_nobody_knows_forbid_asking_for_absent_ones():
    shown = screen(element("icon", 0, 0), element("icon", 40, 0, icon="trash"))
    asked = [query for query in questions(shown) if query.kind == "icon"]
    assert asked and all(query.targets for query in asked)


def test_links_that_look_like_buttons_make_neither_kind_clear():
    link = element("link", 0, 40, text="Buy", also="button")
    shown = screen(element("button", 0, 0, text="Save", colour="blue"), link, element("checkbox", 0, 80))
    asked = questions(shown, 80)
    assert {dict(query.mentions)["kind"] for query in asked if query.kind == "type" and query.targets} == {
        "checkbox"
    }
    assert not [
        query
        for query in asked
        if query.kind == "type" and dict(query.mentions)["kind"] in ("button", "link")
    ]
    assert [query for query in asked if query.targets == (link,) and query.kind == "name"]


def test_a_bare_name_means_one_kind():
    shown = screen(element("button", 0, 0, text="Save"), element("text", 0, 40, text="Save"))
    assert not [
        query for query in questions(shown, 80) if query.targets and query.prompt.strip('"') == "Save"
    ]


def test_nothing_says_what_is_not_written_on_it():
    shown = screen(
        element("button", 0, 0, name="Delete", icon="trash"),
        element("button", 0, 40, text="Save", name="Save"),
    )
    asked = [query for query in questions(shown, 80) if query.kind == "name" and query.targets]
    assert {dict(query.mentions)["name"] for query in asked if "that says" in query.prompt} == {"Save"}


def test_names_that_are_not_written_are_left_out_where_asked():
    shown = screen(
        element("button", 0, 0, name="Delete", icon="trash"), element("checkbox", 0, 40, name="Dark mode")
    )
    names = {dict(query.mentions).get("name") for query in questions(shown) if query.kind == "name"}
    assert names == {"Delete", "Dark mode"}
    assert not [query for query in questions(shown, unseen_names=False) if query.kind == "name"]
    with_words = screen(*shown.elements, element("text", 40, 40, text="Dark mode"))
    seen = [query for query in questions(with_words, unseen_names=False) if query.kind == "name"]
    assert seen and all(query.targets[0].kind == "checkbox" for query in seen), (
        "the words beside a field mean the field"
    )


@pytest.mark.parametrize("kind", ["tab", "button"])
def test_ordinals_count_along_one_line(kind: str):
    shown = screen(*(element(kind, 60 * i, 0, text=f"T{i}") for i in (2, 0, 1)))
    asked = [query for query in questions(shown, 80) if query.kind == "position"]
    places = {
        dict(query.mentions)["position"]: query.targets[0].text for query in asked if len(query.targets) == 1
    }
    assert {word: places.get(word) for word in ("first", "second", "last", "leftmost")} == {
        "first": "T0", "second": "T1", "last": "T2", "leftmost": "T0",
    }  # fmt: skip


def test_two_lines_have_no_ordinals():
    shown = screen(*(element("tab", 60 * (i % 2), 40 * (i // 2), text=f"T{i}") for i in range(4)))
    words = {dict(query.mentions)["position"] for query in questions(shown, 80) if query.kind == "position"}
    assert not words & {"first", "second", "third", "last"}


def test_names_in_other_scripts_are_asked_for():
    shown = screen(
        element("button", 0, 0, text="保存"),
        element("link", 0, 40, text="Löschen"),
        element("tab", 0, 80, text="حفظ"),
    )
    names = {dict(query.mentions).get("name") for query in questions(shown) if query.targets}
    assert {"保存", "Löschen", "حفظ"} <= names


def test_empty_screens_and_long_or_wordless_names_give_no_names():
    on_nothing = draw_questions(np.random.default_rng(0), screen(), 5)
    assert all(not query.targets for query in on_nothing)
    shown = screen(element("button", 0, 0, text="x" * 200), element("button", 0, 40, text="→"))
    assert not [query for query in questions(shown) if query.kind == "name"]


def test_ten_thousand_elements_are_asked_about():
    many = screen(*(element("button", i % 100, i // 100, 1, 1, text=f"B{i}") for i in range(10_000)))
    assert len(draw_questions(np.random.default_rng(0), many, 5)) == 5


def test_the_same_seed_asks_the_same():
    first, second = (draw_questions(np.random.default_rng(3), files_screen(), 10) for _ in range(2))
    assert first == second


kinds_of_elements = st.sampled_from(sorted(NOUNS))
boxes = st.tuples(st.integers(0, 380), st.integers(0, 280))
made = st.builds(
    lambda kind, place, name, colour, icon, states, row: element(
        kind, *place, name=name, text=name, colour=colour, icon=icon, states=states, row=row
    ),
    kinds_of_elements,
    boxes,
    st.sampled_from(["", "Save", "save", "Edit", "日本", "a b"]),
    st.sampled_from([None, "red", "blue"]),
    st.sampled_from([None, *list(SYNONYMS)[:4]]),
    st.sets(st.sampled_from(sorted(STATES)), max_size=2),
    st.sampled_from([None, 0, 1]),
)


@given(st.lists(made, max_size=12), st.integers(0, 1000))
@settings(derandomize=True, max_examples=150)
def test_whatever_is_seen_targets_are_seen_and_no_question_comes_twice(elements: list[Element], seed: int):
    shown = screen(*elements)
    asked = draw_questions(np.random.default_rng(seed), shown, 8, absent_names=["Print"])
    for query in asked:
        assert all(any(target is other for other in shown.elements) for target in query.targets)
        assert query.prompt.strip() and query.label.strip() and query.kind in KINDS
        assert len({id(target) for target in query.targets}) == len(query.targets)
