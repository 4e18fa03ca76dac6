"""The network: text layers of vLLM, which split over GPUs, and everything else from this library, on each.

Letters: S tokens of a step, T image tokens, N ViT patches, H text width, V rows of the token tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from vllm.config import VllmConfig
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.molmo2 import Molmo2DecoderLayer, TextConfig
from vllm.model_executor.models.utils import _merge_multimodal_embeddings
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.platforms import current_platform

from molmopoint.config import MolmoPointConfig
from molmopoint.connector import Connector, VisionTower, tapped_features
from molmopoint.errors import CheckpointError
from molmopoint.heads import GroundingHeads
from molmopoint.key_map import from_released
from molmopoint.serving.vllm.patch_keys import PatchKeyCache
from molmopoint.serving.vllm.picture_input import PictureDummies, PictureInfo, PictureProcessor

FUSED = {
    ".self_attn.q_proj.": (".self_attn.qkv_proj.", "q"),
    ".self_attn.k_proj.": (".self_attn.qkv_proj.", "k"),
    ".self_attn.v_proj.": (".self_attn.qkv_proj.", "v"),
    ".mlp.up_proj.": (".mlp.up_gate_proj.", 0),
    ".mlp.gate_proj.": (".mlp.up_gate_proj.", 1),
}
"""Matrices that vLLM's layers hold side by side: their names, the joint name, and which part each one is."""


@dataclass(frozen=True, eq=False)
class SeenPicture:
    """What the network has seen of one picture.

    Attributes:
        image_features: (T, H) connector output.
        vit_features: (N, F) of the tapped layers.
        pooling: (T, K) rows of `vit_features`, -1 for an empty slot.
    """

    image_features: Tensor
    vit_features: Tensor
    pooling: Tensor


@MULTIMODAL_REGISTRY.register_processor(PictureProcessor, info=PictureInfo, dummy_inputs=PictureDummies)
class MolmoPointForVLLM(nn.Module, SupportsMultiModal):
    """A MolmoPoint as a model of vLLM.

    Attributes:
        seen: pictures of the last `embed_multimodal`, for whoever keeps them.
        sampled_hidden: (B, H) states before the final norm of the rows of the last `compute_logits`.
    """

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "up_gate_proj": ["up_proj", "gate_proj"],
    }

    @staticmethod
    def get_model_state_cls() -> type:
        """The hooks of this model in vLLM's model runner."""
        from molmopoint.serving.vllm.model_state import MolmoPointModelState

        return MolmoPointModelState

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """What stands for a picture in a chat."""
        return "<|image|>" if modality == "image" else None

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        if current_platform.is_cpu():
            from molmopoint.serving.vllm.cpu_attention import use_block_attention

            use_block_attention()
        config: MolmoPointConfig = vllm_config.model_config.hf_config
        text: Any = config.text_config
        self.config = config
        width = text.hidden_size
        self.embed_tokens = VocabParallelEmbedding(config.extended_start, width)
        layers = []
        for number in range(text.num_hidden_layers):
            layer = Molmo2DecoderLayer(
                _text_config(text),
                text.rope_parameters,
                vllm_config.cache_config,
                vllm_config.quant_config,
                prefix=f"{prefix}layers.{number}",
            )
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(width, eps=text.rms_norm_eps)
        self.lm_head = ParallelLMHead(config.extended_start, width)
        self.logits_processor = LogitsProcessor(config.extended_start)

        vision: Any = config.vision_config
        vision._attn_implementation = "sdpa"
        self.vision_tower = VisionTower(vision)
        self.connector = Connector(config)
        self.build_vit_embedding = nn.Linear(config.vit_feature_dim, width)
        rotates = config.token_prediction_rotary == "one_d"
        self.point_predictor = GroundingHeads(
            hidden_size=width,
            vit_feature_dim=config.vit_feature_dim,
            embed_dim=config.patch_embed_dim,
            num_locations=config.num_locations,
            rotary_theta=config.token_prediction_rotary_theta if rotates else None,
            norm_eps=text.rms_norm_eps,
        )
        self.patch_keys = PatchKeyCache(
            config.patch_embed_dim,
            vllm_config.model_config.dtype,
            f"{prefix}layers.{text.num_hidden_layers}.patch_keys",
        )
        self.seen: list[SeenPicture] = []
        self.sampled_hidden: Tensor | None = None

    def get_language_model(self) -> nn.Module:
        """The part that reads tokens."""
        return self

    def embed_multimodal(self, **pictures: Any) -> list[Tensor]:
        """Embeddings (tokens, H) of all vision tokens of each picture; what pointing needs is left in `seen`."""
        pixels = pictures.get("pixel_values")
        if pixels is None:
            return []
        crops = pictures["num_crops"].tolist()
        tokens = pictures["image_tokens"].split(pictures["num_image_tokens"].tolist())
        tables = pictures["pooling"].split(pictures["num_rows"].tolist())
        embeddings, self.seen = [], []
        for pixel, table, ids in zip(pixels.split(crops), tables, tokens, strict=True):
            layers = self.config.adapter_config.vision_feature_layer
            vit_features = tapped_features(self.vision_tower, pixel, layers)  # (N, F)
            image_features = self.connector(vit_features, table)  # (T, H)
            embedding = self.embed_plain(ids)
            is_image = (ids == self.config.image_patch_id) | (ids == self.config.image_non_indexable_patch_id)
            embedding[is_image] += image_features.to(embedding)
            embeddings.append(embedding)
            self.seen.append(SeenPicture(image_features, vit_features, table))
        return embeddings

    def embed_plain(self, ids: Tensor) -> Tensor:
        """Rows (S, H) of the input table, in which `<im_low>` shares that of `<im_patch>`."""
        config = self.config
        if config.share_low_res_embedding:
            ids = torch.where(ids == config.image_non_indexable_patch_id, config.image_patch_id, ids)
        return self.embed_tokens(ids)

    def embed_input_ids(
        self,
        input_ids: Tensor,
        multimodal_embeddings: Any = None,
        *,
        is_multimodal: Tensor | None = None,
    ) -> Tensor:
        """(S, H) of tokens; extended ids are embedded by the model state, which knows whose they are."""
        plain = torch.where(input_ids >= self.config.extended_start, 0, input_ids)
        embeddings = self.embed_plain(plain)
        if multimodal_embeddings is None or len(multimodal_embeddings) == 0:
            return embeddings
        assert is_multimodal is not None, "vLLM says where the embeddings belong"
        return _merge_multimodal_embeddings(
            inputs_embeds=embeddings,
            multimodal_embeddings=multimodal_embeddings,
            is_multimodal=is_multimodal,
        )

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        patch_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Hidden states (S, H) before the final norm, which is what the pointing heads read.

        Args:
            input_ids: (S,), where there are no embeddings.
            positions: (S,).
            intermediate_tensors: of pipeline stages, which there are not.
            inputs_embeds: (S, H).
            patch_positions: (S,) rotary position of each token as a key of the patch head.
            **kwargs: what vLLM hands to other models.
        """
        if inputs_embeds is None:
            assert input_ids is not None, "vLLM gives ids or embeddings"
            inputs_embeds = self.embed_input_ids(input_ids)
        hidden: Tensor = inputs_embeds
        residual: Any = None
        for layer in self.layers:
            hidden, residual = layer(positions, hidden, residual)
        hidden = hidden + residual
        if patch_positions is not None:
            heads = self.point_predictor
            self.patch_keys(heads.patch.keys(heads.norm(hidden), patch_positions[: len(hidden)]))
        return hidden

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        """(B, V) text logits of states (B, H) before the final norm."""
        self.sampled_hidden = hidden_states
        return self.logits_processor(self.lm_head, self.norm(hidden_states))

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Reads tensors with released names.

        Raises:
            CheckpointError: some are missing, or have other shapes.
        """
        parameters = dict(self.named_parameters())
        loaded: set[str] = set()
        for name, tensor in from_released(dict(weights), self.config).items():
            short = name.removeprefix("model.").removeprefix("language_model.")
            short, shard = _place_of(short)
            if short not in parameters:
                raise CheckpointError(
                    f"expected tensors of a MolmoPoint, got {name!r}; see molmopoint.checkpoints"
                )
            _load(parameters[short], short, tensor, shard)
            loaded.add(short)
        if self.config.text_config.tie_word_embeddings and "lm_head.weight" not in loaded:
            parameters["lm_head.weight"].data.copy_(parameters["embed_tokens.weight"].data)
            loaded.add("lm_head.weight")
        missing = sorted(parameters.keys() - loaded)
        if missing:
            raise CheckpointError(
                f"expected all tensors of the network, got none for {', '.join(missing[:5])} and "
                f"{max(len(missing) - 5, 0)} more; the download may be incomplete"
            )
        return loaded


def _text_config(text: Any) -> TextConfig:
    """The text model as vLLM's layers want it described."""
    return TextConfig(
        hidden_size=text.hidden_size,
        num_attention_heads=text.num_attention_heads,
        num_key_value_heads=text.num_key_value_heads,
        head_dim=text.head_dim,
        vocab_size=text.vocab_size,
        additional_vocab_size=text.additional_vocab_size,
        qkv_bias=text.attention_bias,
        num_hidden_layers=text.num_hidden_layers,
        intermediate_size=text.intermediate_size,
        hidden_act=text.hidden_act,
        max_position_embeddings=text.max_position_embeddings,
        rope_theta=text.rope_parameters["rope_theta"],
        use_qk_norm=True,
        qk_norm_type="qwen3",
        layer_norm_eps=text.rms_norm_eps,
        norm_after=False,
    )


def _place_of(name: str) -> tuple[str, Any]:
    """Where a tensor of the text layers goes: a parameter, and which part of it; None for all of it."""
    if name.startswith("layers."):
        for part, (joint, shard) in FUSED.items():
            if part in name:
                return name.replace(part, joint), shard
    return name, None


def _load(parameter: nn.Parameter, name: str, tensor: Tensor, shard: Any) -> None:
    loader: Callable[..., None] | None = getattr(parameter, "weight_loader", None)
    if loader is not None:
        loader(parameter, tensor, *(() if shard is None else (shard,)))
        return
    if parameter.shape != tensor.shape:
        raise CheckpointError(
            f"expected {name} of shape {tuple(parameter.shape)}, got {tuple(tensor.shape)}; config.json and "
            "weights are of different models"
        )
    parameter.data.copy_(tensor)
