"""Answers on the disk: ours, and readers for those that other programs and other models have stored."""
