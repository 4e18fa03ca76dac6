"""Parts of `train_nano_reward.py`: pictures seen once, and the training on them."""
