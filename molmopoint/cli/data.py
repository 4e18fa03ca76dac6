"""`molmopoint data`: bring annotations from elsewhere, and check them before training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from molmopoint.cli import completion, console
from molmopoint.cli.console import OK, SOME_FAILED, USAGE
from molmopoint.cli.inputs import check_rows, check_rows_file
from molmopoint.cli.loudness import CommandLine
from molmopoint.cli.screens import screens_command
from molmopoint.data.importers import (
    FORMATS,
    PREFERENCE_FORMATS,
    Journal,
    format_options,
    import_preferences,
    import_records,
)
from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from molmopoint.backends import Backend
    from molmopoint.data.checking import Finding, Report
    from molmopoint.data.preferences import PreferenceRecord
    from molmopoint.data.records import Record
    from molmopoint.training.measuring import ExampleSizes

EPILOG = "Exit codes: 0 all fine, 1 faults were found (each is named), 2 wrong usage or a source that cannot be read."
_EXAMPLES = 3
"""Findings of a kind that are written out; --all writes them all."""

_LABELS = 8
"""Labels that are named, the most frequent first."""

data_app = CommandLine(
    name="data",
    help="Bring annotations from elsewhere, and check them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
data_app.command("screens", epilog=EPILOG, no_args_is_help=True)(screens_command)


@data_app.command("import", epilog=EPILOG, no_args_is_help=True)
def import_command(
    format: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help=f"One of {', '.join(FORMATS)}; preferences for reward models: {', '.join(PREFERENCE_FORMATS)}.",
            show_default=False,
            autocompletion=completion.formats,
        ),
    ],
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="File or folder of the annotations.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="The JSONL file to write; paths in it start at its folder.",
            show_default=False,
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of the pictures, where it is not beside them.", show_default=False),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            help="An option of the format as name=value, such as box=xywh or split=val.",
            show_default=False,
        ),
    ] = None,
    negatives: Annotated[
        float | None,
        typer.Option(
            help="Share of rows that say that a class is absent from a picture; 0.2 if not given.",
            show_default=False,
        ),
    ] = None,
    ungroup: Annotated[
        bool, typer.Option("--ungroup", help="Take the shapes of a group for one object each.")
    ] = False,
    crowd: Annotated[
        str | None,
        typer.Option(
            metavar="skip|object",
            help="COCO: what iscrowd=1 is; a brush tool writes it for objects.",
            show_default=False,
        ),
    ] = None,
    keypoints: Annotated[
        str | None,
        typer.Option(
            metavar="visible|labelled",
            help="Whether keypoints that are labelled but hidden count.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn annotations into the library's JSONL.

    What is left out is named, with the reason, and counted. Run [bold]molmopoint data check[/bold] on the
    result.

    [bold]Examples[/bold]

      molmopoint data import coco instances.json --images train/ --out data.jsonl

      molmopoint data import screenspot annotations/ --option box=xyxy --out clicks.jsonl

      molmopoint data import yolo dataset/ --option split=val --out val.jsonl
    """
    named = {
        "images": images,
        "negatives": negatives,
        "ungroup": ungroup or None,
        "crowd": crowd,
        "keypoints": keypoints,
    }
    given = {name: value for name, value in named.items() if value is not None}
    raise typer.Exit(run_import(format, source, out, option or [], given))


@data_app.command("check", epilog=EPILOG, no_args_is_help=True)
def check_command(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="A JSONL or parquet file, or a saved data set.", show_default=False
        ),
    ],
    sheet: Annotated[
        Path | None,
        typer.Option(help="Write a picture with a sample of rows and their points.", show_default=False),
    ] = None,
    cells: Annotated[int, typer.Option(min=1, max=200, help="Rows on the sheet.")] = 24,
    json_output: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Read only the headers of pictures; files that are cut off go unnoticed."
        ),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Write out every finding, not the first of each kind.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Also make training examples as for this model, and count tokens and crops. No weights.",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="With --model: examples to make at most.")] = 200,
    max_tokens: Annotated[int, typer.Option(min=1, help="With --model: tokens of a packed row.")] = 16384,
    max_crops: Annotated[
        int, typer.Option(min=1, help="With --model: crops and frames of a packed row.")
    ] = 128,
) -> None:
    """Look for missing files, points outside, swapped axes, copies and more; non-zero if something must be
    put right.
    """
    measure = None if model is None else Measuring(model, sample, max_tokens, max_crops)
    raise typer.Exit(
        run_check(data, sheet, cells, json_output, decode=not fast, everything=everything, measure=measure)
    )


@dataclass(frozen=True)
class Measuring:
    """What `--model` and its options ask for.

    Attributes:
        model: zoo name, hub id or folder; only its processor is loaded.
        sample: examples to make at most.
        max_tokens: of a packed row.
        max_crops: crops and frames of a packed row.
    """

    model: str
    sample: int
    max_tokens: int
    max_crops: int


def run_import(format: str, source: Path, out: Path, pairs: list[str], named: dict[str, Any]) -> int:
    """Imports, writes, and says what was left out.

    Args:
        format: name of the reader.
        source: file or folder of the annotations.
        out: the file to write.
        pairs: options as "name=value".
        named: options that the command line has by their own names.
    """
    from molmopoint.data.preferences import write_preferences
    from molmopoint.data.records import write_records

    journal = Journal()
    try:
        check_rows_file(source, out)
        options = _options(pairs, format_options(format)) | named
        out.parent.mkdir(parents=True, exist_ok=True)
        if format in PREFERENCE_FORMATS:
            preferences = import_preferences(format, source, journal=journal, **options)
            count = write_preferences(
                out, (replace(record, **_media_from(record, out.parent)) for record in preferences)
            )
        else:
            records = import_records(format, source, journal=journal, **options)
            count = write_records(
                out, (replace(record, **_media_from(record, out.parent)) for record in records)
            )
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    notes = console.notes()
    for line in journal.lines():
        notes.print(line, markup=False, style="yellow", soft_wrap=True)
    if count == 0:
        console.complain(f"expected one or more rows in {source}, got none; check the format and its options")
        return SOME_FAILED
    console.findings().print(f"{count} rows in {out}", markup=False)
    return OK


def run_check(
    data: Path,
    sheet: Path | None,
    cells: int,
    json_output: bool,
    *,
    decode: bool = True,
    everything: bool = False,
    measure: Measuring | None = None,
) -> int:
    """Checks, prints the report, and draws the sheet."""
    from molmopoint.data.checking import check_records, parsed_rows
    from molmopoint.data.records import Record

    try:
        check_rows(data, "DATA")
        if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise MolmoPointError(
                f"expected --sheet to end in .png, .jpg or .webp, got {sheet.name!r}; rename it"
            )
        rows = list(parsed_rows(str(data)))
        report = check_records(rows, data.parent, decode=decode)
        drawn = [row for row in rows if isinstance(row, Record)]
        sizes = None if measure is None else _measure(drawn, data.parent, measure, report)
        if sheet is not None:
            _draw_sheet(drawn, data.parent, sheet, cells, report)
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    if json_output:
        summary = (
            {}
            if sizes is None or measure is None
            else {"examples": sizes.summary(measure.max_tokens, measure.max_crops)}
        )
        console.print_json(report.to_dict() | summary)
    else:
        if sizes is not None and measure is not None:
            _print_sizes(sizes, measure)
        _print(report, everything)
    return OK if report.ok else SOME_FAILED


def _draw_sheet(records: list[Record], folder: Path, sheet: Path, cells: int, report: Report) -> None:
    """Writes the contact sheet, and says where it is."""
    from molmopoint.data.contact_sheet import contact_sheet
    from molmopoint.drawing import write_picture

    drawable = any(record.images for record in records)
    if drawable:
        suspects = {finding.row for finding in report.faults if finding.row is not None}
        write_picture(contact_sheet(records, folder, cells=cells, suspects=suspects), sheet)
    said = (
        f"contact sheet: {sheet}"
        if drawable
        else "no contact sheet: no row has a picture, and clips are not drawn"
    )
    console.notes().print(said, markup=False, soft_wrap=True)


def _measure(records: list[Record], folder: Path, measure: Measuring, report: Report) -> ExampleSizes:
    """Sizes of training examples; those that cannot be made are faults."""
    from molmopoint.training.measuring import measure_examples
    from molmopoint.training.rules import FormattingRules

    sizes = measure_examples(
        records, folder, _load_backend(measure.model), FormattingRules(), at_most=measure.sample
    )
    known = {finding.row for finding in report.faults}
    for row, reason in sizes.broken:
        if row not in known:
            report.fault("no_example", row, reason)
    return sizes


def _load_backend(model: str) -> Backend:
    """How a checkpoint sees pictures and writes answers; of its files only those of the processor are read.

    Raises:
        CheckpointError: there is no such model, or it is of another family.
    """
    from molmopoint.backends.families import backend_class_of, reading
    from molmopoint.checkpoints.locating import locate
    from molmopoint.registration import register

    register()
    source, revision = locate(model, None)
    family = backend_class_of(source, revision=revision)
    family.check_trains(source)
    with reading(source, f"the processor files of a {family.title}", "; check the name"):
        return family(family.read_processor(source, revision=revision))


def _print_sizes(sizes: ExampleSizes, measure: Measuring) -> None:
    """How tokens and crops of the examples are spread."""
    from molmopoint.training.measuring import histogram_line

    paper, summary = console.findings(), sizes.summary(measure.max_tokens, measure.max_crops)
    paper.print(f"{summary['measured']} of {sizes.examples} examples made for {measure.model}", markup=False)
    for name, values in (("tokens", sizes.tokens), ("crops", sizes.crops)):
        if (found := summary[name]) is not None:
            figures = f"min {found['min']:.0f}, median {found['median']:.0f}, 95 % {found['p95']:.0f}, max {found['max']:.0f}"
            paper.print(f"{name:6} {figures}  |{histogram_line(values)}|", markup=False, soft_wrap=True)
    paper.print(
        f"{summary['over_limits']} larger than {measure.max_tokens} tokens or {measure.max_crops} crops",
        markup=False,
    )


def _options(pairs: list[str], known: Collection[str]) -> dict[str, Any]:
    """Values by name from "name=value"."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise MolmoPointError(f"expected --option name=value, got {pair!r}; write it with an equals sign")
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "check its name and the format"
            raise MolmoPointError(f"expected --option with one of {', '.join(known)}, got {name!r}; {hint}")
        options[name] = value
    return options


def _media_from(record: Record | PreferenceRecord, folder: Path) -> dict[str, Any]:
    """The record's pictures or clip as seen from the folder of the JSONL file; it moves together with them."""
    import os

    if record.video is not None:
        return {"video": Path(os.path.relpath(record.video, folder)).as_posix()}
    images = tuple(Path(os.path.relpath(str(image), folder)).as_posix() for image in record.images)
    return {"images": images}


def _print(report: Report, everything: bool) -> None:
    paper = console.findings()
    figures = [f"{report.rows} rows", f"{report.pictures} pictures", f"{report.points} points"]
    figures += [f"{report.clips} clips"] if report.clips else []
    paper.print(", ".join([*figures, f"{report.rows_without_points} rows without anything to point at"]))
    if report.labels:
        top = list(report.labels.items())[:_LABELS]
        named = [f"{label} {count}" for label, count in top]
        if len(report.labels) > len(top):
            named.append(f"and {len(report.labels) - len(top)} more")
        paper.print(f"labels: {', '.join(named)}", markup=False)
    _print_findings("[bold red]fault[/]", report.faults, everything)
    _print_findings("[yellow]note[/]", report.notes, everything)
    paper.print("[green]no faults[/]" if report.ok else f"[bold red]{len(report.faults)} faults[/]")


def _print_findings(severity: str, findings: list[Finding], everything: bool) -> None:
    """The findings by kind, the most frequent first."""
    paper = console.findings()
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    for kind, group in sorted(by_kind.items(), key=lambda entry: -len(entry[1])):
        times = f", {len(group)} times" if len(group) > 1 else ""
        paper.print(f"{severity} [bold]{kind}[/]{times}")
        shown = group if everything else group[:_EXAMPLES]
        for finding in shown:
            in_message = finding.row is None or finding.message.startswith(f"row {finding.row}")
            place = "" if in_message else f"row {finding.row}: "
            paper.print(f"  {place}{finding.message}", markup=False)
        if len(group) > len(shown):
            paper.print(f"  ... {len(group) - len(shown)} more; --all shows them")
