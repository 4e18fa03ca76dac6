"""Synthetic questions as data sets of TRL, and whether an answer is right, which the reward model is never
told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from molmopoint.data.drawing import COLOURS
from molmopoint.data.judging import ask_about, write_answer
from molmopoint.data.synthetic import sample_scene

_FORMS = {
    "count": r"\b(\d+|none)\b",
    "colour": rf"\b({'|'.join(COLOURS)})\b",
    "position": r"\b((?:top|bottom) (?:left|right))\b",
}
"""How a value of each kind looks in an answer."""


def questions(seed: int, number: int, *, answered: bool) -> Dataset:
    """Questions about pictures.

    Args:
        seed: first part of the seeds of the pictures.
        number: of questions, one about each picture.
        answered: with answers to learn the format from: all four of a question are as likely, so it teaches
            how to answer and hardly what.

    Returns:
        A data set with "prompt" (messages), "image", and "completion" (messages), or "kind" and "right".
    """
    rows = []
    for i in range(number):
        rng = np.random.default_rng([seed, i])
        scene = sample_scene(rng, held_out=False, num_queries=0)
        question = ask_about(rng, scene)
        row: dict[str, Any] = {"prompt": [{"role": "user", "content": question.prompt}], "image": scene.image}
        if answered:
            value = question.answers[int(rng.integers(len(question.answers)))]
            row["completion"] = [
                {"role": "assistant", "content": write_answer(rng, question.kind, value, question.noun)}
            ]
        else:
            row |= {"kind": question.kind, "right": str(question.answers[0] or "none")}
        rows.append(row)
    return Dataset.from_list(rows)


def is_right(answer: str, kind: str, right: str) -> bool:
    """Whether an answer names the right value and no other one of its kind."""
    return set(re.findall(_FORMS[kind], answer.lower())) == {right}


def has_value(answer: str, kind: str) -> bool:
    """Whether an answer names a value of its kind at all, right or wrong."""
    return bool(re.findall(_FORMS[kind], answer.lower()))


class Accuracy:
    """Share of right answers, in the form of a reward function; it is watched and not learnt from.

    Attributes:
        last: the last answers, each with the kind of question and the right value.
    """

    __name__ = "accuracy"

    def __init__(self) -> None:
        self.last: list[dict[str, str]] = []

    def __call__(
        self, completions: Sequence[Any], kind: Sequence[str], right: Sequence[str], **_columns: Any
    ) -> list[float]:
        """1 for each right answer, else 0."""
        answers = [turns[0]["content"] for turns in completions]
        self.last = [
            {"kind": k, "right": r, "answer": answer}
            for answer, k, r in zip(answers, kind, right, strict=True)
        ]
        return [float(is_right(row["answer"], row["kind"], row["right"])) for row in self.last]
