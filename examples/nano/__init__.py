"""Parts of `train_nano.py`: how the embedded model is made, from drawn pictures to released files."""
