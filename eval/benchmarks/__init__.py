"""The benchmarks, one file each: where the data is, how to ask, how to score, and a few made items.

A file here is found by itself: `find_benchmark` takes the `name` of every complete benchmark class in it, or
the path of anyone's own file.
"""

from __future__ import annotations

import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Benchmark

__all__ = ["benchmark_names", "find_benchmark"]


def find_benchmark(name: str) -> Benchmark:
    """A benchmark of the package, or the one in a Python file.

    Args:
        name: as `benchmark_names` lists it, or the path of a file that ends in `.py`.

    Raises:
        EvaluationError: there is no such benchmark, or the file does not hold exactly one.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    found = _benchmarks()
    if name not in found:
        near = get_close_matches(name, found, n=1)
        hint = f"did you mean {near[0]!r}? There are" if near else "there are"
        raise EvaluationError(
            f"expected a benchmark, or the path of a .py file, got {name!r}; {hint} {', '.join(found)} "
            "(`molmopoint eval --list` tells more)"
        )
    return found[name]()


def benchmark_names() -> list[str]:
    """Of the package, sorted."""
    return list(_benchmarks())


@cache
def _benchmarks() -> dict[str, type[Benchmark]]:
    """Classes by name, sorted."""
    found: dict[str, type[Benchmark]] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        for benchmark in _classes_in(import_module(module.name)):
            found[benchmark.name] = benchmark
    return dict(sorted(found.items()))


def _from_file(path: Path) -> Benchmark:
    if not path.is_file():
        raise EvaluationError(f"expected a Python file with a benchmark, got {path}, which is not a file")
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise EvaluationError(
            f"expected a Python file with a benchmark, got {path}, which cannot be imported"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by its name
    spec.loader.exec_module(module)
    classes = list(_classes_in(module))
    if len(classes) != 1:
        names = ", ".join(found.__name__ for found in classes) or "none"
        raise EvaluationError(
            f"expected one subclass of Benchmark in {path}, got {names}; give every benchmark a file of its "
            "own"
        )
    return classes[0]()


def _classes_in(module: ModuleType) -> Iterator[type[Benchmark]]:
    """Complete benchmarks that the module defines itself: what several of them share has no name."""
    for found in vars(module).values():
        if not inspect.isclass(found) or not issubclass(found, Benchmark):
            continue
        is_complete = not inspect.isabstract(found) and hasattr(found, "name")
        if is_complete and found.__module__ == module.__name__:
            yield found
