"""The token between two answers: its place in the tokenizer and in the input table.

In the tokenizer of a MolmoPoint the ids behind the table stand for places, so one of its fillers, tokens nobody writes, whose rows
are unused, takes the name of the separator. In that of a Molmo2 the token goes behind all others, as in the authors' models; the
input table grows if it must. The output table never changes: a separator is never predicted.

Letters: V rows of the vocabulary, H text width.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AddedToken

from molmopoint.errors import CheckpointError
from molmopoint.molmo2 import is_molmo2
from molmopoint.reward.settings import SEPARATOR
from molmopoint.tokens import point_text

SeparatorRow = Literal["mean", "base"]
"""Where the row of a new separator comes from."""

_FILLER = re.compile(r"<EXTRA_TOKENS_POINT_\d+>|\|<UNUSED_\d+>\||\|<EXTRA_TOKENS_\d+>\|")


def add_separator(tokenizer: Any) -> int:
    """Gives a tokenizer the separator, if it has none, and returns its id. The same tokenizer always gives the same id.

    Raises:
        CheckpointError: the tokenizer is not one of the tokenizers library.
    """
    known = tokenizer.get_vocab()
    if SEPARATOR in known:
        return known[SEPARATOR]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(f"expected a fast tokenizer, got {type(tokenizer).__name__}; load the one of the model")
    fillers = [(number, name) for name, number in tokenizer.get_added_vocab().items() if _FILLER.fullmatch(name)]
    if point_text(0) not in known or not fillers:
        tokenizer.add_tokens([AddedToken(SEPARATOR, special=True, normalized=False)], special_tokens=True)
    else:
        tokenizer._tokenizer = _renamed(backend, min(fillers)[0])
    return tokenizer.convert_tokens_to_ids(SEPARATOR)


def fit_table(model: Any, separator_id: int) -> None:
    """Makes sure that the input table has a row for the separator.

    Raises:
        CheckpointError: it has none and cannot grow.
    """
    table: nn.Embedding = model.get_input_embeddings()
    missing = separator_id + 1 - table.num_embeddings
    if missing <= 0 and (is_molmo2(model.config) or separator_id < model.config.extended_start):
        return
    if not is_molmo2(model.config):
        raise CheckpointError(
            f"expected a tokenizer with a filler among the {model.config.extended_start} tokens that have a row, got {SEPARATOR} as token "
            f"{separator_id}, where ids of places begin; use the tokenizer of a released model, or one with more additional tokens"
        )
    grown = nn.Embedding(separator_id + 1, table.embedding_dim, device=table.weight.device, dtype=table.weight.dtype)
    with torch.no_grad():
        grown.weight[: table.num_embeddings] = table.weight
        grown.weight[table.num_embeddings :] = mean_row(model)
    grown.weight.requires_grad_(table.weight.requires_grad)
    model.set_input_embeddings(grown)
    model.config.text_config.additional_vocab_size += missing


@torch.no_grad()
def mean_row(model: Any) -> Tensor:
    """Mean (H,) of the V rows of the vocabulary, in their dtype: where a new token starts."""
    table: Tensor = model.get_input_embeddings().weight[: model.config.text_config.vocab_size]
    return table.float().mean(0).to(table.dtype)


@torch.no_grad()
def stored_row(model: Any, separator_id: int) -> Tensor:
    """Row (H,) that the input table has for the separator; zeros where it has none, as the authors fill their table up."""
    table: Tensor = model.get_input_embeddings().weight.detach()
    return table[separator_id].clone() if separator_id < len(table) else torch.zeros_like(table[0])


def _renamed(backend: Tokenizer, token_id: int) -> Tokenizer:
    """A copy in which the added token of this id is the separator."""
    description = json.loads(backend.to_str())
    for token in description["added_tokens"]:
        if token["id"] == token_id:
            token |= {"content": SEPARATOR, "special": True, "normalized": False}
    vocabulary = description["model"].get("vocab")
    if isinstance(vocabulary, dict):  # of some tokenizers, added tokens stand there as well
        description["model"]["vocab"] = {SEPARATOR if number == token_id else name: number for name, number in vocabulary.items()}
    return Tokenizer.from_str(json.dumps(description))
