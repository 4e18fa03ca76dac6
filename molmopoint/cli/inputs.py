"""What a command is given, checked before the libraries of models are loaded: files, folders, patterns, and
the name of a model.

Loads neither torch nor transformers.
"""

from __future__ import annotations

import difflib
import glob
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from molmopoint.cli import console
from molmopoint.cli.console import NO_MODEL, SOME_FAILED, USAGE
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.files import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    check_writable,
    is_clip_file,
    is_file,
    is_folder,
    open_picture,
)
from molmopoint.files.addresses import is_web_address
from molmopoint.safe_text import printable_name

WRITTEN_VIDEOS = (".mp4", ".mov", ".mkv", ".avi")
"""Endings of videos that are written."""

_SAVED_DATA_SETS = ("state.json", "dataset_dict.json")
"""Files of a folder that `save_to_disk` of `datasets` wrote."""

_ROW_SUFFIXES = frozenset({".parquet", ".jsonl", ".json", ".csv", ".arrow"})
"""Endings of files with rows."""

_PATTERN_SIGNS = frozenset("*?[")


def files_and_prompt(words: Sequence[str]) -> tuple[list[Path], str]:
    """The files and the prompt of a command whose last word is the prompt.

    Raises:
        ProcessingError: the prompt or the files are missing, or a file cannot be meant.
    """
    prompt = words[-1]
    is_picture = Path(prompt).suffix.lower() in PICTURE_SUFFIXES and is_file(Path(prompt))
    if is_picture or (len(words) == 1 and is_file(Path(prompt))):
        raise ProcessingError(
            f"expected the prompt after the pictures, got the file {prompt!r} as the last word; say what to "
            "point at"
        )
    if len(words) == 1:
        raise ProcessingError(
            f"expected one or more pictures before the prompt, got the prompt {prompt!r} alone"
        )
    return expanded(words[:-1]), prompt


def expanded(words: Iterable[str], what: str = "picture files") -> list[Path]:
    """The files that are meant: a folder stands for the pictures in it, a pattern such as *.jpg for what fits
    it, each sorted by name.

    Args:
        words: as they were typed.
        what: is expected, for the message about an address.

    Raises:
        ProcessingError: an address of the web, a folder without pictures, or a pattern that nothing fits.
    """
    files: list[Path] = []
    for word in words:
        if is_web_address(word):
            raise ProcessingError(
                f"expected {what}, got the address {word}; fetch it first"
                + (", or call point(..., allow_urls=True) in Python" if what == "picture files" else "")
            )
        path = Path(word)
        if is_folder(path):
            inside = sorted(
                file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and is_file(file)
            )
            if not inside:
                raise ProcessingError(
                    f"expected a folder with pictures, got {word!r} without any; pass another, or the files"
                )
            files += inside
        elif _PATTERN_SIGNS & set(word) and not is_file(path):
            fitting = sorted(Path(found) for found in glob.glob(word, recursive=True))  # noqa: PTH207 (may be absolute)
            if not fitting:
                raise ProcessingError(
                    f"expected files that fit the pattern {word!r}, found none; check the path"
                )
            files += fitting
        else:
            files.append(path)
    return files


def one_file(word: str, what: str) -> Path:
    """The file that is meant where there can be one only.

    Args:
        word: as it was typed.
        what: is expected, such as "a video file".

    Raises:
        ProcessingError: an address of the web, a folder, or a pattern that several files fit.
    """
    if is_folder(Path(word)):
        raise ProcessingError(f"expected {what}, got the folder {word!r}; pass a file in it")
    files = expanded([word], what)
    if len(files) > 1:
        raise ProcessingError(
            f"expected {what}, got the pattern {word!r}, which {len(files)} files fit; pass one of them"
        )
    return files[0]


def check_videos(files: Sequence[Path], options: Mapping[str, Any], for_pictures: Mapping[str, Any]) -> bool:
    """Whether the request is about a video; ends the command where a video comes with other files or with
    options for pictures, or its options without one.

    Args:
        files: of the call.
        options: those for videos, by their names.
        for_pictures: those that mean nothing for a video, by their names.
    """
    videos = [file for file in files if is_clip_file(file)]
    given = [name for name, value in options.items() if value not in (None, False)]
    others = [name for name, value in for_pictures.items() if value not in (None, False)]
    problem = ""
    if videos and len(files) > 1:
        problem = f"expected one video alone, got {len(files)} files; ask about {str(videos[0])!r} by itself"
    elif videos and others:
        problem = f"expected pictures with {', '.join(others)}, got a video; leave the option out"
    elif given and not videos:
        problem = f"expected a video with {', '.join(given)}, got pictures; leave the option out"
    if problem:
        raise leave(ProcessingError(problem))
    return bool(videos)


def check_rows(path: Path, name: str) -> None:
    """Refuses what can hold no rows of data.

    Args:
        path: as typed.
        name: what the message calls it.

    Raises:
        ProcessingError: nothing is there, or it is a picture or a video.
    """
    if path.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES and is_file(path):
        raise ProcessingError(
            f"expected a JSONL file as {name}, got {str(path)!r}, a picture or a video; pass the file with the "
            "rows about it"
        )
    if is_folder(path) and not _holds_rows(path):
        raise ProcessingError(
            f"expected a JSONL file as {name}, got the folder {str(path)!r}, which holds no rows; pass the file "
            "with the rows, or the folder of a saved data set"
        )
    if _is_there(path) or str(path).count("/") == 1:  # a data set on the hub has such a name
        return
    raise ProcessingError(f"expected a JSONL file as {name}, found nothing at {str(path)!r}; check the path")


def check_rows_file(source: Path, out: Path) -> None:
    """Refuses a file to write rows to that cannot be one.

    Args:
        source: what the rows are made of.
        out: as typed.

    Raises:
        ProcessingError: it is the source, a folder, a picture or a video by its ending, or cannot be written.
    """
    if out.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
        raise ProcessingError(f"expected --out as a JSONL file, got {str(out)!r}; let it end in .jsonl")
    if is_folder(out):
        raise ProcessingError(f"expected --out as a JSONL file, got the folder {str(out)!r}; add a name")
    check_can_write("--out", out)
    if is_file(out) and out.resolve() == source.resolve():
        raise ProcessingError(
            f"expected --out beside the annotations, got {str(out)!r}, which is them; choose another name"
        )


def _holds_rows(folder: Path) -> bool:
    """Whether a folder is one that the package `datasets` wrote, or reads as rows and not as pages of text."""
    if any(is_file(folder / name) for name in _SAVED_DATA_SETS):
        return True
    return any(file.suffix.lower() in _ROW_SUFFIXES for file in folder.rglob("*"))


def _is_there(path: Path) -> bool:
    return is_file(path) or is_folder(path)


def check_part(start: float | None, end: float | None) -> None:
    """Ends the command where no part of a video can be meant."""
    for name, second in (("--start", start), ("--end", end)):
        if second is not None and not 0 <= second < math.inf:
            raise leave(ProcessingError(f"expected {name} in seconds from 0, got {second:g}"))
    if end is not None and end < (start or 0.0):
        raise leave(ProcessingError(f"expected --end after --start {start or 0.0:g}, got {end:g}"))


def check_filling(interpolate: float | None, max_gap: float | None) -> None:
    """Ends the command where gaps in tracks cannot be filled as asked."""
    for name, value in (("--interpolate", interpolate), ("--max-gap", max_gap)):
        if value is not None and not 0 < value < math.inf:
            raise leave(ProcessingError(f"expected {name} to be a number above 0, got {value:g}"))
    if max_gap is not None and interpolate is None:
        raise leave(
            ProcessingError(
                "expected --interpolate together with --max-gap, got --max-gap alone; no gap is filled without it"
            )
        )


def check_can_write(name: str, path: Path | None) -> None:
    """Refuses an output that the system would not take once the work is done.

    Args:
        name: of the option.
        path: as typed; None where it was not.

    Raises:
        ProcessingError: it cannot be written.
    """
    if path is None:
        return
    try:
        check_writable(path)
    except (OSError, ValueError) as error:
        raise ProcessingError(
            f"expected {name} where files can be written, got {str(path)!r} ({_reason(error)}); choose another place"
        ) from error


def _reason(error: Exception) -> str:
    """Why the system refused, without the path, which the message has."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def check_track_files(video: Path, files: Mapping[str, Path | None]) -> None:
    """Ends the command where a file of tracks cannot be written, or would replace the video or another one.

    Args:
        video: the input.
        files: outputs of the command, by their options.
    """
    taken = {video.resolve(): "the video"}
    for name, path in files.items():
        if path is None:
            continue
        if path.resolve() in taken:
            raise leave(
                ProcessingError(
                    f"expected {name} beside the video and the other outputs, got {str(path)!r}, which is "
                    f"{taken[path.resolve()]}; choose another name"
                )
            )
        if is_folder(path):
            raise leave(
                ProcessingError(f"expected {name} as a file, got the folder {str(path)!r}; add a name")
            )
        taken[path.resolve()] = f"that of {name}"
        try:
            check_can_write(name, path)
        except ProcessingError as error:
            raise leave(error) from error


def check_outputs(video: Path, out: Path | None, sheet: Path | None) -> None:
    """Ends the command where what is drawn of a video cannot be written so, or would replace the video."""
    if out is not None and out.suffix.lower() not in WRITTEN_VIDEOS:
        raise leave(
            ProcessingError(
                f"expected --out as a video that ends in {', '.join(WRITTEN_VIDEOS)}, got {out.name!r}; a picture of some "
                "moments is --sheet"
            )
        )
    if out is not None and out.resolve() == video.resolve():
        raise leave(
            ProcessingError(
                f"expected --out beside the video, got {str(out)!r}, which is the video; choose another name"
            )
        )
    if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise leave(ProcessingError(f"expected --sheet to end in .png, .jpg or .webp, got {sheet.name!r}"))


def check_question(files: Sequence[Path], question: str) -> None:
    """Refuses files and a question that do not fit each other.

    Raises:
        ProcessingError: the question is a file, or a video comes with other files.
    """
    if is_file(Path(question)):
        raise ProcessingError(
            f"expected the question after the files, got the file {question!r}; say what to ask"
        )
    if len(files) > 1 and any(is_clip_file(file) for file in files):
        raise ProcessingError(
            f"expected pictures, or one video alone, got {len(files)} files with a video among them"
        )


def check_prompt(prompt: str, template: str | None = None) -> None:
    """Ends the command where there is nothing to ask for, or the template has no place for it."""
    from molmopoint.backends.options import complete_prompt

    try:
        complete_prompt(prompt, template)
    except ProcessingError as error:
        raise leave(error) from error


def check_at_once(
    files: Sequence[Path], model: str, *, device: str | None = None, is_video: bool = False
) -> list[Path]:
    """Tells what cannot be: files that are not there, and a model or a device that does not exist.

    Ends the command where none of the files is there, a single file cannot be what it should, or the model is
    unknown.

    Args:
        files: of the call.
        model: zoo name, hub id or folder.
        device: as typed.
        is_video: the file should be a video.

    Returns:
        The files that are missing, each of which has been named.
    """
    missing = check_files(files)
    check_device(model, device)
    check_model(model)
    if len(files) == 1:
        check_content(files[0], is_video=is_video)
    return missing


def check_files(files: Sequence[Path]) -> list[Path]:
    """Names the files that are missing, and returns them; ends the command where none is there."""
    missing = [file for file in dict.fromkeys(files) if not is_file(file)]
    for file in missing:
        console.complain(
            f"{printable_name(file)}: expected a file, found {'a folder' if is_folder(file) else 'nothing'} there; check the path"
        )
    if missing and len(missing) == len(set(files)):
        raise typer.Exit(SOME_FAILED)
    return missing


def check_content(file: Path, *, is_video: bool) -> None:
    """Ends the command where the beginning of a file says that it is something else."""
    try:
        if is_video:
            _check_video(file)
        else:
            _check_picture(file)
    except (ProcessingError, OSError) as error:
        console.complain_of(file, error)
        raise typer.Exit(SOME_FAILED) from error


def check_model(model: str, revision: str | None = None, *, scores: bool = False) -> None:
    """Ends the command where no model can be meant, or it is neither here nor to be had.

    Args:
        model: zoo name, hub id or folder.
        revision: branch, tag or commit on the hub.
        scores: a reward model will do as well.
    """
    from molmopoint.backends.table import check_family
    from molmopoint.checkpoints.hub import check_reachable
    from molmopoint.checkpoints.locating import locate

    try:
        source, revision = locate(model, revision, scores=scores)
        if not scores:
            check_family(source)
        check_reachable(source, revision)
    except CheckpointError as error:
        console.complain(f"the model {model!r} could not be loaded: {error}")
        raise typer.Exit(NO_MODEL) from error


def check_segmenter(name: str | None) -> None:
    """Ends the command where no segmenter can be meant, or it is neither here nor to be had."""
    if name is None:
        return
    from molmopoint.checkpoints.hub import check_reachable

    try:
        folder = Path(name).expanduser()
        if is_folder(folder) and not is_file(folder / "config.json"):
            raise CheckpointError(f"expected the folder of a SAM 2, got {name!r} without config.json")
        if not is_folder(folder) and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise CheckpointError(
                f"expected a SAM 2 by its hub id, such as facebook/sam2.1-hiera-large, or its folder, got {name!r}; check the path"
            )
        check_reachable(str(folder) if is_folder(folder) else name)
    except CheckpointError as error:
        console.complain(f"the segmenter {name!r} could not be loaded: {error}")
        raise typer.Exit(NO_MODEL) from error


def check_device(model: str, device: str | None) -> None:
    """Ends the command where no device can be meant; whether it is here only the libraries of models know."""
    if device is None:
        return
    kind, _, number = device.partition(":")
    if kind in _DEVICES and (not number or number.isdecimal()):
        return
    near = difflib.get_close_matches(device, _DEVICES, n=1)
    hint = f"did you mean {near[0]}?" if near else "pass cpu, cuda, cuda:1 or auto"
    console.complain(f"the model {model!r} could not be loaded: expected a device, got {device!r}; {hint}")
    raise typer.Exit(NO_MODEL)


def check_dtype(dtype: str | None) -> None:
    """Ends the command where no precision can be meant."""
    from molmopoint.checkpoints import placing

    try:
        placing.check_dtype(dtype or "auto")
    except CheckpointError as error:
        raise leave(error) from error


_DEVICES = (
    "cpu", "cuda", "mps", "xpu", "npu", "hpu", "mtia", "xla", "auto", "balanced", "balanced_low_0", "sequential",
)  # fmt: skip
"""Kinds of devices, and ways to spread a model over several."""

_HEAD = 1024
"""Bytes of a file that are looked at to tell text from something else."""

_NOTHING_KNOWN = "bytes of no known format"


def _check_picture(file: Path) -> None:
    """Raises ProcessingError for a file that is no picture; its pixels are not read."""
    from PIL import UnidentifiedImageError

    try:
        open_picture(file).close()
    except UnidentifiedImageError as error:
        raise ProcessingError(f"expected a picture, got {_kind_of(file)}; save it as PNG or JPEG") from error


def _check_video(file: Path) -> None:
    """Raises ProcessingError for a still picture and for text; no frame is decoded."""
    from molmopoint.video.containers import recognised
    from molmopoint.video.pillow_reader import open_animation

    if recognised(file) is not None or open_animation(file) is not None:
        return
    kind = _kind_of(file)
    if kind != _NOTHING_KNOWN:  # a reader may know more than is known here
        raise ProcessingError(
            f"expected a video, got {kind}; check which file it is, or export the video as MP4"
        )


def _kind_of(file: Path) -> str:
    """What a file is that no reader knows, by its beginning."""
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
    if not head:
        return "an empty file"
    return "text" if head.isascii() and b"\0" not in head else _NOTHING_KNOWN


def leave(error: Exception) -> typer.Exit:
    """Tells of wrong usage, and gives what ends the command."""
    console.complain(error)
    return typer.Exit(USAGE)
