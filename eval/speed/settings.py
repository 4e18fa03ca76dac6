"""What can be set for a measurement, and the text form of a second setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from transformers import CompileConfig

CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("float32", "bfloat16", "float16"),
    "attn": ("sdpa", "eager", "flex_attention", "flash_attention_2"),
    "cache": ("dynamic", "static", "compiled"),
    "clock": ("wall", "processor"),
}


@dataclass(frozen=True)
class Setting:
    """One way to run a model.

    Attributes:
        device: as torch names it.
        dtype: of weights and activations.
        attn: attention backend of the text model.
        threads: of torch, on the CPU.
        cache: "dynamic", "static", or "compiled": static, and steps compiled.
        clock: "wall", or "processor": processor time of all threads, which other processes on a busy machine
            do not lengthen.
    """

    device: str = "cpu"
    dtype: str = "float32"
    attn: str = "sdpa"
    threads: int = 1
    cache: str = "dynamic"
    clock: str = "wall"

    def __post_init__(self) -> None:
        for name, options in CHOICES.items():
            if getattr(self, name) not in options:
                raise ValueError(f"expected {name} {' or '.join(options)}, got {getattr(self, name)!r}")
        if self.clock == "processor" and self.device != "cpu":
            raise ValueError(f"expected clock=wall on {self.device}, got processor; its work takes no processor time")
        if self.threads < 1:
            raise ValueError(f"expected at least 1 thread, got {self.threads}")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch has it."""
        return getattr(torch, self.dtype)

    def changed(self, text: str) -> Setting:
        """This setting with the changes of a text such as "dtype=bfloat16,threads=2".

        Raises:
            ValueError: the text is not of that form, or names something that cannot be set.
        """
        names = [field.name for field in fields(self)]
        changes: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or not value or name not in names:
                raise ValueError(f"expected changes such as dtype=bfloat16,threads=2 of {', '.join(names)}, got {part.strip()!r}")
            if name == "threads" and not value.isdigit():
                raise ValueError(f"expected a number of threads, got {value!r}")
            changes[name] = int(value) if name == "threads" else value
        return replace(self, **changes)

    def activate(self) -> None:
        """Sets what is global in torch."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def generate_arguments(self) -> dict[str, Any]:
        """Arguments of `generate` for the cache."""
        if self.cache == "dynamic":
            return {}
        if self.cache == "static":
            return {"cache_implementation": "static", "disable_compile": True}
        # transformers compiles on the CPU only when told so by this private field.
        compiled = CompileConfig(fullgraph=False)
        compiled._compile_all_devices = True
        return {"cache_implementation": "static", "compile_config": compiled}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
