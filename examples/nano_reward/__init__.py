"""Parts of `train_nano_reward.py`."""
