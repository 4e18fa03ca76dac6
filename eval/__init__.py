"""Measuring models: how fast they are and what they need.

    python -m molmopoint.eval.speed
"""
