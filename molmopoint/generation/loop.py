"""The decoding loop behind `generate`: prompt once, then one token per row and step.

Letters: B rows, S tokens of the prompt, T tokens of prompt and answer together.

transformers prepares cache, logits processors and stopping criteria and calls `decode` in place of its own
loop, because a grounding token is a pair (id, selection) that is chosen in two stages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers.generation import logits_process as processors
from transformers.generation.configuration_utils import GenerationConfig, GenerationMode
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteriaList, StopStringCriteria
from transformers.generation.streamers import BaseStreamer
from transformers.generation.utils import GenerationMixin
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module

from molmopoint.attention import CACHE, attention_of, step_mask
from molmopoint.config import GroundingSettings
from molmopoint.connector import VisualFeatures
from molmopoint.generation.faults import check_faults
from molmopoint.generation.output import GroundedGenerateOutput
from molmopoint.generation.rules import Choice, DecodingRules, Limits, PromptEnd, read_prompt
from molmopoint.heads import ALL_STAGES, GroundingState, SelectionLogits, Stages
from molmopoint.rows import ExtendedIds, check_image_tokens, lay_out, split_extended

WARPERS = (
    processors.TemperatureLogitsWarper, processors.TopKLogitsWarper, processors.TopPLogitsWarper, processors.MinPLogitsWarper,
    processors.TypicalLogitsWarper, processors.EpsilonLogitsWarper, processors.EtaLogitsWarper,
)  # fmt: skip
"""Processors that reshape a distribution whatever its classes are; they apply to both stages."""

UNSUPPORTED = ("output_scores", "output_logits", "prefill_chunk_size", "token_healing")
"""Options of transformers that would be silently left out."""

PIXELS = ("pixel_values", "image_token_pooling", "pixel_values_videos", "video_token_pooling")
SHAPES = ("image_grids", "image_num_crops", "video_grids")


class GroundedGenerationMixin(GenerationMixin):
    """`generate` for models whose answers hold grounding tokens.

    Attributes:
        compiled_steps: what it steps with in place of forward passes, see `molmopoint.compiled`; None for those.
    """

    compiled_steps: Any = None

    def generate(
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Tensor | GroundedGenerateOutput:
        """Answers (B, T) as extended ids, prompt included; by greedy decoding or sampling, in batches of any
        mix of rows.

        Args:
            inputs: (B, S) prompt ids, left-padded; also accepted as `input_ids`.
            generation_config: as in transformers.
            **kwargs: all model inputs; everything `GenerationConfig` knows; and
                max_points: points per answer at most;
                single_point: exactly one point;
                open_list: (B,) or one boolean: the prompt ends inside a point list, which may start at once;
                visual_features: of the pictures, instead of pixels.

        Returns:
            (B, T) ids, or a `GroundedGenerateOutput` with `return_dict_in_generate=True`.

        Raises:
            NotImplementedError: beam search, assisted decoding, and options that grounded answers do not
                have.
            ValueError: right padding, embeddings instead of ids, no cache, stop strings without a tokenizer.
            NumericalError: the network computed numbers that are not finite.
        """
        if kwargs.get("inputs_embeds") is not None:
            raise ValueError(
                "expected input_ids, got inputs_embeds; grounding needs to know which tokens are image tokens"
            )
        config, _ = self._prepare_generation_config(generation_config, **dict(kwargs))
        mode = config.get_generation_mode(kwargs.get("assistant_model"))
        if mode not in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE):
            raise NotImplementedError(
                f"{mode.value} is not supported: a beam would have to carry its own point list, and nothing "
                "reorders it yet; "
                "use greedy decoding, or sampling with num_return_sequences"
            )
        _check_options(config, kwargs)
        if config.stop_strings is not None:
            # transformers would look for the tokenizer among the arguments it does not hand on (see below).
            tokenizer = kwargs.pop("tokenizer", None)
            if tokenizer is None:
                raise ValueError(
                    "expected tokenizer=processor.tokenizer together with stop_strings, got no tokenizer"
                )
            stops = StopStringCriteria(tokenizer, config.stop_strings)
            given = kwargs.get("stopping_criteria") or ()
            kwargs |= {"stop_strings": None, "stopping_criteria": StoppingCriteriaList([*given, stops])}
        # transformers hands a decoding method of one's own only the arguments that its own method lacks:
        # neither of these two.
        method = partial(
            decode, streamer=kwargs.get("streamer"), synced_gpus=self._is_in_step(kwargs.get("synced_gpus"))
        )
        return super().generate(inputs, generation_config=generation_config, custom_generate=method, **kwargs)

    def _is_in_step(self, asked: bool | None) -> bool:
        """Whether ranks must go on together until the last one has ended: by default where they share sharded
        weights.
        """
        if asked is not None:
            return asked
        several = (
            torch.distributed.is_available()
            and torch.distributed.is_initialized()
            and torch.distributed.get_world_size() > 1
        )
        return several and (is_deepspeed_zero3_enabled() or is_fsdp_managed_module(self))  # pyright: ignore[reportArgumentType] (mixed into a module)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Repeats rows for `num_return_sequences`; pictures are seen once and shared."""
        if expand_size == 1 or input_ids is None:
            return input_ids, model_kwargs
        pixels = {name: model_kwargs.pop(name, None) for name in PIXELS}
        shared = {name: model_kwargs.pop(name, None) for name in SHAPES}
        visual = model_kwargs.pop("visual_features", None)
        if any(value is not None for value in pixels.values()):
            visual = self.get_visual_features(**pixels)
        if visual is not None:
            shared["visual_features"] = self._repeat_visual(
                visual, input_ids, model_kwargs.get("mm_token_type_ids"), expand_size
            )
        repeated, model_kwargs = super()._expand_inputs_for_generation(
            expand_size, is_encoder_decoder, input_ids, **model_kwargs
        )
        given = {name: value for name, value in shared.items() if value is not None}
        return repeated, model_kwargs | given

    def _repeat_visual(
        self, visual: VisualFeatures, input_ids: Tensor, types: Tensor | None, times: int
    ) -> VisualFeatures:
        """Features of rows (B, S) that stand `times` times in a row each.

        Args:
            visual: of the rows as they are.
            input_ids: (B, S).
            types: (B, S) 1 at vision tokens; by their ids if not given.
            times: copies of each row.
        """
        settings = self.config.grounding
        is_vision = torch.ones_like(input_ids, dtype=torch.bool) if types is None else types == 1
        layout = lay_out(input_ids, settings, vision=is_vision)
        check_image_tokens(layout, len(visual.pooling))
        owners = layout.rows  # (T,)
        if all(visual.slots):
            # Clips come after pictures in the table, rows stay in order within each.
            holds_clip = ((input_ids == settings.frame_start_token_id) & is_vision).any(1)  # (B,)
            is_of_clip = holds_clip[owners]
            owners = torch.cat([owners[~is_of_clip], owners[is_of_clip]])
        return visual.repeat_rows(owners, times)


@torch.no_grad()
def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    synced_gpus: bool = False,
    streamer: BaseStreamer | None = None,
    max_points: int | None = None,
    single_point: bool = False,
    open_list: Tensor | bool = False,
    **model_kwargs: Any,
) -> Tensor | GroundedGenerateOutput:
    """The loop. Arguments as transformers hands them to a decoding method, and those named in `generate`."""
    settings: GroundingSettings = model.config.grounding
    position_ids = model_kwargs.pop("position_ids")
    mask = model_kwargs.pop("attention_mask", None)  # (B, S)
    if mask is not None and not bool(mask[:, -1].all()):
        raise ValueError(
            'expected left padding, got a prompt that ends in padding; pass padding_side="left" to the processor'
        )
    if all(model_kwargs.get(name) is None for name in (*PIXELS, "visual_features", "mm_token_type_ids")):
        check_image_tokens(lay_out(input_ids, settings), 0)
    model_kwargs.pop("logits_to_keep", None)
    record = _to_record(model, generation_config)

    # The prompt, in one pass.
    inputs = model_kwargs | record
    empty_cache = inputs.pop(CACHE, None)
    outputs = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=position_ids,
        cache=empty_cache,
        logits_to_keep=1,
        return_dict=True,
        **inputs,
    )
    state, cache = outputs.grounding_state, outputs.cache
    tokens, selections = input_ids, model_kwargs.get("selection_ids")
    if selections is None:
        tokens, selections = split_extended(input_ids, state.num_patches, state.num_slots, settings)

    rules = DecodingRules(
        settings=settings,
        state=state,
        ends=_prompt_ends(tokens, selections, generation_config, settings, open_list),
        limits=Limits(max_points, single_point),
        end_ids=generation_config._eos_token_tensor,
    )
    capacity = stopping_criteria.max_length or generation_config.max_length
    extended_ids = ExtendedIds(settings, state.num_patches, state.num_slots)
    answer = _Answer(input_ids, tokens, extended_ids, capacity, generation_config)
    warpers = _warpers(logits_processor) if generation_config.do_sample else None
    if mask is not None:
        mask = functional.pad(mask.bool(), (0, capacity - mask.shape[1]), value=True)  # (B, capacity)

    # The answer, one token per row and step. The first one is chosen from what the prompt left.
    steps = _steps(model, generation_config, cache, state, answer.length, mask, capacity, record, synced_gpus)
    position = position_ids[..., -1:]
    unfinished = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)  # (B,)
    stages: Stages | None = ALL_STAGES
    while model._has_unfinished_sequences(stages is None, synced_gpus, device=input_ids.device):
        if outputs is None:
            position = position + 1
            needed = ALL_STAGES if stages is None else stages
            outputs = steps(answer.tokens, answer.selections, position, state, needed)
            state = outputs.grounding_state
        words = None if outputs.logits is None else outputs.logits[:, -1].float()  # (B, V + A)
        places = SelectionLogits(outputs.patch_logits, outputs.subpatch_logits, outputs.location_logits)
        layers = Layers(outputs.hidden_states, outputs.attentions)
        outputs = None  # frees the logits before the next step makes its own
        if stages is None:
            continue  # all rows have ended, and other ranks go on

        choice = rules.choose(
            words, places, state, answer.plain[:, : answer.length], logits_processor, warpers
        )
        choice = choice.only(unfinished, answer.padding)
        rules.advance(choice, state)
        extended = answer.append(choice, layers)
        ended = stopping_criteria(answer.ids, None)  # pyright: ignore[reportArgumentType] (annotated for legacy types)
        unfinished = unfinished & ~ended & (rules.faults == 0)
        if streamer is not None:
            streamer.put(extended.cpu())
        stages = rules.stages(unfinished)

    if streamer is not None:
        streamer.end()
    steps.finish()
    check_faults(rules.faults, state, model.dtype)
    return answer.result(cache, state, rules.absent)


def _check_options(config: GenerationConfig, kwargs: dict[str, Any]) -> None:
    """Refuses what the loop would leave out without a word.

    Raises:
        NotImplementedError: an option of transformers that two-stage choices do not have.
        ValueError: no cache, or a limit that is no whole number of 1 or more.
    """
    if not config.use_cache:
        raise ValueError("expected use_cache=True: points refer to features that are kept from the prompt")
    wanted = [name for name in UNSUPPORTED if getattr(config, name, None)]
    if (config.guidance_scale or 1) != 1:
        wanted.append("guidance_scale")
    if wanted:
        raise NotImplementedError(
            f"{', '.join(wanted)} cannot be had from grounded answers; probabilities of the choices are in "
            "`selection_probabilities`, "
            "logits in a forward pass over the answer"
        )
    limit = kwargs.get("max_points")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"expected max_points to be a whole number of 1 or more, or None, got {limit!r}")


class Layers(NamedTuple):
    """What the layers recorded at one step, each one tensor per layer; None where it was not asked for."""

    hidden_states: tuple[Tensor | None, ...] | None
    attentions: tuple[Tensor, ...] | None


def _unless_none(steps: Iterable[Any]) -> tuple[Any, ...] | None:
    """One entry per step, or None if nothing was recorded."""
    kept = tuple(step for step in steps if step is not None)
    return kept or None


def _to_record(model: Any, generation_config: GenerationConfig) -> dict[str, Any]:
    """What the layers shall record at every step; nothing where only ids are returned.

    Raises:
        ValueError: attention weights of a backend that keeps none.
    """
    names = ("output_hidden_states", "output_attentions")
    wanted = {name: getattr(generation_config, name) or False for name in names}
    if not generation_config.return_dict_in_generate:
        return dict.fromkeys(names, False)
    backend = attention_of(model.model.language_model.config)
    if wanted["output_attentions"] and backend != "eager":
        raise ValueError(
            f"expected attn_implementation='eager' together with output_attentions, got {backend!r}, which "
            "keeps no attention weights; "
            "call model.set_attn_implementation('eager') first"
        )
    return wanted


class _Answer:
    """Prompt and answer in buffers of their final length, so that no step copies the history."""

    def __init__(
        self,
        input_ids: Tensor,
        plain: Tensor,
        extended_ids: ExtendedIds,
        capacity: int,
        generation_config: GenerationConfig,
    ) -> None:
        padding = generation_config._pad_token_tensor
        self.padding = 0 if padding is None else padding.to(input_ids.device)
        self.detailed = generation_config.return_dict_in_generate
        self.extended_ids = extended_ids
        self.length = input_ids.shape[1]
        self.extended = functional.pad(input_ids, (0, capacity - self.length))  # (B, capacity)
        self.plain = functional.pad(plain, (0, capacity - self.length))  # (B, capacity)
        self.tokens = self.selections = plain[:, -1]  # (B,)
        self.choices: list[Choice] = []
        self.layers: list[Layers] = []

    @property
    def ids(self) -> Tensor:
        """(B, so far) extended ids of prompt and answer."""
        return self.extended[:, : self.length]

    def append(self, choice: Choice, layers: Layers) -> Tensor:
        """Writes one token per row, and keeps what the layers of its step recorded; returns the extended ids
        (B,).
        """
        self.tokens, self.selections = choice.tokens, choice.selections
        extended = self.extended_ids.join(choice.tokens, choice.selections)
        self.extended[:, self.length] = extended
        self.plain[:, self.length] = choice.tokens
        self.length += 1
        if self.detailed:
            self.choices.append(choice.compact())
            self.layers.append(layers)
        return extended

    def result(
        self, cache: Any, state: GroundingState, absent: Tensor | None
    ) -> Tensor | GroundedGenerateOutput:
        """What `generate` returns."""
        if not self.detailed:
            return self.ids
        return GroundedGenerateOutput(
            sequences=self.ids,
            selection_probabilities=torch.stack([choice.probabilities for choice in self.choices], 1),
            patch_distributions=tuple(choice.patch_distribution for choice in self.choices),
            subpatch_distributions=tuple(choice.subpatch_distribution for choice in self.choices),
            absent=absent,
            hidden_states=_unless_none(step.hidden_states for step in self.layers),
            attentions=_unless_none(step.attentions for step in self.layers),
            cache=cache,
            grounding_state=state,
        )


def _prompt_ends(
    tokens: Tensor,
    selections: Tensor,
    generation_config: GenerationConfig,
    settings: GroundingSettings,
    open_list: Tensor | bool,
) -> list[PromptEnd]:
    """Where each prompt leaves its answer.

    Args:
        tokens: (B, S) plain ids.
        selections: (B, S).
        generation_config: supplies the ids that end a turn, and how many answers a prompt has.
        settings: supply the grounding tokens.
        open_list: one boolean, or one per prompt: it ends inside a point list.
    """
    end_ids = generation_config._eos_token_tensor
    turn_ends = set() if end_ids is None else set(end_ids.tolist())
    opened = _per_answer(open_list, len(tokens), generation_config.num_return_sequences or 1)
    ends = []
    for row_tokens, row_selections, is_open in zip(tokens.tolist(), selections.tolist(), opened, strict=True):
        end = read_prompt(row_tokens, row_selections, turn_ends, settings)
        if is_open:
            end = replace(end, may_start_with_patch=True)
        ends.append(end)
    return ends


def _warpers(processors: LogitsProcessorList) -> LogitsProcessorList:
    """Those of a list that reshape distributions over places as well."""
    return LogitsProcessorList([processor for processor in processors if isinstance(processor, WARPERS)])


def _per_answer(flags: Tensor | bool, answers: int, copies: int) -> list[bool]:
    """One flag per answer, from one per prompt or one for all; each prompt has `copies` answers in a row."""
    given = torch.as_tensor(flags).reshape(-1)
    if len(given) not in (1, answers // copies):
        raise ValueError(
            f"expected open_list to be one boolean, or one for each of the {answers // copies} prompts, got "
            f"{len(given)}"
        )
    return given.repeat_interleave(answers // len(given)).tolist()


class Steps(Protocol):
    """How an answer is stepped."""

    def __call__(
        self, tokens: Tensor, selections: Tensor, position_ids: Tensor, state: GroundingState, stages: Stages
    ) -> Any:
        """What the forward pass returns for one more token per row.

        Args:
            tokens: (B,) plain ids.
            selections: (B,) what they select.
            position_ids: (B, 1).
            state: of the step before.
            stages: what some row chooses from next.
        """
        ...

    def finish(self) -> None:
        """Leaves the cache as if every token had gone through it."""
        ...


class _PassSteps:
    """Steps that are forward passes of the model, compiled where transformers finds that cache and device
    allow it.

    Args:
        model: that steps.
        generation_config: what transformers was told about compiling.
        cache: with the prompt.
        length: tokens of the prompt.
        mask: (B, capacity) False at padding; None without any.
        record: what the layers keep.
        is_in_step: sharded ranks have to run the same layers.
    """

    def __init__(
        self,
        model: Any,
        generation_config: GenerationConfig,
        cache: Any,
        length: int,
        mask: Tensor | None,
        record: dict[str, Any],
        is_in_step: bool,
    ) -> None:
        self._pass = model
        if model._valid_auto_compile_criteria({CACHE: cache}, generation_config):
            self._pass = model.get_compiled_call(generation_config.compile_config)
        # A step that transformers compiles is one graph for all stages.
        self._is_selective = self._pass is model and not is_in_step
        self._cache = cache
        self._mask = mask
        self._record = record
        self._attention = attention_of(model.model.language_model.config)
        self._dtype = model.dtype
        self._length = length

    def __call__(
        self, tokens: Tensor, selections: Tensor, position_ids: Tensor, state: GroundingState, stages: Stages
    ) -> Any:
        """See `Steps`."""
        self._length += 1
        key_mask = None if self._mask is None else self._mask[:, : self._length]
        return self._pass(
            input_ids=tokens[:, None],
            selection_ids=selections[:, None],
            attention_mask=step_mask(key_mask, self._cache, self._attention, self._dtype),
            position_ids=position_ids,
            cache=self._cache,
            grounding_state=state,
            stages=stages if self._is_selective else ALL_STAGES,
            return_dict=True,
            **self._record,
        )

    def finish(self) -> None:
        """See `Steps`."""


def _steps(
    model: Any,
    generation_config: GenerationConfig,
    cache: Any,
    state: GroundingState,
    length: int,
    mask: Tensor | None,
    capacity: int,
    record: dict[str, Any],
    synced_gpus: bool,
) -> Steps:
    """Compiled graphs where the model has some that will do, else forward passes."""
    compiled = model.compiled_steps
    if compiled is not None and not synced_gpus and not any(record.values()):
        steps = compiled.begin(cache, state, mask, capacity)
        if steps is not None:
            return steps
    return _PassSteps(model, generation_config, cache, length, mask, record, synced_gpus)
