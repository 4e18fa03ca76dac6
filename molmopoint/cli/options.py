"""Options that several commands have, each declared once: `model: Model = "nano"`.

Loads neither torch nor transformers, like everything that a help text needs.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from molmopoint.cli import completion


class Dtype(StrEnum):
    """Precisions a model can be loaded in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Bits(StrEnum):
    """Ways of storing the matrices of a model in fewer bits."""

    int8 = "int8"
    int4 = "int4"
    nf4 = "nf4"


# Which model

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of the zoo ([bold]molmopoint zoo[/bold] lists them), hub id, or folder.",
        autocompletion=completion.models,
        rich_help_panel="Model",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Such as cpu, cuda, cuda:1 or auto. By default a GPU if there is one.",
        autocompletion=completion.devices,
        rich_help_panel="Model",
        show_default=False,
    ),
]
DtypeOrNone = Annotated[
    Dtype | None,
    typer.Option(
        help="Precision; by default bfloat16 on a GPU and float32 elsewhere.",
        rich_help_panel="Model",
        show_default=False,
    ),
]
Quantize = Annotated[
    Bits | None,
    typer.Option(
        help='Store the matrices of the text model in 8 or 4 bits; needs the extra "quantize".',
        rich_help_panel="Model",
        show_default=False,
    ),
]

Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the steps of answers first, for a minute or so; each answer comes faster then.",
        rich_help_panel="Model",
    ),
]

# What is asked

MaxCrops = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most crops per picture: more see smaller things and take longer.",
        rich_help_panel="Request",
        show_default=False,
    ),
]
Zooms = Annotated[
    bool,
    typer.Option(
        "--zoom",
        help="Look again at native pixels around the likeliest places of a large picture; takes several times as long.",
        rich_help_panel="Request",
    ),
]
MaxNewTokens = Annotated[
    int, typer.Option(min=1, help="Length limit of an answer.", rich_help_panel="Request")
]

# What is printed

JsonOutput = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON document on stdout, and nothing else there.", rich_help_panel="Output"
    ),
]

# A training run

RunOut = Annotated[
    Path,
    typer.Option(
        "--out",
        "-o",
        help="Folder of the run; the model goes to OUT/model. The same command again goes on.",
        show_default=False,
    ),
]
StartModel = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="What training starts from: name of the zoo, hub id, or folder.",
        autocompletion=completion.models,
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="full, lora, qlora, reward, another name of the package, or a TOML file. By default that of the model.",
        autocompletion=completion.recipes,
        show_default=False,
    ),
]
RecipeChanges = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the recipe, as in --set groups.point.peak=2e-4.",
        show_default=False,
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        help="A JSONL file to score on. By default a tenth of the pictures is held out.", show_default=False
    ),
]
Replay = Annotated[
    str | None,
    typer.Option(
        help="A JSONL file of old skills to mix in, or 'synthetic' for those of the embedded model.",
        show_default=False,
    ),
]
