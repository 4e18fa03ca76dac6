"""New models from parts: they see exactly what their ViT sees, say exactly what their LLM says, and can be
trained and saved.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.layers.mlp import SwiGLU
from timm.models import save_for_hf
from timm.models.vision_transformer import ResPostBlock
from tiny_parts import IMAGE_SETTINGS, ROWS, VIDEO_SETTINGS, YARN, plain_tokenizer, shake, tiny_llm, tiny_vit
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.models.molmo2.configuration_molmo2 import Molmo2VisionConfig

import molmopoint
from molmopoint.checkpoints import assemble
from molmopoint.checkpoints.llm_text import text_part
from molmopoint.checkpoints.new_processor import extend_tokenizer
from molmopoint.checkpoints.timm_vision import TOWER, pixel_normalisation, vision_part
from molmopoint.config import ID_FIELDS, MolmoPointConfig
from molmopoint.connector import VisionTower
from molmopoint.errors import CheckpointError
from molmopoint.tokens import RELEASED_TOKENS, point_text

TAPPED = (-1, -3)


def build(vit=None, llm=None, **changes):
    arguments = {
        "tokenizer": plain_tokenizer(),
        "vision_layers": TAPPED,
        "patch_embed_dim": 16,
        "point_tokens": 600,
    }
    arguments |= {"image_settings": IMAGE_SETTINGS, "video_settings": VIDEO_SETTINGS}
    return assemble(
        tiny_vit() if vit is None else vit, tiny_llm() if llm is None else llm, **(arguments | changes)
    )


@pytest.fixture(scope="module")
def new():
    """A model and its processor, shared: tests that change them make their own."""
    return build()


def patches(pictures, size):
    """(N, 3, H, W) as (N, patches, values), each patch by row, column, channel."""
    return (
        pictures.unfold(2, size, size)
        .unfold(3, size, size)
        .permute(0, 2, 3, 4, 5, 1)
        .flatten(3)
        .flatten(1, 2)
    )


@torch.no_grad()
def blocks_of(vit, pictures, layers=TAPPED):
    """What the blocks of a ViT put out, in timm's own words: (N * patches, tapped * D)."""
    outputs = vit.forward_intermediates(pictures, output_fmt="NLC", intermediates_only=True, norm=False)
    return torch.cat([outputs[layer] for layer in layers], -1).flatten(0, 1)


@torch.no_grad()
def assert_same_features(vit, tower, layers=TAPPED):
    depth, size = len(vit.blocks), vit.patch_embed.patch_size[0]
    pictures = torch.randn(2, 3, *vit.patch_embed.img_size, generator=torch.Generator().manual_seed(0))
    seen = tower(patches(pictures, size), [layer % depth for layer in layers])
    torch.testing.assert_close(seen, blocks_of(vit, pictures, layers), atol=1e-5, rtol=1e-5)


def tower_of(part):
    """The tower alone, for what needs no LLM."""
    tower = VisionTower(Molmo2VisionConfig(**part.fields)).eval()
    tower.load_state_dict({name.removeprefix(TOWER): tensor for name, tensor in part.tensors.items()})
    return tower


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"patch_size": 16, "img_size": 64, "act_layer": "gelu", "global_pool": "avg"},
        {"qkv_bias": False, "act_layer": "quick_gelu"},
        {"init_values": 0.3, "norm_layer": "layernorm"},
        {"img_size": 74},  # as SigLIP's 384 with patches of 14: what is left over at the border is never seen
    ],
    ids=["siglip", "patch-16", "no-bias", "layer-scale", "left-over"],
)
def test_features_are_those_of_the_vit(changes):
    vit = tiny_vit(**changes)
    tower = tower_of(vision_part(vit, TAPPED))
    assert len(tower.layers) == 4
    assert_same_features(vit, tower)


def test_layers_behind_the_deepest_tapped_one_are_dropped():
    vit = tiny_vit(depth=6)
    model, _ = build(vit, vision_layers=(-3, -5))
    assert model.config.adapter_config.vision_feature_layer == [3, 1]
    assert model.config.vision_config.num_hidden_layers == len(model.model.vision_tower.layers) == 4
    assert_same_features(vit, model.model.vision_tower, (-3, -5))


@pytest.mark.parametrize("side", [98, 56])
def test_positions_are_resized_as_timm_does(side):
    vit = tiny_vit()
    tower = tower_of(vision_part(vit, TAPPED, crop_size=side))
    resized = copy.deepcopy(vit)
    resized.set_input_size(img_size=side)
    torch.testing.assert_close(tower.positional_embedding, resized.pos_embed[0])
    assert_same_features(resized, tower)


def test_a_picture_reaches_the_vit_as_timm_would_show_it(new):
    model, processor = new
    picture = np.random.default_rng(0).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    vit = tiny_vit()
    mean, std = (torch.tensor(vit.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    wanted = (torch.from_numpy(picture).permute(2, 0, 1) / 255 - mean) / std
    for crops in (
        processor.image_processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"][:1],
        processor.video_processor(picture[None], video_metadata=[{"fps": 2}], return_tensors="pt")[
            "pixel_values_videos"
        ],
    ):
        with torch.no_grad():
            seen = model.model.vision_tower(crops, model.config.adapter_config.vision_feature_layer)
        torch.testing.assert_close(seen, blocks_of(vit, wanted[None]), atol=1e-5, rtol=1e-5)


QWEN3_8B = Qwen3Config(
    intermediate_size=12288, num_hidden_layers=36, num_key_value_heads=8, max_position_embeddings=40960,
    rope_parameters={"rope_type": "default", "rope_theta": 1e6},
)  # fmt: skip
OLMO3_YARN = {
    "rope_parameters": {
        "full_attention": YARN,
        "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
    }
}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("qwen3", {}),
        (
            "qwen3",
            {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6}},
        ),
        ("olmo2", {}),
        ("olmo3", {}),
        ("olmo3", OLMO3_YARN | {"num_key_value_heads": 4}),
    ],
    ids=["qwen3", "qwen3-tied", "olmo2", "olmo3", "olmo3-yarn"],
)
def test_words_are_those_of_the_llm(family, changes, tmp_path):
    llm = tiny_llm(family, **changes)
    model, _ = build(llm=llm)
    ids = torch.randint(0, ROWS, (2, 150), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = llm(input_ids=ids).logits
        said = model(input_ids=ids).logits
    torch.testing.assert_close(said[..., :ROWS], wanted, atol=1e-4, rtol=0)
    assert said.shape[-1] == ROWS + 128
    assert (
        model.lm_head.weight is model.model.language_model.embed_tokens.weight
    ) == llm.config.tie_word_embeddings
    if not changes:
        return
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.config.text_config.rope_scaling_layers == model.config.text_config.rope_scaling_layers
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=ids).logits, said, atol=1e-6, rtol=0)


def test_published_parts_have_the_released_sizes():
    with torch.device("meta"):
        vit = timm.create_model("vit_so400m_patch14_siglip_378.v2_webli", pretrained=False, num_classes=0)
        spoken = text_part(Qwen3ForCausalLM(QWEN3_8B))
    seen = vision_part(vit, (-3, -9))
    assert pixel_normalisation(vit) == ([0.5] * 3, [0.5] * 3)
    text = spoken.fields | {"max_position_embeddings": 37376}
    # Timm's choice for these weights; released configs say gelu_pytorch_tanh.
    assert seen.fields["hidden_act"] == "gelu"
    vision = seen.fields | {"hidden_act": "gelu_pytorch_tanh"}
    tapped = {"vision_feature_layer": [-3, -9]}
    config = MolmoPointConfig.from_dict(
        {"text_config": text, "vision_config": vision, "adapter_config": tapped}
    )
    assert config == MolmoPointConfig()
    assert len(seen.tensors) == 400 + 3


def test_windows_of_an_llm_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        text_part(tiny_llm("olmo3", sliding_window=64))
    assert "3 of 4 layers of the LLM see the last 64 tokens only" in caplog.text
    caplog.clear()
    text_part(tiny_llm("olmo2"))
    assert not caplog.text


def test_new_weights_are_drawn_as_the_fact_sheet_says(new):
    model, _ = new
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for table in (parameters["lm_head.weight"], parameters["model.language_model.embed_tokens.weight"]):
        rows = table[ROWS:]
        assert len(rows) == 128
        assert float(rows.mean()) == pytest.approx(0, abs=1e-3)
        assert float(rows.std()) == pytest.approx(0.02, rel=0.05)
    fresh = {
        n: p
        for n, p in parameters.items()
        if n.startswith(("model.connector.", "model.point_predictor.", "model.build_vit"))
    }
    assert len(fresh) > 15
    for name, parameter in fresh.items():
        if name.endswith((".bias", "no_more_points")):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        else:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.2), name


def test_the_seed_decides_about_new_weights_alone(new):
    same, other = (build(seed=seed)[0].state_dict() for seed in (0, 1))
    for name, tensor in new[0].state_dict().items():
        assert torch.equal(same[name], tensor)
        pretrained = name.startswith(
            ("model.vision_tower.", "model.language_model.layers.", "model.language_model.norm.")
        )
        constant = name.endswith((".bias", "no_more_points")) or "norm" in name
        assert torch.equal(other[name], tensor) == (pretrained or constant), name
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            assert torch.equal(other[name][:ROWS], tensor[:ROWS])


def test_given_parts_stay_as_they_are():
    vit, llm, tokenizer = tiny_vit(), tiny_llm(), plain_tokenizer()
    before = copy.deepcopy((vit.state_dict(), llm.state_dict()))
    tokens = len(tokenizer)
    model, _ = build(vit, llm, tokenizer=tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for old, part in zip(before, (vit, llm), strict=True):
        assert all(torch.equal(tensor, old[name]) for name, tensor in part.state_dict().items())
    assert len(tokenizer) == tokens


def test_tokens_stand_where_released_ones_do(new):
    model, processor = new
    tokenizer, config = processor.tokenizer, model.config
    assert tokenizer.convert_tokens_to_ids(list(RELEASED_TOKENS)) == list(
        range(ROWS, ROWS + len(RELEASED_TOKENS))
    )
    assert {getattr(config, field) for field in ID_FIELDS} <= set(range(ROWS, ROWS + len(RELEASED_TOKENS)))
    assert processor.extended_start == config.extended_start == ROWS + 128
    assert tokenizer.convert_tokens_to_ids(point_text(599)) == config.extended_start + 599
    assert tokenizer.encode("a word", add_special_tokens=False) == plain_tokenizer().encode("a word")
    end, pad = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    generation = model.generation_config
    assert (generation.bos_token_id, generation.eos_token_id, generation.pad_token_id) == (end, end, pad)


def test_chat_tokens_an_llm_lacks_become_additional_ones():
    bare = plain_tokenizer()
    names = ("<|im_start|>", "<|im_end|>")
    backend = (
        bare.backend_tokenizer.to_str().replace("<|im_start|>", "<|start|>").replace("<|im_end|>", "<|end|>")
    )
    bare = type(bare)(tokenizer_object=type(bare.backend_tokenizer).from_str(backend))
    first = ROWS + len(RELEASED_TOKENS)
    assert extend_tokenizer(bare, ROWS, 128, 9).convert_tokens_to_ids(list(names)) == [first, first + 1]


def test_it_learns_a_little():
    model, processor = build()
    picture = Image.fromarray(np.full((90, 120, 3), 200, dtype=np.uint8))
    inputs = processor(images=picture, text="<|image|>Where?", return_tensors="pt")
    c = model.config
    answer = torch.tensor([[c.patch_token_id, c.subpatch_token_id, c.location_token_id, c.patch_token_id, 5]])
    chosen = torch.tensor([[10, 1, 4, molmopoint.NO_MORE_POINTS, -1]])
    prompt = inputs["input_ids"]
    ids, selections = torch.cat([prompt, answer], 1), torch.cat([torch.full_like(prompt, -1), chosen], 1)
    labels = torch.cat([torch.full_like(prompt, -100), answer], 1)
    pixels = {name: inputs[name] for name in ("pixel_values", "image_token_pooling")}

    def loss():
        return model(input_ids=ids, selection_ids=selections, labels=labels, **pixels).loss

    model.train()
    before = loss()
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(1e-3 * parameter.grad)  # type: ignore[operator]
        assert loss() < before


def test_folders_become_a_model_that_points(tmp_path):
    vit, llm, folder = tiny_vit(), tiny_llm(), tmp_path / "new"
    save_for_hf(vit, tmp_path / "vit", safe_serialization=True)
    llm.save_pretrained(tmp_path / "llm")
    plain_tokenizer().save_pretrained(tmp_path / "llm")
    model, processor = build(
        tmp_path / "vit",
        str(tmp_path / "llm"),
        tokenizer=None,
        out=folder,
        crop_size=98,
        dtype=torch.bfloat16,
    )
    assert processor.image_processor.size == {"height": 98, "width": 98}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    expected, _ = build(vit, llm, crop_size=98, dtype=torch.bfloat16)
    assert all(
        torch.equal(tensor, expected.state_dict()[name]) for name, tensor in model.state_dict().items()
    )

    pointer = molmopoint.load(folder)
    result = pointer.point(Image.new("RGB", (120, 90), "red"), "the red thing", max_new_tokens=8)
    assert isinstance(result.text, str)
    single = pointer.point(Image.new("RGB", (120, 90), "red"), "the red thing", max_new_tokens=8, single=True)
    assert len(single.points) == 1


SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SMALL |= {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": None}
UNEVEN = {"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
            "LlamaForCausalLM, which has no norms of queries and keys",
        ),
        (
            lambda: Qwen3MoeForCausalLM(Qwen3MoeConfig(**SMALL, num_experts=2, moe_intermediate_size=8)),
            "a mixture of experts",
        ),
        (lambda: Qwen3ForSequenceClassification(Qwen3Config(**SMALL)), "got Qwen3ForSequenceClassification"),
        (lambda: tiny_llm(attention_bias=True), "attention_bias=True"),
        (
            lambda: tiny_llm(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
            "one base and one scaling",
        ),
        (lambda: tiny_llm("olmo3", rope_parameters=UNEVEN), "one base and one scaling"),
    ],
)
def test_an_llm_that_does_not_fit_is_refused_with_the_reason(make, reason):
    with pytest.raises(CheckpointError, match=reason):
        text_part(make())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"class_token": True, "global_pool": "token"}, "a class token"),
        ({"reg_tokens": 4}, "4 register tokens"),
        ({"pos_embed": "none"}, "no learned positions"),
        ({"pre_norm": True}, "a norm before the blocks"),
        ({"qk_norm": True}, "norms of queries and keys"),
        ({"scale_attn_norm": True}, "norms inside attention or MLP"),
        ({"mlp_layer": SwiGLU}, "MLP SwiGLU"),
        ({"act_layer": "hard_swish"}, "activation"),
        ({"norm_layer": "rmsnorm"}, "norm RmsNorm"),
        ({"in_chans": 1}, "patches of 1 x"),
        ({"img_size": (70, 84)}, "on a grid of"),
        ({"block_fn": ResPostBlock}, "block ResPostBlock"),
    ],
)
def test_a_vit_that_does_not_fit_is_refused_with_the_reason(changes, reason):
    with pytest.raises(CheckpointError, match=reason):
        vision_part(tiny_vit(**changes), TAPPED)


def test_vits_with_windows_are_refused():
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224",
        pretrained=False,
        depths=(1, 1, 1, 1),
        embed_dim=24,
        num_heads=(1, 1, 1, 1),
    )
    with pytest.raises(CheckpointError, match=r"got SwinTransformer.*windows"):
        vision_part(swin, TAPPED)


def strange(vit):
    vit.blocks[2].mlp.act = torch.nn.GELU()
    return vit


def without_pixel_settings(vit):
    vit.pretrained_cfg = {}
    return vit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": None}, "tokenizer of the LLM beside the LLM"),
        ({"vision_layers": (-9,)}, r"among the 4 blocks of the ViT, got \[-9\]"),
        ({"vision_layers": ()}, "among the 4 blocks"),
        ({"crop_size": 75}, "multiple of the patch size 14, got 75; pass 70"),
        ({"vision": lambda: strange(tiny_vit())}, "blocks that are all alike, got 2 kinds"),
        ({"vision": lambda: without_pixel_settings(tiny_vit())}, "mean and std"),
        ({"text": lambda: tiny_llm(vocab_size=200)}, "at most 200 tokens"),
        ({"tokenizer": extend_tokenizer(plain_tokenizer(), 300, 20, 9)}, "at most 320 tokens"),
    ],
)
def test_what_cannot_be_put_together_is_refused(changes, message):
    parts = {name: changes[name]() for name in ("vision", "text") if name in changes}
    options = {name: value for name, value in changes.items() if name not in parts}
    with pytest.raises(CheckpointError, match=message):
        build(parts.get("vision"), parts.get("text"), **options)


def test_tokenizers_that_do_not_fit_are_refused():
    extended = extend_tokenizer(plain_tokenizer(), 300, 20, 9)
    with pytest.raises(CheckpointError, match=r"<im_start>.*already; take that of the base LLM"):
        extend_tokenizer(extended, 200_000, 128, 9)
    with pytest.raises(CheckpointError, match="at least 14 additional rows, got 10"):
        extend_tokenizer(plain_tokenizer(), ROWS, 10, 9)
    with pytest.raises(CheckpointError, match="a fast tokenizer, got object"):
        extend_tokenizer(object(), ROWS, 128, 9)


def test_a_folder_without_safetensors_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"got no model\.safetensors"):
        build(tmp_path)


def test_shaken_parts_are_not_the_usual_ones():
    """The comparisons above would hold for many mistakes if norms were one and biases zero."""
    assert all(parameter.std() > 0.01 for parameter in shake(tiny_vit()).blocks.parameters())
