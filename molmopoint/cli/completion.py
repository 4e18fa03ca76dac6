"""What a shell offers when the tab key is pressed; `molmopoint --install-completion` tells the shell to ask.

Each function takes what was typed so far, and loads nothing of a model.
"""

from __future__ import annotations


def models(incomplete: str) -> list[str]:
    """Names of the zoo."""
    from molmopoint.checkpoints import names

    return _fitting(names(), incomplete)


def benchmarks(incomplete: str) -> list[str]:
    """Names of the benchmarks."""
    from molmopoint.eval.benchmarks import benchmark_names

    return _fitting(benchmark_names(), incomplete)


def formats(incomplete: str) -> list[str]:
    """Formats of annotations."""
    from molmopoint.data.importers import FORMATS, PREFERENCE_FORMATS

    return _fitting([*FORMATS, *PREFERENCE_FORMATS], incomplete)


def recipes(incomplete: str) -> list[str]:
    """Names of the recipes."""
    from molmopoint.training.recipe_files import recipe_names

    return _fitting(recipe_names(), incomplete)


def devices(incomplete: str) -> list[str]:
    """Kinds of devices; the libraries that know which are here take too long to load."""
    return _fitting(["cpu", "cuda", "mps", "auto"], incomplete)


def _fitting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
