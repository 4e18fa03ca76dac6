"""A world of screens: pages of made-up programs, and a small model that points at what is on them."""
