"""No code of a repository runs, whatever its files ask for and whatever the user answers.

transformers runs code of a repository where a file names a class that it does not know (`auto_map`), where a
`custom_generate` folder lies beside the weights, and where a config chooses an attention kernel of another
repository. Without an answer in advance it asks on the terminal. Everything in this library that reads a
repository answers no in advance, with `trust_remote_code=False`, and reads it within `running_no_code`.

Released MolmoPoint repositories have an `auto_map` as well. Their classes are known here, so none of it is
needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from molmopoint.errors import CheckpointError

_KERNELS = (
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
)
"""Fields of a config whose value may name a repository with kernels, which transformers would fetch and run."""


@contextmanager
def running_no_code(source: str | os.PathLike[str] | None) -> Iterator[None]:
    """Turns the refusal of transformers, which advises to run the code, into an error of ours.

    Args:
        source: folder or hub id, for the message.

    Raises:
        CheckpointError: the files need code of their own.
    """
    try:
        yield
    except CheckpointError:
        raise
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise CheckpointError(
            f"expected files that known classes can read at {_name(source)}, got an auto_map to code of the "
            "repository, "
            "which is never run here; name classes of transformers or of this library in the files, or take "
            "another one"
        ) from error


def refuse_trust(arguments: Mapping[str, Any]) -> None:
    """Refuses a caller who wants code of a repository to run.

    Raises:
        CheckpointError: `trust_remote_code` is true.
    """
    if arguments.get("trust_remote_code"):
        raise CheckpointError(
            "expected no trust_remote_code=True, got it: code of a repository never runs here, and released "
            "models need none; leave it out"
        )


def check_kernels(fields: Any, source: str | os.PathLike[str] | None) -> None:
    """Refuses a config that chooses a kernel of another repository; a caller may still choose one.

    Args:
        fields: of a config.json, with those of its parts.
        source: folder or hub id, for the message.

    Raises:
        CheckpointError: a field names a repository.
    """
    if not isinstance(fields, Mapping):
        return
    for name, value in fields.items():
        for chosen in _kernels_in(value) if name in _KERNELS else ():
            raise CheckpointError(
                f"expected an attention of transformers in the config at {_name(source)}, got "
                f"{name}={chosen!r}, which "
                "is code of another repository and never run; remove the field"
            )
        check_kernels(value, source)


def _kernels_in(value: Any) -> list[str]:
    """The values that name a repository: of a field, or of a table with an entry per part."""
    chosen = value.values() if isinstance(value, Mapping) else [value]
    return [kernel for kernel in chosen if isinstance(kernel, str) and "/" in kernel]


def _name(source: str | os.PathLike[str] | None) -> str:
    return repr(os.fspath(source)) if source is not None else "no place"
