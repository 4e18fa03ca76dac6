"""Training: from the rows a user writes to batches, and the loop around them."""
