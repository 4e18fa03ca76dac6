"""Running a benchmark on a model without losing or repeating an item: its data, predictors, and the folder of
a run.
"""
