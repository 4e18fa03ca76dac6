"""The command line application: options, help texts and exit codes; what the commands do is in their own
files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from molmopoint.cli import console, download, evaluation, mcp, serve
from molmopoint.cli.console import SOME_FAILED
from molmopoint.cli.data import data_app
from molmopoint.cli.finetune import finetune_command, finetune_reward_command
from molmopoint.cli.graft import graft_command
from molmopoint.cli.inputs import (
    check_at_once,
    check_filling,
    check_outputs,
    check_part,
    check_prompt,
    check_question,
    check_track_files,
    check_videos,
    expanded,
    files_and_prompt,
    leave,
    one_file,
)
from molmopoint.cli.loudness import CommandLine
from molmopoint.cli.options import (
    Compile,
    Device,
    DtypeOrNone,
    JsonOutput,
    MaxCrops,
    MaxNewTokens,
    Model,
    Quantize,
    Zooms,
)
from molmopoint.errors import MolmoPointError
from molmopoint.files import is_clip_file
from molmopoint.version import __version__

EPILOG = "Exit codes: 0 all fine, 1 some pictures failed (each is named), 2 wrong usage, 3 the model could not be loaded, 130 interrupted."

app = CommandLine(
    name="molmopoint",
    cls=console.SafeGroup,
    help="Vision-language models that [bold]point[/bold]: ask for something in a picture, get pixels.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"molmopoint {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Options before the command; `--version` ends the program by itself."""


@app.command(epilog=EPILOG, no_args_is_help=True)
def point(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE... PROMPT",
            help="Picture files, folders or patterns, or one video; then what to point at: a noun phrase ('the red circles'), a request "
            "('Find the exit.') or a question ('How many cups?').",
            show_default=False,
        ),
    ],
    model: Model = "nano",
    device: Device = None,
    dtype: DtypeOrNone = None,
    quantize: Quantize = None,
    compile_steps: Compile = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Where to draw the points: a picture file, or a folder if there are several pictures.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    heatmap: Annotated[
        bool,
        typer.Option(
            "--heatmap", help="Also show where else the model looked (needs --out).", rich_help_panel="Output"
        ),
    ] = False,
    style: Annotated[
        str,
        typer.Option(
            metavar="STYLE",
            help="How points are drawn: marker, dot or crosshair (needs --out).",
            rich_help_panel="Output",
        ),
    ] = "marker",
    labels: Annotated[
        bool,
        typer.Option("--labels", help="Write what each point shows beside it.", rich_help_panel="Output"),
    ] = False,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="Write the score of each point beside it.", rich_help_panel="Output"),
    ] = False,
    masks: Annotated[
        str | None,
        typer.Option(
            "--masks",
            metavar="SEGMENTER",
            help="Outline what was pointed at, with a SAM 2: facebook/sam2.1-hiera-large, or a folder (needs --out or --json).",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    json_output: JsonOutput = False,
    jsonl: Annotated[
        Path | None,
        typer.Option(
            help="Append every answer to this file, a line of JSON each; the same command goes on where it was stopped.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Ask about all pictures in one request.", rich_help_panel="Request"),
    ] = False,
    single: Annotated[
        bool, typer.Option("--single", help="Exactly one point, as for clicking.", rich_help_panel="Request")
    ] = False,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Leave out points with a lower score.",
            rich_help_panel="Request",
            show_default=False,
        ),
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated",
            help="Scores are chances that points are right, and so is --min-score (for models that ship a calibration).",
            rich_help_panel="Request",
        ),
    ] = False,
    max_points: Annotated[
        int | None,
        typer.Option(min=1, help="Most points of an answer.", rich_help_panel="Request", show_default=False),
    ] = None,
    max_crops: MaxCrops = None,
    zoom: Zooms = False,
    max_new_tokens: MaxNewTokens = 2048,
    template: Annotated[
        str | None,
        typer.Option(
            help="Where the prompt goes, as in 'Click on {}'; '{}' sends it exactly as typed.",
            rich_help_panel="Request",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Pictures per run of the model.", rich_help_panel="Request")
    ] = 8,
    windows: Annotated[
        bool,
        typer.Option(
            "--windows", help="Look at all of a long video, some frames at a time.", rich_help_panel="Videos"
        ),
    ] = False,
    start: Annotated[
        float | None,
        typer.Option(
            help="Second of a video at which the part to look at begins.",
            rich_help_panel="Videos",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        float | None,
        typer.Option(
            help="Second of a video at which it ends.", rich_help_panel="Videos", show_default=False
        ),
    ] = None,
) -> None:
    """Point at something in pictures, or in a video.

    Every picture is a request of its own, unless [bold]--together[/bold]. A broken picture is named and
    skipped; the others are answered.

    [bold]Examples[/bold]

      molmopoint point street.jpg "the bicycles" --out points.png

      molmopoint point pictures/ "How many people are there?" --jsonl answers.jsonl

      molmopoint point before.png after.png "what has changed" --together --out changes/

      molmopoint point street.mp4 "the red car" --windows --out frames/
    """
    try:
        files, prompt = files_and_prompt(words)
    except MolmoPointError as error:
        raise leave(error) from error
    request = {
        "single": single,
        "min_score": min_score,
        "calibrated": calibrated,
        "max_points": max_points,
        "max_crops": max_crops,
        "max_new_tokens": max_new_tokens,
        "template": template,
        "zoom": zoom,
    }
    drawing = {"style": style, "labels": labels, "scores": scores}
    check_prompt(prompt, template)
    for_videos = {"--windows": windows, "--start": start, "--end": end}
    for_pictures = {"--jsonl": jsonl, "--heatmap": heatmap, "--masks": masks, "--together": together}
    if check_videos(files, for_videos, for_pictures):
        check_part(start, end)
        check_at_once(files, model, device=device, is_video=True)
        from molmopoint.cli.point_clip import PointClipCommand

        clip = PointClipCommand(
            video=files[0],
            prompt=prompt,
            model=model,
            device=device,
            dtype=None if dtype is None else dtype.value,
            quantize=quantize,
            compile_steps=compile_steps,
            out=out,
            json_output=json_output,
            part={"windows": windows, "start": start or 0.0, "end": end},
            request=request,
            drawing=drawing,
        )
        raise typer.Exit(clip.run())
    from molmopoint.cli.point import PointCommand

    command = PointCommand(
        images=files,
        prompt=prompt,
        model=model,
        device=device,
        dtype=None if dtype is None else dtype.value,
        quantize=quantize,
        compile_steps=compile_steps,
        out=out,
        heatmap=heatmap,
        json_output=json_output,
        jsonl=jsonl,
        together=together,
        batch_size=batch_size,
        segmenter=masks,
        request=request,
        drawing=drawing,
    )
    raise typer.Exit(command.run())


@app.command(epilog=EPILOG, no_args_is_help=True)
def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE]... QUESTION",
            help="Pictures, or one video, or nothing; then the question, which is sent exactly as it is.",
            show_default=False,
        ),
    ],
    model: Model = "nano",
    device: Device = None,
    dtype: DtypeOrNone = None,
    quantize: Quantize = None,
    compile_steps: Compile = False,
    json_output: JsonOutput = False,
    max_crops: MaxCrops = None,
    max_new_tokens: MaxNewTokens = 2048,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Sample instead of taking the likeliest words.",
            rich_help_panel="Request",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Ask a question about pictures, a video, or nothing; the answer is printed while it is written.

    Several pictures are one question about all of them.

    [bold]Examples[/bold]

      molmopoint ask street.jpg "What is the weather like?" --model allenai/Molmo2-4B

      molmopoint ask clip.mp4 "What happens after the goal?" --model allenai/Molmo2-8B

      molmopoint ask "What is a grounding token?" --model molmo2-4b
    """
    try:
        files = expanded(words[:-1])
        check_question(files, words[-1])
    except MolmoPointError as error:
        raise leave(error) from error
    check_prompt(words[-1], "{}")
    is_video = len(files) == 1 and is_clip_file(files[0])
    if check_at_once(files, model, device=device, is_video=is_video):
        raise typer.Exit(SOME_FAILED)  # one question about all of them
    from molmopoint.cli.ask import AskCommand

    command = AskCommand(
        files=files,
        question=words[-1],
        model=model,
        device=device,
        dtype=None if dtype is None else dtype.value,
        quantize=quantize,
        compile_steps=compile_steps,
        json_output=json_output,
        max_crops=max_crops,
        max_new_tokens=max_new_tokens,
        sampling={} if temperature is None else {"temperature": temperature},
    )
    raise typer.Exit(command.run())


@app.command(epilog=EPILOG, no_args_is_help=True)
def track(
    video: Annotated[str, typer.Argument(metavar="VIDEO", help="A video file.", show_default=False)],
    prompt: Annotated[
        str,
        typer.Argument(
            metavar="PROMPT",
            help="What to track: a noun phrase ('the red car') or a request.",
            show_default=False,
        ),
    ],
    model: Model = "nano",
    device: Device = None,
    dtype: DtypeOrNone = None,
    quantize: Quantize = None,
    compile_steps: Compile = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Annotated video: .mp4, .mov, .mkv or .avi. Needs PyAV.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            help="Picture of some moments with the objects drawn in.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            help="Table: one line per object and moment.", rich_help_panel="Output", show_default=False
        ),
    ] = None,
    mot: Annotated[
        Path | None,
        typer.Option(
            help="MOTChallenge file, points as boxes of size zero.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ] = None,
    coco: Annotated[
        Path | None,
        typer.Option(
            help="COCO file with videos and keypoints.", rich_help_panel="Output", show_default=False
        ),
    ] = None,
    json_output: JsonOutput = False,
    fps: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Points per second and object to ask for.",
            rich_help_panel="Request",
            show_default=False,
        ),
    ] = None,
    interpolate: Annotated[
        float | None,
        typer.Option(
            help="Points per second to fill in between those of the answer.",
            rich_help_panel="Request",
            show_default=False,
        ),
    ] = None,
    max_gap: Annotated[
        float | None,
        typer.Option(
            help="Seconds beyond which a gap is not filled (needs --interpolate).",
            rich_help_panel="Request",
            show_default=False,
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 4096,
    template: Annotated[
        str | None,
        typer.Option(
            help="Where the prompt goes, as in 'Follow {}'.", rich_help_panel="Request", show_default=False
        ),
    ] = None,
) -> None:
    """Follow objects through a video.

    Clips of any length: what the model cannot see at once is seen in windows, and objects keep their numbers.

    [bold]Examples[/bold]

      molmopoint track street.mp4 "the red car" --out tracked.mp4 --csv tracks.csv

      molmopoint track match.mp4 "the players in white" --fps 2 --interpolate 25 --max-gap 1 --mot players.txt
    """
    try:
        file = one_file(video, "a video file")
    except MolmoPointError as error:
        raise leave(error) from error
    check_prompt(prompt, template)
    check_filling(interpolate, max_gap)
    check_outputs(file, out, sheet)
    check_track_files(file, {"--out": out, "--sheet": sheet, "--csv": csv, "--mot": mot, "--coco": coco})
    check_at_once([file], model, device=device, is_video=True)
    from molmopoint.cli.track import TrackCommand

    files = {form: path for form, path in (("csv", csv), ("mot", mot), ("coco", coco)) if path is not None}
    command = TrackCommand(
        video=file,
        prompt=prompt,
        model=model,
        device=device,
        dtype=None if dtype is None else dtype.value,
        quantize=quantize,
        compile_steps=compile_steps,
        out=out,
        sheet=sheet,
        files=files,
        json_output=json_output,
        request={
            "fps": fps,
            "interpolate": False if interpolate is None else interpolate,
            "max_gap": max_gap,
            "max_new_tokens": max_new_tokens,
            "template": template,
        },
    )
    raise typer.Exit(command.run())


app.command("finetune", epilog=EPILOG, no_args_is_help=True)(finetune_command)
app.command("graft", epilog=EPILOG, no_args_is_help=True)(graft_command)
app.command("finetune-reward", epilog=EPILOG, no_args_is_help=True)(finetune_reward_command)
app.command("eval", epilog=evaluation.EPILOG, no_args_is_help=True)(evaluation.eval_command)
app.command("score", epilog=evaluation.EPILOG, no_args_is_help=True)(evaluation.score_command)
app.command("download", epilog=download.EPILOG, no_args_is_help=True)(download.download_command)
app.command("serve", epilog=serve.EPILOG, no_args_is_help=True)(serve.serve_command)
app.command("mcp", epilog=mcp.EPILOG)(mcp.mcp_command)


@app.command(epilog=EPILOG)
def zoo(
    json_output: JsonOutput = False,
) -> None:
    """List the models that can be loaded by name, with licence, size, scores and their source."""
    from molmopoint.cli.zoo import run

    raise typer.Exit(run(json_output))


@app.command(epilog=EPILOG)
def doctor(
    json_output: JsonOutput = False,
) -> None:
    """Show versions, devices and attention backends, what is missing, and how to get it."""
    from molmopoint.cli.doctor import run

    raise typer.Exit(run(json_output))


def main() -> None:
    """Entry point of the `molmopoint` command and of `python -m molmopoint`."""
    console.guard_messages()
    try:
        app(prog_name="molmopoint")
    except Exception:  # a fault of ours; Python itself would show names in its message raw
        console.show_uncaught()
        sys.exit(1)
