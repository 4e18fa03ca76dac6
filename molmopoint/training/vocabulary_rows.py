"""The vocabulary tables in two parts: the rows of the text model, and the rows added for pictures and points.

Both parts learn at their own rate and the first may stay frozen, so each is a parameter of its own while a
model trains. Outside of training the tables are whole again: `split_output_rows` and `join_output_rows` go
there and back without changing a value. A model whose tables are tied says itself which parameters that are
now (`get_expanded_tied_weights_keys`).

Letters: V rows of the text model, A added rows, H text width, S tokens.
"""

from __future__ import annotations

from typing import cast

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
        added: (A, H) rows behind them.
    """

    def __init__(self, base: nn.Parameter, added: nn.Parameter) -> None:
        super().__init__()
        self.base = base
        self.added = added

    @property
    def weight(self) -> Tensor:
        """The whole table (V + A, H), a copy."""
        return torch.cat([self.base, self.added])

    def joined(self) -> nn.Parameter:
        """The whole table as one parameter, which trains if a part does."""
        trains = self.base.requires_grad or self.added.requires_grad
        return nn.Parameter(self.weight.detach(), requires_grad=trains)


class SplitEmbedding(SplitRows):
    """The input table: ids to rows."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Rows (..., H) of ids (...)."""
        first_added = len(self.base)
        is_added = input_ids >= first_added
        base = functional.embedding(input_ids.masked_fill(is_added, 0), self.base)
        added = functional.embedding((input_ids - first_added).clamp(min=0), self.added)
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
        base, added = _parts(EMBEDDING, embedding.weight, owner)
        owner.set_input_embeddings(SplitEmbedding(base, added))
        if tied:
            owner.set_output_embeddings(SplitHead(base, added))
    _, head = _tables(owner)
    vocabulary = owner.config.get_text_config().vocab_size
    if isinstance(head, nn.Linear) and len(head.weight) != vocabulary:
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


def _parts(name: str, weight: Tensor, owner: PreTrainedModel) -> tuple[nn.Parameter, nn.Parameter]:
    """Copies (V, H) and (A, H) of a table (V + A, H)."""
    text = owner.config.get_text_config()
    base, added = text.vocab_size, text.additional_vocab_size
    if len(weight) != base + added:
        raise CheckpointError(
            f"expected {name} with {base} + {added} rows, got {len(weight)}; load the model with the config "
            "it was saved with"
        )
    first, second = weight.detach().split([base, added])
    trains = weight.requires_grad
    return nn.Parameter(first.clone(), requires_grad=trains), nn.Parameter(
        second.clone(), requires_grad=trains
    )


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
