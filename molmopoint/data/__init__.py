"""Data: what users bring and the pictures we make ourselves."""
