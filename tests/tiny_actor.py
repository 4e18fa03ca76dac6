"""Tiny models of the GUI-Actor line, made from configs, in folders as their authors save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tiny_hosts import host_tokenizer, tiny_host
from tokenizers import AddedToken

from molmopoint.backends.gui_actor_network import NETWORKS

TOKENS = ("<|recipient|>", "<|diff_marker|>", "<|pointer_start|>", "<|pointer_end|>", "<|pointer_pad|>")


def actor_tokenizer() -> Any:
    """That of a host, with the five tokens of GUI-Actor."""
    tokenizer = host_tokenizer()
    added = [AddedToken(name, special=True, normalized=False) for name in TOKENS]
    tokenizer.add_tokens(added, special_tokens=True)
    return tokenizer


def tiny_actor(kind: str, folder: Path, **text_changes: Any) -> Path:
    """Writes a model on a host, and returns its folder."""
    tokenizer = actor_tokenizer()
    host, processor = tiny_host(kind, tokenizer, **text_changes)
    config = host.config
    config.pointer_pad_token_id = tokenizer.convert_tokens_to_ids("<|pointer_pad|>")
    torch.manual_seed(1)
    model = NETWORKS[kind](config)
    model.load_state_dict(host.state_dict(), strict=False)
    with torch.no_grad():
        for tensor in model.multi_patch_pointer_head.parameters():
            torch.nn.init.normal_(tensor, std=0.3)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a folder by their names on the disk."""
    return load_file(folder / "model.safetensors")


def changed_config(folder: Path, **fields: Any) -> None:
    """Writes other fields into config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
