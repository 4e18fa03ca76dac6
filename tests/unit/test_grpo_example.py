"""The example that trains a policy with a reward model: its figures, and all of it in small."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_reward import random_reward

from molmopoint.errors import ProcessingError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Modules of the example by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    pytest.importorskip("trl")
    yield importlib.import_module
    for name in [name for name in sys.modules if name.split(".")[0] in ("grpo", "grpo_with_reward")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("answer", "kind", "right", "wanted"),
    [
        ("There are 3.", "count", "3", True),
        ("None.", "count", "none", True),
        ("There are 3. There are 4.", "count", "3", False),  # naming every value is not an answer
        ("The star is red.", "colour", "red", True),
        ("It is in the top left.", "position", "top left", True),
        ("left", "position", "top left", False),
        ("", "colour", "red", False),
    ],
)
def test_answers_are_right_or_not(example, answer, kind, right, wanted):
    assert example("grpo.questions").is_right(answer, kind, right) is wanted


def test_fifths_compare_the_ends_over_seeds(example):
    runs = [{"reward": [0.0] * 2 + [1.0] * 6 + [2.0 + seed] * 2} for seed in range(3)]
    found = example("grpo.report").fifths(runs, "reward")
    assert found == pytest.approx({"first": 0.0, "last": 3.0, "rise": 3.0, "standard_error": 1 / 3**0.5})


@pytest.fixture
def reward_folder(tmp_path):
    model, processor = random_reward()
    model.save_pretrained(tmp_path / "judge", processor, merged=True)
    return str(tmp_path / "judge")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_the_example_runs_in_small(example, reward_folder, tmp_path, monkeypatch):
    main = example("grpo_with_reward").main
    options = [
        "--reward",
        reward_folder,
        "--out",
        str(tmp_path / "out"),
        "--seeds",
        "1",
        "--format-steps",
        "2",
        "--steps",
        "2",
        "--prompts",
        "4",
    ]
    monkeypatch.setattr(sys, "argv", ["grpo_with_reward.py", *options])
    main()
    curves = json.loads((tmp_path / "out" / "seed0.json").read_text())
    assert {name: len(values) for name, values in curves.items()} == {"reward": 2, "accuracy": 2, "length": 2}
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_trl_with_another_size_of_groups_is_refused(example, reward_folder, tmp_path):
    from trl.trainer.grpo_config import GRPOConfig
    from trl.trainer.grpo_trainer import GRPOTrainer

    from molmopoint.reward import RewardFunction

    policy, questions = example("grpo.policy"), example("grpo.questions")
    processor = policy.new_processor()
    config = GRPOConfig(
        str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=4, num_generations=2, max_completion_length=4, use_cpu=True,
        bf16=False, report_to="none", save_strategy="no", gradient_checkpointing=False,
    )  # fmt: skip
    data = questions.questions(3, 4, answered=False)
    judge: Any = RewardFunction(reward_folder, 4, device="cpu")  # its type allows fewer arguments than TRL's
    trainer = GRPOTrainer(
        policy.new_policy(processor, 0),
        reward_funcs=judge,
        args=config,
        train_dataset=data,
        processing_class=processor,
    )
    with pytest.raises(
        ProcessingError, match="expected 4 answers to one prompt from place 0 on, got some to 2"
    ):
        trainer.train()
