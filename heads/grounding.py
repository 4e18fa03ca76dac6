"""The three pointing heads together, and what a row keeps from its prompt for later steps.

Letters: B rows, Q queries per row, P image tokens per row (padded), T image tokens of the call, K slots per
image token, N ViT patches of the call, H text width, F width of the tapped ViT features, E pointing width, L
location cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from molmopoint.heads.location import LocationHead
from molmopoint.heads.norm import RMSNorm
from molmopoint.heads.patch import PatchHead
from molmopoint.heads.subpatch import SubpatchHead


@dataclass(frozen=True)
class GroundingState:
    """All a row needs to point, made once from its prompt. Features are shared by the rows and held once.

    Attributes:
        patch_keys: (B, P, E) rotated keys in compute dtype.
        patch_key_mask: (B, P) True where an image token may be chosen.
        rotary_positions: (B, P) position of each image token among the indexable ones.
        example_of_patch: (B, P) which packed example the image token belongs to, -1 for padding.
        table_rows: (B, P) row of `image_features` and `pooling` that describes the image token.
        image_features: (T, H) connector output per image token.
        pooling: (T, K) rows of `vit_features`, -1 for an empty slot.
        vit_features: (N, F) tapped ViT features.
        num_patches: (B,) image tokens of each row.
        num_slots: (B,) pooling columns of each row's pictures or clip.
        selected_patch: (B,) the patch selected last, -1 at the start and after no-more-points.
        selected_slots: (B, K) its pooling entries; all -1 without one. Follows from `selected_patch`, see
            `after`.
    """

    patch_keys: Tensor
    patch_key_mask: Tensor
    rotary_positions: Tensor
    example_of_patch: Tensor
    table_rows: Tensor
    image_features: Tensor
    pooling: Tensor
    vit_features: Tensor
    num_patches: Tensor
    num_slots: Tensor
    selected_patch: Tensor
    selected_slots: Tensor

    def after(self, patch_selections: Tensor) -> GroundingState:
        """The state once the patch selections (B,) were fed; rows that fed none repeat their
        `selected_patch`.
        """
        rows = torch.arange(len(patch_selections), device=patch_selections.device)
        return replace(
            self, selected_patch=patch_selections, selected_slots=self.slots_of(rows, patch_selections)
        )

    def positions_of(self, rows: Tensor, patches: Tensor) -> Tensor:
        """Rotary positions (N,) of image tokens given as batch rows (N,) and patches (N,); 0 for negative
        patches.
        """
        if not self.rotary_positions.shape[1]:
            return torch.zeros_like(patches)
        return self.rotary_positions[rows, patches.clamp(min=0)] * (patches >= 0)

    def slots_of(self, rows: Tensor, patches: Tensor) -> Tensor:
        """Pooling entries (N, K) of image tokens given as batch rows (N,) and patches (N,); -1 patches have
        none.
        """
        if not len(self.pooling):
            return patches.new_full((len(patches), self.pooling.shape[1]), -1)
        table = self.table_rows[rows, patches.clamp(min=0)]
        return torch.where((patches >= 0).unsqueeze(-1), self.pooling[table], -1)

    def vit_features_of(self, slots: Tensor) -> Tensor:
        """ViT features (..., F) of pooling entries (...); empty slots are zero vectors."""
        if not len(self.vit_features):
            return self.vit_features.new_zeros((*slots.shape, self.vit_features.shape[1]))
        return functional.embedding(slots.clamp(min=0), self.vit_features) * (slots >= 0).unsqueeze(-1)

    def image_features_of(self, rows: Tensor, patches: Tensor) -> Tensor:
        """Connector outputs (N, H) of image tokens given as batch rows (N,) and patches (N,); zero for
        negative patches.
        """
        if not len(self.image_features):
            return self.image_features.new_zeros((len(patches), self.image_features.shape[1]))
        features = self.image_features[self.table_rows[rows, patches.clamp(min=0)]]
        return features * (patches >= 0).unsqueeze(-1)

    def add_chosen(
        self,
        embeddings: Tensor,
        selections: Tensor,
        is_patch: Tensor,
        is_subpatch: Tensor,
        last_patches: Tensor,
        build_vit_embedding: nn.Module,
    ) -> Tensor:
        """Embeddings (B, S, H) with the features of what grounding tokens chose added to theirs.

        Args:
            embeddings: (B, S, H) of plain ids.
            selections: (B, S).
            is_patch: (B, S) True at tokens that chose a patch.
            is_subpatch: (B, S) True at tokens that chose a slot of the patch before.
            last_patches: (B, S) the patch that was chosen last.
            build_vit_embedding: from ViT features to H.
        """
        rows, columns = is_patch.nonzero(as_tuple=True)
        chosen_patches = self.image_features_of(rows, selections[rows, columns])  # (M, H)
        embeddings = embeddings.index_put((rows, columns), chosen_patches.to(embeddings), accumulate=True)

        rows, columns = is_subpatch.nonzero(as_tuple=True)
        slots = self.slots_of(rows, last_patches[rows, columns])  # (M, K)
        chosen_slots = slots.gather(1, selections[rows, columns].unsqueeze(1)).squeeze(1)  # (M,)
        chosen_subpatches = build_vit_embedding(self.vit_features_of(chosen_slots))  # (M, H)
        return embeddings.index_put((rows, columns), chosen_subpatches.to(embeddings), accumulate=True)


class Stages(NamedTuple):
    """From what some row of a batch chooses next; the logits of the other stages need not be computed.

    Attributes:
        words: words and patches, which belong to the same step.
        slots: slots of the patch that was selected last.
        locations: cells of the ViT patch that was selected last.
    """

    words: bool = True
    slots: bool = True
    locations: bool = True


ALL_STAGES = Stages()


class SelectionLogits(NamedTuple):
    """Unmasked float32 scores of one decode step: patches (B, P + 1), slots (B, K), locations (B, L); None
    where not needed.
    """

    patch: Tensor | None
    subpatch: Tensor | None
    location: Tensor | None


class GroundingHeads(nn.Module):
    """Norm, patch, subpatch and location heads.

    Args:
        hidden_size: H.
        vit_feature_dim: F.
        embed_dim: E.
        num_locations: L; 0 for models whose points are (patch, subpatch) pairs.
        rotary_theta: base of the rotary angles of the patch head; None for no rotation.
        norm_eps: of the norm in front of all heads.
    """

    def __init__(
        self,
        hidden_size: int,
        vit_feature_dim: int,
        embed_dim: int,
        num_locations: int,
        rotary_theta: float | None,
        norm_eps: float,
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(hidden_size, norm_eps)
        self.patch = PatchHead(hidden_size, embed_dim, rotary_theta)
        self.subpatch = SubpatchHead(hidden_size, vit_feature_dim, embed_dim)
        self.location = LocationHead(hidden_size, num_locations) if num_locations else None

    def step(
        self, hidden: Tensor, state: GroundingState, *, normed_location: bool, stages: Stages = ALL_STAGES
    ) -> SelectionLogits:
        """Scores of every selection a row could make next.

        Args:
            hidden: (B, H) hidden state of the last token, before the final norm.
            state: of the same rows, `selected_patch` up to date.
            normed_location: whether the location head reads the normed state, as in training.
            stages: what is needed.

        Returns:
            Unmasked and, for patches, unscaled scores.
        """
        normed = self.norm(hidden)
        patch = subpatch = location = None
        if stages.words:
            positions = state.positions_of(
                torch.arange(len(hidden), device=hidden.device), state.selected_patch
            )
            patch = self.patch(normed.unsqueeze(1), positions.unsqueeze(1), state.patch_keys).squeeze(1)
        if stages.slots:
            subpatch = self.subpatch(normed, state.vit_features_of(state.selected_slots))
        if stages.locations and self.location is not None:
            location = self.location(normed if normed_location else hidden)
        return SelectionLogits(patch, subpatch, location)
