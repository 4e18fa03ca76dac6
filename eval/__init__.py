"""Measuring models. `python -m molmopoint.eval.speed`: how fast they are and what they need."""
