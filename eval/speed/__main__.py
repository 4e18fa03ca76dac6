"""The command line: `python -m molmopoint.eval.speed`.

`python -m molmopoint.eval.speed video` and the like measure what has a module of its own.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import torch
import typer

from molmopoint.eval.speed import costs, memory, phases, report
from molmopoint.eval.speed.phases import Plan
from molmopoint.eval.speed.subjects import NAMES, Subject, build, default_setting
from molmopoint.eval.speed.timing import Setting

EPILOG = (
    "`full`, `packing`, `reward`, `scoring`, `serve` and `video` as first argument measure these. "
    "Exit codes: 0 measured, 2 wrong usage. A ratio above its limit is named in the output and is no error."
)
MODULES = ("full", "packing", "reward", "scoring", "serve", "video")
"""What is measured by a module of this folder, with options of its own."""

app = report.new_app()


@app.command(epilog=EPILOG)
def speed(
    models: Annotated[
        list[str] | None,
        typer.Argument(help=f"Of {', '.join(NAMES)}. By default nano, 0.1b, and 8b where there is a GPU."),
    ] = None,
    change: Annotated[
        str,
        typer.Option(
            "--set",
            help="Changes of the setting, such as device=cuda,dtype=bfloat16,attn=eager,threads=2,cache=static.",
        ),
    ] = "",
    versus: Annotated[
        str,
        typer.Option(
            "--vs", help="Measure a second setting turn by turn with the first: what it changes, as in --set."
        ),
    ] = "",
    repeats: Annotated[
        int, typer.Option(min=1, help="Turns; one more comes before them and does not count.")
    ] = 5,
    steps: Annotated[int, typer.Option(min=8, help="Decode steps per turn.")] = 32,
    batch: Annotated[str, typer.Option(help="Rows per call.")] = "1,4,8",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    frames: Annotated[
        str,
        typer.Option(
            help="Frames of the clips whose prompt pass and memory are measured, at toy width; 0 for none."
        ),
    ] = "128,384",
    with_memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure peak memory, in fresh processes.")
    ] = True,
    with_costs: Annotated[
        bool, typer.Option("--costs/--no-costs", help="Find the three largest costs of each phase.")
    ] = True,
    json_output: report.JsonOutput = False,
) -> None:
    """Times preprocessing, prefill and decoding, finds their largest costs, and measures peak memory."""
    try:
        plan = Plan(batches=tuple(int(part) for part in batch.split(",")), steps=steps, repeats=repeats)
        pairs = {name: settings_of(name, threads, change, versus) for name in models or default_models()}
        with contextlib.redirect_stdout(sys.stderr):
            counts = [int(part) for part in frames.split(",")]
            document = examine(pairs, plan, frames=counts, with_costs=with_costs, with_memory=with_memory)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    (report.print_json if json_output else report.print_tables)(document)


def default_models() -> list[str]:
    """What can be measured here."""
    models = ["nano", "0.1b"]
    if torch.cuda.is_available():
        models.append("8b")
    return models


def settings_of(name: str, threads: int, change: str, versus: str) -> list[Setting]:
    """One setting, or two to compare."""
    first = default_setting(name, threads)
    if change:
        first = first.changed(change)
    return [first, first.changed(versus)] if versus else [first]


def examine(
    pairs: dict[str, list[Setting]], plan: Plan, *, frames: Sequence[int], with_costs: bool, with_memory: bool
) -> dict[str, Any]:
    """Measures everything; the document that `report` prints."""
    models = []
    device = "cpu"
    for name, settings in pairs.items():
        models.append(_examine_model(name, settings, plan, with_costs=with_costs, with_memory=with_memory))
        for setting in settings:
            if setting.device.startswith("cuda"):
                device = setting.device
    clips = []
    if with_memory:
        first = next(iter(pairs.values()))[0]
        clips = _clips(first, [count for count in frames if count > 0])
    return {"machine": report.machine(device), "models": models, "clips": clips}


def _examine_model(
    name: str, settings: list[Setting], plan: Plan, *, with_costs: bool, with_memory: bool
) -> dict[str, Any]:
    subjects: list[tuple[Subject, Setting]] = [(build(name, setting), setting) for setting in settings]
    rows, checks = phases.measure(subjects, plan)
    entry: dict[str, Any] = {
        "name": name,
        "parameters": subjects[0][0].num_parameters,
        "settings": [setting.to_dict() for setting in settings],
        "rows": [row.to_dict() for row in rows],
        "checks": [check.to_dict() for check in checks],
        "costs": [],
        "memory": [],
    }
    # A compiled step has no parts that could be told apart.
    if with_costs and settings[0].cache != "compiled":
        entry["costs"] = costs.largest_costs(*subjects[0], plan)
    del subjects  # the fresh processes need the room
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if with_memory:
        entry["memory"] = _memory(name, settings, plan)
    return entry


def _clips(like: Setting, frames: Sequence[int]) -> list[dict[str, Any]]:
    """Prompts with long clips at toy width, on the CPU."""
    clips = []
    for count in frames:
        for dtype in ("float32", "bfloat16"):
            setting = Setting(dtype=dtype, threads=like.threads, clock=like.clock)
            case = {"model": "toy", "setting": setting.to_dict(), "frames": count}
            clips.append(memory.measure_in_child(case))
    return clips


def _memory(name: str, settings: list[Setting], plan: Plan) -> list[dict[str, Any]]:
    cases = []
    for label, setting in zip(("first", "second"), settings, strict=False):
        for batch in plan.batches:
            case = {"model": name, "setting": setting.to_dict(), "batch": batch, "size": plan.prompt_size}
            cases.append({"batch": batch, "setting": label, **memory.measure_in_child(case)})
    return cases


def main(arguments: list[str]) -> None:
    """Runs the measurement that the first argument names, or that of models."""
    command = "python -m molmopoint.eval.speed"
    if not arguments or arguments[0] not in MODULES:
        app(arguments, prog_name=command)
        return
    name, *others = arguments
    import_module(f"molmopoint.eval.speed.{name}").app(others, prog_name=f"{command} {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
