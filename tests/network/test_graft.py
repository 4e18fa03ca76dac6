"""A graft against its host, and against itself: cached, padded, packed, as a tree, saved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from tiny_hosts import tiny_host
from torch import Tensor

from molmopoint.checkpoints import graft
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.graft.config import GraftConfig
from molmopoint.graft.network import NEW_MODULES, GraftForConditionalGeneration
from molmopoint.rows import lay_out
from molmopoint.tokens import NO_MORE_POINTS

KINDS = (
    "qwen2_5_vl",
    "qwen3_vl",
    "qwen3_5",
    "internvl",
    pytest.param("qwen2_vl", marks=pytest.mark.slow),
    pytest.param("qwen3_vl_moe", marks=pytest.mark.slow),
)
"""Hosts; those of Qwen count positions on three axes."""
SPOKEN = "Point to the red circles"


@dataclass(frozen=True)
class Case:
    """A host and its graft."""

    kind: str
    host: Any
    native: Any
    model: GraftForConditionalGeneration
    processor: Any

    def inputs(self, *sizes: tuple[int, int], seed: int = 0, words: str = SPOKEN) -> dict[str, Tensor]:
        """Model input of one row about pictures of these (height, width)."""
        noise = np.random.default_rng(seed)
        pictures = [noise.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]
        placeholder = f"<|vision_start|>{self.processor.image_token}<|vision_end|>"
        made = self.processor(pictures, placeholder * len(sizes) + words, return_tensors="pt")
        return dict(made)

    def native_pixels(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the host is given of the same pictures."""
        pixels = inputs["pixel_values"]
        if self.kind == "internvl":
            return {"pixel_values": pixels.reshape(len(pixels), 3, 56, 56)}
        sides = inputs["image_grids"][:, 2:] * 2
        grids = torch.cat([torch.ones_like(sides[:, :1]), sides], 1)
        types = inputs["mm_token_type_ids"]
        return {"pixel_values": pixels.flatten(0, 1), "image_grid_thw": grids, "mm_token_type_ids": types}

    def needs_axes(self) -> None:
        """Skips what is about hosts of Qwen alone."""
        if self.kind == "internvl":
            pytest.skip("positions are counted by tokens")

    def needs_packing(self) -> None:
        """Skips what linear attention cannot do; that it is refused is a test of its own."""
        if not self.model.config.host.packs:
            pytest.skip("linear attention")

    def answer(self) -> tuple[list[int], list[int]]:
        """Ids and selections of two points and no more, then a word."""
        patch = self.model.config.patch_token_id
        ids = [patch, patch + 1, patch + 2, 17, patch, patch + 1, patch + 2, 18, patch, 19]
        return ids, [3, 1, 4, -1, 5, 2, 8, -1, NO_MORE_POINTS, -1]


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest) -> Case:
    host, native = tiny_host(request.param)
    model, processor = graft(host, processor=native, patch_embed_dim=32, point_tokens=300)
    with torch.no_grad():  # far enough from zero that choices differ
        for name in NEW_MODULES:
            for parameter in model.get_submodule(name).parameters():
                parameter.mul_(8)
        model.point_predictor.patch.no_more_points.normal_(std=0.3)
    return Case(request.param, host, native, model, processor)


def with_answer(case: Case, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    ids, selections = case.answer()
    prompt = inputs["input_ids"]
    whole = torch.cat([prompt, torch.tensor([ids])], 1)
    chosen = torch.cat([torch.full_like(prompt, -1), torch.tensor([selections])], 1)
    types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, len(ids)))
    return {**inputs, "input_ids": whole, "selection_ids": chosen, "mm_token_type_ids": types,
            "attention_mask": torch.ones_like(whole)}  # fmt: skip


def targets(case: Case, rows: dict[str, Tensor]) -> Tensor:
    count = len(case.answer()[0])
    labels = torch.full_like(rows["input_ids"], -100)
    labels[:, -count - 1 : -1] = rows["input_ids"][:, -count:]
    return labels


def joined(*parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pixels, tables and grids of several rows as one call."""
    firsts = np.cumsum([0, *(part["pixel_values"].shape[:2].numel() for part in parts)]).tolist()
    tables = [part["image_token_pooling"] + first for part, first in zip(parts, firsts, strict=False)]
    return {
        "pixel_values": torch.cat([part["pixel_values"] for part in parts]),
        "image_token_pooling": torch.cat(tables),
        "image_grids": torch.cat([part["image_grids"] for part in parts]),
    }


def same(found: Tensor, wanted: Tensor, tolerance: float = 2e-5) -> None:
    """Equal but for rounding, beside the largest number of each."""
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


def test_the_words_of_the_host_are_its_own(case: Case):
    kept = dict(case.host.named_parameters())
    ours = dict(case.model.named_parameters())
    new = case.model.config.new_rows
    assert set(ours) - set(kept) == {name for name in ours if name.startswith(NEW_MODULES)}
    for name, parameter in kept.items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            for part in (slice(0, new.start), slice(new.stop, None)):
                assert torch.equal(parameter[part], ours[name][part]), name
            assert not torch.equal(parameter[new.start : new.stop], ours[name][new.start : new.stop])
        else:
            assert torch.equal(parameter, ours[name]), name


@torch.no_grad()
def test_logits_are_those_of_the_host(case: Case):
    inputs = case.inputs((70, 100), (90, 60))
    native = case.native_pixels(inputs)
    ids = inputs["input_ids"].clone()
    ids[ids == case.model.config.overview_token_id] = case.host.config.image_token_id
    text = {"input_ids": ids, "attention_mask": inputs["attention_mask"]}
    wanted = case.host(**text, **native).logits
    found = case.model(**inputs).logits
    old = [*range(case.model.config.new_rows.start)]
    same(found[..., old], wanted[..., old], 1e-5)


@torch.no_grad()
def test_pixels_are_those_of_the_native_processor(case: Case):
    picture = np.random.default_rng(3).integers(0, 256, (75, 130, 3)).astype(np.uint8)
    text = f"<|vision_start|>{case.processor.image_token}<|vision_end|>Where?"
    ours = case.processor([picture], text, return_tensors="pt")
    theirs = case.native(images=[picture], text=[text], return_tensors="pt")
    ids = ours["input_ids"].clone()
    ids[ids == case.model.config.overview_token_id] = case.host.config.image_token_id
    assert torch.equal(ids, torch.as_tensor(theirs["input_ids"]))
    same(case.native_pixels(ours)["pixel_values"], torch.as_tensor(theirs["pixel_values"]), 1e-6)


@torch.no_grad()
def test_positions_are_those_of_the_host(case: Case):
    case.needs_axes()
    inputs = case.inputs((60, 110), (110, 60), (56, 56))
    config = case.model.config
    grids = inputs["image_grids"]
    sides = grids[:, 2:] * 2
    grids_thw = torch.cat([torch.ones_like(sides[:, :1]), sides], 1)
    wanted, _ = case.host.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        image_grid_thw=grids_thw,
        attention_mask=inputs["attention_mask"],
    )
    ids = inputs["input_ids"]
    by_tokens = torch.arange(ids.shape[1])[None]
    layout = lay_out(ids, config.grounding)
    found = config.host.positions(by_tokens, torch.zeros_like(ids), layout, grids)
    assert torch.equal(found, wanted)


@torch.no_grad()
def test_each_image_token_is_made_of_the_patches_behind_it(case: Case):
    inputs = case.inputs((112, 84), (84, 112))
    names = ("pixel_values", "image_token_pooling", "image_grids")
    seen = case.model.get_visual_features(**{name: inputs[name] for name in names})
    behind = seen.vit_features[seen.pooling]  # (T, K, F)
    if case.kind == "internvl":
        numbers = torch.arange(len(seen.vit_features)).reshape(-1, 4, 4, 1)
        shuffled = case.model.model.pixel_shuffle(numbers, scale_factor=0.5).reshape(-1, 4)
        assert torch.equal(shuffled.sort(1).values, seen.pooling.sort(1).values)
        return
    found = case.model.model.visual.merger(behind.flatten(0, 1))
    same(found, seen.image_features)


def test_every_weight_learns(case: Case):
    rows = with_answer(case, case.inputs((70, 100)))
    case.model.train()
    try:
        output = case.model(**rows, shift_labels=targets(case, rows))
        output.loss.backward()
        assert output.loss_sums is not None
        assert set(output.loss_sums) == {"text", "patch", "subpatch", "location"}
        still = [
            name
            for name, weight in case.model.named_parameters()
            if weight.grad is None or not weight.grad.any()
        ]
        assert set(still) <= {"point_predictor.subpatch.key.bias"}, "it moves all slots alike"
        case.model.zero_grad()
        case.model(**{name: rows[name][:, -12:] for name in ("input_ids", "attention_mask")} | {
            "selection_ids": torch.full((1, 12), -1), "shift_labels": rows["input_ids"][:, -12:]
        }).loss.backward()  # fmt: skip
        assert all(weight.grad is not None for weight in case.model.parameters())
    finally:
        case.model.zero_grad()
        case.model.eval()


@torch.no_grad()
def test_cached_is_full(case: Case):
    inputs = case.inputs((70, 100))
    output = case.model(**inputs, use_cache=True)
    ids, selections = case.answer()
    whole = with_answer(case, inputs)
    length = inputs["input_ids"].shape[1]
    state, cache = output.grounding_state, output.cache
    for number in range(len(ids)):
        output = case.model(
            input_ids=torch.tensor([[ids[number]]]), selection_ids=torch.tensor([[selections[number]]]),
            position_ids=torch.tensor([[length + number]]), cache=cache, grounding_state=state,
        )  # fmt: skip
        state = output.grounding_state
        end = length + number + 1
        names = ("input_ids", "selection_ids", "attention_mask", "mm_token_type_ids")
        cut = {**whole, **{name: whole[name][:, :end] for name in names}}
        full = case.model(**cut)
        same(output.logits[:, -1], full.logits[:, -1])
        for name in ("patch_logits", "subpatch_logits", "location_logits"):
            same(output[name], full[name])


@torch.no_grad()
def test_batch_is_single(case: Case):
    first, second = case.inputs((70, 100)), case.inputs((56, 60), (100, 56), seed=1, words="Where?")
    length = max(part["input_ids"].shape[1] for part in (first, second))

    def padded(name: str, value: int) -> Tensor:
        return torch.cat([torch.nn.functional.pad(part[name], (length - part[name].shape[1], 0), value=value)
                          for part in (first, second)])  # fmt: skip

    batch = {
        "input_ids": padded("input_ids", case.processor.tokenizer.pad_token_id),
        "attention_mask": padded("attention_mask", 0),
        "mm_token_type_ids": padded("mm_token_type_ids", 0),
        **joined(first, second),
    }
    options = {"max_new_tokens": 14, "max_points": 3, "open_list": True, "return_dict_in_generate": True}
    together: Any = case.model.generate(**batch, **options)
    for row, alone in enumerate((first, second)):
        wanted: Any = case.model.generate(**alone, **options)
        found, asked = together.sequences[row, length:], wanted.sequences[0, alone["input_ids"].shape[1] :]
        kept = min(len(found), len(asked))
        assert found[:kept].tolist() == asked[:kept].tolist()
        same(
            together.selection_probabilities[row, :kept].nan_to_num(-1),
            wanted.selection_probabilities[0, :kept].nan_to_num(-1),
        )


@torch.no_grad()
def test_packed_is_alone(case: Case):
    case.needs_packing()
    parts = [with_answer(case, case.inputs((70, 100))), with_answer(case, case.inputs((100, 56), seed=1))]
    alone = [case.model(**part, shift_labels=targets(case, part)) for part in parts]
    before = len(parts[0]["image_token_pooling"])
    is_patch = parts[1]["input_ids"] == case.model.config.patch_token_id
    moved = parts[1]["selection_ids"] + before * (is_patch & (parts[1]["selection_ids"] >= 0))
    lengths = [part["input_ids"].shape[1] for part in parts]
    row = {
        "input_ids": torch.cat([part["input_ids"] for part in parts], 1),
        "selection_ids": torch.cat([parts[0]["selection_ids"], moved], 1),
        "shift_labels": torch.cat([targets(case, part) for part in parts], 1),
        "example_ids": torch.tensor([[0] * lengths[0] + [1] * lengths[1]]),
        "position_ids": torch.tensor([[*range(lengths[0]), *range(lengths[1])]]),
        **joined(*parts),
    }
    packed = case.model(**row)
    same(packed.logits, torch.cat([output.logits for output in alone]))
    for kind, total in packed.loss_sums.items():
        same(total, torch.stack([output.loss_sums[kind] for output in alone]).sum(), 1e-4)


@torch.no_grad()
def test_a_tree_is_its_branches_as_rows(case: Case):
    case.needs_packing()
    prompt = case.inputs((70, 100))
    trunk = prompt["input_ids"][:, :-10]
    branches = [prompt["input_ids"][:, -10:], prompt["input_ids"][:, -6:]]
    pixels = joined(prompt)
    alone = []
    for branch in branches:
        output = case.model(input_ids=torch.cat([trunk, branch], 1), **pixels, logits_to_keep=branch.shape[1])
        alone.append(output.logits)
    start, sizes = trunk.shape[1], [branch.shape[1] for branch in branches]
    positions = [*range(start), *(start + i for size in sizes for i in range(size))]
    tree = case.model(
        input_ids=torch.cat([trunk, *branches], 1), **pixels, logits_to_keep=sum(sizes),
        branch_ids=torch.tensor([[-1] * start + [0] * sizes[0] + [1] * sizes[1]]),
        position_ids=torch.tensor([positions]),
    )  # fmt: skip
    same(tree.logits, torch.cat(alone, 1))


def test_linear_attention_refuses_packed_rows(case: Case):
    if case.model.config.host.packs:
        pytest.skip("this host packs")
    inputs = case.inputs((70, 100))
    length = inputs["input_ids"].shape[1]
    examples = torch.tensor([[0] * (length - 5) + [1] * 5])
    with pytest.raises(ProcessingError, match="linear attention"):
        case.model(**inputs, example_ids=examples)


@torch.no_grad()
def test_saved_is_loaded(case: Case, tmp_path):
    case.model.save_pretrained(tmp_path)
    again = GraftForConditionalGeneration.from_pretrained(tmp_path)
    wanted, found = case.model.state_dict(), again.state_dict()
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    inputs = case.inputs((70, 100))
    assert torch.equal(again(**inputs).logits, case.model(**inputs).logits)


def test_tied_tables_stay_tied(tmp_path):
    host, native = tiny_host("qwen2_5_vl", tie_word_embeddings=True)
    model, _ = graft(host, processor=native, patch_embed_dim=32, point_tokens=9, out=tmp_path)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    again = GraftForConditionalGeneration.from_pretrained(tmp_path)
    assert again.lm_head.weight is again.get_input_embeddings().weight
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_a_host_without_room_gets_rows_behind_its_own():
    host, native = tiny_host("qwen3_vl", vocab_size=265)
    present = len(native.tokenizer)
    model, processor = graft(host, processor=native, patch_embed_dim=32, point_tokens=9)
    assert model.config.patch_token_id == present
    assert model.config.extended_start == processor.extended_start == 320
    old = host.lm_head.weight[:present]
    assert torch.equal(model.lm_head.weight[:present], old)
    assert len(host.lm_head.weight) == 265, "the host that was passed in stays as it was"


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("llava_next", "bilinearly"), ("gemma3", "both directions"), ("paligemma", "nobody has written"),
     ("molmo2", "already")],
)  # fmt: skip
def test_models_that_are_no_hosts_are_told_before_weights_are_read(tmp_path, model_type: str, reason: str):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(CheckpointError, match=reason):
        graft(tmp_path)


def test_a_host_with_fewer_patches_behind_a_token_is_refused(case: Case, tmp_path):
    case.model.config.save_pretrained(tmp_path)
    fields = GraftConfig.from_pretrained(tmp_path).to_dict()
    if case.kind == "internvl":
        fields["host_config"]["downsample_ratio"] = 0.25
    else:
        fields["host_config"]["vision_config"]["spatial_merge_size"] = 1
    with pytest.raises(CheckpointError, match="expected 4 ViT patches behind an image token"):
        GraftConfig(**fields)


def test_an_internvl_whose_tokens_hold_no_whole_patches_is_refused():
    host, native = tiny_host("internvl")
    host.config.downsample_ratio = 0.4
    with pytest.raises(CheckpointError, match="whole squares of ViT patches"):
        graft(host, processor=native)


def test_half_of_the_heads_is_refused(case: Case, tmp_path):
    tensors = {name: tensor for name, tensor in case.model.state_dict().items() if "subpatch" not in name}
    case.model.save_pretrained(tmp_path, state_dict=tensors)
    with pytest.raises(
        CheckpointError, match=r"tensors of grounding heads .* without point_predictor\.subpatch"
    ):
        GraftForConditionalGeneration.from_pretrained(tmp_path)
