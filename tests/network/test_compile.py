"""The decode step compiles to one graph, and a compiled answer is the same answer."""

from __future__ import annotations

import pytest
import torch
from tiny import Rows, batch_of, random_model
from transformers.generation.configuration_utils import CompileConfig


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_gives_the_same_answers():
    model = random_model(7)
    inputs = batch_of(Rows(model.config, 7).prompts([["image"], [], ["clip"]]), model.config)
    limits = {"max_new_tokens": 24, "eos_token_id": None, "pad_token_id": 0}
    everywhere = CompileConfig(fullgraph=True, mode="default")
    everywhere._compile_all_devices = True  # transformers compiles on accelerators only unless told so
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = model.generate(**inputs, **limits, cache_implementation="static", compile_config=everywhere)
    plain = model.generate(**inputs, **limits)
    assert (
        isinstance(compiled, torch.Tensor)
        and isinstance(plain, torch.Tensor)
        and torch.equal(compiled, plain)
    )
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        and not torch._dynamo.utils.counters["graph_break"]
    )
