"""Hand-made training rows for the tiny model: trunks, branches, packed examples."""

from __future__ import annotations

import torch
from tiny import batch_of

from molmopoint.tokens import NO_MORE_POINTS

ANSWER = [((9, 0, 4), (9, 3, 0), (12, 1, 8)), ((10, 2, 2),)]


def conversation(config, words, triples):
    """Ids, selections, labels and weights of one question and its answer with a closed point list."""
    ids, selections = list(words), [-1] * len(words)
    for patch, slot, location in triples:
        ids += [config.patch_token_id, config.subpatch_token_id, config.location_token_id, 7]
        selections += [patch, slot, location, -1]
    ids += [config.patch_token_id, 8]
    selections += [NO_MORE_POINTS, -1]
    labels = [-100] * (len(words) - 1) + ids[len(words) :] + [2]
    weights = [0.0 if label < 0 else 0.5 + 0.1 * (i % 3) for i, label in enumerate(labels)]
    return ids, selections, labels, weights


def row(config, sample, conversations, example=0, first_patch=0):
    """One example: the sample's trunk and its branches, as columns."""
    trunk = len(sample["ids"])
    columns = {
        "input_ids": list(sample["ids"]), "selection_ids": [-1] * trunk, "shift_labels": [-100] * trunk, "loss_weights": [0.0] * trunk,
        "position_ids": list(range(trunk)), "branch_ids": [-1] * trunk,
    }  # fmt: skip
    for branch, (ids, selections, labels, weights) in enumerate(conversations):
        shifted = [
            s + first_patch if i == config.patch_token_id and s >= 0 else s
            for i, s in zip(ids, selections, strict=True)
        ]
        added = (ids, shifted, labels, weights, range(trunk, trunk + len(ids)), [branch] * len(ids))
        for name, values in zip(columns, added, strict=True):
            columns[name] += list(values)
    columns["example_ids"] = [example] * len(columns["input_ids"])
    return columns


FILL = {
    "input_ids": 0, "selection_ids": -1, "shift_labels": -100, "loss_weights": 0.0, "position_ids": 0, "branch_ids": -1, "example_ids": -1,
}  # fmt: skip


def training_batch(config, rows, samples, side="right"):
    """Model inputs from rows; `samples` in the order of their image tokens."""
    length = max(len(r["input_ids"]) for r in rows)
    out = {}
    for name, fill in FILL.items():
        padded = []
        for r in rows:
            gap = [fill] * (length - len(r[name]))
            padded.append(r[name] + gap if side == "right" else gap + r[name])
        out[name] = torch.tensor(padded)
    pixels = {k: v for k, v in batch_of(samples, config).items() if "pooling" in k or "pixel" in k}
    return out | {"attention_mask": (out["example_ids"] >= 0).long()} | pixels
