"""A policy that sees: the embedded model, asked to answer in words, in the form that TRL trains.

TRL hands a policy its pictures as one tensor per batch and nothing that says where they go. So the vision side
of `nano`, which stays as it is, looks first: what it makes of a picture travels as `pixel_values`, once per
picture, and the policy is the text model with the vocabulary.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from molmopoint.checkpoints import registry
from molmopoint.connector import VisualFeatures
from molmopoint.modeling import MolmoPointForConditionalGeneration, MolmoPointOutput
from molmopoint.processing import MolmoPointProcessor
from molmopoint.reward.model import seen_before

_TILES = 1
"""Tiles beside the overview: the pictures are no larger than one."""


_ENDED = ("{%- if message['role'] == 'user' or not loop.last -%}", "{%- if true -%}")
"""The last turn of the assistant ends too, so that the policy learns to stop."""


class SeeingPolicy(MolmoPointForConditionalGeneration):
    """`nano` that answers in words; `pixel_values` (B, P, H) are the features of a picture per row."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> MolmoPointOutput:
        """As that of the network, for rows with one picture each."""
        if pixel_values is not None:  # cached steps have none
            kwargs["visual_features"] = self._seen(pixel_values)
        return super().forward(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            mm_token_type_ids=mm_token_type_ids,
            **kwargs,
        )

    def _seen(self, pixel_values: Tensor) -> VisualFeatures:
        """Features of the pictures of a batch, as the network takes them."""
        return seen_before(pixel_values.flatten(0, 1), self.config.vit_feature_dim)

    @property
    def base_model(self) -> Any:
        """What TRL calls for the states that its own output layer scores."""
        return self._states

    def get_output_embeddings(self) -> Any:
        """The layer that turns these states into words."""
        return self.lm_head

    def _states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        **_unused: Any,
    ) -> BaseModelOutput:
        visual = None if pixel_values is None else self._seen(pixel_values)
        states = self.hidden_states(
            input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=mm_token_type_ids,
            visual_features=visual,
        )
        return BaseModelOutput(last_hidden_state=states)  # pyright: ignore[reportArgumentType] (annotated for legacy types)


class SeeingProcessor(MolmoPointProcessor):
    """The processor of `nano` that also looks: its `pixel_values` are features (pictures, P, H)."""

    def look_with(self, network: MolmoPointForConditionalGeneration) -> SeeingProcessor:
        """Names the network whose vision side looks; returns itself."""
        self._network = network
        self._seen: dict[bytes, Tensor] = {}
        return self

    def __call__(self, images: Any = None, text: Any = None, **kwargs: Any) -> Any:
        """Ids and token types as they are, and what is seen in the pictures, one to a row.

        Text without pictures is the rest of a row, an answer: nothing is put before it.
        """
        if images is None:
            return self.tokenizer(text, **kwargs)
        made = super().__call__(images=images, text=text, max_crops=_TILES, **kwargs)
        pictures = [
            picture for of_row in images for picture in (of_row if isinstance(of_row, list) else [of_row])
        ]
        made["pixel_values"] = torch.stack([self._features(picture) for picture in pictures])
        for name in ("image_token_pooling", "image_grids", "image_num_crops"):
            made.pop(name, None)
        return made

    @torch.no_grad()
    def _features(self, picture: Any) -> Tensor:
        """(P, H) of one picture, which is looked at once."""
        name = hashlib.sha256(picture.tobytes() + repr(picture.size).encode()).digest()
        if name not in self._seen:
            pixels = self.image_processor([picture], max_crops=_TILES, return_tensors="pt")
            seen = self._network.model.get_visual_features(
                pixels["pixel_values"], pixels["image_token_pooling"]
            )
            self._seen[name] = seen.image_features
        return self._seen[name]


def never_spoken(processor: SeeingProcessor) -> list[int]:
    """Ids that stand for pictures, points and turns; an answer with one of them would not be words."""
    added = processor.tokenizer.get_added_vocab()
    last = max(number for name, number in added.items() if not name.startswith("<POINT_"))
    return sorted(
        number for number in added.values() if number <= last and number != processor.tokenizer.eos_token_id
    )


def seeing_policy() -> tuple[SeeingPolicy, SeeingProcessor]:
    """`nano` whose text model and vocabulary train, and its processor."""
    source = str(registry.resolve("nano"))
    network = MolmoPointForConditionalGeneration.from_pretrained(source, dtype=torch.float32).eval()
    policy = SeeingPolicy.from_pretrained(source, dtype=torch.float32)
    policy.requires_grad_(False)
    policy.model.language_model.requires_grad_(True)
    policy.lm_head.requires_grad_(True)
    processor = SeeingProcessor.from_pretrained(source, padding_side="left").look_with(network)
    processor.chat_template = str(processor.chat_template).replace(*_ENDED)
    return policy, processor
