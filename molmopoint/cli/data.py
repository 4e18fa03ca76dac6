"""`molmopoint data`: bring annotations from elsewhere, and check them before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molmopoint.cli import console
from molmopoint.cli.exit_codes import OK, SOME_FAILED, USAGE
from molmopoint.errors import MolmoPointError

if TYPE_CHECKING:
    from molmopoint.data.records import Record
    from molmopoint.data.report import Finding, Report

EPILOG = "Exit codes: 0 all fine, 1 faults were found (each is named), 2 wrong usage or a source that cannot be read."
FORMATS = ("coco", "cvat", "guisyn", "label_studio", "labelme", "pixmo_points", "screenspot", "yolo")
_EXAMPLES = 3
"""Findings of a kind that are written out; --all writes them all."""

data_app = typer.Typer(name="data", help="Bring annotations from elsewhere, and check them.", no_args_is_help=True, rich_markup_mode="rich")


@data_app.command("import", epilog=EPILOG, no_args_is_help=True)
def import_command(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.", show_default=False)],
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder of the annotations.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The JSONL file to write; paths in it start at its folder.", show_default=False)],
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, where it is not beside them.", show_default=False)] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="An option of the format as name=value, such as box=xywh or split=val.", show_default=False),
    ] = None,
) -> None:
    """Turn annotations into the library's JSONL.

    What is left out is named, with the reason. Run [bold]molmopoint data check[/bold] on the result.

    [bold]Examples[/bold]

      molmopoint data import coco instances.json --images train/ --out data.jsonl

      molmopoint data import screenspot annotations/ --option box=xyxy --out clicks.jsonl

      molmopoint data import yolo dataset/ --option split=val --out val.jsonl
    """
    raise typer.Exit(run_import(format, source, out, images, option or []))


@data_app.command("check", epilog=EPILOG, no_args_is_help=True)
def check_command(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A JSONL file.", show_default=False)],
    sheet: Annotated[Path | None, typer.Option(help="Write a picture with a sample of rows and their points.", show_default=False)] = None,
    cells: Annotated[int, typer.Option(min=1, max=200, help="Rows on the sheet.")] = 24,
    json_output: Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Read only the headers of pictures; files that are cut off go unnoticed.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Write out every finding, not the first of each kind.")] = False,
) -> None:
    """Look for missing files, points outside, swapped axes, copies and more; non-zero if something must be put right."""
    raise typer.Exit(run_check(data, sheet, cells, json_output, decode=not fast, everything=everything))


def run_import(format: str, source: Path, out: Path, images: Path | None, pairs: list[str]) -> int:
    """Imports, writes, and says what was left out."""
    from molmopoint.data.importers import import_records
    from molmopoint.data.records import write_records

    skipped: list[str] = []
    try:
        options = _options(pairs) | ({} if images is None else {"images": images})
        records = import_records(format, source, on_skip=skipped.append, **options)
        out.parent.mkdir(parents=True, exist_ok=True)
        count = write_records(out, (_rebased(record, out.parent) for record in records))
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    notes = console.notes()
    for sentence in skipped[:_EXAMPLES]:
        notes.print(sentence, markup=False, style="yellow", soft_wrap=True)
    if len(skipped) > _EXAMPLES:
        notes.print(f"... {len(skipped) - _EXAMPLES} more left out", style="yellow")
    if count == 0:
        console.complain(f"expected one or more rows in {source}, got none; check the format and its options")
        return SOME_FAILED
    console.findings().print(f"{count} rows in {out}", markup=False)
    return OK


def run_check(data: Path, sheet: Path | None, cells: int, json_output: bool, *, decode: bool = True, everything: bool = False) -> int:
    """Checks, prints the report, and draws the sheet."""
    from molmopoint.cli.files import write_picture
    from molmopoint.data.checking import check_records, parsed_rows
    from molmopoint.data.contact_sheet import contact_sheet
    from molmopoint.data.records import Record

    try:
        if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise MolmoPointError(f"expected --sheet to end in .png, .jpg or .webp, got {sheet.name!r}; rename it")
        rows = list(parsed_rows(data))
        report = check_records(rows, data.parent, decode=decode)
        drawn = [row for row in rows if isinstance(row, Record)]
        if sheet is not None:
            drawable = any(record.images for record in drawn)
            if drawable:
                suspects = {finding.row for finding in report.faults if finding.row is not None}
                write_picture(contact_sheet(drawn, data.parent, cells=cells, suspects=suspects), sheet)
            said = f"contact sheet: {sheet}" if drawable else "no contact sheet: no row has a picture, and clips are not drawn"
            console.notes().print(said, markup=False, soft_wrap=True)
    except (MolmoPointError, OSError) as error:
        console.complain(error)
        return USAGE
    if json_output:
        console.print_json(report.to_dict())
    else:
        _print(report, everything)
    return OK if report.ok else SOME_FAILED


def _options(pairs: list[str]) -> dict[str, str | int]:
    """Values by name from "name=value"; whole numbers become such."""
    options: dict[str, str | int] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise MolmoPointError(f"expected --option name=value, got {pair!r}; write it with an equals sign")
        options[name] = int(value) if value.isdecimal() else value
    return options


def _rebased(record: Record, folder: Path) -> Record:
    """The record with its pictures as seen from the folder of the JSONL file; it moves together with them."""
    import dataclasses
    import os

    return dataclasses.replace(record, images=tuple(Path(os.path.relpath(image, folder)).as_posix() for image in record.images))


def _print(report: Report, everything: bool) -> None:
    paper = console.findings()
    figures = [f"{report.rows} rows", f"{report.pictures} pictures", f"{report.points} points"]
    figures += [f"{report.clips} clips"] if report.clips else []
    paper.print(", ".join([*figures, f"{report.rows_without_points} rows without anything to point at"]))
    if report.labels:
        top = ", ".join(f"{label} {count}" for label, count in list(report.labels.items())[:8])
        paper.print(f"labels: {top}" + (f", and {len(report.labels) - 8} more" if len(report.labels) > 8 else ""), markup=False)
    for severity, findings in (("fault", report.faults), ("note", report.notes)):
        by_kind: dict[str, list[Finding]] = {}
        for finding in findings:
            by_kind.setdefault(finding.kind, []).append(finding)
        for kind, group in sorted(by_kind.items(), key=lambda entry: -len(entry[1])):
            colour = "bold red" if severity == "fault" else "yellow"
            paper.print(f"[{colour}]{severity}[/] [bold]{kind}[/]" + (f", {len(group)} times" if len(group) > 1 else ""))
            for finding in group if everything else group[:_EXAMPLES]:
                in_message = finding.row is None or finding.message.startswith(f"row {finding.row}")
                paper.print(f"  {'' if in_message else f'row {finding.row}: '}{finding.message}", markup=False)
            if not everything and len(group) > _EXAMPLES:
                paper.print(f"  ... {len(group) - _EXAMPLES} more; --all shows them")
    paper.print("[green]no faults[/]" if report.ok else f"[bold red]{len(report.faults)} faults[/]")
