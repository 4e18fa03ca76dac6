"""Answers of a known form: `generate` itself runs, but what it chooses is forced.

Points: PATCH, SUBPATCH, LOCATION and a digit, over and over. Text: one word, over and over. Answers come with
the probabilities of their points, as `Pointer` asks for them. The cost of forcing (two additions per step)
counts as the model's own.

Letters: P image tokens per row, K slots per image token.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle
from transformers.cache_utils import DynamicCache
from transformers.models.molmo2.modeling_molmo2 import Molmo2RotaryEmbedding, Molmo2TextModel

from molmopoint.attention import CACHE
from molmopoint.eval.speed.subjects import WORD, Subject
from molmopoint.eval.speed.timing import Setting, StepClock, Timings, now

CERTAIN = 1e4
"""Added to a logit, it is chosen unless the rules forbid it."""


class _Wishes:
    """Additions to the logits of a model, from hooks: the same tensors at every step, so that compiled steps
    stay compiled.

    Args:
        model: whose choices are forced.
        cycle: tokens of a point and the digit after it; 0 for text alone.
    """

    def __init__(self, model: Any, cycle: int) -> None:
        self.model = model
        self.cycle = cycle
        self.words = torch.zeros(model.lm_head.out_features, device=model.device)
        self.ramps: dict[int, Tensor] = {}

    def next_word(self, tokens: int) -> None:
        """Wants a PATCH at the start of every cycle and a word elsewhere; the rules see to the tokens in
        between.
        """
        starts_point = self.cycle > 0 and tokens % self.cycle == 0
        self.words.zero_()
        wanted = self.model.config.patch_token_id if starts_point else WORD
        self.words[wanted] = CERTAIN

    @contextmanager
    def granted(self) -> Iterator[None]:
        """Within, words come as wanted, and of the patches the lowest allowed: a list goes on for P times K
        points.
        """
        head, patches = self.model.lm_head, self.model.model.point_predictor.patch
        handles = [
            head.register_forward_hook(lambda _head, _inputs, logits: self.wanted_words(logits)),
            patches.register_forward_hook(lambda _head, _inputs, scores: self.lowest_first(scores)),
        ]
        graphs = self.model.compiled_steps
        if graphs is not None:
            self.model.compiled_steps = _WishedGraphs(graphs, self, handles)
        try:
            yield
        finally:
            self.model.compiled_steps = graphs
            for handle in handles:
                handle.remove()

    def wanted_words(self, logits: Tensor) -> Tensor:
        """Logits (..., V + A) of which the wanted word is the largest."""
        return logits + self.words

    def lowest_first(self, scores: Tensor) -> Tensor:
        """Scores (..., P + 1) of which those in front are the largest."""
        count = scores.shape[-1]
        if count not in self.ramps:
            self.ramps[count] = torch.arange(count, device=scores.device, dtype=scores.dtype) * -1e4
        return scores + self.ramps[count]


class _WishedGraphs:
    """Compiled steps of which a model grants the same wishes; graphs do not run the hooks of modules.

    Args:
        graphs: of the model.
        wishes: to be granted.
        handles: of the hooks, which are needed for the prompt alone.
    """

    def __init__(self, graphs: Any, wishes: _Wishes, handles: list[RemovableHandle]) -> None:
        self._graphs = graphs
        self._wishes = wishes
        self._handles = handles
        self._steps: Any = None

    def begin(self, *arguments: Any) -> Self:
        """See `CompiledSteps.begin`."""
        for handle in self._handles:
            handle.remove()
        self._steps = self._graphs.begin(*arguments)
        return self

    def __call__(self, *arguments: Any) -> Any:
        """One step; see `Steps` of the loop."""
        outputs = self._steps(*arguments)
        if outputs.logits is not None:
            outputs.logits = self._wishes.wanted_words(outputs.logits)
            outputs.patch_logits = self._wishes.lowest_first(outputs.patch_logits)
        return outputs

    def finish(self) -> None:
        """See `Steps` of the loop."""
        self._steps.finish()


def points_per_cycle(subject: Subject) -> int:
    """Tokens of a point and the digit after it."""
    return 3 + (subject.model.config.num_locations > 0)


def answer(
    subject: Subject,
    setting: Setting,
    inputs: dict[str, Any],
    steps: int,
    *,
    pointing: bool,
    between: Callable[[], object] = lambda: None,
) -> StepClock:
    """Lets `generate` write a forced answer of `steps` tokens after the first one, and times it; `between`
    runs after each token.
    """
    wishes = _Wishes(subject.model, points_per_cycle(subject) if pointing else 0)

    def prepare(tokens: int) -> None:
        wishes.next_word(tokens)
        if tokens:
            between()

    clock = StepClock(setting, prepare)
    with torch.inference_mode(), wishes.granted():
        subject.model.generate(
            **inputs,
            **setting.generate_arguments(),
            max_new_tokens=steps + 1,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            open_list=True,
            return_dict_in_generate=True,
            streamer=clock,
        )
    return clock


def text_turn(subject: Subject, setting: Setting, inputs: dict[str, Any], steps: int) -> Timings:
    """Seconds of the prompt, and per step of a text."""
    clock = answer(subject, setting, inputs, steps, pointing=False)
    return {"prefill": clock.first, "text step": statistics.median(clock.steps)}


def points_turn(
    subject: Subject, setting: Setting, inputs: dict[str, Any], steps: int, bare: BareText
) -> Timings:
    """Seconds per grounding step, per point (its digit included), and per step of the bare text model, step
    by step in turns.
    """
    bare.start()
    clock = answer(subject, setting, inputs, steps, pointing=True, between=bare.step)
    # Step i makes token i + 1, so that a cycle of steps ends with the PATCH token of the next point.
    cycle = points_per_cycle(subject)
    seconds = clock.steps
    grounding, of_points = [], []
    for first in range(0, len(seconds) - cycle + 1, cycle):
        group = seconds[first : first + cycle]
        grounding += [*group[: cycle - 2], group[-1]]  # all but the digit
        of_points.append(sum(group))
    return {
        "pointing step": statistics.median(grounding),
        "point": statistics.median(of_points),
        "bare text step": statistics.median(bare.seconds),
    }


def native_text_model(model: Any) -> Molmo2TextModel:
    """The text model of transformers with the weights of a model of ours: the same tensors, its own code."""
    ours = model.model.language_model
    with torch.device("meta"):
        native = Molmo2TextModel(ours.config)
    native.load_state_dict(ours.state_dict(), assign=True)
    # Tables are no part of the weights; those of ours have signs that native blocks do not expect.
    native.rotary_emb = Molmo2RotaryEmbedding(ours.config).to(model.device)
    native.rotary_emb_unscaled = Molmo2RotaryEmbedding(ours.config, scaled=False).to(model.device)
    return native.eval()


class BareText:
    """The native text model of transformers with a vocabulary head, stepping greedily over a cache: no
    pictures, no heads.

    It shares the weights of the measured model, runs the forward pass of `Molmo2TextModel` (blocks and causal
    mask of transformers), picks the most likely token, and keeps the answer. Nothing else is done per step.

    Args:
        subject: whose decoder is stepped.
        setting: clock and device.
        batch: B.
        length: tokens in the cache before the first step.
    """

    def __init__(self, subject: Subject, setting: Setting, batch: int, length: int) -> None:
        model = subject.model
        self.text = native_text_model(model)
        self.head = model.lm_head
        self.setting = setting
        self.length = length
        self.cache = DynamicCache(config=model.config.text_config)
        self.word = self.tokens = torch.full((batch, 1), WORD, device=model.device)
        self.answer: list[Tensor] = []
        self.seconds: list[float] = []
        with torch.inference_mode():
            self.text(input_ids=self.word.expand(batch, length), use_cache=True, **{CACHE: self.cache})

    def start(self) -> None:
        """Goes back to the prompt."""
        if self.cache.get_seq_length() > self.length:
            self.cache.crop(self.length - self.cache.get_seq_length())  # negative: so many tokens off the end
        self.tokens = self.word
        self.answer = []
        self.seconds = []

    def step(self) -> None:
        """One more token per row."""
        began = now(self.setting)
        with torch.inference_mode():
            hidden = self.text(input_ids=self.tokens, use_cache=True, **{CACHE: self.cache}).last_hidden_state
            self.tokens = self.head(hidden)[:, -1:].float().argmax(-1)
            self.answer.append(self.tokens.cpu())
        self.seconds.append(now(self.setting) - began)
