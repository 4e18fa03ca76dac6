"""A network that reads a prompt and all its answers in one pass and gives every answer a score.

    backbone -> states after the final norm -> the states of each answer -> value head -> scores

Letters: B rows, S tokens, N answers per row (padded), H text width, P image tokens of the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Molmo2ForConditionalGeneration
from transformers.utils.generic import ModelOutput

from molmopoint.adapters import load_adapters, merge_stored_adapters, put_adapters
from molmopoint.checkpoints import registry
from molmopoint.checkpoints.locating import locate
from molmopoint.checkpoints.placing import DeviceMap, place
from molmopoint.connector import VisualFeatures
from molmopoint.errors import CheckpointError
from molmopoint.heads import ValueHead
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.molmo2 import hidden_states, honour_masks
from molmopoint.processing import MolmoPointProcessor
from molmopoint.reward.files import find_reward, load_backbone, load_processor, write_reward
from molmopoint.reward.settings import (
    Pooling,
    RewardSettings,
    SeparatorRow,
    StoredReward,
    add_separator,
    fit_table,
    mean_row,
    stored_row,
)


def pool_answers(hidden: Tensor, places: Tensor, starts: Tensor | None, pooling: Pooling) -> Tensor:
    """Vectors (B, N, H or 2 H) of the answers; those of answers that are not there are any.

    Args:
        hidden: (B, S, H).
        places: (B, N) token at which each answer is read, the last one of it and the glue behind it.
        starts: (B, N) token at which each answer begins; None will do for "last".
        pooling: of `RewardSettings`.
    """
    if pooling == "last" or starts is None:
        return _at(hidden, places)
    if pooling == "response_mean":
        token = torch.arange(hidden.shape[1], device=hidden.device)
        inside = (token >= starts.unsqueeze(-1)) & (token <= places.unsqueeze(-1))
        weights = inside.float() / inside.sum(-1, keepdim=True).clamp(min=1)
        return weights @ hidden.float()
    first, last = _at(hidden, starts), _at(hidden, places)
    if pooling == "first":
        return first
    if pooling == "first_last_concat":
        return torch.cat([first, last], -1)
    return last + first if pooling == "first_last_add" else last - first


def text_losses_of(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    input_ids: Tensor,
    position_ids: Tensor,
    first: Tensor,
    last: Tensor,
) -> Tensor:
    """(B,) float32 mean cross-entropy of the tokens from `first` to `last` (B, 1) that follow the one before
    them in the row.

    In block attention only the first answer stands right behind the prompt; the first tokens of the others
    are not predicted.

    Args:
        head: output table, from states to logits.
        hidden: (B, S, H).
        input_ids: (B, S).
        position_ids: (B, S).
        first: (B, 1) first token of the words of an answer.
        last: (B, 1) its last token.
    """
    ids, positions = input_ids.to(hidden.device), position_ids.to(hidden.device)
    token = torch.arange(1, ids.shape[1], device=hidden.device)
    wanted = (token >= first) & (token <= last) & (positions[:, 1:] == positions[:, :-1] + 1)
    logits = head(hidden[:, :-1][wanted]).float()
    losses = functional.cross_entropy(logits, ids[:, 1:][wanted], reduction="none")
    row = torch.arange(len(ids), device=losses.device).unsqueeze(1).expand_as(wanted)[wanted]
    return torch.zeros(len(ids), device=losses.device).index_add(0, row, losses) / wanted.sum(1).clamp(min=1)


def seen_before(image_features: Tensor, width: int) -> VisualFeatures:
    """Features (P, H) of image tokens as the backbone takes them. ViT features, which only selections need,
    are left out.

    Args:
        image_features: (P, H).
        width: of the ViT features.
    """
    table = torch.full((len(image_features), 1), -1, dtype=torch.long, device=image_features.device)
    return VisualFeatures(
        image_features.new_zeros(1, width), image_features, table, len(image_features), (1, 0)
    )


def check_places(
    input_ids: Tensor, positions: Tensor, others: Tensor | None, *, needed: bool, name: str
) -> None:
    """Refuses places that do not fit the rows.

    Args:
        input_ids: (B, S).
        positions: (B, N) at which answers are read.
        others: (B, N) other places of the same answers.
        needed: whether there must be others.
        name: of the others, for the message.

    Raises:
        ValueError: positions of another shape or outside the row, or others missing or of another shape.
    """
    if positions.ndim != 2 or len(positions) != len(input_ids):
        raise ValueError(
            f"expected response_positions (rows, answers) for {len(input_ids)} rows, got "
            f"{tuple(positions.shape)}"
        )
    if others is None and needed:
        reason = "the words of an answer" if name == "response_words" else "this pooling"
        raise ValueError(f"expected {name} for {reason}, got none; use those of `collate`")
    if others is not None and others.shape != positions.shape:
        raise ValueError(f"expected {name} of shape {tuple(positions.shape)}, got {tuple(others.shape)}")
    if positions.device.type == "cpu" and positions.numel():  # on a GPU the look would wait for it
        low, high, length = int(positions.min()), int(positions.max()), input_ids.shape[1]
        if low < -1 or high >= length:
            raise ValueError(
                f"expected response_positions in -1..{length - 1}, got {low}..{high}; pass those of the "
                "same rows"
            )


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    """States (B, N, H) at places (B, N); those of absent answers are any."""
    return hidden.gather(1, places.clamp(min=0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Layers of the text model that get adapters in the published recipe, under their native names."""

Backbone = MolmoPointForConditionalGeneration | Molmo2ForConditionalGeneration


@dataclass
class RewardOutput(ModelOutput):
    """What a pass returns.

    Attributes:
        scores: (B, N) float32, higher is better; minus infinity where a row has no answer. They compare
            answers of one list, and mean nothing across lists.
        text_losses: (B,) float32 mean cross-entropy of the tokens of one answer per row; None unless asked
            for.
    """

    scores: Tensor | None = None
    text_losses: Tensor | None = None


class RewardModel(nn.Module):
    """A backbone with a value head.

    The row of the separator in the input table is a parameter of its own, `separator`: so it can be trained
    alone and stored without the table.

    Args:
        backbone: a MolmoPoint, or transformers' Molmo2.
        settings: how rows are laid out and answers scored.
        separator_id: of the tokenizer, see `molmopoint.reward.settings`.
        separator: its row at first: "mean" of the vocabulary, or "base", the row that the backbone has for
            it, zeros if it has none.

    Raises:
        CheckpointError: the backbone is of another family, or has no row for the separator.
    """

    def __init__(
        self,
        backbone: Backbone,
        settings: RewardSettings,
        separator_id: int,
        *,
        separator: SeparatorRow = "mean",
    ) -> None:
        super().__init__()
        if not isinstance(backbone, (MolmoPointForConditionalGeneration, Molmo2ForConditionalGeneration)):
            raise CheckpointError(
                f"expected a MolmoPoint or a Molmo2 as backbone, got {type(backbone).__name__}; load one of "
                "them"
            )
        row = mean_row(backbone) if separator == "mean" else stored_row(backbone, separator_id)
        fit_table(backbone, separator_id)
        if isinstance(backbone, Molmo2ForConditionalGeneration):
            honour_masks(backbone)
        width = backbone.model.language_model.config.hidden_size
        self.backbone = backbone
        self.settings = settings
        self.separator_id = separator_id
        self.base: str | None = None
        self.base_revision: str | None = None
        scale = width**-0.5 if settings.scale else 1.0
        self.value = ValueHead(
            width * settings.vectors_per_answer, settings.head_width, settings.activation, scale
        ).to(backbone.device)
        self.separator = nn.Parameter(row.float(), requires_grad=False)

    def forward(
        self,
        input_ids: Tensor,
        response_positions: Tensor,
        response_starts: Tensor | None = None,
        response_words: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        example_ids: Tensor | None = None,
        branch_ids: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        selection_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_token_pooling: Tensor | None = None,
        image_features: Tensor | None = None,
        spoken: Tensor | None = None,
    ) -> RewardOutput:
        """Scores of all answers. `molmopoint.reward.rows.collate` makes the arguments.

        Args:
            input_ids: (B, S).
            response_positions: (B, N) int64 token at which each answer is read, -1 where there is none.
            response_starts: (B, N) token at which each answer begins; needed for every pooling but "last".
            response_words: (B, N) first token of the words of each answer; needed for `spoken`.
            attention_mask: (B, S) 0 at padding.
            position_ids: (B, S); they go on from the trunk in every branch. Counted from the mask if there
                are no branches.
            example_ids: (B, S) packed example, -1 for padding; one per row if not given.
            branch_ids: (B, S) branch of each token, -1 for the trunk.
            mm_token_type_ids: (B, S) 1 at vision tokens.
            selection_ids: (B, S) what grounding tokens of earlier answers select; a Molmo2 has none.
            pixel_values: (crops and frames, G, patch values) of all rows.
            image_token_pooling: (image tokens of all rows, slots) numbered over the call, -1 for an empty
                slot.
            image_features: (image tokens of all rows, H) what the connector made of the pictures before,
                instead of pixels and table; of a MolmoPoint, and not in rows whose earlier answers point.
            spoken: (B,) int64 the answer of each row whose words are predicted, for `text_losses`; needs
                response_words.

        Raises:
            ValueError: positions of another shape, outside the row, or starts missing.
        """
        check_places(
            input_ids,
            response_positions,
            response_starts,
            needed=self.settings.pooling != "last",
            name="response_starts",
        )
        check_places(
            input_ids, response_positions, response_words, needed=spoken is not None, name="response_words"
        )
        if position_ids is None:
            if branch_ids is not None:
                raise ValueError(
                    "expected position_ids together with branch_ids, got none; use those of `collate`"
                )
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            position_ids = mask.long().cumsum(1).sub(1).clamp(min=0)
        types = torch.zeros_like(input_ids) if mm_token_type_ids is None else mm_token_type_ids
        rows = {
            "input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids, "example_ids": example_ids,
            "branch_ids": branch_ids, "mm_token_type_ids": types, "pixel_values": pixel_values, "image_token_pooling": image_token_pooling,
        }  # fmt: skip
        hidden = self._states(rows, selection_ids, image_features)
        places = response_positions.to(hidden.device)
        starts = None if response_starts is None else response_starts.to(hidden.device)
        scores = self.value(
            pool_answers(hidden, places, starts, self.settings.pooling).to(self.separator.device)
        )
        scores = scores.masked_fill(places.to(scores.device) < 0, -torch.inf)
        if spoken is None or response_words is None:
            return RewardOutput(scores=scores)
        answer = spoken.to(hidden.device).unsqueeze(1)
        head = self.backbone.lm_head
        first, last = response_words.to(hidden.device).gather(1, answer), places.gather(1, answer)
        text_losses = text_losses_of(head, hidden, input_ids, position_ids, first, last)
        return RewardOutput(scores=scores, text_losses=text_losses)

    def add_adapters(
        self, *, rank: int = 128, alpha: float = 16, dropout: float = 0.05, targets: tuple[str, ...] = ADAPTED
    ) -> None:
        """Puts adapters on the text model and freezes all else but the head; the defaults are those of the
        published recipe.

        Raises:
            RecipeError: peft is missing, or there are no layers of such names.
        """
        self.backbone.requires_grad_(False)
        put_adapters(self.backbone, targets, rank=rank, alpha=alpha, dropout=dropout)

    @classmethod
    def from_base(
        cls,
        name_or_path: str | Path,
        settings: RewardSettings | None = None,
        *,
        separator: SeparatorRow = "mean",
        device_map: DeviceMap = None,
        dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> tuple[RewardModel, MolmoPointProcessor]:
        """A new reward model on a model of the zoo, the hub or a folder, and its processor, which knows the
        separator.

        Args:
            name_or_path: of a MolmoPoint or a Molmo2.
            settings: of the reward model; those of the published one by default.
            separator: the row of the separator at first, as in the class.
            device_map: as in `molmopoint.load`.
            dtype: as in `molmopoint.load`.
            **kwargs: further arguments of `from_pretrained`.

        Raises:
            CheckpointError: there is no such model, or it is of another family.
        """
        source, revision = locate(name_or_path, kwargs.pop("revision", None))
        placement = place(device_map, dtype, revision=revision, **kwargs)
        backbone = load_backbone(source, placement)
        processor = load_processor(source, backbone, **placement.file_arguments)
        model = cls(
            backbone, settings or RewardSettings(), add_separator(processor.tokenizer), separator=separator
        )
        is_folder = Path(source).is_dir() and registry.find(str(name_or_path)) is None
        model.base, model.base_revision = (
            str(Path(source).resolve()) if is_folder else str(name_or_path),
            revision,
        )
        return model.eval(), processor

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        adapters: Literal["merge", "keep"] = "merge",
        device_map: DeviceMap = None,
        dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> tuple[RewardModel, MolmoPointProcessor]:
        """A stored reward model, ours or the authors', and its processor.

        Args:
            name_or_path: name of the zoo, hub id or folder.
            adapters: "merge" adds them to the weights; "keep" leaves them apart, so that they can be trained
                further (needs peft).
            device_map: as in `molmopoint.load`.
            dtype: as in `molmopoint.load`.
            **kwargs: further arguments of `from_pretrained`; `layout` and `attention` read it in another way
                than it was trained in, and `base` is the model below its adapters, instead of the one it
                names.

        Raises:
            CheckpointError: there is no such model, it is no reward model, or its files do not fit each
                other.
        """
        changes = {
            name: value for name in ("layout", "attention") if (value := kwargs.pop(name, None)) is not None
        }
        where = {
            name: kwargs[name]
            for name in ("cache_dir", "token", "local_files_only", "force_download")
            if name in kwargs
        }
        found = find_reward(name_or_path, kwargs.pop("revision", None), kwargs.pop("base", None), **where)
        placement = place(device_map, dtype, revision=found.base_revision, **kwargs)
        backbone = load_backbone(found.base, placement)
        processor = load_processor(found.processor_source, backbone, **where)
        separator_id = add_separator(processor.tokenizer)
        if found.separator_id not in (None, separator_id):
            raise CheckpointError(
                f"expected the separator as token {found.separator_id}, as {found.path} says, got "
                f"{separator_id}; "
                "use the base it was made from"
            )
        if found.has_adapters:
            (merge_stored_adapters if adapters == "merge" else load_adapters)(backbone, found.path)
        model = cls(backbone, replace(found.settings, **changes), separator_id, separator="base")
        model._take({"separator": model.separator.detach()} | found.tensors, found.path)
        model.base, model.base_revision = found.base_name, found.base_revision
        return model.eval(), processor

    def save_pretrained(
        self, folder: str | Path, processor: MolmoPointProcessor | None = None, *, merged: bool = False
    ) -> None:
        """Writes head, separator and adapters, a few megabytes beside the name of the base; or with `merged`
        a whole model.

        Args:
            folder: where to; files appear when all of them are written.
            processor: written too. Without one, a small folder uses that of its base.
            merged: add the adapters to the weights, in this object as well, and write all of them under their
                released names.

        Raises:
            CheckpointError: the base has no name, so that nobody could find it again.
        """
        if self.base is None and not merged:
            raise CheckpointError(
                "expected the name of the base, got a model that was made in memory; set `base`, or pass "
                "merged=True"
            )
        if merged:
            table = cast(nn.Embedding, self.backbone.get_input_embeddings())
            with torch.no_grad():
                table.weight[self.separator_id] = self.separator.to(table.weight)
        stored = StoredReward(
            self.settings,
            self.separator_id,
            None if merged else self.base,
            None if merged else self.base_revision,
        )
        tensors = {f"value.{name}": tensor for name, tensor in self.value.state_dict().items()} | {
            "separator": self.separator
        }
        write_reward(folder, stored, tensors, self.backbone, processor)

    @property
    def config(self) -> Any:
        """Config of the backbone."""
        return self.backbone.config

    @property
    def device(self) -> torch.device:
        """Where the head is."""
        return self.separator.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the backbone; the head is always float32."""
        return self.backbone.dtype

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Computes activations of the backbone a second time instead of keeping them."""
        self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """Keeps activations again."""
        self.backbone.gradient_checkpointing_disable()

    def _states(
        self, rows: dict[str, Any], selection_ids: Tensor | None, image_features: Tensor | None
    ) -> Tensor:
        """States (B, S, H) of the backbone after its final norm; the separator is embedded with the row of
        its own.
        """
        backbone = self.backbone
        token_rows = {self.separator_id: self.separator}
        if isinstance(backbone, MolmoPointForConditionalGeneration):
            seen = (
                None
                if image_features is None
                else seen_before(image_features, backbone.config.vit_feature_dim)
            )
            return backbone.hidden_states(
                **rows, selection_ids=selection_ids, visual_features=seen, token_rows=token_rows
            )
        if image_features is not None:
            raise ValueError(
                "expected pixel_values for a Molmo2, got image_features; only a MolmoPoint takes them"
            )
        return hidden_states(backbone, **rows, token_rows=token_rows)

    def _take(self, tensors: dict[str, Tensor], source: Path) -> None:
        """Copies stored tensors of head and separator.

        Raises:
            CheckpointError: others than these, or of other shapes.
        """
        own = {f"value.{name}": tensor for name, tensor in self.value.state_dict().items()} | {
            "separator": self.separator
        }
        shapes = ({name: tuple(tensor.shape) for name, tensor in each.items()} for each in (own, tensors))
        wanted, given = shapes
        if wanted != given:
            odd = sorted(
                name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)
            )[0]
            raise CheckpointError(
                f"expected {odd} of shape {wanted.get(odd)} in {source}, got {given.get(odd)}; use the "
                "config that was saved with this head"
            )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(tensors[name])
