"""Decoding: batches equal single rows, choices equal teacher forcing, and no answer leaves the grammar."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest
import torch
from tiny import END_OF_TURN, Rows, batch_of, random_model
from transformers.generation.streamers import BaseStreamer

from molmopoint.errors import GroundingError
from molmopoint.grammar import GroundingGrammar, Symbol
from molmopoint.heads import ALL_STAGES, Stages
from molmopoint.rows import split_extended
from molmopoint.tokens import NO_MORE_POINTS

MIX = [["image"], [], ["image", "image", "image"], ["clip"], ["image"]]
STEPS = 40


def generate(model, inputs, steps=STEPS, **kwargs) -> Any:
    return model.generate(
        **inputs,
        max_new_tokens=steps,
        eos_token_id=kwargs.pop("eos_token_id", None),
        pad_token_id=0,
        **kwargs,
    )


def answered(inputs, sequences):
    """The prompt's inputs with its answer behind it; vision tokens in the answer are text."""
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, new), value=1)
    types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, new), value=0)
    return {**inputs, "attention_mask": mask, "mm_token_type_ids": types, "input_ids": sequences}


def plain(model, answer, sample):
    """Plain ids and selections of one generated answer (n,)."""
    patches = sum(len(table) for _, (_, _, table) in sample["parts"])
    slots = max((table.shape[1] for _, (_, _, table) in sample["parts"]), default=0)
    ids, selections = split_extended(
        answer[None], torch.tensor([patches]), torch.tensor([slots]), model.config.grounding
    )
    return ids[0], selections[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_batch_is_its_rows(seed):
    model = random_model(seed)
    samples = Rows(model.config, seed).prompts(MIX, words=[3, 9, 5, 12, 4])
    batch = batch_of(samples, model.config)
    together = generate(model, batch)[:, batch["input_ids"].shape[1] :]
    pointed = 0
    for row, sample in zip(together, samples, strict=True):
        single = batch_of([sample], model.config)
        alone = generate(model, single)[0, len(sample["ids"]) :]
        assert row.tolist() == alone.tolist()
        pointed += int((alone >= model.config.extended_start).sum())
    assert pointed > 10, "the random model should point now and then, or this test compares text only"


def sentence(model, ids, selections):
    config = model.config
    tokens = (config.patch_token_id, config.subpatch_token_id, config.location_token_id)
    kinds = dict(zip(tokens, (Symbol.PATCH, Symbol.SUBPATCH, Symbol.LOCATION), strict=True))
    return [
        Symbol.NO_MORE_POINTS if s == NO_MORE_POINTS else kinds.get(i, Symbol.TEXT)
        for i, s in zip(ids.tolist(), selections.tolist(), strict=True)
    ]


@pytest.mark.parametrize("sample_tokens", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_answers_follow_the_grammar(seed, sample_tokens):
    model = random_model(seed)
    with torch.no_grad():  # push the model into pointing, whatever its weights are
        model.lm_head.weight[model.config.patch_token_id] *= 4
    samples = Rows(model.config, seed).prompts(MIX)
    inputs = batch_of(samples, model.config)
    torch.manual_seed(seed)
    answers = generate(
        model,
        inputs,
        120,
        do_sample=sample_tokens,
        **({"temperature": 1.5, "top_k": 20} if sample_tokens else {}),
    )
    for answer, sample in zip(answers[:, inputs["input_ids"].shape[1] :], samples, strict=True):
        ids, selections = plain(model, answer, sample)
        symbols = sentence(model, ids, selections)
        GroundingGrammar().run(symbols)
        assert symbols[0] is Symbol.TEXT, "no answer starts inside a list that was never opened"
        tables = [
            torch.nn.functional.pad(t, (0, 9 - t.shape[1]), value=-1) for _, (_, _, t) in sample["parts"]
        ]
        table = torch.cat([*tables, torch.zeros(0, 9, dtype=torch.long)])
        places = [
            (int(selections[i]), int(selections[i + 1]))
            for i in range(len(symbols) - 1)
            if symbols[i] is Symbol.PATCH
        ]
        assert places == sorted(set(places)), "places ascend and none comes twice"
        assert all(table[p, k] >= 0 for p, k in places), "an empty slot was chosen"
        first_choice = next((s for s in symbols if s is not Symbol.TEXT), None)
        assert first_choice is not Symbol.NO_MORE_POINTS
        if not sample["parts"]:
            assert set(symbols) == {Symbol.TEXT}


def test_exhausted_patches_leave_only_no_more_points():
    model = random_model(3)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[model.config.patch_token_id] = model.model.language_model.norm.weight * 50
        model.model.point_predictor.patch.no_more_points.fill_(-50.0)
    sample = Rows(model.config).prompts([["image"]])[0]
    answer = generate(model, batch_of([sample], model.config), 100)[0, len(sample["ids"]) :]
    ids, selections = plain(model, answer, sample)
    assert int((selections == NO_MORE_POINTS).sum()) <= 1
    GroundingGrammar().run(sentence(model, ids, selections))


@pytest.mark.parametrize("limit", [1, 3])
def test_max_points(limit):
    model = random_model(1)
    with torch.no_grad():
        model.lm_head.weight[model.config.patch_token_id] *= 6
    samples = Rows(model.config, 1).prompts(MIX)
    inputs = batch_of(samples, model.config)
    answers = generate(model, inputs, 80, max_points=limit)[:, inputs["input_ids"].shape[1] :]
    for answer, sample in zip(answers, samples, strict=True):
        ids, selections = plain(model, answer, sample)
        assert int(((ids == model.config.patch_token_id) & (selections >= 0)).sum()) <= limit


def test_single_point_in_an_open_list_comes_at_once():
    model = random_model(2)
    samples = Rows(model.config, 2).prompts([["image"], ["clip"]])
    inputs = batch_of(samples, model.config)
    answers = generate(model, inputs, 12, single_point=True, open_list=True)[
        :, inputs["input_ids"].shape[1] :
    ]
    for answer, sample in zip(answers, samples, strict=True):
        ids, selections = plain(model, answer, sample)
        assert sentence(model, ids, selections)[:3] == [Symbol.PATCH, Symbol.SUBPATCH, Symbol.LOCATION]
        assert int(((ids == model.config.patch_token_id) & (selections >= 0)).sum()) == 1


def choices_left(table, places, new_patch=None):
    """What may be chosen after `places`, by the words of the contract: patches and no-more-points, or slots
    of `new_patch`.
    """
    patch, slot = places[-1] if places else (-1, -1)
    if new_patch is not None:
        return [
            k
            for k, entry in enumerate(table[new_patch].tolist())
            if entry >= 0 and (new_patch != patch or k > slot)
        ]
    indexable = range(len(table))
    left = [p for p in indexable if p > patch or (p == patch and choices_left(table, places, patch))]
    return left + ([len(table)] if places else [])


@pytest.mark.parametrize("seed", range(4))
def test_teacher_forcing_repeats_greedy_choices(seed):
    """The training pass over a greedy answer finds every selection on top of what the rules leave, with the
    same probability.
    """
    model = random_model(seed)
    with torch.no_grad():
        model.lm_head.weight[model.config.patch_token_id] *= 3
    for sample in Rows(model.config, seed).prompts([["image"], ["image", "image"], ["clip"]]):
        inputs = batch_of([sample], model.config)
        out = generate(model, inputs, 60, return_dict_in_generate=True)
        labels = out.sequences.clone()
        labels[:, : len(sample["ids"])] = -100
        with torch.no_grad():
            passed = model(**answered(inputs, out.sequences), labels=labels)
        ids, selections = plain(model, out.sequences[0, len(sample["ids"]) :], sample)
        table = torch.cat([table for _, (_, _, table) in sample["parts"]])
        rows = {name: iter(getattr(passed, f"{name}_logits")) for name in ("patch", "subpatch", "location")}
        places: list[tuple[int, int]] = []
        new_patch = -1
        for token, selection, probability in zip(
            ids.tolist(), selections.tolist(), out.selection_probabilities[0].tolist(), strict=True
        ):
            if selection == -1:
                assert probability != probability, "text has no selection probability"
                continue
            if token == model.config.patch_token_id:
                logits = next(rows["patch"])
                allowed = [
                    p for p in choices_left(table, places) if logits[p] > torch.finfo(logits.dtype).min
                ]
                chosen = len(table) if selection == NO_MORE_POINTS else selection
                new_patch = selection
            elif token == model.config.subpatch_token_id:
                logits, allowed, chosen = (
                    next(rows["subpatch"]),
                    choices_left(table, places, new_patch),
                    selection,
                )
                places.append((new_patch, selection))
            else:
                logits, chosen = next(rows["location"]), selection
                allowed = list(range(len(logits)))
            odds = logits[allowed].softmax(-1)
            assert allowed[int(odds.argmax())] == chosen
            assert float(odds.max()) == pytest.approx(probability, abs=1e-4)
        assert all(next(left, None) is None for left in rows.values())


def test_cached_steps_equal_one_pass():
    model = random_model(5)
    samples = Rows(model.config, 5).prompts([["image"], ["clip"]], words=[4, 7])
    inputs = batch_of(samples, model.config)
    out = generate(model, inputs, 30)
    mask = torch.cat([inputs["attention_mask"], torch.ones(len(out), 30, dtype=torch.long)], 1)
    whole = model(**answered(inputs, out)).logits
    prompt = model(**inputs, use_cache=True)
    state, length = prompt.grounding_state, inputs["input_ids"].shape[1]
    assert torch.allclose(prompt.logits[:, -1], whole[:, length - 1], atol=1e-4)
    for t in range(length, length + 29):
        step = model(
            out[:, t : t + 1], attention_mask=mask[:, : t + 1], cache=prompt.cache, grounding_state=state
        )
        state = step.grounding_state
        assert torch.allclose(step.logits[:, 0], whole[:, t], atol=1e-4)


def test_several_answers_per_prompt_share_the_pictures():
    model = random_model(6)
    samples = Rows(model.config, 6).prompts(MIX)
    inputs = batch_of(samples, model.config)
    greedy = generate(model, inputs)
    twice = generate(model, inputs, num_return_sequences=2, do_sample=True, top_k=1)
    assert torch.equal(greedy.repeat_interleave(2, 0), twice)


def test_static_cache_equals_dynamic_cache():
    model = random_model(7)
    inputs = batch_of(Rows(model.config, 7).prompts(MIX), model.config)
    assert torch.equal(generate(model, inputs), generate(model, inputs, cache_implementation="static"))


def test_features_made_once_serve_many_prompts():
    model = random_model(8)
    first, second = (Rows(model.config, 8).prompts([["image", "image"]], words=[n])[0] for n in (5, 8))
    second["parts"] = first["parts"]
    pixels = {k: v for k, v in batch_of([first], model.config).items() if "pooling" in k or "pixel" in k}
    features = model.get_visual_features(**pixels)
    for sample in (first, second):
        inputs = batch_of([sample], model.config)
        ids = {k: inputs[k] for k in ("input_ids", "attention_mask", "mm_token_type_ids")}
        assert torch.equal(generate(model, inputs), generate(model, {**ids, "visual_features": features}))


def test_an_earlier_answer_in_the_prompt_does_not_close_the_next_turn():
    model = random_model(9)
    with torch.no_grad():
        model.lm_head.weight[model.config.patch_token_id] *= 6
    sample = Rows(model.config, 9).prompts([["image"]])[0]
    start, patches, slots = model.config.extended_start, 18, 4
    closed = [start + 12, start + patches + 1, start + patches + 1 + slots, 20, start + patches, 30]
    here = {**sample, "ids": sample["ids"] + [END_OF_TURN, 40] + closed}
    later = {**sample, "ids": sample["ids"] + [END_OF_TURN, 40] + closed + [END_OF_TURN, 41, 42]}
    for history, may_point in ((here, False), (later, True)):
        inputs = batch_of([history], model.config)
        answer = generate(model, inputs, 40, eos_token_id=END_OF_TURN)[0, len(history["ids"]) :]
        assert bool((answer >= start).any()) == may_point


def test_what_cannot_be_done_says_so():
    model = random_model(0)
    sample = Rows(model.config).prompts([["image"], []])
    inputs = batch_of(sample, model.config)
    with pytest.raises(NotImplementedError, match="beam"):
        generate(model, inputs, num_beams=3)
    with pytest.raises(ValueError, match="left padding"):
        generate(model, batch_of(sample, model.config, side="right"))
    with pytest.raises(ValueError, match="use_cache"):
        generate(model, inputs, use_cache=False)
    broken = {**inputs, "input_ids": inputs["input_ids"].clone()}
    broken["input_ids"][0, -1] = model.config.extended_start + 500
    with pytest.raises(GroundingError, match="selection"):
        generate(model, broken)
    short = {**inputs, "image_token_pooling": inputs["image_token_pooling"][:-1]}
    with pytest.raises(ValueError, match="image tokens"):
        generate(model, short)


@pytest.mark.parametrize("rows", [[["image"]], MIX])
def test_steps_compute_only_what_some_row_chooses_from(rows):
    """What generation leaves out changes neither the answer nor what it says of its selections."""
    model = random_model(10)
    with torch.no_grad():
        model.lm_head.weight[model.config.patch_token_id] *= 6
    inputs = batch_of(Rows(model.config, 10).prompts(rows), model.config)
    lean = generate(model, inputs, return_dict_in_generate=True)
    asked, forward = [], model.forward

    @wraps(forward)
    def everything(**arguments):
        asked.append(arguments.pop("stages", ALL_STAGES))
        return forward(**arguments)

    model.forward = everything
    full = generate(model, inputs, return_dict_in_generate=True)
    assert torch.equal(lean.sequences, full.sequences)
    assert torch.allclose(
        lean.selection_probabilities, full.selection_probabilities, atol=1e-6, equal_nan=True
    )
    slots_only = Stages(words=False, slots=True, locations=False)
    assert (slots_only in asked) == (len(rows) == 1)
    for step, stages in enumerate(asked):
        if not stages.words:
            with pytest.raises(ValueError, match="PATCH"):
                lean.patch_distribution(0, step)
        if stages == slots_only:
            assert torch.equal(lean.subpatch_distribution(0, step), full.subpatch_distribution(0, step))


def test_a_streamer_sees_the_prompt_and_every_token():
    class Heard(BaseStreamer):
        parts: list[torch.Tensor] = []
        ended = False

        def put(self, value):
            self.parts.append(value)

        def end(self):
            self.ended = True

    model, heard = random_model(0), Heard()
    inputs = batch_of(Rows(model.config).prompts([["image"]]), model.config)
    out = generate(model, inputs, 10, streamer=heard)
    assert torch.equal(torch.cat([heard.parts[0][0], *heard.parts[1:]]), out[0])
    assert heard.ended


@pytest.mark.parametrize(
    ("option", "value"),
    [("output_scores", True), ("output_logits", True), ("guidance_scale", 2.0), ("prefill_chunk_size", 8)],
)
def test_options_that_would_be_left_out_say_so(tiny_model, option, value):
    inputs = batch_of(Rows(tiny_model.config).prompts([["image"]]), tiny_model.config)
    with pytest.raises(NotImplementedError, match=option):
        generate(tiny_model, inputs, **{option: value})


@pytest.mark.parametrize("limit", [0, -1, True, "a"])
def test_max_points_is_a_number(tiny_model, limit):
    inputs = batch_of(Rows(tiny_model.config).prompts([["image"]]), tiny_model.config)
    with pytest.raises(ValueError, match="max_points"):
        generate(tiny_model, inputs, max_points=limit)


def test_prompts_are_rows_of_ids(tiny_model):
    for ids in (torch.tensor([3, 4, 5]), torch.zeros(1, 0, dtype=torch.long)):
        with pytest.raises(ValueError, match="input_ids"):
            tiny_model(input_ids=ids)


def test_stop_strings_need_their_tokenizer(tiny_model):
    inputs = batch_of(Rows(tiny_model.config).prompts([["image"]]), tiny_model.config)
    with pytest.raises(ValueError, match="tokenizer"):
        generate(tiny_model, inputs, stop_strings=["."])
