"""Recipes from files and from the command line: what is misspelt or of another type is refused, with the
nearest name.

    load_recipe("lora", ["groups.point.peak=2e-4", "lora.rank=16"])

TOML has no word for nothing, so `false` leaves out what may be left out: `lora = false`,
`data.crops_per_image = false`.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from molmopoint.errors import RecipeError
from molmopoint.files import is_file
from molmopoint.training.recipe import EXPECTED, TOGETHER, Recipe

FOLDER = Path(__file__).resolve().parent / "recipes"
"""The recipes that come with the package."""

_LENGTHS = ("steps", "epochs")
"""Two ways to say how long; naming one takes back the other."""

_MAX_BASES = 8
_SHOWN = 200
"""Characters of a value in a message."""

_CHECKS = TypeAdapter(Recipe)

_EXPECTED_TYPES = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text",
    "tuple_type": "a list",
}
"""What the types of pydantic's errors expect."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe.

    Args:
        name_or_file: a name of `recipe_names`, or a TOML or JSON file. Its `base` names the recipe that it
            changes; without one what is left out has the default of its class.
        overrides: changes as `key=value`, the key with dots, the value as in TOML; a value that is no TOML is
            text.

    Raises:
        RecipeError: there is no such recipe, or it holds an unknown key, a value of another type, or one out
            of range.
    """
    table = _read(name_or_file)
    for override in overrides:
        table = _merged(table, _override(override))
    return _build(table)


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Tables and values of a recipe, for JSON; `recipe_from_dict` reads them back."""
    return _CHECKS.dump_python(recipe, mode="json")


def recipe_from_dict(table: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_dict` wrote.

    Raises:
        RecipeError: as `load_recipe`.
    """
    return _build(table)


def _read(name_or_file: str | Path, depth: int = 0, beside: Path = Path()) -> dict[str, Any]:
    """The tables of a recipe laid over those of its base."""
    path = _find(name_or_file, beside)
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, OSError, RecursionError) as error:
        raise RecipeError(
            f"expected a TOML or JSON file at {path}, got: {error}; correct it there"
        ) from error
    if not isinstance(table, dict):
        raise RecipeError(
            f"expected a table of settings in {path}, got {type(table).__name__}; see docs/finetuning.md"
        )
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str) or depth >= _MAX_BASES:
        raise RecipeError(
            f"expected the name of a recipe as base in {path}, got {_shown(base)}; a recipe cannot be its "
            "own base"
        )
    return _merged(_read(base, depth + 1, path.parent), table)


def _find(name_or_file: str | Path, beside: Path) -> Path:
    name = str(name_or_file)
    if isinstance(name_or_file, Path) or name.endswith((".toml", ".json")):
        path = beside / Path(name).expanduser()
        if not is_file(path):
            raise RecipeError(
                f"expected a recipe file, got no file {path}; the recipes of the package are "
                f"{', '.join(recipe_names())}"
            )
        return path
    if name not in recipe_names():
        known = ", ".join(recipe_names())
        raise RecipeError(
            f"expected a TOML file or one of the recipes {known}, got "
            f"{name!r}{_nearest(name, recipe_names())}"
        )
    return FOLDER / f"{name}.toml"


def _override(text: str) -> dict[str, Any]:
    """One `key=value` as nested tables."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(
            f"expected key=value such as groups.point.peak=2e-4, got {text!r}; put it in quotes if it has "
            "blanks"
        )
    parsed: Any = _toml_value(value.strip(), key)
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return parsed


def _toml_value(text: str, key: str) -> Any:
    """A value as TOML writes it, else text."""
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise RecipeError(
            f"{key}: expected a value of TOML, got {text[:_SHOWN]!r} ({error}); correct --set {key}=..."
        ) from error
    return table["value"] if len(table) == 1 else text


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, table by table."""
    merged = dict(base)
    if sum(bool(changes.get(name)) for name in _LENGTHS) == 1:
        merged |= dict.fromkeys(_LENGTHS, False)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = (
            _merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
        )
    return merged


def _build(table: Mapping[str, Any]) -> Recipe:
    """A recipe from its tables."""
    given = dict(table)
    if given.get("steps") and "epochs" not in given:
        given["epochs"] = None
    try:
        return _CHECKS.validate_python(given)
    except ValidationError as error:
        raise RecipeError(_in_words(error.errors(include_url=False)[0])) from error


def _in_words(error: ErrorDetails) -> str:
    """An error of pydantic as place, what was expected, what arrived, and what to do."""
    kind, value, path = error["type"], error["input"], error["loc"]
    place = _place(path)
    if kind == TOGETHER:
        return error["msg"]
    if kind == "unexpected_keyword_argument":
        known = _settings_of(path[:-1])
        name = str(path[-1])[:_SHOWN]
        return f"{place}: expected one of {', '.join(known)}, got {name!r}{_nearest(name, sorted(known))}"
    if kind in ("dataclass_type", "dataclass_exact_type"):
        return f"{place}: expected a table of settings, got {_shown(value)}; write [{place}] and one line per setting"
    if kind == "missing" and isinstance(path[-1], str):
        return f"{_place(path[:-1])}: expected the setting {path[-1]} too, got none; add {place}"
    if kind in ("missing", "too_long"):  # of the values of a list
        place = place.partition("[")[0]
        expected = f"{len(get_args(_type_at(tuple(part for part in path if isinstance(part, str)))))} values"
    elif kind == EXPECTED:
        expected = error["msg"]
    elif kind == "literal_error":
        expected = f"one of {error.get('ctx', {})['expected'].replace(' or ', ', ')}"
    else:
        expected = _EXPECTED_TYPES.get(kind, error["msg"])
    return f"{place}: expected {expected}, got {_shown(value)}; correct it in the recipe or with --set {place}=..."


def _place(path: Sequence[str | int]) -> str:
    """Where a value stands, as in logging.to[0]."""
    place = ""
    for part in path:
        if isinstance(part, int):
            place += f"[{part}]"
        else:
            place += f".{part[:_SHOWN]}" if place else part[:_SHOWN]
    return place


def _type_at(path: Sequence[str | int]) -> Any:
    """The type of a setting, without None."""
    found: Any = Recipe
    for name in path:
        found = found.__pydantic_fields__[name].annotation
        if get_origin(found) in (Union, UnionType):
            found = next(option for option in get_args(found) if option is not NoneType)
    return found


def _settings_of(path: Sequence[str | int]) -> list[str]:
    """Names of the settings of a table."""
    return list(_type_at(path).__pydantic_fields__)


def _shown(value: Any) -> str:
    """A value in a message: short, and whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that is too large to show"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
