"""Recipes from files and from the command line: what is misspelt or of another type is refused, with the nearest name.

    load_recipe("lora", ["groups.point.peak=2e-4", "lora.rank=16"])

TOML has no word for nothing, so `false` leaves out what may be left out: `lora = false`, `data.crops_per_image = false`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from molmopoint.errors import RecipeError
from molmopoint.training.recipe import GROUPS, Recipe

FOLDER = Path(__file__).resolve().parent / "recipes"
"""The recipes that come with the package."""

_LENGTHS = ("steps", "epochs")
"""Two ways to say how long; naming one takes back the other."""

_MAX_BASES = 8


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A checked recipe.

    Args:
        name_or_file: a name of `recipe_names`, or a TOML or JSON file. Its `base` names the recipe that it changes; without one
            what is left out has the default of its class.
        overrides: changes as `key=value`, the key with dots, the value as in TOML; a value that is no TOML is text.

    Raises:
        RecipeError: there is no such recipe, or it holds an unknown key, a value of another type, or one out of range.
    """
    table = _read(name_or_file)
    for override in overrides:
        table = _merged(table, _override(override))
    recipe: Recipe = _build(Recipe, table, "")
    _check(recipe)
    return recipe


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Tables and values of a recipe, for JSON; `recipe_from_dict` reads them back."""
    return json.loads(json.dumps(dataclasses.asdict(recipe)))


def recipe_from_dict(table: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_dict` wrote.

    Raises:
        RecipeError: as `load_recipe`.
    """
    recipe: Recipe = _build(Recipe, table, "")
    _check(recipe)
    return recipe


def _read(name_or_file: str | Path, depth: int = 0, beside: Path = Path()) -> dict[str, Any]:
    """The tables of a recipe laid over those of its base."""
    path = _find(name_or_file, beside)
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, OSError) as error:
        raise RecipeError(f"expected a TOML or JSON file at {path}, got: {error}; correct it there") from error
    if not isinstance(table, dict):
        raise RecipeError(f"expected a table of settings in {path}, got {type(table).__name__}; see docs/finetuning.md")
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str) or depth >= _MAX_BASES:
        raise RecipeError(f"expected the name of a recipe as base in {path}, got {base!r}; a recipe cannot be its own base")
    return _merged(_read(base, depth + 1, path.parent), table)


def _find(name_or_file: str | Path, beside: Path) -> Path:
    name = str(name_or_file)
    if isinstance(name_or_file, Path) or name.endswith((".toml", ".json")):
        path = beside / Path(name).expanduser()
        if not path.is_file():
            raise RecipeError(f"expected a recipe file, got no file {path}; the recipes of the package are {', '.join(recipe_names())}")
        return path
    if name not in recipe_names():
        known = ", ".join(recipe_names())
        raise RecipeError(f"expected a TOML file or one of the recipes {known}, got {name!r}{_nearest(name, recipe_names())}")
    return FOLDER / f"{name}.toml"


def _override(text: str) -> dict[str, Any]:
    """One `key=value` as nested tables."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise RecipeError(f"expected key=value such as groups.point.peak=2e-4, got {text!r}; put it in quotes if it has blanks")
    parsed: Any
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    for part in reversed(key.split(".")):
        parsed = {part: parsed}
    return parsed


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, table by table."""
    merged = dict(base)
    if sum(bool(changes.get(name)) for name in _LENGTHS) == 1:
        merged |= dict.fromkeys(_LENGTHS, False)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def _build(cls: Any, table: Any, place: str) -> Any:
    """An instance of a dataclass of settings from its table."""
    if not isinstance(table, Mapping):
        raise RecipeError(f"{place}: expected a table of settings, got {table!r}; write [{place}] and one line per setting")
    known = {field.name for field in dataclasses.fields(cls)}
    types = get_type_hints(cls)
    values = {}
    for key, value in table.items():
        if key not in known:
            every = ", ".join(field.name for field in dataclasses.fields(cls))
            raise RecipeError(f"{place}{'.' * bool(place)}{key}: expected one of {every}, got {key!r}{_nearest(key, sorted(known))}")
        values[key] = _value(types[key], value, f"{place}.{key}" if place else key)
    if cls is Recipe and "steps" in values and values["steps"] is not None and "epochs" not in values:
        values["epochs"] = None
    return cls(**values)


def _value(kind: Any, value: Any, place: str) -> Any:
    """A value of the type that the field is annotated with."""
    if get_origin(kind) in (Union, UnionType):
        if value is None or value is False:
            return None
        kind = next(option for option in get_args(kind) if option is not NoneType)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, place)
    if get_origin(kind) is Literal:
        return _checked(value in get_args(kind), value, place, f"one of {', '.join(map(repr, get_args(kind)))}")
    if get_origin(kind) is tuple:
        return _tuple(kind, value, place)
    if kind is float:
        return float(_checked(isinstance(value, int | float) and not isinstance(value, bool), value, place, "a number"))
    if kind is int:
        return _checked(isinstance(value, int) and not isinstance(value, bool), value, place, "a whole number")
    return _checked(isinstance(value, kind), value, place, {bool: "true or false", str: "text"}[kind])


def _tuple(kind: Any, value: Any, place: str) -> tuple[Any, ...]:
    types = get_args(kind)
    endless = types[-1] is Ellipsis
    fits = isinstance(value, list | tuple) and (endless or len(value) == len(types))
    _checked(fits, value, place, "a list" if endless else f"{len(types)} values")
    kinds = [types[0]] * len(value) if endless else types
    return tuple(_value(kind, entry, f"{place}[{i}]") for i, (kind, entry) in enumerate(zip(kinds, value, strict=True)))


def _checked(fits: bool, value: Any, place: str, expected: str) -> Any:
    if not fits:
        raise RecipeError(f"{place}: expected {expected}, got {value!r}; correct it in the recipe or with --set {place}=...")
    return value


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


_POSITIVE = ("a number above 0", lambda value: value > 0)
_NOT_NEGATIVE = ("0 or more", lambda value: value >= 0)
_PART = ("a part from 0 to below 1", lambda value: 0 <= value < 1)
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "steps": _POSITIVE, "epochs": _POSITIVE, "accumulation": _POSITIVE, "seed": _NOT_NEGATIVE, "z_loss": _NOT_NEGATIVE,
    "residual_dropout": _PART,
    **{f"groups.{group}.{name}": _NOT_NEGATIVE for group in GROUPS for name in ("peak", "warmup")},
    **{f"groups.{group}.clip": _POSITIVE for group in GROUPS},
    "optimiser.eps": _POSITIVE, "optimiser.weight_decay": _NOT_NEGATIVE,
    "optimiser.floor": ("a part from 0 to 1", lambda value: 0 <= value <= 1),
    "optimiser.betas": ("two parts from 0 to below 1", lambda value: all(0 <= beta < 1 for beta in value)),
    "lora.rank": _POSITIVE, "lora.alpha": _POSITIVE, "lora.dropout": _PART,
    "lora.targets": ("one or more names of layers", bool),
    **{f"data.{name}": _POSITIVE for name in ("max_tokens", "max_crops", "crops_per_image", "pool", "max_stay", "rows", "max_points")},
    **{f"data.{name}": _NOT_NEGATIVE for name in ("crop_weight", "workers", "seed", "held_out")},
    "data.replay": _PART,
    "reward.head_width": _POSITIVE, "reward.vision_tokens": _POSITIVE, "reward.margin": _NOT_NEGATIVE, "reward.frames": _POSITIVE,
    "reward.folder_frames": _POSITIVE,
    "reward.crops": ("one or more numbers above 0", lambda value: value and min(value) > 0),
    "augmentation.mirror": ("a part from 0 to 1", lambda value: 0 <= value <= 1),
    "augmentation.turn": ("degrees from 0 to 180", lambda value: 0 <= value <= 180),
    "augmentation.crop": _PART, "augmentation.light": _NOT_NEGATIVE,
    "scoring.every": _NOT_NEGATIVE, "scoring.examples": _POSITIVE, "scoring.batch_size": _POSITIVE, "scoring.max_new_tokens": _POSITIVE,
    "scoring.tolerance": _POSITIVE, "saving.every": _POSITIVE, "saving.keep": _POSITIVE, "logging.every": _POSITIVE,
}  # fmt: skip


def _check(recipe: Recipe) -> None:
    """What types alone do not tell."""
    if (recipe.steps is None) == (recipe.epochs is None):
        raise RecipeError(f"expected steps or epochs, got steps {recipe.steps} and epochs {recipe.epochs}; set exactly one of them")
    if recipe.bf16_weights and recipe.dtype != "bfloat16":
        raise RecipeError(f"bf16_weights: expected dtype 'bfloat16' beside it, got {recipe.dtype!r}; set bf16_weights=false or the dtype")
    for place, (expected, fits) in _RANGES.items():
        value: Any = recipe
        for part in place.split("."):
            value = None if value is None else getattr(value, part)
        if value is not None and not fits(value):
            raise RecipeError(f"{place}: expected {expected}, got {value!r}; correct it in the recipe or with --set {place}=...")
