"""The trainer keeps to what transformers documents of Trainer: one private method, and no name that hides
another one.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

from transformers import Trainer, TrainerCallback

from molmopoint.training import trainer

ALLOWED = {"_save_checkpoint"}
"""Its docstring says why."""


def private_names(module) -> set[str]:
    """Every private attribute that is read, written, called or defined anywhere in a module."""
    found = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(module)))):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def private_parts_of(cls) -> set[str]:
    """Private methods of a class, and private attributes that it gives its instances."""
    return {name for name in private_names(inspect.getmodule(cls)) if not name.startswith("__")} | set(
        vars(cls)
    )


def test_only_what_is_documented_is_used():
    assert private_names(trainer) & private_parts_of(Trainer) == ALLOWED


def test_every_hook_of_the_callback_exists():
    hooks = {name for name in vars(trainer._Steps) if name.startswith("on_")}
    assert hooks <= set(vars(TrainerCallback)), hooks - set(vars(TrainerCallback))


def test_every_overridden_method_exists():
    ours = {name for name, value in vars(trainer.RunTrainer).items() if inspect.isfunction(value)}
    own = {"__init__", "load_best", "sum_over_processes", "all_agree", "_load_trained"}
    assert ours - own <= set(vars(Trainer)), ours - own - set(vars(Trainer))
