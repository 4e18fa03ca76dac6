"""The parts of the vLLM plugin that need no vLLM: rules over request slots, draws, memory of pictures, options."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import END_OF_TURN, tiny_config
from transformers import LogitsProcessorList
from transformers.generation import logits_process as processors

from molmopoint.backends.engine_requests import engine_output, sampling_parameters
from molmopoint.backends.options import AnswerOptions
from molmopoint.errors import NumericalError, ProcessingError
from molmopoint.generation.rules import DecodingRules, Limits, PromptEnd
from molmopoint.heads import GroundingState, SelectionLogits
from molmopoint.rows import ExtendedIds
from molmopoint.serving.vllm.draws import Sampling, gumbel_noise
from molmopoint.serving.vllm.picture_memory import PictureMemory
from molmopoint.serving.vllm.point_options import PointOptions
from molmopoint.serving.vllm.request_slots import Places, RequestSlots
from molmopoint.tokens import NO_SELECTION

CONFIG = tiny_config()
SETTINGS = CONFIG.grounding
PATCHES, SLOTS = 8, 4
NO_PROCESSORS = LogitsProcessorList()


def state_of(pooling: torch.Tensor) -> GroundingState:
    """One row about a picture with this table (P, K)."""
    count = len(pooling)
    indexable = torch.arange(count) >= 2  # the first two belong to a global crop
    return GroundingState(
        patch_keys=torch.zeros(1, count, 16),
        patch_key_mask=indexable[None],
        rotary_positions=(indexable.cumsum(0) - 1).clamp(min=0)[None],
        example_of_patch=torch.zeros(1, count, dtype=torch.long),
        table_rows=torch.arange(count)[None],
        image_features=torch.randn(count, 32),
        pooling=pooling,
        vit_features=torch.randn(100, 48),
        num_patches=torch.tensor([count]),
        num_slots=torch.tensor([SLOTS]),
        selected_patch=torch.tensor([NO_SELECTION]),
        selected_slots=torch.full((1, SLOTS), -1),
    )


def table(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    pooling = torch.randperm(100, generator=random)[: PATCHES * SLOTS].view(PATCHES, SLOTS)
    is_empty = torch.rand(PATCHES, SLOTS, generator=random) < 0.3
    is_empty[:, 0] = False
    return pooling.masked_fill(is_empty, -1)


ASKED = [
    PointOptions(),
    PointOptions(max_points=2),
    PointOptions(single=True, open_list=True),
    PointOptions(open_list=True),
    PointOptions(single=True),
]


def logits_at(step: int, row: int) -> tuple[torch.Tensor, SelectionLogits]:
    """Random ones, in which points are likely."""
    random = torch.Generator().manual_seed(1000 * row + step)
    text = torch.randn(1, CONFIG.extended_start, generator=random)
    text[:, SETTINGS.patch_token_id] += 3.0
    text[:, END_OF_TURN] += 2.0
    places = [torch.randn(1, size, generator=random) * 3 for size in (PATCHES + 1, SLOTS, 9)]
    return text, SelectionLogits(*places)


def by_the_rules(row: int, options: PointOptions, steps: int) -> list[tuple[int, float]]:
    """Extended ids and probabilities as `generate` chooses them."""
    state = state_of(table(row))
    limits = Limits(options.max_points, options.single)
    end = PromptEnd(may_start_with_patch=options.open_list)
    rules = DecodingRules(SETTINGS, state, [end], limits, torch.tensor([END_OF_TURN]))
    join = ExtendedIds(SETTINGS, state.num_patches, state.num_slots).join
    chosen = []
    for step in range(steps):
        text, places = logits_at(step, row)
        choice = rules.choose(text, places, state, torch.zeros(1, 1, dtype=torch.long), NO_PROCESSORS, None)
        rules.advance(choice, state)
        if int(choice.tokens) == SETTINGS.patch_token_id and int(choice.selections) != NO_SELECTION:
            state = state.after(choice.selections.clamp(min=NO_SELECTION))
        chosen.append((int(join(choice.tokens, choice.selections)), float(choice.probabilities)))
    return chosen


def greedy(scores: torch.Tensor) -> torch.Tensor:
    return scores.argmax(-1)


def begun(slots: RequestSlots, memory: PictureMemory, index: int, row: int, options: PointOptions) -> None:
    state = state_of(table(row))
    places = Places(
        np.arange(PATCHES),
        state.patch_key_mask[0].numpy(),
        state.rotary_positions[0].numpy(),
        SLOTS,
    )
    end = PromptEnd(may_start_with_patch=options.open_list)
    slots.begin(index, places, options, end, 0, NO_SELECTION)
    name = f"picture {row}"
    memory.store(name, state.image_features, state.vit_features, state.pooling)
    slots.place_pictures(index, memory.hold(name), memory.valid_slots)


def memory_of(num_bytes: float) -> PictureMemory:
    return PictureMemory(num_bytes, 32, 48, SLOTS, torch.float32, torch.device("cpu"))


def test_slots_choose_as_generate_does_though_every_row_is_at_a_step_of_its_own():
    steps, late = 40, 3
    torch.manual_seed(0)
    memory = memory_of(1e6)
    slots = RequestSlots(16, SETTINGS, (END_OF_TURN,), torch.device("cpu"))
    where = torch.tensor([11, 3, 7, 0, 5])  # of the rows
    got: list[list[tuple[int, float]]] = [[] for _ in ASKED]
    for turn in range(steps + late * len(ASKED)):
        here = [row for row in range(len(ASKED)) if late * row <= turn < late * row + steps]
        for row in here:
            if turn == late * row:
                begun(slots, memory, int(where[row]), row, ASKED[row])
        inputs = [logits_at(turn - late * row, row) for row in here]
        if not inputs:
            continue
        index = where[here]
        text = torch.cat([words for words, _ in inputs])
        parts = [torch.cat(part) for part in zip(*(places for _, places in inputs), strict=True)]
        places = SelectionLogits(*parts)
        assert places.patch is not None
        scores = slots.mask_words(text, index, places.patch)
        selected = slots.selected[index]
        valid = memory.valid_slots[slots.rows_of(index, selected)] & (selected >= 0).unsqueeze(1)
        ready = torch.ones(len(here), dtype=torch.bool)
        chosen = slots.choose(text.argmax(-1), index, ready, scores, places, valid, greedy)
        for number, row in enumerate(here):
            got[row].append((int(chosen.ids[number]), float(chosen.odds[number])))
    for row, options in enumerate(ASKED):
        wanted = by_the_rules(row, options, steps)
        assert [token for token, _ in got[row]] == [token for token, _ in wanted], options
        np.testing.assert_allclose([odds for _, odds in got[row]], [odds for _, odds in wanted], rtol=1e-5)
    assert sum(token >= CONFIG.extended_start for token, _ in got[0]) > 6


def test_a_row_whose_prompt_is_not_complete_stays_as_it_is():
    memory = memory_of(1e6)
    slots = RequestSlots(2, SETTINGS, (END_OF_TURN,), torch.device("cpu"))
    begun(slots, memory, 1, 0, PointOptions(open_list=True))
    before = {name: value.clone() for name, value in vars(slots).items() if isinstance(value, torch.Tensor)}
    text, places = logits_at(0, 0)
    assert places.patch is not None
    index = torch.tensor([1])
    scores = slots.mask_words(text, index, places.patch)
    valid = torch.zeros(1, SLOTS, dtype=torch.bool)
    slots.choose(text.argmax(-1), index, torch.tensor([False]), scores, places, valid, greedy)
    for name, value in before.items():
        assert torch.equal(getattr(slots, name), value), name


def test_draws_follow_the_distribution_and_nothing_but_seed_and_position():
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, torch.finfo(torch.float32).min])
    count = 4000
    warpers = [
        (0.7, {}, [processors.TemperatureLogitsWarper(0.7)]),
        (1.0, {"top_p": 0.8}, [processors.TopPLogitsWarper(0.8)]),
        (1.0, {"top_k": 2}, [processors.TopKLogitsWarper(2)]),
        (1.5, {"min_p": 0.3}, [processors.TemperatureLogitsWarper(1.5), processors.MinPLogitsWarper(0.3)]),
    ]
    for temperature, filters, steps in warpers:
        filled = {name: torch.full((count,), value) for name, value in filters.items()}
        sampling = Sampling(
            torch.full((count,), temperature), torch.arange(count), torch.full((count,), 9), **filled
        )
        drawn = sampling.draw(scores.expand(count, -1))
        wanted = LogitsProcessorList(steps)(None, scores[None].clone()).softmax(-1)[0]  # pyright: ignore[reportArgumentType]
        found = drawn.bincount(minlength=5) / count
        assert (found - wanted).abs().max() < 4 * 0.5 / count**0.5, (temperature, filters, found, wanted)
        assert torch.equal(found > 0, wanted > 1e-6)
        alone = Sampling(*(part[5:6] for part in (sampling.temperature, sampling.seeds, sampling.positions)))
        if not filters:
            assert int(alone.draw(scores[None])) == int(drawn[5])


def test_temperature_zero_is_greedy_beside_rows_that_draw():
    scores = torch.randn(2, 30).expand(2, -1)
    sampling = Sampling(torch.tensor([0.0, 1.0]), torch.tensor([1, 2]), torch.tensor([5, 5]))
    assert int(sampling.draw(scores)[0]) == int(scores[0].argmax())


def test_noise_is_that_of_gumbel_and_differs_between_classes_positions_and_seeds():
    noise = gumbel_noise(torch.tensor([-5, 2**62]), torch.tensor([3, 3]), 20_000)
    assert noise.isfinite().all()
    np.testing.assert_allclose(noise.mean(1), 0.5772, atol=0.04)
    np.testing.assert_allclose(noise.var(1), np.pi**2 / 6, atol=0.1)
    other = gumbel_noise(torch.tensor([-5]), torch.tensor([4]), 20_000)
    assert abs(np.corrcoef(noise[0], other[0])[0, 1]) < 0.03
    assert abs(np.corrcoef(noise[0], noise[1])[0, 1]) < 0.03


def row_bytes() -> int:
    return (32 + SLOTS * 48) * 4 + SLOTS


def stored(memory: PictureMemory, number: int, tokens: int = 10) -> None:
    pooling = torch.arange(tokens * SLOTS).view(tokens, SLOTS)
    pooling[-1, 1:] = -1
    memory.store(
        f"p{number}",
        torch.full((tokens, 32), float(number)),
        torch.full((tokens * SLOTS, 48), float(number)),
        pooling,
    )


def test_memory_drops_the_pictures_that_were_unused_longest_and_never_those_in_use():
    memory = memory_of(30 * row_bytes())
    for number in range(3):
        stored(memory, number)
    held = memory.hold("p0")
    memory.hold("p1")
    memory.release("p1")
    stored(memory, 3)
    assert ("p0" in memory, "p1" in memory, "p2" in memory, "p3" in memory) == (True, True, False, True)
    assert memory.num_rows == 30
    assert (memory.image_features[held] == 0).all()
    assert (memory.image_features[memory.hold("p3")] == 3).all()
    assert memory.valid_slots[memory.hold("p3")].sum() == 37
    stored(memory, 4)
    assert "p1" not in memory


def test_memory_grows_where_running_requests_need_more_and_says_so(caplog: pytest.LogCaptureFixture):
    memory = memory_of(15 * row_bytes())
    for number in range(3):
        stored(memory, number)
        memory.hold(f"p{number}")
    assert memory.num_rows == 30
    assert "need more than the memory" in caplog.text
    for number in range(3):
        rows = memory.hold(f"p{number}")
        assert (memory.image_features[rows] == number).all()
        assert (memory.slot_features[rows][:-1] == number).all()
        assert (memory.slot_features[rows][-1, 1:] == 0).all()


@pytest.mark.parametrize(
    "given",
    [
        {"max_points": 0},
        {"max_points": True},
        {"max_points": 1.5},
        {"single": "yes"},
        {"open_list": 2},
        {"min_score": 0.5},
    ],
)
def test_options_that_make_no_sense_are_refused(given: dict):
    with pytest.raises(ProcessingError, match="expected"):
        PointOptions.of(given)


def test_options_are_read_and_those_of_others_left_alone():
    assert PointOptions.of(None) == PointOptions()
    assert PointOptions.of({"max_points": 3, "single": 1, "other": "x"}) == PointOptions(3, True)


def test_sampling_parameters_mean_what_generate_means():
    greedy_ones = sampling_parameters(AnswerOptions(max_points=2), False, (5,))
    assert greedy_ones["temperature"] == 0
    assert greedy_ones["extra_args"] == {"max_points": 2}
    drawn = sampling_parameters(AnswerOptions(sampling={"temperature": 0.5}, single=True), True, (5,))
    assert (drawn["temperature"], drawn["top_p"], drawn["top_k"]) == (0.5, 1.0, 50)
    assert drawn["extra_args"] == {"single": True, "open_list": True}
    torch.manual_seed(3)
    first = sampling_parameters(AnswerOptions(sampling={"temperature": 0.5}), False, (5,))["seed"]
    torch.manual_seed(3)
    assert sampling_parameters(AnswerOptions(sampling={"temperature": 0.5}), False, (5,))["seed"] == first
    with pytest.raises(ProcessingError, match="num_beams"):
        sampling_parameters(AnswerOptions(sampling={"num_beams": 2}), False, (5,))


def completion(*tokens: tuple[int, float, dict]) -> SimpleNamespace:
    logprobs = []
    for token, odds, beside in tokens:
        entries = {token: odds} | beside
        logprobs.append({key: SimpleNamespace(logprob=value) for key, value in entries.items()})
    return SimpleNamespace(token_ids=[token for token, _, _ in tokens], logprobs=logprobs)


def test_scores_come_from_places_and_absence_from_the_first_choice():
    start = SETTINGS.extended_start
    output = engine_output(
        completion((start + 3, -0.1, {start + 8: -3.0}), (start + 9, -0.2, {}), (4, -5.0, {1: -0.5})),
        SETTINGS,
        single=True,
    )
    assert output.sequences.tolist() == [[start + 3, start + 9, 4]]
    np.testing.assert_allclose(output.selection_probabilities[0, :2], np.exp([-0.1, -0.2]), rtol=1e-6)
    assert output.selection_probabilities[0, 2].isnan()
    assert output.absent is not None
    np.testing.assert_allclose(float(output.absent), np.exp(-3.0), rtol=1e-6)
    with pytest.raises(NumericalError):
        engine_output(completion((start, float("nan"), {})), SETTINGS, single=False)
