"""Paths in the lists of YOLO and Darknet: where they may begin, and what they must not leave.

Such files are passed on, and a path in them may lead anywhere: nothing outside of the data set is walked or opened for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from molmopoint.data.importers.common import PathLike, lies_in, on_disk, read_text, settled, short
from molmopoint.data.importers.journal import Journal
from molmopoint.errors import MolmoPointError, ProcessingError
from molmopoint.files import is_file


@dataclass(frozen=True)
class Places:
    """Where the paths of a list of pictures may begin, and which they may not leave.

    Attributes:
        beginnings: folders in which a relative path is looked for, one after the other.
        own: the folder to stay in.
        beside: whether paths may also lead to what lies beside that folder.
        without: what may be dropped from the beginning of a path that leads nowhere.
    """

    beginnings: tuple[Path, ...]
    own: Path
    beside: bool
    without: str

    @classmethod
    def of(cls, file: Path, path: Any, images: PathLike | None, without: str) -> Places:
        """Those of a file with its entry `path`, or of a folder that the user names."""
        if images is not None:
            return cls((Path(images),), Path(images), beside=False, without=without)
        folder = file.parent
        # The files of Ultralytics count from a folder of all data sets, so that path leads nowhere from the file itself.
        named = folder / path.replace("\\", "/") if isinstance(path, str) and path.strip() else folder
        return cls((named, folder), folder, beside=True, without=without)

    def meant(self, name: str, there: Callable[[Path], bool]) -> Path:
        """Where a path leads: to the first thing that is there, of what it may mean.

        Args:
            name: the path as it is written.
            there: whether something is at a place.

        Returns:
            What is there, or else the first place.

        Raises:
            ProcessingError: nothing is there, and the path may also mean a place elsewhere.
        """
        spelt = name.replace("\\", "/")
        found = [on_disk(beginning, spelt) for beginning in self.beginnings]
        found.append(on_disk(self.beginnings[-1], spelt.removeprefix(self.without)))
        allowed = [path for path in found if self._allows(path)]
        existing = next((path for path in allowed if there(path)), None)
        if existing is not None:
            return existing
        if len(allowed) < len(found):
            elsewhere = next(path for path in found if path not in allowed)
            raise ProcessingError(
                f"expected a path in {self.own} or beside it, got {short(name)}, which leads to {elsewhere}; "
                "if you trust it, name the folder of the data set with --images"
            )
        return found[0]

    def walked(self, folder: Path) -> Path:
        """The folder itself, if what lies below it may be listed: a link may lead to the root of the disk, or above the data set.

        Raises:
            ProcessingError: it may not.
        """
        target, own = folder.resolve(), self.own.resolve()
        if target == Path(target.anchor) or (own != target and own.is_relative_to(target)):
            raise ProcessingError(f"expected a folder of pictures in {self.own}, got {folder}, a link to {target}; remove the link")
        return folder

    def _allows(self, path: Path) -> bool:
        own = settled(self.own)
        if lies_in(own, path):
            return own != Path(own.anchor)
        # The root of the disk lies beside nothing, and what is above the folder is not walked either.
        outer = own.parent
        return self.beside and outer != Path(outer.anchor) and lies_in(outer, path) and not lies_in(path, outer)


def label_file(image: Path) -> Path:
    """The last folder named `images` becomes `labels`; without one, or where nothing is there, the file lies beside the picture."""
    parts = list(image.parts)
    at = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    name = f"{image.stem}.txt"
    beside = on_disk(image.parent, name)
    if not at:
        return beside
    parts[at[-1]] = "labels"
    swapped = on_disk(Path(*parts[:-1]), name)
    return beside if is_file(beside) and not is_file(swapped) else swapped


def listed_pictures(file: Path, places: Places, journal: Journal) -> Iterator[Path]:
    """Pictures of a text file with one path per line; those that lead elsewhere are left out."""
    around = dataclasses.replace(places, beginnings=(file.parent, *places.beginnings))
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        try:
            image = around.meant(name, _is_known)
        except MolmoPointError as error:
            journal.skip("pictures that lie elsewhere", f"{file.name}, line {number}: left out: {error}")
            continue
        yield image


def exists(path: Path) -> bool:
    """Whether anything is there; names that the system cannot even look up are not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _is_known(image: Path) -> bool:
    """Whether there is the picture or its label file; exports often leave the pictures out."""
    return is_file(image) or is_file(label_file(image))
