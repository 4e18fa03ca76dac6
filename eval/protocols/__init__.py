"""Evaluation protocols that several benchmarks share: how items of one kind are asked, scored and reported."""
