"""What a command is given, checked before the libraries of models are loaded: files, folders, patterns, and
the name of a model.

Loads neither torch nor transformers.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from molmopoint.cli import console
from molmopoint.cli.console import NO_MODEL, SOME_FAILED, USAGE
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.files import PICTURE_SUFFIXES, VIDEO_SUFFIXES, is_file, is_folder
from molmopoint.files.addresses import is_web_address

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


def expanded(words: Iterable[str]) -> list[Path]:
    """The files that are meant: a folder stands for the pictures in it, a pattern such as *.jpg for what fits
    it, each sorted by name.

    Raises:
        ProcessingError: an address of the web, a folder without pictures, or a pattern that nothing fits.
    """
    files: list[Path] = []
    for word in words:
        if is_web_address(word):
            raise ProcessingError(
                f"expected picture files, got the address {word}; fetch it first, or call point(..., "
                "allow_urls=True) in Python"
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


def check_videos(files: Sequence[Path], options: Mapping[str, Any]) -> bool:
    """Whether the request is about a video; ends the command where a video comes with other files, or its
    options without one.

    Args:
        files: of the call.
        options: those for videos, by their names.
    """
    videos = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    given = [name for name, value in options.items() if value not in (None, False)]
    problem = ""
    if videos and len(files) > 1:
        problem = f"expected one video alone, got {len(files)} files; ask about {str(videos[0])!r} by itself"
    elif given and not videos:
        problem = f"expected a video with {', '.join(given)}, got pictures; leave the option out"
    if problem:
        raise leave(ProcessingError(problem))
    return bool(videos)


def check_question(files: Sequence[Path], question: str) -> None:
    """Refuses files and a question that do not fit each other.

    Raises:
        ProcessingError: the question is a file, or a video comes with other files.
    """
    if is_file(Path(question)):
        raise ProcessingError(
            f"expected the question after the files, got the file {question!r}; say what to ask"
        )
    if len(files) > 1 and any(file.suffix.lower() in VIDEO_SUFFIXES for file in files):
        raise ProcessingError(
            f"expected pictures, or one video alone, got {len(files)} files with a video among them"
        )


def check_at_once(files: Sequence[Path], model: str) -> list[Path]:
    """Tells what cannot be: files that are not there, and a model that does not exist.

    Ends the command where none of the files is there, or the model is unknown.

    Args:
        files: of the call.
        model: zoo name, hub id or folder.

    Returns:
        The files that are missing, each of which has been named.
    """
    missing = check_files(files)
    check_model(model)
    return missing


def check_files(files: Sequence[Path]) -> list[Path]:
    """Names the files that are missing, and returns them; ends the command where none is there."""
    missing = [file for file in dict.fromkeys(files) if not is_file(file)]
    for file in missing:
        console.complain(
            f"{file}: expected a file, found {'a folder' if is_folder(file) else 'nothing'} there; check "
            "the path"
        )
    if missing and len(missing) == len(set(files)):
        raise typer.Exit(SOME_FAILED)
    return missing


def check_model(model: str) -> None:
    """Ends the command where no model can be meant."""
    from molmopoint.checkpoints.locating import locate

    try:
        locate(model)
    except CheckpointError as error:
        console.complain(f"the model {model!r} could not be loaded: {error}")
        raise typer.Exit(NO_MODEL) from error


def leave(error: Exception) -> typer.Exit:
    """Tells of wrong usage, and gives what ends the command."""
    console.complain(error)
    return typer.Exit(USAGE)
