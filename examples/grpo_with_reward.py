"""Trains a policy with a reward model, on a processor: `python examples/grpo_with_reward.py --reward MODEL
--out runs/grpo`.

A tiny random vision-language model first learns the answer format from synthetic questions whose answers are
right and wrong alike, and then by GRPO what a reward model prefers. Reward, accuracy (which the reward model
is never told) and answer length are drawn beside each other, so that a judge that is being fooled shows: its
reward rises and the accuracy does not. The last answers of each run are written down, to see how. Runs that
are complete are skipped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from grpo.policy import never_said, new_policy, new_processor
from grpo.questions import ANCHOR, Accuracy, questions
from grpo.report import curves_of, fifths, plot
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from molmopoint.reward import RewardFunction

GROUP = 4
"""Answers per question."""

_ON_CPU = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}


def run_once(
    reward: str, out: Path, seed: int, format_steps: int, steps: int, prompts: int
) -> dict[str, list[float]]:
    """One seed: the format, then GRPO; returns the curves of the second part.

    Args:
        reward: folder or name of the reward model.
        out: folder of the run.
        seed: of weights, data and sampling.
        format_steps: steps of 16 examples that teach the format.
        steps: of GRPO.
        prompts: questions per step, each with `GROUP` answers.
    """
    processor = new_processor()
    policy = new_policy(processor, seed)
    format_config = SFTConfig(
        str(out / "format"), max_steps=format_steps, per_device_train_batch_size=16, learning_rate=2e-3, logging_steps=50, seed=seed,
        max_length=None, **_ON_CPU,
    )  # fmt: skip
    taught = questions(1_000 + seed, 16 * min(format_steps, 100), answered=True)
    SFTTrainer(policy, args=format_config, train_dataset=taught, processing_class=processor).train()
    config = GRPOConfig(
        str(out / "grpo"), max_steps=steps, per_device_train_batch_size=GROUP * prompts, num_generations=GROUP, learning_rate=2e-4,
        lr_scheduler_type="constant", max_completion_length=24, temperature=1.0, beta=0.0, logging_steps=1, seed=seed,
        reward_weights=[1.0, 0.0], generation_kwargs={"suppress_tokens": never_said(processor)}, **_ON_CPU,
    )  # fmt: skip
    judge = RewardFunction(reward, GROUP, anchor=ANCHOR, seed=seed, device="cpu")
    asked = questions(2_000 + seed, prompts * min(steps, 100), answered=False)
    watched = Accuracy()
    rewards: list[Any] = [judge, watched]
    trainer = GRPOTrainer(
        policy, reward_funcs=rewards, args=config, train_dataset=asked, processing_class=processor
    )
    trainer.train()
    (out / "answers.json").write_text(json.dumps(watched.last, indent=1) + "\n", encoding="utf-8")
    return curves_of(trainer.state.log_history)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reward", default="nano-reward", help="reward model: name or folder")
    parser.add_argument("--out", type=Path, required=True, help="curves, figures and the picture go here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--format-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=8, help="questions per step")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    curves = []
    for seed in range(arguments.seeds):
        file = arguments.out / f"seed{seed}.json"
        if not file.exists():
            run = run_once(
                arguments.reward,
                arguments.out / f"seed{seed}",
                seed,
                arguments.format_steps,
                arguments.steps,
                arguments.prompts,
            )
            file.write_text(json.dumps(run) + "\n", encoding="utf-8")
        curves.append(json.loads(file.read_text(encoding="utf-8")))
    found = {name: fifths(curves, name) for name in ("reward", "accuracy", "length")}
    found["reward"]["in_standard_errors"] = found["reward"]["rise"] / max(
        found["reward"]["standard_error"], 1e-9
    )
    (arguments.out / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    plot(curves, arguments.out / "curves.png")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
