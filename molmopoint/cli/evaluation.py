"""`molmopoint eval` and `molmopoint score`: options and help; the work is in `eval_run.py`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from molmopoint.cli import completion
from molmopoint.cli.evaluation_checks import check_changes, check_data, check_scoring
from molmopoint.cli.folders import leave_if_busy
from molmopoint.cli.inputs import check_device, check_dtype, check_model, leave
from molmopoint.cli.options import Compile, Quantize, Zooms
from molmopoint.errors import EvaluationError

EPILOG = "Exit codes: 0 all fine, 1 some items failed (they count as wrong), 2 wrong usage or data, 3 no model, 130 interrupted."


class StoredForm(StrEnum):
    """What stored answers are, as `molmopoint.eval.predictions.readers` names it."""

    ours = "ours"
    molmo = "molmo"
    molmo2 = "molmo2"
    qwen = "qwen"
    plain = "plain"
    moondream = "moondream"
    florence = "florence-2"
    paligemma = "paligemma"
    scores = "scores"


Data = Annotated[
    str | None,
    typer.Option(
        help="Folder in the published layout, or [bold]fixture[/bold] for a few made items. By default the hub.",
        show_default=False,
    ),
]
Rule = Annotated[
    str | None, typer.Option(help="How to judge, where a benchmark has several rules.", show_default=False)
]
RefCompat = Annotated[
    bool, typer.Option("--ref-compat", help="Repeat the known flaws of the reference; the table names them.")
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder of the run; each benchmark gets one in it.")]
Published = Annotated[
    bool, typer.Option("--compare", help="Show published numbers of the same rule beside ours.")
]
SegmenterName = Annotated[
    str | None,
    typer.Option(
        "--segmenter",
        help="A SAM 2 (facebook/sam2.1-hiera-large, or a folder) that adds J&F to tracking benchmarks.",
        show_default=False,
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(
        help="Folder of another run (OUT/TASK) on the same items, to compare with.", show_default=False
    ),
]


def eval_command(
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASK...",
            help="Names ([bold]--list[/bold] tells them), or Python files.",
            autocompletion=completion.benchmarks,
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Name of the zoo, hub id, or folder; by default the embedded one. Reward benchmarks take a reward model.",
            autocompletion=completion.models,
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit on the hub.", rich_help_panel="Model", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Such as cpu or cuda:1; by default a GPU if there is one.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16, float16 or auto.", rich_help_panel="Model", show_default=False),
    ] = None,
    quantize: Quantize = None,
    compile_steps: Compile = False,
    data: Data = None,
    out: Out = Path("evaluation"),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Items at most, the same ones every time.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per run of the model.")] = 8,
    max_crops: Annotated[
        int | None,
        typer.Option(min=1, help="Crops per picture instead of the benchmark's own.", show_default=False),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, help="Length limit of an answer instead of the benchmark's own.", show_default=False
        ),
    ] = None,
    single: Annotated[
        bool | None,
        typer.Option(
            "--single/--any-number",
            help="Exactly one point, or as many as the model likes, instead of the benchmark's own.",
            show_default=False,
        ),
    ] = None,
    zoom: Zooms = False,
    orders: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Orders in which a reward model sees the responses; by default one per response.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="Sentence around what PixMo-Points and PixMo-Count name, with {} for it; [bold]absence[/bold] is that of the "
            "published training which allows the answer 'There are none.'",
            show_default=False,
        ),
    ] = None,
    steerable: Annotated[
        str | None,
        typer.Option(
            help="How Point-Bench tells the point that a steerable question refers to: drawn, text or none (Ai2's tables); "
            "by default none, and text with --rule official.",
            show_default=False,
        ),
    ] = None,
    picture_area: Annotated[
        int | None,
        typer.Option(
            help="Pixels, width times height, that pictures of ScreenSpot-Pro are brought to before the model sees them; rows of "
            "GUI-Actor are made with 5760000.",
            show_default=False,
        ),
    ] = None,
    rule: Rule = None,
    ref_compat: RefCompat = False,
    published: Published = False,
    baseline: Baseline = None,
    segmenter: SegmenterName = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time went.")] = False,
    show_list: Annotated[bool, typer.Option("--list", help="List the benchmarks and exit.")] = False,
) -> None:
    """Evaluate a model on benchmarks.

    The same command again goes on where it was interrupted. Several processes share the items
    ([bold]torchrun --nproc-per-node 8 -m molmopoint eval ...[/bold]).

    [bold]Examples[/bold]

      molmopoint eval synthetic --model nano --limit 50

      molmopoint eval screenspot_pro --model allenai/MolmoPoint-GUI-8B --max-crops 64 --data ~/ScreenSpot-Pro
      --compare

      molmopoint eval point_bench --data fixture

      molmopoint eval vl_rewardbench --model ~/my-reward-model --compare
    """
    from molmopoint.backends.options import ABSENCE_TEMPLATE

    if show_list:
        from molmopoint.cli.eval_run import list_benchmarks

        raise typer.Exit(list_benchmarks())
    changes = {
        "max_crops": max_crops,
        "max_new_tokens": max_new_tokens,
        "single": single,
        "zoom": zoom or None,
        "orders": orders,
        "template": ABSENCE_TEMPLATE if template == "absence" else template,
        "steerable": steerable,
        "picture_area": picture_area,
    }
    leave_if_busy(out / name for name in tasks or [])
    benchmarks = check_scoring(
        tasks or [], data=data, out=out, rule=rule, baseline=baseline, segmenter=segmenter
    )
    check_changes(benchmarks, changes)
    check_dtype(dtype)
    if model is not None:
        check_device(model, device)
        if not Path(model).is_dir():  # a folder says itself which kind of model it is, when it is read
            check_model(model, revision, scores=benchmarks[0].needs == "scores")
    check_data(benchmarks, data)
    from molmopoint.cli.eval_run import EvalCommand

    command = EvalCommand(
        tasks=tasks or [],
        model=model,
        revision=revision,
        device=device,
        dtype=dtype,
        quantize=quantize,
        compile_steps=compile_steps,
        data=data,
        out=out,
        limit=limit,
        batch_size=batch_size,
        changes=changes,
        rule=rule,
        ref_compat=ref_compat,
        published=published,
        baseline=baseline,
        segmenter=segmenter,
        profile=profile,
    )
    raise typer.Exit(command.run())


def score_command(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK",
            help="Name of a benchmark, or a Python file.",
            show_default=False,
            autocompletion=completion.benchmarks,
        ),
    ],
    predictions: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS",
            help="A file of ours, a folder of a run, or another model's JSONL.",
            show_default=False,
        ),
    ],
    form: Annotated[
        StoredForm,
        typer.Option(
            help="What the answers are: [bold]ours[/bold], a text form of another model (molmo, molmo2, qwen, plain, "
            "moondream, florence-2, paligemma), "
            "or [bold]scores[/bold] of a reward model.",
        ),
    ] = StoredForm.ours,
    coords: Annotated[
        str | None,
        typer.Option(
            help="Space of the numbers in plain and qwen answers: pixel, percent, norm1, norm1000.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    out: Out = Path("evaluation"),
    rule: Rule = None,
    ref_compat: RefCompat = False,
    published: Published = False,
    baseline: Baseline = None,
    segmenter: SegmenterName = None,
) -> None:
    """Judge stored answers, ours or any model's, without running a model.

    A line of another model's file has [bold]item_id[/bold] and [bold]text[/bold], or for reward benchmarks
    [bold]scores[/bold].

    [bold]Examples[/bold]

      molmopoint score point_bench evaluation/point_bench --rule official

      molmopoint score screenspot_v2 qwen.jsonl --form qwen --coords pixel --data ~/ScreenSpot-v2

      molmopoint score vl_rewardbench judge.jsonl --form scores --data ~/VL-RewardBench --compare
    """
    check_scoring([task], data=data, out=out, rule=rule, baseline=baseline, segmenter=segmenter)
    if not predictions.exists():
        raise leave(
            EvaluationError(f"expected stored answers at {str(predictions)!r}, found nothing; check the path")
        )
    from molmopoint.cli.eval_run import ScoreCommand

    command = ScoreCommand(
        task=task,
        predictions=predictions,
        form=form.value,
        coords=coords,
        data=data,
        out=out,
        rule=rule,
        ref_compat=ref_compat,
        published=published,
        baseline=baseline,
        segmenter=segmenter,
    )
    raise typer.Exit(command.run())
