"""Trains a policy with a reward model, on a processor: `python examples/grpo_with_reward.py --reward MODEL
--out runs/grpo`.

A small vision-language model first learns the form of answers from synthetic questions whose answers are right
and wrong alike, and then by GRPO what a reward model prefers. What it answers to unseen questions is measured
before and after. Reward, accuracy (which the reward model is never told) and answer length are drawn beside
each other, so that a judge that is being fooled shows: its reward rises and the accuracy does not. The last
answers of each run are written down, to see how. Runs that are complete are skipped.

--policy seeing (default) is the embedded model, which sees. --policy blind is a random one, which learns to
please instead: the warning of docs/reward_training.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo.measuring import measure_policy
from grpo.policy import never_said, new_policy, new_processor
from grpo.questions import Accuracy, questions
from grpo.report import curves_of, fifths, plot, rises
from grpo.seeing import never_spoken, seeing_policy
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from molmopoint.data.vague import ANCHOR
from molmopoint.reward import RewardFunction

GROUP = 4
"""Answers per question."""

_LONGEST = 24
"""Tokens of an answer."""

_UNSEEN = 3_000
"""First part of the seeds of the questions that policies are measured on."""

_ON_CPU = {
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}


@dataclass(frozen=True)
class Plan:
    """What one run is.

    Attributes:
        reward: folder or name of the reward model.
        policy: "seeing" or "blind".
        form_steps: steps of 16 examples that teach the form.
        steps: of GRPO.
        prompts: questions per step, each with `GROUP` answers.
        form_rate: learning rate of the form.
        rate: learning rate of GRPO.
        unseen: questions that are measured before and after.
    """

    reward: str
    policy: str
    form_steps: int
    steps: int
    prompts: int
    form_rate: float
    rate: float
    unseen: int


def run_once(plan: Plan, out: Path, seed: int) -> dict[str, Any]:
    """One seed: the form, then GRPO.

    Args:
        plan: of the run.
        out: folder of the run.
        seed: of weights, data and sampling.

    Returns:
        The curves of GRPO, and "before" and "after", what is known of unseen questions.
    """
    if plan.policy == "seeing":
        policy, processor = seeing_policy()
        never = never_spoken(processor)
    else:
        processor = new_processor()
        policy = new_policy(processor, seed)
        never = never_said(processor)
    form = SFTConfig(
        str(out / "form"), max_steps=plan.form_steps, per_device_train_batch_size=16, learning_rate=plan.form_rate, logging_steps=50,
        seed=seed, max_length=None, **_ON_CPU,
    )  # fmt: skip
    taught = questions(1_000 + seed, 16 * min(plan.form_steps, 100), answered=True)
    SFTTrainer(policy, args=form, train_dataset=taught, processing_class=processor).train()
    unseen = questions(_UNSEEN, plan.unseen, answered=False)
    before = measure_policy(policy, processor, unseen, never, _LONGEST)
    print(json.dumps({"seed": seed, "before": before}), flush=True)

    config = GRPOConfig(
        str(out / "grpo"), max_steps=plan.steps, per_device_train_batch_size=GROUP * plan.prompts, num_generations=GROUP,
        learning_rate=plan.rate, lr_scheduler_type="constant", max_completion_length=_LONGEST, temperature=1.0, beta=0.0,
        logging_steps=1, seed=seed, reward_weights=[1.0, 0.0], generation_kwargs={"suppress_tokens": never}, **_ON_CPU,
    )  # fmt: skip
    judge = RewardFunction(plan.reward, GROUP, anchor=ANCHOR, seed=seed, device="cpu")
    asked = questions(2_000 + seed, plan.prompts * plan.steps, answered=False)
    watched = Accuracy()
    rewards: list[Any] = [judge, watched]
    trainer = GRPOTrainer(
        policy, reward_funcs=rewards, args=config, train_dataset=asked, processing_class=processor
    )
    trainer.train()
    (out / "answers.json").write_text(json.dumps(watched.last, indent=1) + "\n", encoding="utf-8")
    after = measure_policy(policy, processor, unseen, never, _LONGEST)
    print(json.dumps({"seed": seed, "after": after}), flush=True)
    return curves_of(trainer.state.log_history) | {"before": before, "after": after}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reward", default="nano-reward", help="reward model: name or folder")
    parser.add_argument("--out", type=Path, required=True, help="curves, figures and the picture go here")
    parser.add_argument("--policy", choices=("seeing", "blind"), default="seeing", help="who is trained")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--form-steps", type=int, default=300)
    parser.add_argument("--form-rate", type=float, default=1e-3, help="learning rate of the form")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=8, help="questions per step")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of GRPO")
    parser.add_argument(
        "--unseen", type=int, default=300, help="questions that are measured before and after"
    )
    arguments = parser.parse_args()
    plan = Plan(
        arguments.reward,
        arguments.policy,
        arguments.form_steps,
        arguments.steps,
        arguments.prompts,
        arguments.form_rate,
        arguments.rate,
        arguments.unseen,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(arguments.seeds):
        file = arguments.out / f"seed{seed}.json"
        if not file.exists():
            run = run_once(plan, arguments.out / f"seed{seed}", seed)
            file.write_text(json.dumps(run) + "\n", encoding="utf-8")
        runs.append(json.loads(file.read_text(encoding="utf-8")))
    found: dict[str, Any] = {name: fifths(runs, name) for name in ("reward", "accuracy", "length")}
    found["reward"]["in_standard_errors"] = found["reward"]["rise"] / max(
        found["reward"]["standard_error"], 1e-9
    )
    found["unseen"] = rises(runs)
    (arguments.out / "figures.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    plot(runs, arguments.out / "curves.png")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
