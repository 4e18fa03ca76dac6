"""A reward model as reward function of TRL's `GRPOTrainer` and `RLOOTrainer`: each group of answers is judged
in one pass.

    reward = RewardFunction("nano-reward", num_generations=4)
    GRPOTrainer(policy, reward_funcs=reward, args=GRPOConfig(num_generations=4, ...), ...)

Scores compare the answers of one list, so a group must come whole: all answers to a prompt, next to each
other, on one process. That is
checked. It is a plain object, not a network: TRL would take a network for a text classifier and drop the
pictures. TRL does not move it, wrap it or put it into evaluation mode, so it does that itself, on its own
device; weights are loaded at the first call and never pickled.

What a mean reward says: the sum of a list's scores is not determined by training, and a group is centred
before it is learnt from. With an `anchor`, a fixed answer that is judged in each group, rewards are scores
above the anchor's, and their mean tells whether the policy gets better.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from molmopoint.errors import ProcessingError

EMPTY_PENALTY = 1.0
"""How far an empty answer is below the worst one of its group."""


@dataclass(frozen=True)
class _Group:
    """Answers to one prompt, what of them is judged, and the scores of that."""

    answers: list[str]
    judged: list[str]
    scores: dict[str, float] = field(default_factory=dict)

    def rewards(self, anchor: str | None) -> list[float]:
        """One reward per answer; where there is nothing to compare, all answers are as good."""
        if not self.scores:
            return [0.0 if answer.strip() else -EMPTY_PENALTY for answer in self.answers]
        zero = 0.0 if anchor is None else self.scores[anchor]
        lowest = min(self.scores.values()) - EMPTY_PENALTY
        return [self.scores.get(answer, lowest) - zero for answer in self.answers]


class RewardFunction:
    """Scores of completions, in the form that TRL calls.

    Args:
        model: zoo name, hub id or folder of a reward model, as `load_reward` takes it.
        num_generations: answers per prompt, as in the config of the trainer.
        anchor: text of an answer that is judged with each group, and whose score is taken off.
        permutations: orders of the answers that are averaged.
        batch_size: groups per run of the model.
        seed: of the order in which answers are read; drawn anew for every group.
        device: where the model runs; by default the accelerator of this process, or the processor.
        options: further ones of `load_reward`.
        name: of the reward in the log of the trainer.

    Raises:
        ValueError: fewer than two answers per prompt.
    """

    def __init__(
        self,
        model: str | Path,
        num_generations: int,
        *,
        anchor: str | None = None,
        permutations: int = 1,
        batch_size: int = 8,
        seed: int = 0,
        device: str | torch.device | None = None,
        options: Mapping[str, Any] | None = None,
        name: str = "judge",
    ) -> None:
        if num_generations < 2:
            raise ValueError(
                f"expected two or more answers per prompt, got {num_generations}; pass that of the trainer"
            )
        self.model = str(model)
        self.num_generations = num_generations
        self.anchor = anchor
        self.permutations = permutations
        self.batch_size = batch_size
        self.device = device
        self.options = dict(options or {})
        self.__name__ = name
        self._rng = np.random.default_rng(seed)
        self._judge: Any = None

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        image: Sequence[Any] | None = None,
        images: Sequence[Any] | None = None,
        video: Sequence[Any] | None = None,
        **_columns: Any,
    ) -> list[float]:
        """One reward per completion.

        Equal answers of a group are judged once and get the same reward. Empty ones get less than the worst
        of their group.

        Args:
            prompts: texts or lists of messages, those of a group next to each other.
            completions: texts, or lists of one message.
            image: a picture per prompt, or None.
            images: a list of pictures per prompt, or None.
            video: a clip per prompt, or None.

        Raises:
            ProcessingError: groups that are not whole, or a prompt or answer that cannot be judged.
        """
        self._check_groups(prompts, completions)
        starts = range(0, len(prompts), self.num_generations)
        groups = [self._group(completions[start : start + self.num_generations]) for start in starts]
        asked = [(start, group) for start, group in zip(starts, groups, strict=True) if len(group.judged) > 1]
        about = [_media(prompts[start], start, image, images, video) for start, _ in asked]
        if asked:
            with torch.inference_mode():
                scores = self.judge.score_batch(
                    [prompts[start] for start, _ in asked],
                    [group.judged for _, group in asked],
                    [pictures for pictures, _ in about],
                    [clip for _, clip in about],
                    batch_size=self.batch_size,
                    permutations=self.permutations,
                )
            for (_, group), of_group in zip(asked, scores, strict=True):
                group.scores.update(zip(group.judged, of_group, strict=True))
        return [reward for group in groups for reward in group.rewards(self.anchor)]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_judge": None}

    @property
    def judge(self) -> Any:
        """The reward model, loaded when it is first asked for."""
        if self._judge is None:
            from molmopoint.reward.judge import load_reward

            options = {"max_responses": self.num_generations + (self.anchor is not None), **self.options}
            self._judge = load_reward(self.model, device_map=str(self.device or _own_device()), **options)
        return self._judge

    def _group(self, completions: Sequence[Any]) -> _Group:
        """The answers of a group, each once, in an order drawn anew."""
        answers = [_text_of(completion) for completion in completions]
        unlike = dict.fromkeys(answer for answer in answers if answer.strip())
        judged = list(unlike if self.anchor is None else unlike | {self.anchor: None})
        return _Group(answers, [judged[i] for i in self._rng.permutation(len(judged))])

    def _check_groups(self, prompts: Sequence[Any], completions: Sequence[Any]) -> None:
        """Whether every run of `num_generations` completions answers one prompt."""
        remedy = (
            "set per_device_train_batch_size * steps_per_generation (and per_device_eval_batch_size) to "
            "multiples of num_generations, and "
            "give this function the num_generations of the trainer"
        )
        if len(prompts) != len(completions) or len(prompts) % self.num_generations:
            raise ProcessingError(
                f"expected whole groups of {self.num_generations} answers, got {len(completions)} of "
                f"{len(prompts)} prompts; {remedy}"
            )
        texts = [_prompt_key(prompt) for prompt in prompts]
        for start in range(0, len(texts), self.num_generations):
            group = texts[start : start + self.num_generations]
            if len(set(group)) > 1:
                raise ProcessingError(
                    f"expected {self.num_generations} answers to one prompt from place {start} on, got some "
                    f"to {len(set(group))}; {remedy}"
                )


def _own_device() -> torch.device:
    """The accelerator of this process."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is None or not torch.accelerator.is_available():
        return torch.device("cpu")
    return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))


def _text_of(completion: Any) -> str:
    """The text of an answer, which TRL gives as text or as a list of one message."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if isinstance(completion, Sequence) and completion else None
    if not isinstance(content, str):
        raise ProcessingError(
            f"expected a completion as text or as messages with text, got {completion!r:.80}; judge text "
            "alone"
        )
    return content


def _media(
    prompt: Any,
    place: int,
    image: Sequence[Any] | None,
    images: Sequence[Any] | None,
    video: Sequence[Any] | None,
) -> tuple[Any, Any]:
    """Pictures and clip of a prompt from the columns; nothing where its messages hold them already."""
    if _carries_media(prompt):
        return None, None
    pictures = images[place] if images is not None else None if image is None else image[place]
    return pictures, None if video is None else video[place]


def _parts(prompt: Any) -> list[Mapping[str, Any]]:
    """Parts of all messages; none of a text."""
    if isinstance(prompt, str):
        return []
    return [
        part for message in prompt if not isinstance(message["content"], str) for part in message["content"]
    ]


def _carries_media(prompt: Any) -> bool:
    """Whether the messages hold their pictures or clip themselves."""
    return any(
        part.get("type") in ("image", "video") and part.get(part["type"]) is not None
        for part in _parts(prompt)
    )


def _prompt_key(prompt: Any) -> str:
    """What tells two prompts apart: roles and texts; pictures are the same objects or copies, and are not
    compared.
    """
    if isinstance(prompt, str):
        return prompt
    words = []
    for message in prompt:
        content = message["content"]
        texts = (
            [content]
            if isinstance(content, str)
            else [str(part.get("text", part.get("type"))) for part in content]
        )
        words.append("\x1f".join([str(message.get("role")), *texts]))
    return "\x1e".join(words)
