"""Fine-tuning upon matrices in 4 and 8 bits, on a processor."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from own_pictures import rows_of, write_rows
from safetensors.torch import load_file

import molmopoint
from molmopoint.checkpoints import registry
from molmopoint.checkpoints.quantising import matrices
from molmopoint.errors import CheckpointError
from molmopoint.training.finetune import finetune
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.start import load_network

pytest.importorskip("bitsandbytes")

RANK = 2
SMALL = (
    "steps=4", "dtype=float32", "bf16_weights=false", "gradient_checkpointing=false", "data.max_tokens=700", "data.max_crops=12",
    "data.pool=4", "data.held_out=3", "scoring.every=4", "scoring.examples=2", "scoring.max_new_tokens=8", "saving.every=2",
    "logging.every=1", "logging.to=[]", f"lora.rank={RANK}",
)  # fmt: skip
QUERIES = "model.transformer.blocks.0.self_attn.att_proj.weight"


@pytest.mark.filterwarnings("ignore::UserWarning:bitsandbytes.*")
def test_four_bits_train_go_on_and_become_a_model(tmp_path: Path):
    data = write_rows(tmp_path / "data.jsonl", rows_of(tmp_path))
    out = tmp_path / "run"
    assert finetune(data, "nano", out, recipe="qlora", overrides=SMALL).steps == 4
    before = load_file(Path(registry.resolve("nano")) / "model.safetensors")
    after = load_file(out / "model" / "model.safetensors")
    assert before.keys() == after.keys()
    # The exported matrices are those of the checkpoint and an update of low rank, not what 4 bits left of them.
    parts = (after[QUERIES].float() - before[QUERIES].float()).split(
        192
    )  # of queries, and of keys and values
    update = torch.linalg.svdvals(parts[0])
    assert update[0] > 0 and update[RANK] < 0.05 * update[0]
    assert molmopoint.load(out / "model", device="cpu").point(Path("examples/images/shapes.png"), "circles")

    # As if the process had ended after half of it.
    shutil.rmtree(out / "model")
    shutil.rmtree(out / "checkpoint-000004")
    (out / "result.json").unlink()
    finetune(data, "nano", out, recipe="qlora", overrides=SMALL)
    again = load_file(out / "model" / "model.safetensors")
    # Not to the last bit: for inference on a processor bitsandbytes packs matrices anew, with rounded scales.
    learned, apart = [], []
    for name, tensor in after.items():
        learned.append((tensor.float() - before[name].float()).norm())
        apart.append((again[name].float() - tensor.float()).norm())
    assert torch.stack(apart).norm() <= 0.1 * torch.stack(learned).norm()


@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_get_gradients_through_few_bits(bits: int):
    from molmopoint.training.start import add_adapters

    recipe = load_recipe("qlora", [f"lora.bits={bits}"])
    network = load_network(registry.resolve("nano"), None, recipe)
    assert recipe.lora is not None
    stored = [name for name, _ in matrices(network)]
    kinds = {type(module).__name__ for name, module in network.named_modules() if name in stored}
    assert kinds == {"Linear4bit" if bits == 4 else "Linear8bitLt"}
    assert type(network.model.vision_tower.patch_embedding) is torch.nn.Linear
    add_adapters(network, recipe.lora)
    network(input_ids=torch.tensor([[5, 6, 7, 8]]), labels=torch.tensor([[5, 6, 7, 8]])).loss.backward()
    gradients = [parameter.grad for name, parameter in network.named_parameters() if "lora_B" in name]
    assert gradients and all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_widths_are_told_before_weights_are_read(toy_folder: Path):
    with pytest.raises(CheckpointError, match="multiples of 64 for quantize='nf4'"):
        load_network(str(toy_folder), None, load_recipe("qlora"))
