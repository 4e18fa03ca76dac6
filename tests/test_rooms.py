"""The table of doors: which room imports which. Read from the import statements, those inside functions
included.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS_OUTSIDE = ("heads", "eval", "checkpoints")

BASICS = {
    "errors", "tokens", "grammar", "key_map", "load_checks", "points", "tracks", "geometry", "config", "heads", "video", "decoding",
    "drawing", "sheets",
}  # fmt: skip
NETWORK = {
    "attention",
    "backbone",
    "compiled",
    "connector",
    "decoder",
    "generation",
    "losses",
    "mask_blocks",
    "quick_linear",
    "rows",
    "saving",
    "adapters",
    "modeling",
    "molmo2",
    "graft",
}
ABOVE = {"processing", "data", "metrics", "segmentation", "checkpoints", "registration"}
# Every room but `heads` may also import those of `EVERYWHERE`, and every module its own room.
EVERYWHERE = {"errors", "lazy", "version", "files", "safe_text", "remote_code"}
DOORS: dict[str, set[str]] = {
    "version": set(),
    "errors": set(),
    "lazy": set(),
    "files": set(),
    "safe_text": set(),
    "remote_code": set(),
    "tokens": set(),
    "grammar": set(),
    "key_map": set(),
    "load_checks": set(),
    "heads": set(),
    "points": set(),
    "tracks": {"points"},
    "geometry": {"points"},
    "drawing": {"points"},
    "sheets": set(),
    "config": {"tokens"},
    "attention": set(),
    "mask_blocks": {"attention"},
    "quick_linear": set(),
    "decoder": {"heads", "mask_blocks"},
    "rows": {"config", "tokens"},
    "connector": {"config", "tokens"},
    "losses": {"config", "tokens", "heads", "rows"},
    "generation": {"config", "tokens", "grammar", "heads", "rows", "attention", "connector"},
    "saving": {"config", "key_map"},
    "backbone": {
        "attention",
        "config",
        "decoder",
        "tokens",
        "connector",
        "heads",
        "key_map",
        "load_checks",
        "mask_blocks",
        "quick_linear",
        "rows",
        "saving",
    },
    "adapters": {"saving"},
    "modeling": {"config", "tokens", "heads"}
    | NETWORK - {"modeling", "compiled", "saving", "adapters", "molmo2", "graft"},
    "compiled": {"attention", "decoder", "heads", "modeling"},
    "molmo2": {"attention", "backbone", "losses", "saving"},
    "graft": {
        "attention",
        "config",
        "connector",
        "generation",
        "geometry",
        "heads",
        "load_checks",
        "losses",
        "modeling",
        "processing",
        "rows",
        "saving",
        "tokens",
    },
    "decoding": {"tokens", "grammar", "geometry", "points"},
    "video": set(),
    "processing": {"config", "tokens", "geometry", "points", "decoding", "video"},
    "data": {"points", "geometry", "metrics", "sheets"},
    "screens": {"data"},
    "metrics": {"points"},
    "segmentation": {"points", "drawing", "metrics", "processing", "video", "load_checks"},
    "checkpoints": {
        "key_map",
        "load_checks",
        "tokens",
        "config",
        "modeling",
        "processing",
        "graft",
        "generation",
    },
    "registration": {"config", "modeling", "processing", "graft"},
    "reward": {
        "backends",
        "modeling",
        "connector",
        "molmo2",
        "adapters",
        "saving",
        "load_checks",
        "processing",
        "tokens",
        "checkpoints",
        "heads",
        "registration",
        "video",
    },
    "backends": BASICS | NETWORK | ABOVE,
    "pipeline": BASICS | NETWORK | ABOVE | {"backends"},
    "training": BASICS | NETWORK | ABOVE | {"backends", "reward"},
    "serving": BASICS | NETWORK | ABOVE | {"backends", "pipeline", "reward"},
    "agents": {"drawing", "points", "pipeline", "serving"},
    "eval": BASICS | NETWORK | ABOVE | {"backends", "reward", "pipeline", "training", "serving"},
}
NEED_VLLM = {
    f"molmopoint.serving.vllm.{name}"
    for name in (
        "cpu_attention", "device_memory", "engine_config", "model_state", "network", "patch_keys",
        "picture_input", "point_sampler", "request_checks",
    )
}  # fmt: skip
"""Modules of the plugin that are imported by vLLM alone, which is in an environment of its own."""

FRONT = {"molmopoint", "__main__", "cli"}
"""The package itself, whose imports are lazy, and the command line: they may import everything."""


def sources() -> Iterator[tuple[str, Path]]:
    """Module name and file of every module of the package; the links are skipped, the rooms behind them are
    not.
    """
    for folder in ("molmopoint", *ROOMS_OUTSIDE):
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            if name.startswith(tuple(f"molmopoint.{room}." for room in ROOMS_OUTSIDE)):
                continue
            yield (name if folder == "molmopoint" else f"molmopoint.{name}").removesuffix(".__init__"), file


SOURCES = dict(sources())


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imports(module: str) -> Iterator[tuple[str, int]]:
    """What a module imports, absolute, with the line; `from a import b` counts as `a.b` where that is a
    module.
    """
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{SOURCES[module]}:{node.lineno}: relative import; write the full name"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield (full if full in SOURCES else str(node.module)), node.lineno


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_through_the_doors(module: str):
    room = room_of(module)
    for imported, line in imports(module):
        where = f"{SOURCES[module].relative_to(ROOT)}:{line}"
        top = imported.split(".")[0]
        assert top not in ROOMS_OUTSIDE, (
            f"{where}: `{imported}` makes a second copy of every class; write molmopoint.{imported}"
        )
        if top != "molmopoint" or room in FRONT:
            continue
        assert room in DOORS, (
            f"{where}: room {room!r} is not in the table; add it, with as few doors as it needs"
        )
        basics = set() if room == "heads" else EVERYWHERE
        assert room_of(imported) in DOORS[room] | basics | {room}, (
            f"{where}: {room} has no door to {room_of(imported)}"
        )


def test_the_doors_are_one_way():
    closed: set[str] = set()

    def walk(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, f"rooms in a circle: {' -> '.join((*path, room))}"
        for other in () if room in closed else DOORS[room]:
            walk(other, (*path, room))
        closed.add(room)

    for room in DOORS:
        walk(room, ())


def test_no_modules_in_a_circle():
    graph = {
        module: {name for name, _ in imports(module) if name in SOURCES and name != module}
        for module in SOURCES
    }
    graph["molmopoint"] = {"molmopoint.version"}  # all others are imported on first use
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, (
            f"modules in a circle: {' -> '.join((*path[path.index(module) :], module))}"
        )
        for other in () if module in done else sorted(graph[module]):
            walk(other, (*path, module))
        done.add(module)

    for module in SOURCES:
        walk(module, ())


def test_importing_the_package_loads_nothing():
    code = """
import sys, time
start = time.process_time()
import molmopoint
spent = time.process_time() - start
heavy = {"torch", "transformers", "numpy", "PIL", "huggingface_hub", "typer", "rich"} & set(sys.modules)
sys.exit(f"{spent:.2f} s, loaded {heavy}" if heavy or spent > 0.3 else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("module", [name for name in SOURCES if not name.endswith("__main__")])
def test_every_module_imports_alone(module: str):
    if module in NEED_VLLM:
        pytest.importorskip("vllm")
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_public_names_exist_and_are_lazy():
    import molmopoint

    assert set(molmopoint.__all__) <= set(dir(molmopoint))
    for name in molmopoint.__all__:
        assert getattr(molmopoint, name) is not None
    with pytest.raises(AttributeError, match="public names"):
        _ = molmopoint.nothing_of_this_name
