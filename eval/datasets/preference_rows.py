"""Rows of reward benchmarks: JSON, JSON lines or parquet files, columns under several names, pictures inside
or beside the rows.

The canonical form of a row is `prompt`, `responses` (list of texts), `rankings` (list of whole numbers, 1 is
best, equal ones are ties), `image` or `video`, and where known `id`, `models`, `source`. Data sets call the
same things by other names; each column is found under any of its names, and a column that is not there is
refused with the names that were tried.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, VideoSegment
from molmopoint.eval.datasets.files import FileFinder, place_of
from molmopoint.eval.datasets.rows import ItemCollector, json_rows, keep_picture, read_rows
from molmopoint.eval.datasets.videos import VIDEO_ENDINGS
from molmopoint.files import is_folder

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "ID", "item_id", "question_id", "sample_id", "uid"),
    "prompt": ("prompt", "question", "query", "instruction", "Text", "text"),
    "responses": ("responses", "response", "answers", "candidates", "completions", "outputs"),
    "rankings": ("rankings", "ranking", "ranks", "rank", "human_ranking", "human_rankings"),
    "image": ("image", "images", "image_path", "Image", "img"),
    "video": ("video", "videos", "video_path", "Video"),
    "models": ("models", "model", "model_names", "generators"),
    "source": ("source", "query_source", "data_source", "dataset", "origin"),
    "category": ("category", "dimension", "task", "task_type", "type", "subset", "domain"),
    "chosen": ("chosen", "chosen_response", "preferred"),
    "rejected": ("rejected", "rejected_response", "dispreferred"),
}
"""Names of a column, the canonical one first."""

FRAMES_PER_SECOND = 0.25
"""Of a folder of frames: the reward model's authors take frames to be 4 seconds apart."""

_ENDINGS = (".jsonl", ".json", ".parquet")
_FOLDERS = ("", "images", "image", "videos", "video", "data", "data/images", "data/videos")
"""Where publishers put media, below the folder of the data."""
EMPTY = "responses without a word, left out with their ranks"


class Columns:
    """Names of the columns of one data set.

    Args:
        names: that the data has.
        where: file, for messages.
        needed: canonical names without which nothing can be scored.
    """

    def __init__(self, names: Iterable[str], where: Path, needed: Sequence[str]) -> None:
        there = set(names)
        self._names: dict[str, str] = {}
        for column, aliases in ALIASES.items():
            for name in aliases:
                if name in there:
                    self._names.setdefault(column, name)
        for column in needed:
            if column not in self._names:
                raise EvaluationError(
                    f"expected a column {column!r} in {where}, under one of the names "
                    f"{', '.join(ALIASES[column])}, "
                    f"got {', '.join(sorted(there)) or 'none'}; rename the column, or check that this is "
                    "the right "
                    "data set"
                )

    def get(self, row: Mapping[str, Any], column: str) -> Any:
        """A cell by the canonical name of its column; None where there is none."""
        return row.get(self._names[column]) if column in self._names else None

    def text(self, row: Mapping[str, Any], column: str) -> str:
        """A cell as text without blanks around it; empty where there is none."""
        value = self.get(row, column)
        return str(value).strip() if isinstance(value, str | int) else ""


def data_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Files with rows in a folder and one level below, in order.

    Args:
        folder: of the data.
        pattern: of their names without the ending.

    Raises:
        EvaluationError: there are none.
    """
    found = []
    for ending in _ENDINGS:
        found += folder.glob(f"{pattern}{ending}")
        found += folder.glob(f"*/{pattern}{ending}")
    visible = []
    for path in found:
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            visible.append(path)
    if not visible:
        names = ", ".join(f"{pattern}{ending}" for ending in _ENDINGS)
        raise EvaluationError(
            f"expected one of {names} in {folder}, found none; pass the folder with the data set's files"
        )
    return sorted(visible)


def rows_of(path: Path, needed: Sequence[str]) -> Iterator[tuple[Columns, dict[str, Any]]]:
    """Rows of one file, each with the names of its columns.

    Raises:
        EvaluationError: the file cannot be read, has no rows, or lacks a needed column in all of them.
    """
    if path.suffix == ".parquet":
        columns = None
        for row in read_rows([path]):
            columns = columns or Columns(row, path, needed)
            yield columns, row
        return
    rows = json_rows(path, "download the data set again") if path.suffix == ".json" else _json_lines(path)
    columns = Columns(set().union(*rows), path, needed)
    for row in rows:
        yield columns, row


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationError(
                f"expected JSON in line {number} of {path}, got {line[:80]!r} ({error}); download it again"
            ) from error
        if not isinstance(row, dict):
            raise EvaluationError(
                f"expected an object in line {number} of {path}, got {line[:80]!r}; download it again"
            )
        rows.append(row)
    return rows


class Media:
    """Pictures and videos of a data set, inside its rows or below its folder.

    Args:
        folder: of the data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = FileFinder(folder)

    def pictures(self, cell: Any) -> tuple[Path, ...]:
        """Pictures of a cell: a name, `{"bytes": ..., "path": ...}`, or a list of such; none where it is
        empty.
        """
        if isinstance(cell, list | tuple):
            found: tuple[Path, ...] = ()
            for each in cell:
                found += self.pictures(each)
            return found
        if isinstance(cell, Mapping):
            kept = keep_picture(cell, self.folder)
            return self.pictures(cell.get("path")) if kept is None else (kept,)
        if isinstance(cell, str) and cell.strip():
            return (self._expect(cell, ("",)),)
        return ()

    def clip(self, cell: Any) -> VideoSegment | None:
        """A video file, with or without its ending, or a folder of frames; None where the cell is empty.

        Raises:
            EvaluationError: it names several.
        """
        if isinstance(cell, list | tuple):
            if len(cell) > 1:
                raise EvaluationError(
                    f"expected one video per row, got {len(cell)}; questions about several are not supported"
                )
            cell = cell[0] if cell else None
        if isinstance(cell, Mapping):
            cell = cell.get("path")
        if not isinstance(cell, str) or not cell.strip():
            return None
        return VideoSegment(self._expect(cell, ("", *VIDEO_ENDINGS)), frames_per_second=FRAMES_PER_SECOND)

    def _expect(self, name: str, endings: tuple[str, ...]) -> Path:
        """The file or folder of a name, or where it should be."""
        name = name.strip()
        if Path(name).is_absolute():  # as good as a relative one, if it stays in the folder
            return place_of(self.folder, name)
        for folder in _FOLDERS:
            for ending in endings:
                file = self._files.find(f"{folder}/{name}{ending}".lstrip("/"))
                if file is not None:
                    return file
            frames = place_of(self.folder, f"{folder}/{name}".lstrip("/"))
            if len(endings) > 1 and is_folder(frames):
                return frames
        return place_of(self.folder, name)


def add_preference(
    collected: ItemCollector,
    key: str,
    prompt: str,
    responses: Any,
    ranks: Sequence[int] | None,
    *,
    pictures: tuple[Path, ...] = (),
    clip: VideoSegment | None = None,
    categories: Mapping[str, str] | None = None,
    cluster: str = "",
) -> None:
    """Adds a row to the items, or to the missing ones.

    Args:
        collected: gets it.
        key: id of the row; empty for one made from the content.
        prompt: what the responses answer.
        responses: texts; empty ones are left out with their ranks, as the reward model's authors do.
        ranks: of the responses, 1 is best; None where the row has none that make sense.
        pictures: the prompt is about; they win where a row has a clip too.
        clip: the prompt is about.
        categories: of the item.
        cluster: of the item; by default its first picture, its clip or its id.
    """
    texts = _texts(responses)
    medium = _medium(pictures, clip)
    item_id = collected.name(key or digest_of(prompt, *texts, medium))
    if not prompt:
        return collected.miss(item_id, "no prompt")
    if ranks is None or len(ranks) != len(texts):
        given = None if ranks is None else list(ranks)
        return collected.miss(item_id, "no usable ranks", f"{len(texts)} responses, ranks {given}")
    kept = [(text, rank) for text, rank in zip(texts, ranks, strict=True) if text.strip()]
    collected.warnings[EMPTY] += len(kept) < len(texts)
    if len(kept) < 2:
        return collected.miss(
            item_id, "fewer than two responses", f"{len(kept)} of {len(texts)} are not empty"
        )
    if len({rank for _, rank in kept}) < 2:
        return collected.miss(item_id, "no response is better than another", f"ranks {list(ranks)}")
    return collected.add(
        Item(
            item_id,
            prompt,
            images=pictures,
            clip=None if pictures else clip,
            truth=tuple(rank for _, rank in kept),
            categories=categories or {},
            cluster=cluster or medium or item_id,
            responses=tuple(text for text, _ in kept),
        )
    )


def _texts(responses: Any) -> list[str]:
    """Responses of a row; what is no text is an empty one."""
    if not isinstance(responses, list | tuple):
        return []
    return [text if isinstance(text, str) else "" for text in responses]


def _medium(pictures: Sequence[Path], clip: VideoSegment | None) -> str:
    """Name of what a prompt is about."""
    if pictures:
        return pictures[0].name
    return clip.path.name if clip is not None else ""


def ranks_in(value: Any, best: int = 1) -> list[int] | None:
    """Ranks as a row has them, with 1 for the best; None where they are no ranks.

    Args:
        value: a list of whole numbers, lower is better.
        best: the lowest number there may be. Lists of places ("the third is best") cannot be told from ranks
            by their look, so numbers that start elsewhere are refused.
    """
    if not isinstance(value, list | tuple) or not value:
        return None
    for rank in value:
        if isinstance(rank, bool) or not isinstance(rank, int | float) or rank != int(rank):
            return None
    if min(value) != best:
        return None
    return [int(rank) - best + 1 for rank in value]


def digest_of(*texts: str) -> str:
    """Twelve hexadecimal digits that stand for some texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
