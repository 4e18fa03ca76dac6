"""Parts of `grpo_with_reward.py`."""
