"""The training pass of native Molmo2: masks, losses, and that what it learns is what `generate` writes and
the parser reads.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from tiny_molmo2 import molmo2_config, molmo2_pointing_processor, molmo2_processor, random_molmo2
from toy_processor import picture
from transformers import Molmo2ForConditionalGeneration

from molmopoint.backends.molmo2 import Molmo2Backend
from molmopoint.data.records import Record, RecordPoint
from molmopoint.processing.message_tree import LossWeighting
from molmopoint.processing.rows import NO_PATCH_TOKEN, collate, pack
from molmopoint.training.rules import FormattingRules
from molmopoint.training.sources import Example
from molmopoint.training.trees import format_tree, read_media, tree_row

PROCESSOR: Any = molmo2_processor()
BACKEND = Molmo2Backend(molmo2_pointing_processor())
PAD = PROCESSOR.tokenizer.pad_token_id
RULES = FormattingRules(
    weights=dict.fromkeys(("points", "answer", "caption"), LossWeighting(root_length=2.0, root_branches=True))
)


def pointing(label: str, *places: tuple[float, float]) -> Record:
    points = tuple(RecordPoint(x, y) for x, y in places)
    return Record(
        1, ("a",), prompt=f"Point to {label}", label=label, points=points, coords="norm1", style="pointing"
    )


DOG, CATS = pointing("dog", (0.5, 0.25)), pointing("cats", (0.1, 0.9), (0.75, 0.5))
QUESTION = Record(1, ("a",), prompt="What?", answer="Two cats.")
TEXT = Record(1, prompt="Two and two?", answer="4")


def example(*records: Record, seed: int = 0) -> Example:
    return Example(records, (picture(70, 120, seed),) if records[0].images else ())


def row_of(*records: Record, seed: int = 0):
    media = read_media(BACKEND, example(*records, seed=seed))
    writer = BACKEND.writer_of(media)
    conversations = [format_tree([record], writer, np.random.default_rng(0), RULES)[0] for record in records]
    return tree_row(
        BACKEND.requests.build_trunk(media), conversations, BACKEND.processor.chat, max_length=4096
    )


def batch_of(*rows, side: Literal["left", "right"] = "right"):
    return collate(rows, PAD, side)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_molmo2()


def test_a_packed_row_is_its_examples_alone(model: Any):
    rows = [row_of(DOG, CATS, QUESTION), row_of(CATS, seed=1), row_of(TEXT), row_of(QUESTION, DOG, seed=2)]
    alone = [model(**batch_of(row), z_loss=1e-2) for row in rows]
    packed = model(**batch_of(pack(rows, NO_PATCH_TOKEN)), z_loss=1e-2)
    two_rows = model(
        **batch_of(pack(rows[:2], NO_PATCH_TOKEN), pack(rows[2:], NO_PATCH_TOKEN), side="left"), z_loss=1e-2
    )
    expected = torch.cat([one.logits for one in alone])
    weights = torch.stack([one.weight_sum for one in alone])
    loss = (torch.stack([one.loss for one in alone]) * weights).sum() / weights.sum()
    for output in (packed, two_rows):
        torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(output.weight_sum, weights.sum())
        torch.testing.assert_close(output.loss, loss, atol=1e-5, rtol=1e-5)
        for name in ("text", "z"):
            torch.testing.assert_close(
                output.loss_sums[name], sum(one.loss_sums[name] for one in alone), atol=1e-4, rtol=1e-5
            )


def test_a_branch_is_the_conversation_alone_and_does_not_see_the_others(model: Any):
    tree = model(**batch_of(row_of(DOG, CATS, QUESTION))).logits
    alone = [model(**batch_of(row_of(record))).logits for record in (DOG, CATS, QUESTION)]
    torch.testing.assert_close(tree, torch.cat(alone), atol=1e-5, rtol=1e-5)
    other = model(**batch_of(row_of(DOG, TEXT, QUESTION))).logits
    torch.testing.assert_close(other[: len(alone[0])], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(other[-len(alone[2]) :], alone[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_one_conversation_is_the_native_forward(model: Any, attention: str):
    row = row_of(CATS)
    native = Molmo2ForConditionalGeneration(molmo2_config()).eval()
    native.load_state_dict(model.state_dict())
    native.set_attn_implementation(attention)
    model.set_attn_implementation(attention)
    output: Any = BACKEND.processor(text="<|image|>", images=picture(70, 120), return_tensors="pt")
    logits = native(
        input_ids=row.input_ids[None],
        mm_token_type_ids=row.mm_token_type_ids[None],
        **{
            name: output[name]
            for name in ("pixel_values", "image_token_pooling", "image_grids", "image_num_crops")
        },
    ).logits[0]
    supervised = row.shift_labels >= 0
    ours = model(**batch_of(row))
    torch.testing.assert_close(ours.logits, logits[supervised], atol=1e-5, rtol=1e-5)
    entropy = torch.nn.functional.cross_entropy(
        logits[supervised], row.shift_labels[supervised], reduction="none"
    )
    weights = row.loss_weights[supervised]
    torch.testing.assert_close(ours.loss, (weights * entropy).sum() / weights.sum())
    torch.testing.assert_close(
        model(**batch_of(row), num_items_in_batch=7.0).loss, (weights * entropy).sum() / 7
    )
    model.set_attn_implementation("sdpa")


def test_pictures_that_do_not_fit_the_tokens_are_refused(model: Any):
    batch = batch_of(row_of(CATS))
    short = {"image_token_pooling": batch["image_token_pooling"][1:]}
    with pytest.raises(ValueError, match=r"expected \d+ image tokens for the \d+ rows of the pooling table"):
        model(**batch | short)
    clips = {
        "pixel_values_videos": batch["pixel_values"],
        "video_token_pooling": batch["image_token_pooling"],
    }
    with pytest.raises(ValueError, match="expected pictures or clips, got both"):
        model(**batch, **clips)


def test_a_mask_given_ready_is_used_as_given(model: Any):
    batch = batch_of(row_of(TEXT))
    tokens = batch["input_ids"].shape[1]
    alone = model(**batch | {"attention_mask": torch.eye(tokens, dtype=torch.bool)[None, None]}).logits
    again = batch["input_ids"].clone()
    again[0, :3] = 5
    changed = model(
        **batch | {"attention_mask": torch.eye(tokens, dtype=torch.bool)[None, None], "input_ids": again}
    ).logits
    torch.testing.assert_close(alone, changed)


def test_every_weight_gets_a_gradient_without_pictures_too(model: Any):
    model.train()
    for rows in ([row_of(DOG, CATS)], [row_of(TEXT)]):
        model.zero_grad()
        model(**batch_of(*rows), z_loss=1e-4).loss.backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not missing
        assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
    model.eval()


def test_checkpointing_changes_nothing(model: Any):
    batch = batch_of(row_of(DOG, CATS))
    model.train()
    model.zero_grad()
    model(**batch).loss.backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain[name], atol=1e-6, rtol=1e-5)
    model.gradient_checkpointing_disable()
    model.eval()


def test_what_is_saved_is_a_native_model(model: Any, tmp_path):
    model.save_pretrained(tmp_path)
    native, report = Molmo2ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)  # type: ignore[misc]
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (
        native.config.architectures == ["Molmo2ForConditionalGeneration"]
        and native.config.model_type == "molmo2"
    )
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in native.state_dict().items())


def test_what_belongs_together_is_asked_for(model: Any):
    batch = batch_of(row_of(TEXT))
    for name in ("position_ids", "mm_token_type_ids"):
        with pytest.raises(ValueError, match=name):
            model(**{key: value for key, value in batch.items() if key != name})


def test_it_learns_to_write_points_that_the_parser_reads():
    model: Any = random_molmo2(1)
    batch = batch_of(row_of(CATS, DOG))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    model.train()
    for _ in range(60):
        optimiser.zero_grad()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()
    media = read_media(BACKEND, example(CATS))
    prompt = PROCESSOR(
        text="<|image|><|im_start|>user\nPoint to cats<|im_end|>\n<|im_start|>assistant\n",
        images=picture(70, 120),
        return_tensors="pt",
    )
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=80, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    points = BACKEND.read_answer(ids, media.metadata, "").points
    assert BACKEND.decode(ids.tolist()) == '<points coords="1 1 100 900 2 750 500">cats</points>'
    np.testing.assert_allclose(points.xy, [(12.0, 63.0), (90.0, 35.0)])
