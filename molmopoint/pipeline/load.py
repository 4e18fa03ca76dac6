"""One call from a name to something that points."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molmopoint.checkpoints.compiling import check_compile, check_tools
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.placing import check_dtype, place, silent_if_embedded, single_device
from molmopoint.checkpoints.quantising import DTYPE, check_quantize, check_widths, store_in_fewer_bits
from molmopoint.errors import CheckpointError
from molmopoint.files import CALIBRATION_FILE, is_file
from molmopoint.lazy import without_collecting

if TYPE_CHECKING:
    import torch

    from molmopoint.pipeline.pointer import Pointer

_PLACES = ("revision", "cache_dir", "token", "local_files_only", "subfolder", "force_download", "proxies")
"""Arguments of `from_pretrained` that say where a single file comes from."""


def load(
    name_or_path: str | Path = "nano",
    *,
    device: torch.device | str | int | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: Any = None,
    revision: str | None = None,
    attn_implementation: str | None = None,
    max_pixels: int | None = None,
    quantize: str | None = None,
    causal_vision: bool | None = None,
    compile: bool = False,
    engine: str | None = None,
    engine_options: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Pointer:
    """A model with its processor, ready to point.

    Args:
        name_or_path: a name of the zoo (see `molmopoint zoo`), an id on the hub such as
            "allenai/MolmoPoint-8B", or a folder.
        device: one device, "cpu", "cuda" or "cuda:1". By default the GPU if there is one, else the CPU.
        dtype: of the weights, as in transformers ("auto": as stored). By default bfloat16 on a GPU and with
            `quantize`, and float32 on the CPU.
        device_map: in place of `device`, as in transformers: "auto" spreads the model over devices (and needs
            accelerate).
        revision: branch, tag or commit on the hub.
        attn_implementation: as in transformers; SDPA by default.
        max_pixels: width times height of a picture at most, as in `Pointer`.
        quantize: "int8", "int4" or "nf4" stores the matrices of the text model in 8 or 4 bits once the model
            is loaded; needs the extra "quantize". See `molmopoint.checkpoints.quantising`.
        causal_vision: for a Molmo2 whose image tokens see only what is before them, as those of MolmoWeb, which
            its config does not tell. By default what config.json says under this name, or true where "MolmoWeb"
            is in the name of the model.
        compile: make the steps of answers into compiled graphs, at once: takes a minute or so, and needs a
            C++ compiler. Answers are the same, and come faster one by one. For MolmoPoint models with SDPA
            on one device; of `quantize`, only nf4. See `molmopoint.compiled`.
        engine: "vllm" runs a MolmoPoint on vLLM's engine in this process, whose batches are made of whatever
            waits; needs the extra "vllm". See the document on vLLM for what it does not have.
        engine_options: keywords of `vllm.LLM`, such as `{"tensor_parallel_size": 4}`.
        **kwargs: further arguments of `from_pretrained`, such as `quantization_config` or `local_files_only`.

    Raises:
        CheckpointError: there is no such model or device, the folder is incomplete, or its files do not fit
            each other; or its weights cannot be stored in so few bits, or its steps not be compiled.
        TypeError: an argument that does not exist; the nearest one is named.
    """
    _check_arguments(kwargs)
    if device is not None and device_map is not None:
        raise CheckpointError(
            f"expected device or device_map, got both ({device!r}, {device_map!r}); leave one of them out"
        )
    device_map = device_map if device is None else device
    dtype = dtype if dtype is not None else kwargs.pop("torch_dtype", None)  # its name until transformers 5
    others = (device_map, attn_implementation, quantize, compile, causal_vision is not None, kwargs)
    _check_engine(engine, engine_options, *others)
    _check_values(dtype, attn_implementation)
    check_compile(compile, attn_implementation, quantize)
    if quantize is not None:
        check_quantize(quantize, kwargs)
        dtype = DTYPE if dtype is None else dtype
    source, revision = locate(name_or_path, revision)
    if engine is not None:
        return _on_engine(source, revision, dtype, max_pixels, engine_options or {})
    with without_collecting():
        # The libraries of models take seconds to import; what cannot be meant has been told by now.
        from molmopoint.backends.families import backend_class_of, reading
        from molmopoint.pipeline.pointer import Pointer
        from molmopoint.registration import register

    register()  # so that transformers knows the model type while it picks the tokenizer
    placement = place(device_map, dtype, revision=revision, attn_implementation=attn_implementation, **kwargs)
    if quantize is not None:
        placement = placement.by_way_of_the_cpu()
    family = backend_class_of(source, **placement.file_arguments)
    family.check_causal_vision(causal_vision, source)
    if compile:
        family.check_compiles(source)
        check_tools(single_device(device_map))
    with silent_if_embedded(source), reading(source, f"a {family.title}", _advice(source)):
        config = family.read_config(source, **placement.file_arguments)
        if quantize is not None:
            check_widths(config, quantize, source)
        processor = family.read_processor(source, **placement.file_arguments)
        model = family.read_model(source, placement.file_arguments, placement.arguments)
    _put_in_place(model, quantize, placement.move_to)
    if causal_vision is not None:
        model.config.causal_vision = causal_vision
    if compile:
        family.compile(model.eval())
    calibration = _calibration_at(source, placement.file_arguments)
    return Pointer(model.eval(), processor, max_pixels=max_pixels, calibration=calibration)


def _put_in_place(model: Any, quantize: str | None, device: torch.device | None) -> None:
    """Stores a model in fewer bits, if asked for, and moves it; None where it is already in place."""
    if quantize is not None:
        store_in_fewer_bits(model, quantize, device)
    elif device is not None:
        model.to(device)


def _on_engine(
    source: str,
    revision: str | None,
    dtype: torch.dtype | str | None,
    max_pixels: int | None,
    options: Mapping[str, Any],
) -> Pointer:
    """A pointer whose backend is vLLM's engine.

    Raises:
        CheckpointError: the model is of another family; or what keeps vLLM from running it.
    """
    with without_collecting():
        import torch

        from molmopoint.backends.engine import start_engine
        from molmopoint.backends.families import backend_class_of, reading
        from molmopoint.backends.molmopoint import MolmoPointBackend
        from molmopoint.pipeline.pointer import Pointer
        from molmopoint.registration import register

    register()
    where = {"revision": revision}
    family = backend_class_of(source, **where)
    if family is not MolmoPointBackend:
        raise CheckpointError(
            f"expected a MolmoPoint for engine='vllm', got a {family.title} at {source!r}; load it without engine"
        )
    with silent_if_embedded(source), reading(source, f"a {family.title}", _advice(source)):
        processor = family.read_processor(source, **where)
    usual = "bfloat16" if torch.cuda.is_available() else "float32"
    given = {"dtype": usual if dtype is None else check_dtype(str(dtype)), "revision": revision}
    model = start_engine(source, {**given, **options})
    calibration = _calibration_at(source, where)
    return Pointer(model, processor, max_pixels=max_pixels, calibration=calibration)


def _check_values(dtype: Any, attn_implementation: Any) -> None:
    """Refuses a precision or an attention that there is not.

    Raises:
        CheckpointError: one of the two.
    """
    if isinstance(dtype, str):
        check_dtype(dtype)
    if attn_implementation is not None and not isinstance(attn_implementation, (str, dict)):
        raise CheckpointError(
            f"expected attn_implementation as a name such as 'sdpa' or 'eager', got {attn_implementation!r}"
        )


def _check_engine(engine: str | None, options: Mapping[str, Any] | None, *others: Any) -> None:
    """Refuses an engine that there is not, and what an engine decides by itself.

    Raises:
        CheckpointError: another engine, options without one, or arguments that are for a network in this
            process.
    """
    if engine is None:
        if options:
            raise CheckpointError(
                f"expected engine='vllm' with engine_options, got {dict(options)!r} without; pass both or neither"
            )
        return
    if engine != "vllm":
        raise CheckpointError(
            f"expected engine='vllm' or None, got {engine!r}; leave it out for this library's own"
        )
    if any(others):
        raise CheckpointError(
            "expected no device, device_map, attn_implementation, quantize or arguments of from_pretrained with "
            "engine='vllm', got some; pass engine_options={...}, which vllm.LLM gets"
        )


def _calibration_at(source: str, where: Mapping[str, Any]) -> Path | None:
    """The file of the calibration beside the weights; None where there is none."""
    if Path(source).is_dir():
        file = Path(source) / where.get("subfolder", "") / CALIBRATION_FILE
        return file if is_file(file) else None
    from transformers.utils.hub import cached_file

    places = {name: value for name, value in where.items() if name in _PLACES}
    found = cached_file(
        source,
        CALIBRATION_FILE,
        **places,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else Path(found)


def _advice(source: str) -> str:
    if Path(source).is_dir():
        return "; the folder needs the tokenizer and processor files beside the weights"
    return "; check the name and the connection, or pass a folder that holds the files"


_QUANTIZING = ("load_in_4bit", "load_in_8bit", "bits", "gptq", "awq")
"""Arguments of other libraries, and of older versions of transformers, that ask for weights of fewer bits."""

_FURTHER = frozenset(
    {
        "cache_dir", "force_download", "local_files_only", "token", "subfolder", "proxies", "variant", "use_safetensors",
        "weights_only", "trust_remote_code", "torch_dtype", "quantization_config", "max_memory", "offload_folder",
        "offload_buffers", "experts_implementation", "low_cpu_mem_usage", "tp_plan", "tp_size", "device_mesh",
        "distributed_config", "use_kernels", "generation_config", "key_mapping", "gguf_file", "ignore_mismatched_sizes",
    }
)  # fmt: skip
"""Arguments that `from_pretrained` of transformers takes beside those that are named."""


def _check_arguments(further: Mapping[str, Any]) -> None:
    """Refuses what nobody would take.

    Raises:
        TypeError: an argument that does not exist; the nearest one, or what does the same, is named.
    """
    for name in further:
        if name in _FURTHER:
            continue
        if name in _QUANTIZING:
            raise TypeError(
                f"unexpected argument {name!r}; pass "
                f"quantization_config=transformers.BitsAndBytesConfig({name}=...) instead"
            )
        near = difflib.get_close_matches(name, [*inspect.signature(load).parameters, *_FURTHER], n=1)
        hint = f"did you mean {near[0]}?" if near else "see help(molmopoint.load) for the arguments"
        raise TypeError(f"unexpected argument {name!r}; {hint}")
