"""What a reward model was trained with, and must be read with: the layout of its rows, and the shape of its
head.

Two files say it: ours, `reward_config.json`, and that of the authors' models, `reward_model_config.json`,
which leaves out the scale and the layout.

The token between two answers: its place in the tokenizer and in the input table.

In the tokenizer of a MolmoPoint the ids behind the table stand for places, so one of its fillers, tokens
nobody writes, whose rows are unused, takes the name of the separator. In that of a Molmo2 the token goes
behind all others, as in the authors' models; the input table grows if it must. The output table never
changes: a separator is never predicted.

Letters: V rows of the vocabulary, H text width.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AddedToken

from molmopoint.errors import CheckpointError
from molmopoint.files import write_text_whole
from molmopoint.heads.value import Activation
from molmopoint.tokens import point_text

SEPARATOR = "<|resp_sep|>"
"""Token between two answers."""

CONFIG_FILE, AUTHORS_CONFIG_FILE = "reward_config.json", "reward_model_config.json"
FORMAT_VERSION = 2
_EARLIER: dict[int, dict[str, Any]] = {1: {"opening": "always", "begin": "words"}}
"""Settings that files of earlier versions do not have, and what they were then."""

Layout = Literal["assistant", "user"]
Opening = Literal["visual", "always"]
Attention = Literal["causal", "block"]
Begin = Literal["separator", "words"]
Pooling = Literal["last", "first", "first_last_concat", "first_last_add", "first_last_sub", "response_mean"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "layout": get_args(Layout),
    "opening": get_args(Opening),
    "attention": get_args(Attention),
    "begin": get_args(Begin),
    "pooling": get_args(Pooling),
    "activation": get_args(Activation),
}


@dataclass(frozen=True)
class RewardSettings:
    """How answers are laid out and scored.

    Attributes:
        layout: "assistant" puts the answers into the assistant's turn, as the published training does; "user"
            behind the prompt in the user's turn, as the published example of inference does.
        opening: which rows of layout "assistant" begin with the first token of the tokenizer: "visual" those
            with pictures or a clip, as in the published training, "always" all of them. Rows of layout "user"
            always do, as in the published example.
        attention: "causal" lets every answer see those before it, as published; "block" none, so that each is
            judged alone, behind a prompt that is read once.
        pooling: which states of an answer make its vector: the last one, the first one, both side by side,
            their sum, the last minus the first, or the mean of all. The last one of all answers but the last
            is the blank line before the separator.
        begin: where an answer behind another one begins, for poolings that read more than its end: at the
            blank line behind the "separator", as published, or at its "words".
        head_width: hidden layer of the head; None for a plain linear one.
        activation: of the head.
        scale: divide the scores by the root of the width of the text model.

    Raises:
        CheckpointError: a value out of range.
    """

    layout: Layout = "assistant"
    opening: Opening = "visual"
    attention: Attention = "causal"
    pooling: Pooling = "last"
    begin: Begin = "separator"
    head_width: int | None = 1024
    activation: Activation = "silu"
    scale: bool = True

    def __post_init__(self) -> None:
        for name, options in _CHOICES.items():
            if getattr(self, name) not in options:
                raise CheckpointError(
                    f"expected {name} {' or '.join(options)}, got {getattr(self, name)!r}; correct the "
                    "reward settings"
                )
        if self.head_width is not None and (type(self.head_width) is not int or self.head_width < 1):
            raise CheckpointError(
                f"expected a head_width of 1 or more, or None, got {self.head_width!r}; correct the reward "
                "settings"
            )
        if type(self.scale) is not bool:
            raise CheckpointError(
                f"expected scale True or False, got {self.scale!r}; correct the reward settings"
            )

    @property
    def vectors_per_answer(self) -> int:
        """Width of the head's input in widths of the text model."""
        return 2 if self.pooling == "first_last_concat" else 1


@dataclass(frozen=True)
class StoredReward:
    """What `reward_config.json` says.

    Attributes:
        settings: of the model.
        separator_id: id of the separator token.
        base: name, hub id or folder of the model below the adapters; None where the weights lie in the same
            folder.
        base_revision: commit of the base on the hub.
    """

    settings: RewardSettings
    separator_id: int
    base: str | None = None
    base_revision: str | None = None

    def write(self, folder: str | Path) -> None:
        """Writes the file."""
        document = {
            "format_version": FORMAT_VERSION,
            "base": self.base,
            "base_revision": self.base_revision,
            "separator": SEPARATOR,
            "separator_id": self.separator_id,
            **asdict(self.settings),
        }
        write_text_whole(Path(folder) / CONFIG_FILE, json.dumps(document, indent=2) + "\n")

    @classmethod
    def read(cls, file: Path) -> StoredReward:
        """Reads the file.

        Raises:
            CheckpointError: it is no such file, or one of another version.
        """
        document = read_object(file)
        version = document.get("format_version")
        if type(version) is not int or version not in (*_EARLIER, FORMAT_VERSION):
            raise CheckpointError(
                f"expected format_version {FORMAT_VERSION} in {file}, got {version!r}; use a matching "
                "molmopoint"
            )
        document = {**_EARLIER.get(version, {}), **document}
        names = [field.name for field in fields(RewardSettings)]
        if missing := [name for name in (*names, "separator_id") if name not in document]:
            raise CheckpointError(
                f"expected {', '.join(missing)} in {file}, got a file without; save the model again"
            )
        settings = RewardSettings(**{name: document[name] for name in names})
        number, base, revision = document["separator_id"], document.get("base"), document.get("base_revision")
        if type(number) is not int or number < 0:
            raise CheckpointError(
                f"expected a number as separator_id in {file}, got {number!r}; save the model again"
            )
        for name, value in (("base", base), ("base_revision", revision)):
            if value is not None and not isinstance(value, str):
                raise CheckpointError(
                    f"expected a name or None as {name} in {file}, got {value!r}; save the model again"
                )
        return cls(settings, number, base, revision)


def authors_settings(document: Mapping[str, Any]) -> RewardSettings:
    """Settings from the fields of the authors' file. It names neither scale nor layout: both are those of
    their training.

    Raises:
        CheckpointError: an unknown kind of head, or a value out of range.
    """
    kind = document.get("value_head_type", "linear")
    if kind not in ("linear", "mlp"):
        raise CheckpointError(f"expected value_head_type linear or mlp, got {kind!r}; this head is not known")
    width = document.get("value_head_hidden_dim") or document.get("value_head_input_dim")
    if kind == "mlp" and width is None:
        raise CheckpointError(
            f"expected value_head_hidden_dim for an mlp head in {AUTHORS_CONFIG_FILE}, got none; add it"
        )
    activation = str(document.get("value_head_activation") or "selu").lower()
    pooling = document.get("resp_repr_mode", "last")
    # Both are checked by the settings.
    return RewardSettings(
        pooling=cast(Pooling, pooling),
        head_width=width if kind == "mlp" else None,
        activation=cast(Activation, activation),
    )


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: there is none.
    """
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"expected a JSON object in {file}, got: {error}; copy the file again"
        ) from error
    if not isinstance(document, dict):
        raise CheckpointError(
            f"expected a JSON object in {file}, got {type(document).__name__}; copy the file again"
        )
    return document


SeparatorRow = Literal["mean", "base"]
"""Where the row of a new separator comes from."""

_FILLER = re.compile(r"<EXTRA_TOKENS_POINT_\d+>|\|<UNUSED_\d+>\||\|<EXTRA_TOKENS_\d+>\|")


def add_separator(tokenizer: Any) -> int:
    """Gives a tokenizer the separator, if it has none, and returns its id. The same tokenizer always gives
    the same id.

    Raises:
        CheckpointError: the tokenizer is not one of the tokenizers library.
    """
    known = tokenizer.get_vocab()
    if SEPARATOR in known:
        return known[SEPARATOR]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise CheckpointError(
            f"expected a fast tokenizer, got {type(tokenizer).__name__}; load the one of the model"
        )
    fillers = [
        (number, name) for name, number in tokenizer.get_added_vocab().items() if _FILLER.fullmatch(name)
    ]
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
    # Models with ids of places have them right behind the vocabulary, so their table cannot grow.
    first_place: int | None = getattr(model.config, "extended_start", None)
    if missing <= 0 and (first_place is None or separator_id < first_place):
        return
    if first_place is not None:
        raise CheckpointError(
            f"expected a tokenizer with a filler among the {first_place} tokens that have a row, got "
            f"{SEPARATOR} as token "
            f"{separator_id}, where ids of places begin; use the tokenizer of a released model, or one with "
            "more additional tokens"
        )
    grown = nn.Embedding(
        separator_id + 1, table.embedding_dim, device=table.weight.device, dtype=table.weight.dtype
    )
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
    """Row (H,) that the input table has for the separator; zeros where it has none, as the authors fill their
    table up.
    """
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
        description["model"]["vocab"] = {
            SEPARATOR if number == token_id else name: number for name, number in vocabulary.items()
        }
    return Tokenizer.from_str(json.dumps(description))
