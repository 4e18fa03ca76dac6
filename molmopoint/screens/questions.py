"""Questions about a screen, and the elements that answer them.

By type ("the buttons"), colour ("the blue button"), state ("the switches that are on"), icon ("the bin"),
name ("the save button"), position ("the last tab") and relation ("the bin next to report-3.pdf"). A question
is asked only where its answer is clear. What several elements answer is asked in the plural, and all of them
are its targets; so are names that occur twice. Some questions ask for what is not there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from molmopoint.screens.colours import COLOURS
from molmopoint.screens.elements import Element, Screen
from molmopoint.screens.icons import SYNONYMS, words_for
from molmopoint.screens.vocabulary import NOUNS, STATES

KINDS: dict[str, float] = {
    "type": 0.14, "colour": 0.14, "state": 0.10, "icon": 0.22, "name": 0.24, "position": 0.08, "relation": 0.08,
}  # fmt: skip
"""Share of each kind of question, where the screen has something to ask about."""

ABSENT = 0.15
"""Share of questions that ask for something that is not there."""

_TRIES = 12
_SYNONYM = 0.3
"""Share of nouns that are not the commonest."""
_LONGEST = 32
"""Letters of a name beyond which nobody asks for it."""
_COLOURED = ("button", "icon", "switch", "progress bar", "checkbox", "avatar", "slider")
_BY_TEXT = ("button", "link", "tab", "menu item", "heading")
"""Kinds that are called by the words on them."""
_BY_LABEL = ("text field", "checkbox", "radio button", "switch", "slider", "dropdown", "progress bar")
"""Kinds that are called by the words beside them."""
_STATED = {
    "checkbox": ("checked", "empty"), "radio button": ("checked", "empty"), "switch": ("on", "off"),
    "text field": ("empty", "filled", "disabled"),
    "button": ("disabled",), "tab": ("selected",), "menu item": ("selected", "disabled"),
}  # fmt: skip
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_EXTREMES = (("leftmost", 0, 1), ("rightmost", 0, -1), ("topmost", 1, 1), ("lowest", 1, -1))
_HALVES = (("left", 0, 1), ("right", 0, -1), ("top", 1, 1), ("bottom", 1, -1))
_LONGEST_LINE = 12
"""Elements in a line beyond which nobody counts them."""
_CLEAR_STEP, _CLEAR_HALF = 0.04, 0.04
"""The leftmost is this part of the screen further left than the next, and nothing lies this near to the
middle line.
"""

_T = TypeVar("_T")


@dataclass(frozen=True)
class ScreenQuery:
    """A question and its answer.

    Attributes:
        prompt: what a user types.
        label: the phrase that an answer closes with.
        targets: what to point at, empty if there is no such thing.
        kind: a key of `KINDS`.
        mentions: what the phrase names, such as ("icon", "trash") or ("name", "Save").
    """

    prompt: str
    label: str
    targets: tuple[Element, ...]
    kind: str
    mentions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Phrase:
    """A noun phrase in both numbers."""

    singular: str
    plural: str


@dataclass(frozen=True)
class _QuestionMaker:
    """Draws questions about one screen; methods return None where chance proposed an unclear one.

    Attributes:
        rng: source of chance.
        screen: what is asked about.
        unseen_names: whether names count that are not written on the screen.
        absent_names: names to ask for where they are not.
        by_kind: elements of each kind that can be asked for as such.
        words: what is written on the screen, plainly.
        unclear: kinds that a person would see more or fewer of.
    """

    rng: np.random.Generator
    screen: Screen
    unseen_names: bool
    absent_names: Sequence[str]
    by_kind: Mapping[str, list[Element]] = field(init=False)
    words: Collection[str] = field(init=False)
    unclear: Collection[str] = field(init=False)

    def __post_init__(self) -> None:
        by_kind: dict[str, list[Element]] = defaultdict(list)
        unclear: set[str] = set()
        words: set[str] = set()
        for element in self.screen.elements:
            by_kind[element.kind].append(element)
            if element.also:
                unclear |= {element.kind, element.also}
            if element.text:
                words.add(_plain(element.text))
        clear = {kind: members for kind, members in by_kind.items() if kind not in unclear}
        object.__setattr__(self, "by_kind", clear)
        object.__setattr__(self, "unclear", unclear)
        object.__setattr__(self, "words", words)

    def draw(self, kind: str) -> ScreenQuery | None:
        makers: dict[str, Callable[[bool], ScreenQuery | None]] = {
            "type": self.by_type, "colour": self.by_colour, "state": self.by_state, "icon": self.by_icon, "name": self.by_name,
            "position": self.by_position, "relation": self.by_relation,
        }  # fmt: skip
        return makers[kind](bool(self.rng.random() < ABSENT))

    # ---- Kinds of questions
    def by_type(self, absent: bool) -> ScreenQuery | None:
        if absent:
            never = {*self.by_kind, *self.unclear, "text", "icon", "heading"}
            options = [kind for kind in NOUNS if kind not in never]
        else:
            options = [kind for kind in self.by_kind if kind not in ("text", "icon")]
        if not options:
            return None
        kind = self.pick(options)
        return self.query("type", self.noun(kind), self.by_kind.get(kind, ()), ("kind", kind))

    def by_colour(self, absent: bool) -> ScreenQuery | None:
        kinds = [kind for kind in _COLOURED if kind in self.by_kind and _all_coloured(self.by_kind[kind])]
        if not kinds:
            return None
        kind = self.pick(kinds)
        options = _colours_of(self.by_kind[kind])
        if absent:
            options = [colour for colour in COLOURS if colour not in options]
        if not options:
            return None
        colour = self.pick(options)
        chosen = [element for element in self.by_kind[kind] if element.colour == colour]
        phrase = _with(colour, self.noun(kind))
        return self.query("colour", phrase, chosen, ("kind", kind), ("colour", colour))

    def by_state(self, absent: bool) -> ScreenQuery | None:
        options = []
        for kind, states in _STATED.items():
            if kind in self.by_kind:
                options += [(kind, state) for state in states if self._any_in(kind, state) != absent]
        if not options:
            return None
        kind, state = self.pick(options)
        chosen = [element for element in self.by_kind[kind] if state in element.states]
        word = self.one_of(STATES[state], _SYNONYM)
        noun = self.noun(kind)
        if word in ("on", "off") or " " in word or self.rng.random() < 0.25:
            noun = _Phrase(f"{noun.singular} that is {word}", f"{noun.plural} that are {word}")
        else:
            noun = _with(word, noun)
        return self.query("state", noun, chosen, ("kind", kind), ("state", state))

    def by_icon(self, absent: bool) -> ScreenQuery | None:
        shown = [element for element in self.screen.elements if _is_drawing(element)]
        if absent:
            if any(element.icon is None for element in shown):
                return None  # what is drawn there may be just that
            known = {element.icon for element in self.screen.elements}
            options = [icon for icon in SYNONYMS if icon not in known]
        else:
            options = sorted({element.icon for element in shown if element.icon})
        if not options:
            return None
        icon = self.pick(options)
        chosen = [element for element in shown if element.icon == icon]
        phrase = self.icon_phrase(icon, chosen)
        if not absent and self.rng.random() < 0.15 and _all_coloured(chosen):
            colour = self.pick(_colours_of(chosen))
            same = [element for element in chosen if element.colour == colour]
            return self.query("icon", _with(colour, phrase), same, ("icon", icon), ("colour", colour))
        return self.query("icon", phrase, chosen, ("icon", icon))

    def by_name(self, absent: bool) -> ScreenQuery | None:
        named = []
        for element in self.screen.elements:
            name = self.name_of(element)
            if name:
                named.append((element, name))
        if absent:
            return self._absent_name([name for _, name in named])
        if not named:
            return None
        element, name = self.pick(named)
        plain = _plain(name)
        chosen = [other for other, called in named if other.kind == element.kind and _plain(called) == plain]
        alike = [
            other
            for other in self.screen.elements
            if _plain(other.label) == plain or _plain(other.text) == plain
        ]
        if element.also and any(other.kind == element.also for other in alike):
            return None
        if element.kind == "text" and any(other.kind != "text" for other in alike):
            return None  # a label and its field: whoever says the name means the field
        labels = ("text",) if element.kind in _BY_LABEL else ()
        can_be_bare = all(other.kind in (element.kind, *labels) for other in alike)
        is_written = element.kind in _BY_TEXT and bool(element.text)
        phrase = self.name_phrase(name, element.kind, can_be_bare, is_written)
        return self.query("name", phrase, chosen, ("kind", element.kind), ("name", name))

    def by_position(self, absent: bool) -> ScreenQuery | None:
        kinds = [
            kind
            for kind, members in self.by_kind.items()
            if len(members) >= 2 and kind not in ("text", "icon")
        ]
        if absent or not kinds:
            return None
        kind = self.pick(kinds)
        make = self.pick((self._ordinal, self._extreme, self._half))
        return make(kind, self.by_kind[kind])

    def by_relation(self, absent: bool) -> ScreenQuery | None:
        if absent:
            return None
        make = self.pick((self._in_row, self._in_row, self._in_row, self._beside, self._in_area))
        return make()

    # ---- Phrases
    def noun(self, kind: str) -> _Phrase:
        """A kind in one of its wordings."""
        noun = NOUNS[kind]
        i = 0
        if self.rng.random() < _SYNONYM:
            i = int(self.rng.integers(len(noun.singular)))
        return _Phrase(noun.singular[i], noun.plural[i])

    def icon_phrase(self, icon: str, chosen: Sequence[Element]) -> _Phrase:
        """An icon in one of its names."""
        word = self.one_of(words_for(icon), 0.4)
        if chosen and all(element.kind == "button" for element in chosen) and self.rng.random() < 0.35:
            return _Phrase(f"{word} button", f"{word} buttons")
        return _Phrase(f"{word} icon", f"{word} icons")

    def name_phrase(self, name: str, kind: str, can_be_bare: bool, is_written: bool) -> _Phrase:
        """Something that has a name."""
        noun = self.noun(kind)
        quoted = f'"{name}"' if self.rng.random() < 0.3 else name
        draw = self.rng.random()
        if kind == "text" or (draw < 0.15 and can_be_bare):
            return _Phrase(quoted, quoted)
        if draw < 0.3 and is_written:
            return _Phrase(f"{noun.singular} that says {quoted}", f"{noun.plural} that say {quoted}")
        if draw < 0.4:
            return _Phrase(f"{noun.singular} {quoted}", f"{noun.plural} {quoted}")
        return _Phrase(f"{quoted} {noun.singular}", f"{quoted} {noun.plural}")

    def query(
        self, kind: str, phrase: _Phrase, chosen: Sequence[Element], *mentions: tuple[str, str]
    ) -> ScreenQuery:
        """A question for all of some elements; whether one or several is heard in its words."""
        targets = tuple(chosen)
        is_bare = phrase.singular == phrase.plural
        one = len(targets) == 1 or (not targets and self.rng.random() < 0.5)
        if one:
            article = "" if is_bare else "the "
            if kind == "name":
                article = self.pick((article, article, article, ""))
            return ScreenQuery(article + phrase.singular, phrase.singular, targets, kind, mentions)
        if self.rng.random() < 0.15 and not is_bare:
            return ScreenQuery(
                f"{self.pick(('every', 'each'))} {phrase.singular}", phrase.plural, targets, kind, mentions
            )
        article = (
            self.pick(("all ", "all the "))
            if is_bare
            else self.pick(("the ", "the ", "all ", "all the ", ""))
        )
        return ScreenQuery(article + phrase.plural, phrase.plural, targets, kind, mentions)

    def pick(self, options: Sequence[_T]) -> _T:
        """One of the options."""
        return options[int(self.rng.integers(len(options)))]

    def one_of(self, words: Sequence[str], share: float) -> str:
        """The first word, which is the commonest, or with a share of chance any of them."""
        if self.rng.random() < share:
            return self.pick(words)
        return words[0]

    def name_of(self, element: Element) -> str:
        """What a person calls an element, "" if there is nothing that can be asked for."""
        name = ""
        if element.kind == "text":
            name = element.text
        elif element.kind in _BY_TEXT:
            name = element.text
            if not name and self.unseen_names:
                name = element.name
        elif self.unseen_names:
            if element.kind in _BY_LABEL or element.kind == "image":
                name = element.name
        elif element.kind in _BY_LABEL and _plain(element.name) in self.words:
            name = element.name
        can_be_said = 0 < len(name) <= _LONGEST and any(letter.isalnum() for letter in name)
        return name if can_be_said else ""

    # ---- Parts of the questions above
    def _any_in(self, kind: str, state: str) -> bool:
        return any(state in element.states for element in self.by_kind[kind])

    def _absent_name(self, names: Sequence[str]) -> ScreenQuery | None:
        there = set(self.words)
        there |= {_plain(name) for name in names}
        there |= {_plain(element.name) for element in self.screen.elements}
        options = [name for name in self.absent_names if _plain(name) not in there]
        if not options:
            return None
        kind = self.pick([kind for kind in (*_BY_TEXT, *_BY_LABEL) if kind != "heading"])
        name = self.pick(options)
        phrase = self.name_phrase(name, kind, can_be_bare=True, is_written=kind in _BY_TEXT)
        return self.query("name", phrase, (), ("kind", kind), ("name", name))

    def _ordinal(self, kind: str, members: Sequence[Element]) -> ScreenQuery | None:
        """The third tab: all of the kind stand in one line or one column."""
        if len(members) > _LONGEST_LINE:
            return None
        for axis in (0, 1):
            across = [element.point[1 - axis] for element in members]
            thinnest = min(element.box[3 - axis] - element.box[1 - axis] for element in members)
            if max(across) - min(across) > 0.6 * thinnest:
                continue
            ranked = sorted(members, key=lambda element: element.point[axis])
            places = [element.point[axis] for element in ranked]
            if np.diff(places).min() < 3:
                return None
            i = int(self.rng.integers(min(len(ranked), len(_ORDINALS) + 1)))
            is_last = i == len(_ORDINALS) or (i == len(ranked) - 1 and self.rng.random() < 0.7)
            if is_last:
                word, target = "last", ranked[-1]
            else:
                word, target = _ORDINALS[i], ranked[i]
            phrase = _with(word, self.noun(kind))
            return self.query("position", phrase, [target], ("kind", kind), ("position", word))
        return None

    def _extreme(self, kind: str, members: Sequence[Element]) -> ScreenQuery | None:
        word, axis, sign = self.pick(_EXTREMES)
        ranked = sorted(members, key=lambda element: sign * element.point[axis])
        step = abs(ranked[1].point[axis] - ranked[0].point[axis])
        if step < _CLEAR_STEP * self.screen.size[axis]:
            return None
        phrase = _with(word, self.noun(kind))
        return self.query("position", phrase, ranked[:1], ("kind", kind), ("position", word))

    def _half(self, kind: str, members: Sequence[Element]) -> ScreenQuery | None:
        where, axis, sign = self.pick(_HALVES)
        places = [element.point[axis] / self.screen.size[axis] - 0.5 for element in members]
        chosen = [element for element, place in zip(members, places, strict=True) if sign * place < 0]
        if min(map(abs, places)) < _CLEAR_HALF or not chosen or len(chosen) == len(members):
            return None
        phrase = _followed_by(self.noun(kind), f"in the {where} half")
        return self.query("position", phrase, chosen, ("kind", kind), ("position", where))

    def _in_row(self) -> ScreenQuery | None:
        """The bin next to report-3.pdf: words that occur once, and something in the same row that other rows
        have too.
        """
        counts = Counter(_plain(element.text) for element in self.screen.elements if element.text)
        anchors: dict[int, Element] = {}
        for element in self.screen.elements:
            if element.row is None or element.kind not in ("text", "link", "heading"):
                continue
            is_word = 1 < len(element.text) <= _LONGEST and not element.text.replace(".", "").isdigit()
            if is_word and counts[_plain(element.text)] == 1:
                anchors.setdefault(element.row, element)
        pairs = []
        for element in self.screen.elements:
            if element.row not in anchors or element.kind in ("text", "heading"):
                continue
            anchor = anchors[element.row]
            if element is not anchor:
                pairs.append((anchor, element))
        if not pairs:
            return None
        anchor, target = self.pick(pairs)
        mates = [element for element in self.screen.elements if element.row == target.row]
        named = self._short_noun(target, mates)
        if named is None:
            return None
        phrase, mentions = named
        relation = self.pick(("next to", "next to", "beside", "in the row of"))
        phrase = _followed_by(phrase, f"{relation} {anchor.text}")
        return self.query("relation", phrase, [target], *mentions, ("name", anchor.text))

    def _beside(self) -> ScreenQuery | None:
        """The button to the right of the trash icon."""
        drawings = [element for element in self.screen.elements if element.icon and _is_drawing(element)]
        counts = Counter(element.icon for element in drawings)
        anchors = [element for element in drawings if counts[element.icon] == 1]
        if not anchors:
            return None
        anchor = self.pick(anchors)
        word, sign = self.pick((("right", 1), ("left", -1)))
        height = anchor.box[3] - anchor.box[1]
        line = []  # buttons on that side, at the same height
        for element in self.by_kind.get("button", ()):
            ahead = sign * (element.point[0] - anchor.point[0])
            is_level = abs(element.point[1] - anchor.point[1]) < 0.4 * height
            if element is not anchor and is_level and ahead > 0:
                line.append(element)
        if not line:
            return None
        nearest = min(line, key=lambda element: sign * element.point[0])
        gap = nearest.box[0] - anchor.box[2] if sign > 0 else anchor.box[0] - nearest.box[2]
        if not -2 <= gap <= 1.5 * height:
            return None
        noun = self.noun("button")
        icon = str(anchor.icon)
        phrase = _followed_by(noun, f"to the {word} of the {self.icon_phrase(icon, ()).singular}")
        return self.query(
            "relation", phrase, [nearest], ("kind", "button"), ("icon", icon), ("position", word)
        )

    def _in_area(self) -> ScreenQuery | None:
        """The close button in the dialog."""
        kinds = self.by_kind.keys() - {"text", "heading", "icon"}
        options = [element for element in self.screen.elements if element.areas and element.kind in kinds]
        if not options:
            return None
        target = self.pick(options)
        area = self.pick(sorted(set(target.areas)))
        noun = self.noun(target.kind)
        chosen = [element for element in self.by_kind[target.kind] if area in element.areas]
        if len(chosen) == len(self.by_kind[target.kind]):
            return None
        phrase = _followed_by(noun, f"in the {area}")
        return self.query("relation", phrase, chosen, ("kind", target.kind), ("area", area))

    def _short_noun(
        self, target: Element, mates: Sequence[Element]
    ) -> tuple[_Phrase, tuple[tuple[str, str], ...]] | None:
        """A phrase that means the target alone among some elements: its kind, or its icon."""
        if target.icon and _is_drawing(target):
            alike = [mate for mate in mates if mate.icon == target.icon and _is_drawing(mate)]
            if len(alike) == 1:
                return self.icon_phrase(target.icon, [target]), (("icon", target.icon),)
        if target.kind not in ("icon", *self.unclear):
            alike = [mate for mate in mates if mate.kind == target.kind]
            if len(alike) == 1:
                return self.noun(target.kind), (("kind", target.kind),)
        return None


def draw_questions(
    rng: np.random.Generator,
    screen: Screen,
    number: int,
    *,
    unseen_names: bool = True,
    absent_names: Sequence[str] = (),
) -> tuple[ScreenQuery, ...]:
    """Questions about a screen, no two about the same thing.

    Args:
        rng: source of chance.
        screen: what is asked about.
        number: how many questions; fewer if chance finds no more clear ones.
        unseen_names: also ask by names that are not written on the screen, such as those that icons have for
            screen readers.
        absent_names: names that other screens have, to ask for where they are not.
    """
    maker = _QuestionMaker(rng, screen, unseen_names, absent_names)
    kinds = list(KINDS)
    shares = np.array(list(KINDS.values())) / sum(KINDS.values())
    queries: dict[tuple[object, ...], ScreenQuery] = {}
    for _ in range(number * _TRIES):
        if len(queries) >= number:
            break
        kind = kinds[int(rng.choice(len(kinds), p=shares))]
        query = maker.draw(kind)
        if query is not None:
            boxes = tuple(target.box for target in query.targets)
            queries.setdefault((query.kind, query.mentions, boxes), query)
    return tuple(queries.values())


def _is_drawing(element: Element) -> bool:
    """Whether an element is an icon and nothing else."""
    if element.kind == "icon":
        return True
    return (
        element.kind in ("button", "link", "tab", "menu item")
        and element.icon is not None
        and not element.text
    )


def _all_coloured(elements: Sequence[Element]) -> bool:
    return all(element.colour for element in elements)


def _colours_of(elements: Sequence[Element]) -> list[str]:
    return sorted({str(element.colour) for element in elements})


def _plain(name: str) -> str:
    return " ".join(name.lower().split())


def _with(word: str, phrase: _Phrase) -> _Phrase:
    return _Phrase(f"{word} {phrase.singular}", f"{word} {phrase.plural}")


def _followed_by(phrase: _Phrase, words: str) -> _Phrase:
    return _Phrase(f"{phrase.singular} {words}", f"{phrase.plural} {words}")
