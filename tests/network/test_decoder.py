"""The faster blocks of the text model compute what those of transformers compute, in any dtype and over any cache."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from tiny import random_model, tiny_config
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.models.molmo2.modeling_molmo2 import Molmo2TextModel

from molmopoint.attention import CACHE
from molmopoint.decoder import ROOM, DecoderLayer, GrowingLayer, give_room, run_faster
from molmopoint.heads.norm import rms_norm


def native_and_faster(dtype=torch.float32, **changes: Any):
    """A random text model of transformers, and a copy of it that runs faster."""
    config = copy.deepcopy(tiny_config().text_config)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    native: Any = Molmo2TextModel(config).eval()
    native.to(dtype)
    for name, parameter in native.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    faster: Any = copy.deepcopy(native)
    run_faster(faster)
    return native, faster


def read(text, embeddings, cache=None, **more):
    return text(
        inputs_embeds=embeddings, use_cache=cache is not None, **{CACHE: cache}, **more
    ).last_hidden_state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norms", ["qwen3", "olmo"])
@pytest.mark.parametrize("after", [False, True])
@torch.no_grad()
def test_a_prompt_and_its_steps_are_those_of_transformers(dtype, norms, after):
    native, faster = native_and_faster(dtype, qk_norm_type=norms, norm_after=after)
    assert type(faster.layers[0]) is DecoderLayer
    width = native.config.hidden_size
    embeddings = torch.randn(2, 9, width, generator=torch.Generator().manual_seed(1)).to(dtype)
    real = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1] * 9])
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    caches = DynamicCache(config=native.config), DynamicCache(config=native.config)
    give_room(caches[1])
    seen = []
    for text, cache in ((native, caches[0]), (faster, caches[1])):
        states = [read(text, embeddings[:, :6], cache, attention_mask=real[:, :6])]
        for token in range(6, 9):
            mask = real[:, : token + 1]
            states.append(read(text, embeddings[:, token : token + 1], cache, attention_mask=mask))
        seen.append(states)
    for expected, found in zip(*seen, strict=True):
        real_rows = expected[1], found[1]  # what padding computes, nobody reads
        torch.testing.assert_close(*real_rows, atol=tolerance, rtol=tolerance)
        torch.testing.assert_close(expected[0, -1], found[0, -1], atol=tolerance, rtol=tolerance)


def test_parameters_keep_their_names_and_gradients():
    native, faster = native_and_faster()
    assert list(native.state_dict()) == list(faster.state_dict())
    embeddings = torch.randn(2, 5, native.config.hidden_size)
    for text in (native, faster):
        read(text, embeddings).square().sum().backward()
    for (name, expected), (_, found) in zip(
        native.named_parameters(), faster.named_parameters(), strict=True
    ):
        if expected.grad is None:
            continue
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    "dtypes", [("float32", "float32"), ("bfloat16", "bfloat16"), ("bfloat16", "float32")]
)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_norm_is_that_of_transformers(dtypes, autocast):
    x = torch.randn(3, 7, 32).to(getattr(torch, dtypes[0]))
    weight = torch.rand(32).to(getattr(torch, dtypes[1]))
    wide = x.float()
    expected = weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = rms_norm(x, weight, 1e-6)
    assert found.dtype == expected.dtype
    # Half precision may be rounded once in place of twice.
    tolerance = 1e-6 if dtypes[1] == "float32" else 2**-7
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def grown(cache, lengths):
    """Keys and values after the given numbers of new tokens."""
    generator = torch.Generator().manual_seed(5)
    for length in lengths:
        new = torch.randn(2, 3, length, 4, generator=generator)
        keys, values = cache.update(new, -new, 0)
    return keys, values


def test_keys_grow_in_place_and_are_those_of_a_dynamic_cache():
    lengths = [7] + [1] * (ROOM + 5) + [3]
    plain, roomy = DynamicCache(), DynamicCache()
    grown(roomy, [1])
    roomy.layers[0] = GrowingLayer()
    with torch.inference_mode():
        expected, found = grown(plain, lengths), grown(roomy, lengths)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert roomy.get_seq_length() == sum(lengths)
    # Outside of inference mode the buffers are copied once, and go on.
    assert torch.equal(grown(roomy, [2])[0], grown(plain, [2])[0])


def test_a_step_copies_no_keys():
    layer = GrowingLayer()
    new = torch.ones(1, 1, 1, 2)
    keys, _ = layer.update(new, new)
    first = keys.data_ptr()
    for _ in range(ROOM - 1):
        keys, _ = layer.update(new, new)
    assert keys.data_ptr() == first
    # A prompt of 200 points takes the room of its tokens, and at most ROOM more.
    assert layer._buffers is not None and layer._buffers[0].shape[-2] <= ROOM + layer.get_seq_length()


@pytest.mark.parametrize("change", ["crop", "select", "repeat", "reset"])
def test_what_transformers_does_with_a_cache_is_kept(change):
    caches = DynamicCache(), DynamicCache()
    grown(caches[1], [1])
    caches[1].layers[0] = GrowingLayer()
    results = []
    for cache in caches:
        grown(cache, [6, 1])
        if change == "crop":
            cache.crop(-2)
        elif change == "select":
            cache.batch_select_indices(torch.tensor([1, 0]))
        elif change == "repeat":
            cache.batch_repeat_interleave(2)
            cache.batch_select_indices(torch.tensor([0, 3]))
        else:
            cache.reset()
        results.append(grown(cache, [1, 2]))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_only_empty_plain_caches_are_given_room():
    config = tiny_config().text_config
    empty = DynamicCache(config=config)
    give_room(empty)
    assert all(type(layer) is GrowingLayer for layer in empty.layers)
    used = DynamicCache(config=config)
    used.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), 0)
    give_room(used)
    assert type(used.layers[0]) is DynamicLayer
    give_room(None)


class CountKernels(TorchDispatchMode):
    """Counts the calls that a GPU would launch a kernel for: views and what changes nothing are none."""

    VIEWS = {
        "view",
        "slice",
        "select",
        "transpose",
        "unsqueeze",
        "squeeze",
        "expand",
        "alias",
        "detach",
        "chunk",
    }
    VIEWS |= {"permute", "t", "reshape", "_unsafe_view", "lift_fresh", "split"}

    def __init__(self):
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        is_same = bool(args) and result is args[0] and name == "to"
        if name not in self.VIEWS and not is_same:
            self.counts[name] += 1
        return result


def test_a_step_of_36_layers_launches_at_most_1100_kernels():
    config = tiny_config()
    layers = config.text_config.num_hidden_layers
    model = random_model(0)
    ids = torch.randint(3, 90, (1, 9), generator=torch.Generator().manual_seed(0))
    text = model.model.language_model
    cache = DynamicCache(config=config.text_config)
    give_room(cache)
    with torch.inference_mode():
        read(text, model.get_input_embeddings()(ids), cache)
        embedding = model.get_input_embeddings()(ids[:, -1:])
        with CountKernels() as counter:
            text.run_layers(embedding, None, torch.tensor([[9]]), cache)
    per_layer = (counter.counts.total() - 15) / layers  # rotations are made once
    assert per_layer * 36 + 15 < 1060, counter.counts  # 40 are left for heads, rules and loop
