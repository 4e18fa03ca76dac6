"""Files that a client names: taken from folders that were allowed, and from nowhere else."""

from __future__ import annotations

import io
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from molmopoint.agents.targets import AgentError
from molmopoint.files import VIDEO_SUFFIXES, open_picture, picture_limit
from molmopoint.files.addresses import bytes_of_data_address, is_address, is_data_address


@dataclass(frozen=True)
class Sources:
    """Where pictures and clips may come from.

    Attributes:
        folders: that files may be named in, links resolved; none for pictures as data alone.
        most_bytes: of a file.
        most_pixels: width times height of a picture.
    """

    folders: tuple[Path, ...] = ()
    most_bytes: int = 32 * 2**20
    most_pixels: int = 64_000_000

    @classmethod
    def of(cls, folders: Sequence[Path], **limits: int) -> Sources:
        """Folders with their links resolved.

        Raises:
            AgentError: one of them is no folder.
        """
        for folder in folders:
            if not folder.is_dir():
                raise AgentError(f"expected a folder to allow, got {str(folder)!r}; make it, or name another")
        return cls(tuple(folder.resolve() for folder in folders), **limits)

    def picture(self, image: str) -> Image.Image:
        """A picture from its path or its `data:` address.

        Raises:
            AgentError: the path is not inside an allowed folder, or what it names is no picture within the
                limits.
            ProcessingError: the address or the picture is broken, or has too many pixels.
        """
        if is_data_address(image):
            if len(image) > 4 * self.most_bytes // 3 + 1000:
                raise self._too_large()
            content = bytes_of_data_address(image)
        else:
            content = self.file(image).read_bytes()
        if len(content) > self.most_bytes:
            raise self._too_large()
        try:
            with picture_limit(self.most_pixels), open_picture(io.BytesIO(content)) as picture:
                return picture.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise AgentError(
                f"expected a picture, got {len(content):,} bytes that are none ({error}); send a PNG or JPEG"
            ) from error

    def clip(self, video: str) -> Path:
        """The path of a clip.

        Raises:
            AgentError: it is not inside an allowed folder, too large, or has the ending of something else.
        """
        path = self.file(video)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            endings = ", ".join(sorted(VIDEO_SUFFIXES))
            raise AgentError(f"expected a clip with an ending of {endings}, got {path.suffix!r}")
        return path

    def file(self, name: str) -> Path:
        """A file inside an allowed folder; the answer tells a stranger nothing about files elsewhere.

        Raises:
            AgentError: it is not there, is no ordinary file, is too large, or leads out of the folders.
        """
        if not self.folders:
            raise AgentError(
                "expected a picture as data:image/png;base64,..., got a path; allow a folder with --allow-folder"
            )
        if "\x00" in name or is_address(name):
            raise AgentError("expected the path of a file, got an address or a path with a zero byte in it")
        for folder in self.folders:
            try:
                path = (folder / name).resolve()  # an absolute name stands for itself
                known = path.is_relative_to(folder) and path.stat()
            except (OSError, RuntimeError, ValueError):  # no such file, links in a circle, a name too long
                continue
            if not known:
                continue
            if not stat.S_ISREG(known.st_mode):
                break
            if known.st_size > self.most_bytes:
                raise self._too_large()
            return path
        shown = ", ".join(str(folder) for folder in self.folders)
        raise AgentError(
            f"expected a file inside {shown}, got {name[:200]!r}; put it there, or allow its folder"
        )

    def _too_large(self) -> AgentError:
        return AgentError(f"expected at most {self.most_bytes:,} bytes, got more; send a smaller file")
