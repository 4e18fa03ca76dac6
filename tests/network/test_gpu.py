"""What only a CUDA device can show. Run with `pytest -m gpu`; nothing here has run yet where the project is
developed on a CPU.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from tiny import Rows, batch_of, random_model
from tiny_training import conversation, row, training_batch

pytestmark = pytest.mark.gpu

MIX = [["image"], [], ["image", "image", "image"], ["clip"], ["image"]]
LIMITS = {"max_new_tokens": 40, "eos_token_id": None, "pad_token_id": 0}


def on_gpu(inputs):
    return {name: tensor.cuda() for name, tensor in inputs.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_is_its_rows(dtype):
    model: Any = random_model(0)
    model = model.to("cuda", dtype)
    samples = Rows(model.config).prompts(MIX, words=[3, 9, 5, 12, 4])
    batch = on_gpu(batch_of(samples, model.config))
    together = model.generate(**batch, **LIMITS)[:, batch["input_ids"].shape[1] :]
    equal = sum(
        torch.equal(
            answer,
            model.generate(**on_gpu(batch_of([sample], model.config)), **LIMITS)[0, len(sample["ids"]) :],
        )
        for answer, sample in zip(together, samples, strict=True)
    )
    # In half precision the order of sums depends on the batch, so a random model may flip a near tie.
    assert equal == len(samples) if dtype == torch.float32 else equal >= len(samples) - 2


def test_the_gpu_answers_as_the_cpu():
    model: Any = random_model(1)
    inputs = batch_of(Rows(model.config, 1).prompts(MIX), model.config)
    expected = model.generate(**inputs, **LIMITS)
    assert torch.equal(model.cuda().generate(**on_gpu(inputs), **LIMITS).cpu(), expected)


@pytest.mark.parametrize("backend", ["eager", "flex_attention"])
def test_backends_have_the_same_gradients(backend):
    config = random_model(2).config
    samples = Rows(config, 2).prompts([["image"], ["image"]], words=[0, 0])
    answers = [((9, 0, 4), (12, 1, 8)), ((10, 2, 2),)]
    trees = [
        row(config, sample, [conversation(config, [20 + i, 30], answers[i]) for i in range(2)])
        for sample in samples
    ]
    batch = on_gpu(training_batch(config, trees, samples))
    gradients = []
    for name in ("sdpa", backend):
        model: Any = random_model(2)
        model.cuda().train()
        model.set_attn_implementation(name)
        model(**batch).loss.backward()
        gradients.append({key: parameter.grad for key, parameter in model.named_parameters()})
    for key, expected in gradients[0].items():
        assert torch.allclose(gradients[1][key], expected, rtol=1e-3, atol=1e-4), key


def test_flash_attention_steps_answer_as_sdpa():
    assert importlib.util.find_spec("flash_attn"), "needs the extra [flash]"
    model: Any = random_model(3)
    model = model.to("cuda", torch.bfloat16)
    inputs = on_gpu(batch_of(Rows(model.config, 3).prompts(MIX), model.config))
    expected = model.generate(**inputs, **LIMITS)
    model.set_attn_implementation({"text_config": "flash_attention_2", "vision_config": "flash_attention_2"})
    answers = model.generate(**inputs, **LIMITS)
    assert sum(torch.equal(a, b) for a, b in zip(expected, answers, strict=True)) >= len(MIX) - 2


def test_a_static_cache_is_compiled_and_answers_the_same():
    model: Any = random_model(4)
    model = model.cuda()
    inputs = on_gpu(batch_of(Rows(model.config, 4).prompts(MIX), model.config))
    expected = model.generate(**inputs, **LIMITS)
    assert torch.equal(model.generate(**inputs, **LIMITS, cache_implementation="static"), expected)
