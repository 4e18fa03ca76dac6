"""A graft from a vision-language model of transformers: the host with all of its words, and new grounding
heads.
"""

from __future__ import annotations

import copy
import math
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, PreTrainedModel

from molmopoint.checkpoints.locating import config_at, locate
from molmopoint.checkpoints.new_processor import END_OF_TEXT, POINT_TOKENS
from molmopoint.errors import CheckpointError
from molmopoint.files import check_writable, is_file, is_folder
from molmopoint.generation.settings import tokens_alone
from molmopoint.graft.config import NEW_ROWS, NEW_TOKENS, GraftConfig, check_width
from molmopoint.graft.hosts import check_host, host_of
from molmopoint.graft.network import NEW_MODULES, GraftForConditionalGeneration, draw_new_weights
from molmopoint.graft.pictures import READERS
from molmopoint.graft.processor import GraftProcessor
from molmopoint.load_checks import check_loading_info, reading_part, verify_source
from molmopoint.processing.grounding_answers import TURN_END
from molmopoint.remote_code import running_no_code
from molmopoint.tokens import point_text

_MULTIPLE = 64
"""Rows of a table that had no room are filled up to a multiple of this: GPUs multiply such tables faster."""

_MOST_CELLS, _MOST_PLACES, _LAST_SEED = 16, 2**20, 2**63 - 1
"""Location cells along a side, places with a name, and seeds: what is more is a slip, and would fill the memory."""


def graft(
    host: str | Path | PreTrainedModel,
    *,
    processor: Any = None,
    patch_embed_dim: int = 512,
    location_grid: int = 3,
    point_tokens: int = POINT_TOKENS,
    dtype: torch.dtype | str = "auto",
    revision: str | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> tuple[GraftForConditionalGeneration, GraftProcessor]:
    """A host with grounding heads: it talks as before, to the bit, and has still to learn to point.

    Args:
        host: a folder, an id on the hub ("Qwen/Qwen2.5-VL-3B-Instruct"), or the model itself.
        processor: of the host; needed where `host` is a model, else read from where the host is.
        patch_embed_dim: E, width of patch and subpatch queries and keys.
        location_grid: location cells along a side of a ViT patch; 0 for points without a location.
        point_tokens: places the tokenizer has names for: image tokens of the longest input, slots and cells
            together.
        dtype: of the weights; "auto" as they are stored.
        revision: branch, tag or commit on the hub.
        seed: of the new weights.
        out: folder to save both into, ready for `molmopoint.load` and `molmopoint.finetune`.

    Returns:
        Model, in evaluation mode on the CPU, and processor. A model that was passed in is copied, not changed.

    Raises:
        CheckpointError: a model that is no host, told before its weights are read; or one without a chat
            template, or whose files are missing or damaged; an argument out of range, or an `out` that is no
            folder, or is the host's own.
    """
    patch_embed_dim = check_width(patch_embed_dim)
    location_grid = _whole_number("location_grid", location_grid, 0, _MOST_CELLS)
    point_tokens = _whole_number("point_tokens", point_tokens, 1, _MOST_PLACES)
    seed = _whole_number("seed", seed, 0, _LAST_SEED)
    _check_out(out, host)
    if isinstance(host, PreTrainedModel):
        if processor is None:
            raise CheckpointError(
                "expected the processor of the host beside the host itself, got none; pass "
                "processor=AutoProcessor..."
            )
        check_host(host.config)
        host = copy.deepcopy(host)
    else:
        source, revision = locate(host, revision)
        host_of(str(config_at(source, revision=revision).get("model_type")))
        with reading_part(source, "the config of a host"):
            check_host(AutoConfig.from_pretrained(source, trust_remote_code=False, revision=revision))
        if processor is None:
            with reading_part(source, "a processor"), running_no_code(source):
                processor = AutoProcessor.from_pretrained(source, trust_remote_code=False, revision=revision)
        _check_processor(processor, source)
        host = _read_host(source, dtype, revision)
    _check_processor(processor, type(host).__name__)

    first_row = _make_room(host, processor.tokenizer)
    vocabulary: int = host.config.get_text_config().vocab_size
    fitted = _processor_of(processor, host.config, first_row, vocabulary, point_tokens, location_grid)
    config = GraftConfig(
        host_config=host.config,
        patch_token_id=first_row,
        patch_embed_dim=patch_embed_dim,
        patch_location=fitted.patch_location,
        dtype=host.dtype,
    )
    model = _put_together(host, config, seed)
    _take_tokens(model, host, fitted.tokenizer)
    if out is not None:
        model.save_pretrained(out)
        fitted.save_pretrained(out)
    return model, fitted


def _whole_number(name: str, value: Any, least: int, most: int) -> int:
    """An argument that is a whole number, of NumPy perhaps.

    Raises:
        CheckpointError: it is none, or out of range.
    """
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or not least <= int(value) <= most:
        raise CheckpointError(
            f"expected {name} as a whole number in {least}..{most}, got {value!r:.80}; pass one of these"
        )
    return int(value)


def _check_out(out: Any, host: Any) -> None:
    """Refuses a place that cannot be written to, before a host is read, and the host's own folder.

    Raises:
        CheckpointError: as said.
    """
    if out is None:
        return
    if not isinstance(out, str | Path) or "\0" in str(out) or not str(out):
        raise CheckpointError(f"expected out as the path of a new folder, got {out!r:.80}; pass one")
    folder = Path(out)
    if isinstance(host, str | Path) and is_folder(Path(host)) and folder.resolve() == Path(host).resolve():
        raise CheckpointError(
            f"expected out as a folder of its own, got that of the host, {str(out)!r}, whose weights would be lost; "
            "choose another"
        )
    if is_file(folder):
        raise CheckpointError(f"expected out as a folder, got the file {str(out)!r}; choose another place")
    try:
        check_writable(folder / "config.json")
    except OSError as error:
        raise CheckpointError(
            f"expected out as a folder that can be written to, got {str(out)!r}: {error.strerror}; choose another"
        ) from error


def _read_host(source: str, dtype: torch.dtype | str, revision: str | None) -> PreTrainedModel:
    """All weights of a host.

    Raises:
        CheckpointError: some are missing, or its files are damaged.
    """
    verify_source(source, revision=revision)
    with reading_part(source, "the weights of a host"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=dtype,
            revision=revision,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    host, info = loaded
    # Tensors that are left over are the native class's affair; it would fill missing ones at random.
    check_loading_info({**info, "unexpected_keys": ()}, source)
    return host.eval()


def _check_processor(processor: Any, source: str) -> None:
    """Refuses a processor that cannot write conversations about pictures.

    Raises:
        CheckpointError: it has no fast tokenizer, no image processor, or no chat template.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"expected a processor with a fast tokenizer for {source!r}, got {type(tokenizer).__name__}; load "
            "it with AutoProcessor"
        )
    if getattr(processor, "image_processor", None) is None:
        raise CheckpointError(
            f"expected a processor with an image processor for {source!r}, got one without; load it with "
            "AutoProcessor"
        )
    if not isinstance(_template_of(processor), str):
        raise CheckpointError(
            f"expected a host with a chat template at {source!r}, got one without; take its Instruct version"
        )


def _template_of(processor: Any) -> Any:
    """The host's one chat template, wherever its files have it."""
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def _make_room(host: Any, tokenizer: Any) -> int:
    """The first row of the new tokens: spare rows behind the tokenizer's, or new ones behind all.

    Raises:
        CheckpointError: the tokenizer has more tokens than the host has rows.
    """
    known = tokenizer.get_vocab()
    present = max(known.values()) + 1
    rows: int = host.config.get_text_config().vocab_size
    if present > rows:
        raise CheckpointError(
            f"expected at most {rows} tokens, the rows of the host, got ids up to {present - 1}; pass the host "
            "and the processor that belong together"
        )
    if taken := [token for token in (*NEW_TOKENS, point_text(0)) if token in known]:
        raise CheckpointError(
            f"expected the tokenizer of a host, got one that has {', '.join(taken)} already; take that of the "
            "host as it was published"
        )
    if present + NEW_ROWS > rows:
        host.resize_token_embeddings(present + NEW_ROWS, pad_to_multiple_of=_MULTIPLE, mean_resizing=False)
    return present


def _processor_of(
    processor: Any, config: Any, first_row: int, vocabulary: int, places: int, location_grid: int
) -> GraftProcessor:
    """The processor of a graft: grounding tokens, fillers up to V, then names of places."""
    tokenizer = copy.deepcopy(processor.tokenizer)
    _add(tokenizer, list(NEW_TOKENS), special=True)
    spare = vocabulary - first_row - NEW_ROWS
    # Nobody ever writes the fillers; marking them special would only slow the tokenizer down.
    _add(tokenizer, [f"|<EXTRA_TOKENS_{i}>|" for i in range(spare)], special=False)
    _add(tokenizer, [point_text(i) for i in range(places)], special=False)
    if TURN_END in processor.tokenizer.get_vocab():
        tokenizer.eos_token = TURN_END
    if tokenizer.pad_token is None:
        tokenizer.pad_token = END_OF_TEXT
    tokenizer.padding_side = "left"
    template = _template_of(processor)
    tokenizer.chat_template = template
    reader = READERS[config.model_type]
    return GraftProcessor(
        copy.deepcopy(processor.image_processor),
        tokenizer,
        chat_template=template,
        host_type=config.model_type,
        image_token=tokenizer.convert_ids_to_tokens(config.image_token_id),
        picture_format=reader.picture_format(tokenizer),
        tile_patches=host_of(config.model_type).tile_patches(config),
        token_side=math.isqrt(host_of(config.model_type).slots(config)),
        patch_location=f"{location_grid}x{location_grid}" if location_grid else None,
    )


def _put_together(host: Any, config: GraftConfig, seed: int) -> GraftForConditionalGeneration:
    """The network with the parts of the host as they are."""
    with torch.device("meta"):
        model = GraftForConditionalGeneration(config)
    model.model = host.model
    model.lm_head = host.lm_head
    for name in NEW_MODULES:
        model.get_submodule(name).to_empty(device="cpu")
    draw_new_weights(model, torch.Generator().manual_seed(seed))
    model.tie_weights()
    model.to(host.dtype)
    return model.eval()


def _take_tokens(model: Any, host: Any, tokenizer: Any) -> None:
    """The tokens that begin, end and pad answers, as the host says, or else its tokenizer."""
    vocabulary = model.config.text_config.vocab_size
    kept, _ = tokens_alone(host.generation_config, vocabulary)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if getattr(kept, name) is None:
            setattr(kept, name, getattr(tokenizer, name))
    model.generation_config = kept


def _add(tokenizer: Any, names: list[str], special: bool) -> None:
    tokens = [AddedToken(name, special=special, normalized=False) for name in names]
    tokenizer.add_tokens(tokens, special_tokens=special)
