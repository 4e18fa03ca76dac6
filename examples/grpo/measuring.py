"""What a policy knows, before and after: its answers to unseen questions, greedy and sampled."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from grpo.questions import has_value, is_right

_BATCH = 50
"""Questions per run of the policy."""


def measure_policy(
    policy: Any, processor: Any, asked: Any, never: list[int], max_new_tokens: int, seed: int = 0
) -> dict[str, float]:
    """Shares of right answers and of answers without a value.

    Args:
        policy: the model.
        processor: its processor.
        asked: data set of `questions.questions`, not answered.
        never: ids that are not said.
        max_new_tokens: of an answer.
        seed: of the sampled answers.

    Returns:
        "sampled" and "greedy", the shares that are right, the same by kind ("greedy_count"), and
        "without_value" of the sampled answers.
    """
    found: dict[str, list[float]] = defaultdict(list)
    was_training = policy.training
    policy.eval()
    for way, sampled in (("greedy", False), ("sampled", True)):
        torch.manual_seed(seed)
        for start in range(0, len(asked), _BATCH):
            rows = [asked[i] for i in range(start, min(start + _BATCH, len(asked)))]
            answers = answer(policy, processor, rows, never, max_new_tokens, do_sample=sampled)
            for row, text in zip(rows, answers, strict=True):
                right = is_right(text, row["kind"], row["right"])
                found[way].append(right)
                found[f"{way}_{row['kind']}"].append(right)
                if sampled:
                    found["without_value"].append(not has_value(text, row["kind"]))
    policy.train(was_training)
    return {name: float(np.mean(values)) for name, values in found.items()}


def answer(
    policy: Any,
    processor: Any,
    rows: list[dict[str, Any]],
    never: list[int],
    max_new_tokens: int,
    *,
    do_sample: bool,
) -> list[str]:
    """Answers to questions about one picture each."""
    conversations = []
    for row in rows:
        (turn,) = row["prompt"]
        words = {"type": "text", "text": turn["content"]}
        content = [{"type": "image", "image": row["image"]}, words]
        conversations.append([{"role": "user", "content": content}])
    batch = processor.apply_chat_template(
        conversations,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    with torch.no_grad():
        ids = policy.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=do_sample, top_k=0, suppress_tokens=never
        )
    said = ids[:, batch["input_ids"].shape[1] :]
    return processor.batch_decode(said, skip_special_tokens=True)
