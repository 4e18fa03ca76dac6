"""The training pass: packed equals separate, a branch equals the same conversation alone, backends agree."""

from __future__ import annotations

import pytest
import torch
from tiny import Rows, batch_of, random_model
from tiny_training import ANSWER, conversation, row, training_batch

from molmopoint.errors import GroundingError


@torch.no_grad()
def sums(model, batch, **kwargs):
    out = model(**batch, **kwargs)
    return {**{k: float(v) for k, v in out.loss_sums.items()}, "weight": float(out.weight_sum)}


def close(a, b, tolerance=2e-4):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == pytest.approx(b[name], rel=tolerance, abs=tolerance), name


@pytest.fixture(scope="module", params=["keys", "dim", 0.3])
def model(request):
    return random_model(11, patch_logit_scale=request.param)


@pytest.fixture(scope="module")
def samples(model):
    return Rows(model.config, 3).prompts([["image"], ["image"]], words=[0, 0])


def test_packed_rows_equal_separate_rows(model, samples):
    config = model.config
    first, second = (conversation(config, [20 + i, 30, 40], ANSWER[i]) for i in range(2))
    separate = training_batch(
        config, [row(config, samples[0], [first]), row(config, samples[1], [second])], samples
    )
    one, two = row(config, samples[0], [first]), row(config, samples[1], [second], example=1, first_patch=18)
    packed = training_batch(config, [{name: one[name] + two[name] for name in one}], samples)
    close(sums(model, separate), sums(model, packed))


def test_a_branch_equals_the_conversation_alone(model, samples):
    config = model.config
    branches = [conversation(config, [20 + i, 30, 40 + i], ANSWER[i]) for i in range(2)]
    tree = sums(model, training_batch(config, [row(config, samples[0], branches)], samples[:1]))
    alone = [
        sums(model, training_batch(config, [row(config, samples[0], [b])], samples[:1])) for b in branches
    ]
    close(tree, {name: sum(a[name] for a in alone) for name in tree})


def test_changing_one_branch_never_changes_another(model, samples):
    config = model.config
    kept = conversation(config, [20, 30, 40], ANSWER[0])
    results = []
    for words in ([21, 31], [55, 56, 57, 58]):
        other = conversation(config, words, ANSWER[1])
        silent = (other[0], other[1], [-100] * len(other[0]), [0.0] * len(other[0]))
        results.append(
            sums(model, training_batch(config, [row(config, samples[0], [kept, silent])], samples[:1]))
        )
    close(*results)


def test_padding_side_does_not_matter(model, samples):
    config = model.config
    conversations = [
        conversation(config, words, answer)
        for words, answer in zip(([20, 30], [20] * 9), ANSWER, strict=True)
    ]
    rows = [row(config, sample, [spoken]) for sample, spoken in zip(samples, conversations, strict=True)]
    close(
        sums(model, training_batch(config, rows, samples, "right")),
        sums(model, training_batch(config, rows, samples, "left")),
    )


@pytest.mark.parametrize("backend", ["eager", "flex_attention"])
def test_attention_backends_agree(model, samples, backend):
    config = model.config
    trees = [
        row(config, s, [conversation(config, [20 + b, 30], ANSWER[b]) for b in range(2)]) for s in samples
    ]
    batch = training_batch(config, trees, samples)
    expected = sums(model, batch)
    twin = random_model(11, patch_logit_scale=config.patch_logit_scale)
    twin.load_state_dict(model.state_dict())
    twin.set_attn_implementation(backend)
    close(expected, sums(twin, batch), 1e-3)


def test_labels_and_shift_labels_say_the_same(model, samples):
    batch = training_batch(
        model.config,
        [row(model.config, samples[0], [conversation(model.config, [20, 30], ANSWER[0])])],
        samples[:1],
    )
    batch["loss_weights"] = (batch["shift_labels"] != -100).float()
    batch["shift_labels"][:, -1] = -100  # aligned labels cannot name a token behind the last one
    expected = sums(model, batch)
    shifted = batch.pop("shift_labels")
    batch["labels"] = torch.nn.functional.pad(shifted[:, :-1], (1, 0), value=-100)
    batch["loss_weights"] = None
    close(expected, sums(model, batch))


@torch.no_grad()
def test_divisor_z_loss_and_weighted_pointing(model, samples):
    batch = training_batch(
        model.config,
        [row(model.config, samples[0], [conversation(model.config, [20, 30], ANSWER[0])])],
        samples[:1],
    )
    out = model(**batch, z_loss=1e-2, num_items_in_batch=4.0)
    assert float(out.loss) == pytest.approx(sum(float(v) for v in out.loss_sums.values()) / 4.0, rel=1e-5)
    assert set(out.loss_sums) == {"text", "z", "patch", "subpatch", "location"}
    doubled = {**batch, "loss_weights": batch["loss_weights"] * 2}
    once, twice = model(**batch, weight_pointing_losses=True), model(**doubled, weight_pointing_losses=True)
    assert float(once.loss) == pytest.approx(float(twice.loss), rel=1e-5)
    assert float(model(**batch).loss_sums["patch"]) == pytest.approx(
        float(model(**doubled).loss_sums["patch"]), rel=1e-5
    )


def test_a_batch_without_points_or_pictures_reaches_every_pointing_weight():
    model = random_model(1).train()
    ids = torch.randint(3, 90, (2, 12))
    model(input_ids=ids, labels=ids).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing, "sharded training would wait for these forever"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close_and_finite(samples, dtype):
    model = random_model(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    batch = training_batch(
        model.config,
        [row(model.config, samples[0], [conversation(model.config, [20, 30], ANSWER[0])])],
        samples[:1],
    )
    expected = sums(model, batch)
    close(expected, sums(model.to(dtype), batch), 0.05)
    inputs = batch_of(samples, model.config)
    model.generate(**inputs, max_new_tokens=20, pad_token_id=0, eos_token_id=None)


def test_selections_that_name_no_place_are_refused(model, samples):
    config = model.config
    for bad in (((99, 0, 0),), ((9, 7, 0),), ((9, 0, 9),)):
        batch = training_batch(
            config, [row(config, samples[0], [conversation(config, [20, 30], bad)])], samples[:1]
        )
        with pytest.raises(GroundingError, match="expected a selection below"):
            model(**batch)
