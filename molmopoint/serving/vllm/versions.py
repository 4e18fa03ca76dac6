"""Which vLLM and which transformers the plugin runs with; told once, when an engine starts."""

from __future__ import annotations

from importlib import metadata

from packaging.version import Version

from molmopoint.errors import MolmoPointError

OLDEST = Version("0.33")
OLDEST_OF_CPU_BUILDS = Version("0.32")
"""There is no newer CPU build. It may cut a picture in two where a prompt is chunked, see the document."""

OLDEST_TRANSFORMERS = Version("5.20.2")


class EngineError(MolmoPointError):
    """vLLM cannot run a model of this library as it is installed or set up."""


def check_versions() -> None:
    """Refuses what the plugin does not run with.

    Raises:
        EngineError: vLLM is missing or too old, or transformers is.
    """
    found = _version_of("vllm")
    if found is None:
        raise EngineError(
            'expected vLLM 0.33 or newer, got none; install it with: pip install "molmopoint[vllm]"'
        )
    is_cpu_build = found.local is not None and "cpu" in found.local
    oldest = OLDEST_OF_CPU_BUILDS if is_cpu_build else OLDEST
    if Version(found.base_version) < oldest:
        raise EngineError(
            f"expected vLLM {oldest} or newer, whose model runner lets a model bring its own choice of tokens, "
            f'got {found}; install it with: pip install "molmopoint[vllm]"'
        )
    transformers = _version_of("transformers")
    if transformers is None or transformers < OLDEST_TRANSFORMERS:
        raise EngineError(
            f"expected transformers {OLDEST_TRANSFORMERS} or newer beside vLLM, got {transformers}; install "
            f"transformers=={OLDEST_TRANSFORMERS}, which vLLM 0.33 allows"
        )


def _version_of(distribution: str) -> Version | None:
    try:
        return Version(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return None
