"""What pointing needs of pictures, kept by their hashes in a bounded piece of host memory.

Letters: T image tokens of a picture, R rows of the memory, H text width, F width of the tapped ViT features,
K slots per image token.

One row holds one image token: the connector's output, and the ViT features of its slots. A step reads the
rows of the places that its requests chose, one or K vectors per request, wherever they lie; a GPU reads them
across the bus. Rows of pictures that no request is about go to new pictures, the longest unused ones first.
Where requests that run need more than there is, the memory grows, and says so.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_LOG = logging.getLogger("molmopoint.serving.vllm")


@dataclass(eq=False)
class _Kept:
    """One picture.

    Attributes:
        rows: (T,) of its image tokens.
        users: requests that are about it.
    """

    rows: np.ndarray
    users: int = 0


class PictureMemory:
    """Features of pictures by hash.

    Args:
        num_bytes: of all features at most, as long as no running requests need more.
        hidden_size: H.
        vit_feature_dim: F.
        num_slots: K.
        dtype: of features.
        device: where hashes of pictures become features.
        buffer: makes host memory that the device reads; plain tensors by default.
    """

    def __init__(
        self,
        num_bytes: float,
        hidden_size: int,
        vit_feature_dim: int,
        num_slots: int,
        dtype: torch.dtype,
        device: torch.device,
        buffer: Callable[[tuple[int, ...], torch.dtype], Tensor] | None = None,
    ) -> None:
        self._device = device
        self._dtype = dtype
        self._buffer = buffer or _plain
        self._widths = ((hidden_size,), (num_slots, vit_feature_dim))
        row_bytes = (hidden_size + num_slots * vit_feature_dim) * dtype.itemsize + num_slots
        self._most_rows = max(int(num_bytes // row_bytes), 1)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._free = np.zeros(0, np.int64)
        self.image_features = self._buffer((0, hidden_size), dtype)
        """(R, H) connector output."""
        self.slot_features = self._buffer((0, num_slots, vit_feature_dim), dtype)
        """(R, K, F) ViT features; zero vectors in empty slots."""
        self.valid_slots = torch.zeros((0, num_slots), dtype=torch.bool, device=device)
        """(R, K) True where there is a slot."""

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.image_features)

    def store(self, name: str, image_features: Tensor, vit_features: Tensor, pooling: Tensor) -> None:
        """Keeps a picture; one that is kept already stays as it is.

        Args:
            name: its hash.
            image_features: (T, H).
            vit_features: (N, F).
            pooling: (T, K) rows of `vit_features`, -1 for an empty slot; K may be smaller than here.
        """
        if name in self._kept:
            return
        rows = self._take(len(pooling))
        where = torch.from_numpy(rows).to(self._device)
        valid = pooling >= 0  # (T, K)
        gathered = vit_features[pooling.clamp(min=0)] * valid.unsqueeze(-1)  # (T, K, F)
        width = pooling.shape[1]
        self.image_features[where] = image_features.to(self._dtype)
        self.slot_features[where, :width] = gathered.to(self._dtype)
        self.valid_slots[where] = False
        self.valid_slots[where, :width] = valid
        self._kept[name] = _Kept(rows)

    def hold(self, name: str) -> np.ndarray:
        """(T,) rows of a picture, which stays until `release`."""
        kept = self._kept[name]
        kept.users += 1
        self._kept.move_to_end(name)
        return kept.rows

    def release(self, name: str) -> None:
        """Ends one `hold`."""
        kept = self._kept[name]
        kept.users -= 1
        self._kept.move_to_end(name)

    def clear(self) -> None:
        """Forgets pictures that no request is about, as when weights have changed."""
        for name in [name for name, kept in self._kept.items() if not kept.users]:
            self._forget(name)

    def _take(self, count: int) -> np.ndarray:
        """(count,) free rows."""
        while len(self._free) < count and self.num_rows + count - len(self._free) > self._most_rows:
            unused = next((name for name, kept in self._kept.items() if not kept.users), None)
            if unused is None:
                break
            self._forget(unused)
        if len(self._free) < count:
            self._grow(self.num_rows + count - len(self._free))
        rows, self._free = self._free[:count], self._free[count:]
        return rows

    def _forget(self, name: str) -> None:
        self._free = np.concatenate([self._free, self._kept.pop(name).rows])

    def _grow(self, least: int) -> None:
        """Makes room for `least` rows, or for some more within the limit."""
        old = self.num_rows
        new = max(least, min(2 * old, self._most_rows))
        if new > self._most_rows:
            _LOG.warning(
                "pictures of running requests need more than the memory they were given (%d of %d image "
                "tokens); raise additional_config.molmopoint.picture_memory_gb, or lower max_num_seqs",
                new,
                self._most_rows,
            )
        (hidden,), slots = self._widths
        self.image_features = self._copied(self.image_features, (new, hidden))
        self.slot_features = self._copied(self.slot_features, (new, *slots))
        valid = torch.zeros((new, slots[0]), dtype=torch.bool, device=self._device)
        valid[:old] = self.valid_slots
        self.valid_slots = valid
        self._free = np.concatenate([self._free, np.arange(old, new)])
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the old memory is read until now, and given back next

    def _copied(self, old: Tensor, shape: tuple[int, ...]) -> Tensor:
        made = self._buffer(shape, self._dtype)
        made[: len(old)] = old
        return made


def _plain(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype)
