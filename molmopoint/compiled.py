"""The steps of an answer as compiled graphs, for `molmopoint.load(..., compile=True)`.

A step is two graphs: one feeds the tokens chosen last through the text model, the others score what a row
chooses next, one graph per stage (words and patches, slots, cells). A batch of any mix of rows runs the first
and those of its stages, so that a step inside a point skips the vocabulary here too. Prompts are read as
ever.

Sizes are left open when the graphs are made: rows, image tokens, the length of an answer. Only a batch of one
row has graphs of its own. So nothing is compiled again while a model answers, until it is moved or changes
its precision.

Letters: B rows, P image tokens per row, K slots per image token, T image tokens of the call, N ViT patches of
the call, C tokens that the buffers of keys and values have room for, H text width.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache
from transformers.utils.output_capturing import capture_outputs

from molmopoint.attention import attention_of
from molmopoint.decoder import GrowingLayer
from molmopoint.errors import CheckpointError
from molmopoint.heads import ALL_STAGES, GroundingState, Stages
from molmopoint.modeling import MolmoPointForConditionalGeneration, MolmoPointOutput

LEAST = 2
"""Entries of every size that is left open: torch makes other graphs where there is one, or none."""

GRAPHS_PER_FUNCTION = 64
"""Of torch's own limit of 8, a process with several models, or one that moves a model, would run out."""

_log = logging.getLogger(__name__)


class CompiledSteps:
    """What `generate` steps with, where it is the `compiled_steps` of a model.

    Args:
        model: in evaluation mode, on its device; with SDPA.
        backend: of `torch.compile`.

    Attributes:
        seconds: that compiling took, graphs that torch had kept included; 0 before `warm_up`.
    """

    def __init__(self, model: MolmoPointForConditionalGeneration, backend: str = "inductor") -> None:
        self.model = model
        self.backend = backend
        self.seconds = 0.0
        self._made_for: set[tuple[Any, ...]] = set()
        self._lock = threading.Lock()
        self.feed = self._compiled(self._feed)
        self.words = self._compiled(self._words)
        self.slots = self._compiled(self._slots)
        self.cells = self._compiled(self._cells)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledSteps:
        return CompiledSteps(copy.deepcopy(self.model, memo), self.backend)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledSteps, (self.model, self.backend)

    def begin(
        self, cache: Cache | None, state: GroundingState, real: Tensor | None, capacity: int
    ) -> AnswerSteps | None:
        """Steps of one answer; None where only the modules themselves will do: they have hooks or adapters,
        the attention is another one, or the cache is of a kind that does not grow in place.

        Args:
            cache: with the prompt.
            state: of the prompt.
            real: (B, capacity) False at padding; None without any.
            capacity: tokens of prompt and answer together at most.
        """
        layers = [] if cache is None else cache.layers
        growing = [layer for layer in layers if isinstance(layer, GrowingLayer) and layer.is_initialized]
        if not growing or len(growing) < len(layers) or not self._runs_as_built():
            return None
        self.warm_up()
        if real is None:
            real = torch.ones(len(state.num_patches), capacity, dtype=torch.bool, device=self.model.device)
        return AnswerSteps(self, cache, growing, state, real)

    def warm_up(self) -> None:
        """Makes all graphs, unless that was done for this device and precision; tells how long it takes.

        Raises:
            CheckpointError: torch cannot compile the model.
        """
        place = (self.model.device, self.model.dtype, torch.is_inference_mode_enabled())
        with self._lock:
            if place in self._made_for:
                return
            _log.warning(
                "compiling the steps of answers for %s in %s: a minute or more the first time, less when torch "
                "finds them in its cache (TORCHINDUCTOR_CACHE_DIR)",
                place[0],
                str(place[1]).removeprefix("torch."),
            )
            started = time.perf_counter()
            try:
                with torch.no_grad():
                    for rows in (1, LEAST):
                        self._try_all(rows)
            except Exception as error:
                # torch raises what it likes, also of the compilers below it.
                reason = str(error).strip().split("\n", 1)[0]
                raise CheckpointError(
                    f"expected torch to compile the steps of this model, got {type(error).__name__}: {reason}; "
                    "leave compile out"
                ) from error
            self.seconds = time.perf_counter() - started
            self._made_for.add(place)
            _log.warning("compiled in %.0f s", self.seconds)

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        from torch import _dynamo

        limit = _dynamo.config.recompile_limit
        _dynamo.config.recompile_limit = max(limit, GRAPHS_PER_FUNCTION)
        return torch.compile(function, fullgraph=True, dynamic=True, backend=self.backend)

    def _runs_as_built(self) -> bool:
        """Whether the graphs do what the modules would."""
        model = self.model
        is_plain = not model.training and not getattr(model, "_hf_peft_config_loaded", False)
        if not is_plain or attention_of(model.model.language_model.config) != "sdpa":
            return False
        parts = (
            model.model.language_model,
            model.model.build_vit_embedding,
            model.model.point_predictor,
            model.lm_head,
        )
        return not any(_has_hooks(part) for part in parts)

    def _try_all(self, rows: int) -> None:
        """Runs every graph once, with sizes that are all different: torch takes equal ones for the same one."""
        sizes = self._sizes()
        rows = rows if rows < LEAST else next(sizes)
        state = self._example_state(rows, sizes)
        length = next(sizes)
        text = self.model.config.text_config
        heads, width = text.num_key_value_heads, text.head_dim
        layers = []
        for _ in range(text.num_hidden_layers):
            layer = GrowingLayer()
            keys = state.patch_keys.new_zeros(rows, heads, length, width)
            layer.update(keys, keys.clone())
            layers.append(layer)
        real = torch.ones(rows, next(sizes) + 2 * length, dtype=torch.bool, device=self.model.device)
        steps = AnswerSteps(self, None, layers, state, real)
        tokens, selections = torch.zeros_like(state.num_patches), torch.zeros_like(state.num_patches)
        position = tokens.unsqueeze(1) + length
        for _ in range(2):
            steps(tokens, selections, position, state, ALL_STAGES)

    def _sizes(self) -> Iterator[int]:
        """Numbers that are no size of the model, all different."""
        model = self.model
        taken = {size for parameter in model.parameters() for size in parameter.shape}
        text = model.config.text_config
        taken |= {text.num_attention_heads, text.num_key_value_heads, text.head_dim, text.num_hidden_layers}
        number = LEAST
        while True:
            number += 1
            if number not in taken:
                yield number

    def _example_state(self, rows: int, sizes: Iterator[int]) -> GroundingState:
        """A state of so many rows, of zeros."""
        model = self.model
        config = model.config
        patches, slots, tokens, vit_patches = (next(sizes) for _ in range(4))
        numbers = torch.zeros(rows, dtype=torch.long, device=model.device)  # (B,)
        per_patch = numbers.unsqueeze(1).repeat(1, patches)  # (B, P)
        features = torch.zeros(tokens, config.text_config.hidden_size, device=model.device, dtype=model.dtype)
        return GroundingState(
            patch_keys=features.new_zeros(rows, patches, config.patch_embed_dim),
            patch_key_mask=per_patch == 0,
            rotary_positions=per_patch,
            example_of_patch=per_patch,
            table_rows=per_patch,
            image_features=features,
            pooling=numbers.new_zeros(tokens, slots),
            vit_features=features.new_zeros(vit_patches, config.vit_feature_dim),
            num_patches=numbers,
            num_slots=numbers,
            selected_patch=numbers,
            selected_slots=numbers.new_zeros(rows, slots),
        )

    # What is compiled

    def _feed(
        self,
        tokens: Tensor,
        selections: Tensor,
        position_ids: Tensor,
        real: Tensor,
        column: Tensor,
        visible: int,
        keys: list[Tensor],
        values: list[Tensor],
        state: GroundingState,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One new token per row through the text model.

        Args:
            tokens: (B,) plain ids.
            selections: (B,) what they select.
            position_ids: (B, 1).
            real: (B, capacity) False at padding.
            column: (1,) where keys and values of the tokens go.
            visible: tokens of prompt and answer, these included.
            keys: (B, key heads, C, D) of each layer; written to.
            values: the same.
            state: before these tokens.

        Returns:
            Hidden states (B, H) before the final norm, and `selected_patch` (B,) and `selected_slots` (B, K)
            after these tokens.
        """
        model = self.model
        embeddings, state = model.feed(tokens.unsqueeze(1), selections.unsqueeze(1), state, ALL_STAGES)
        mask = real[:, None, None, :visible]  # (B, 1, 1, visible)
        past: Any = _Columns(keys, values, column, visible)
        hidden = model.model.language_model.run_layers(embeddings, mask, position_ids, past)
        return hidden[:, 0], state.selected_patch, state.selected_slots

    def _words(self, hidden: Tensor, state: GroundingState) -> tuple[Tensor, Tensor | None]:
        """Logits of words (B, 1, V + A) and of patches (B, P + 1)."""
        model = self.model
        places = model.score_places(hidden, state, Stages(slots=False, locations=False))
        normed = model.model.language_model.norm(hidden.unsqueeze(1))  # (B, 1, H)
        return model.lm_head(normed), places.patch

    def _slots(self, hidden: Tensor, state: GroundingState) -> Tensor | None:
        """Logits (B, K)."""
        return self.model.score_places(hidden, state, Stages(words=False, locations=False)).subpatch

    def _cells(self, hidden: Tensor, state: GroundingState) -> Tensor | None:
        """Logits (B, L)."""
        return self.model.score_places(hidden, state, Stages(words=False, slots=False)).location


class AnswerSteps:
    """The steps of the answers of one batch.

    Args:
        steps: of the model.
        cache: with the prompts.
        layers: its layers.
        state: of the prompts.
        real: (B, capacity) False at padding.
    """

    def __init__(
        self,
        steps: CompiledSteps,
        cache: Cache | None,
        layers: list[GrowingLayer],
        state: GroundingState,
        real: Tensor,
    ) -> None:
        self._steps = steps
        self._cache = cache
        self._layers = layers
        self._state = _at_least(state)
        self._real = functional.pad(real, (0, max(0, LEAST - real.shape[1])))
        self._length = layers[0].get_seq_length()
        self._column = torch.tensor([self._length], device=real.device)
        self._room = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def __call__(
        self, tokens: Tensor, selections: Tensor, position_ids: Tensor, state: GroundingState, stages: Stages
    ) -> MolmoPointOutput:
        """Feeds one token per row, and scores what the rows choose next.

        Args:
            tokens: (B,) plain ids.
            selections: (B,) what they select.
            position_ids: (B, 1).
            state: of the step before.
            stages: which scores are needed.
        """
        graphs = self._steps
        if self._length >= self._room:
            self._make_room()
        self._length += 1
        hidden, patch, slots = graphs.feed(
            tokens,
            selections,
            position_ids,
            self._real,
            self._column,
            self._length,
            self._keys,
            self._values,
            self._state,
        )
        self._column = self._column + 1
        self._state = replace(self._state, selected_patch=patch, selected_slots=slots)
        num_slots = state.pooling.shape[1]
        after = replace(state, selected_patch=patch, selected_slots=slots[:, :num_slots])

        words = place = slot = cell = None
        if stages.words:
            words, place = graphs.words(hidden, self._state)
            num_patches = state.patch_keys.shape[1]
            if self._state.patch_keys.shape[1] > num_patches:
                place = torch.cat([place[:, :num_patches], place[:, -1:]], 1)
        if stages.slots:
            slot = graphs.slots(hidden, self._state)[:, :num_slots]
        if stages.locations:
            cell = graphs.cells(hidden, self._state)
        return MolmoPointOutput(
            logits=words,
            cache=self._cache,
            patch_logits=place,
            subpatch_logits=slot,
            location_logits=cell,
            grounding_state=after,
        )

    def finish(self) -> None:
        """Lets the cache show what was written into its buffers."""
        for layer in self._layers:
            layer.show(self._length)

    def _make_room(self) -> None:
        """Buffers for more tokens; those so far are copied where they do not fit."""
        self.finish()
        buffers = [layer.reserve(self._length + 2) for layer in self._layers]
        self._keys = [keys for keys, _ in buffers]
        self._values = [values for _, values in buffers]
        # Full buffers lie in memory as no others do, and torch would make another graph for them.
        self._room = self._keys[0].shape[2] - 1


class _Columns:
    """Stands for a cache inside a graph: every layer writes one column of its buffers.

    Args:
        keys: (B, key heads, C, D) of each layer.
        values: the same.
        column: (1,) where to write.
        visible: tokens that are seen then.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor], column: Tensor, visible: int) -> None:
        self.keys = keys
        self.values = values
        self.column = column
        self.visible = visible

    def update(self, key: Tensor, value: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Adds keys and values (B, key heads, 1, D) of the new tokens; returns those of all tokens."""
        keys, values = self.keys[layer], self.values[layer]
        keys.index_copy_(2, self.column, key)
        values.index_copy_(2, self.column, value)
        return keys[:, :, : self.visible], values[:, :, : self.visible]


def _at_least(state: GroundingState) -> GroundingState:
    """A state whose open sizes are `LEAST` or more, and whose tensors are all laid out alike; what is added is
    no choice.
    """
    patches = (0, max(0, LEAST - state.patch_keys.shape[1]))
    columns = (0, max(0, LEAST - state.pooling.shape[1]))
    padded = replace(
        state,
        patch_keys=functional.pad(state.patch_keys, (0, 0, *patches)),
        rotary_positions=functional.pad(state.rotary_positions, patches),
        table_rows=functional.pad(state.table_rows, patches),
        image_features=_more_rows(state.image_features, 0),
        pooling=functional.pad(_more_rows(state.pooling, -1), columns, value=-1),
        vit_features=_more_rows(state.vit_features, 0),
        selected_slots=functional.pad(state.selected_slots, columns, value=-1),
    )
    return GroundingState(**{name: _in_order(tensor) for name, tensor in vars(padded).items()})


def _more_rows(table: Tensor, fill: int) -> Tensor:
    """A table (rows, columns) with `LEAST` rows or more."""
    return functional.pad(table, (0, 0, 0, max(0, LEAST - len(table))), value=fill)


def _in_order(tensor: Tensor) -> Tensor:
    """The same numbers as a tensor of its own, at the start of its storage and with the strides that its sizes
    give, also where a size is 1: torch makes other graphs for what lies otherwise.
    """
    if tensor.storage_offset():
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    strides = torch.empty(tensor.shape, device="meta").stride()
    return tensor.contiguous().as_strided(tensor.shape, strides)


def _has_hooks(part: nn.Module) -> bool:
    """Whether somebody listens to a module or one inside it; graphs would not call them."""
    for module in part.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            # Those of transformers stay where states were recorded once, and do nothing in other passes.
            if getattr(hook, "__module__", None) != capture_outputs.__module__:
                return True
    return False
