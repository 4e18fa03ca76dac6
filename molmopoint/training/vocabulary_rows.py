"""The vocabulary tables in two parts: the rows of the text model, and the rows added for pictures and points.

Added rows stand behind all others, or, in a graft, in places that its host had to spare.

Both parts learn at their own rate and the first may stay frozen, so each is a parameter of its own while a
model trains. Outside of training the tables are whole again: `split_output_rows` and `join_output_rows` go
there and back without changing a value. A model whose tables are tied says itself which parameters that are
now (`get_expanded_tied_weights_keys`).

Letters: V rows of the text model, A added rows, H text width, S tokens.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from molmopoint.errors import CheckpointError

EMBEDDING, HEAD = "embed_tokens", "lm_head"
"""Last part of the module names of the input and the output table, in MolmoPoint and in native Molmo2."""


class SplitRows(nn.Module):
    """A table (V + A, H) as two parameters.

    Args:
        base: (V, H) rows of the text model.
        added: (A, H) the others.
        first: row of the first added one; None where they stand behind all others.
    """

    def __init__(self, base: nn.Parameter, added: nn.Parameter, first: int | None = None) -> None:
        super().__init__()
        self.base = base
        self.added = added
        self.first = len(base) if first is None else first
        self.has_rows_behind = self.first < len(base)

    @property
    def weight(self) -> Tensor:
        """The whole table (V + A, H), a copy."""
        return torch.cat([self.base[: self.first], self.added, self.base[self.first :]])

    def joined(self) -> nn.Parameter:
        """The whole table as one parameter, which trains if a part does."""
        trains = self.base.requires_grad or self.added.requires_grad
        return nn.Parameter(self.weight.detach(), requires_grad=trains)


class SplitEmbedding(SplitRows):
    """The input table: ids to rows."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Rows (..., H) of ids (...)."""
        is_added = input_ids >= self.first
        numbers = input_ids - self.first
        others = input_ids
        if self.has_rows_behind:
            is_behind = numbers >= len(self.added)
            is_added = is_added & ~is_behind
            numbers = numbers.clamp(max=len(self.added) - 1)
            others = torch.where(is_behind, input_ids - len(self.added), input_ids)
        base = functional.embedding(others.masked_fill(is_added, 0), self.base)
        added = functional.embedding(numbers.clamp(min=0), self.added)
        return torch.where(is_added.unsqueeze(-1), added, base)


class SplitHead(SplitRows):
    """The output table: states to logits."""

    @property
    def out_features(self) -> int:
        """V + A."""
        return len(self.base) + len(self.added)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (..., V + A) of states (..., H)."""
        base = functional.linear(hidden, self.base)  # (..., V)
        added = functional.linear(hidden, self.added)  # (..., A)
        if self.has_rows_behind:
            return torch.cat([base[..., : self.first], added, base[..., self.first :]], -1)
        return torch.cat([base, added], -1)


Table = nn.Embedding | nn.Linear | SplitEmbedding | SplitHead


def split_output_rows(model: nn.Module) -> None:
    """Splits the input table, and the output table where it has added rows; tied tables stay tied. Twice is
    as good as once.

    The head of native Molmo2 has V rows and stays as it is. Call it before adapters, optimiser, DDP or
    `fully_shard`.

    Args:
        model: a MolmoPoint or native Molmo2, or a module that holds one, such as a reward model.

    Raises:
        CheckpointError: tables that do not have the rows the config names.
    """
    owner = _owner(model)
    embedding, head = _tables(owner)
    tied = tables_are_tied(owner)
    if isinstance(embedding, nn.Embedding):
        base, added, first = _parts(EMBEDDING, embedding.weight, owner)
        owner.set_input_embeddings(SplitEmbedding(base, added, first))
        if tied:
            owner.set_output_embeddings(SplitHead(base, added, first))
    _, head = _tables(owner)
    if isinstance(head, nn.Linear) and len(head.weight) > _added_rows(owner).start:
        owner.set_output_embeddings(SplitHead(*_parts(HEAD, head.weight, owner)))
    _note_tied_names(owner)


def join_output_rows(model: nn.Module) -> None:
    """Makes the tables whole again, tied if they were; a model whose tables are whole stays as it is."""
    owner = _owner(model)
    embedding, head = _tables(owner)
    tied = tables_are_tied(owner)
    if isinstance(embedding, SplitRows):
        weight = embedding.joined()
        rows, width = weight.shape
        with torch.device("meta"):
            whole = nn.Embedding(rows, width)
        whole.weight = weight
        owner.set_input_embeddings(whole.train(embedding.training))
    if isinstance(head, SplitRows):
        weight = _tables(owner)[0].weight if tied else head.joined()
        rows, width = weight.shape
        with torch.device("meta"):
            whole = nn.Linear(width, rows, bias=False)
        whole.weight = weight
        owner.set_output_embeddings(whole.train(head.training))
    _note_tied_names(owner)


def tables_are_tied(model: nn.Module) -> bool:
    """Whether input and output share their rows."""
    embedding, head = _tables(_owner(model))
    if isinstance(embedding, SplitRows) and isinstance(head, SplitRows):
        return embedding.base is head.base
    return embedding.weight is head.weight


def _added_rows(owner: PreTrainedModel) -> range:
    """Rows of the tables that are not those of the text model."""
    config: Any = owner.config
    if hasattr(config, "new_rows"):  # of a graft
        return config.new_rows
    text = config.get_text_config()
    return range(text.vocab_size, text.vocab_size + text.additional_vocab_size)


def _parts(name: str, weight: Tensor, owner: PreTrainedModel) -> tuple[nn.Parameter, nn.Parameter, int]:
    """Copies (V, H) and (A, H) of a table (V + A, H), and the first of the added rows."""
    rows = _added_rows(owner)
    wanted = max(rows.stop, owner.config.get_text_config().vocab_size)
    if len(weight) != wanted:
        raise CheckpointError(
            f"expected {name} with {wanted - len(rows)} + {len(rows)} rows, got {len(weight)}; load the model with "
            "the config it was saved with"
        )
    whole = weight.detach()
    base = torch.cat([whole[: rows.start], whole[rows.stop :]])
    added = whole[rows.start : rows.stop].clone()
    trains = weight.requires_grad
    base_rows = nn.Parameter(base, requires_grad=trains)
    return base_rows, nn.Parameter(added, requires_grad=trains), rows.start


def _note_tied_names(owner: PreTrainedModel) -> None:
    """Lets the model look up again what its tied parameters are called: it ties by name when it prepares
    sharding.
    """
    owner.all_tied_weights_keys = owner.get_expanded_tied_weights_keys(all_submodels=True)


def _owner(model: nn.Module) -> PreTrainedModel:
    """The model with both tables, inside whatever is wrapped around it."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.get_output_embeddings() is not None:
            return module
    raise CheckpointError(
        f"expected a model with a vocabulary, got {type(model).__name__}; pass a MolmoPoint or Molmo2 model"
    )


def _tables(owner: PreTrainedModel) -> tuple[Table, Table]:
    """The input and the output table."""
    return cast(Table, owner.get_input_embeddings()), cast(Table, owner.get_output_embeddings())
