"""Training of reward models: from preferences to a model that judges all answers in one pass."""
