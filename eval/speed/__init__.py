"""How long each phase of an answer takes, what costs most in it, and how much memory it needs.

    python -m molmopoint.eval.speed                       # nano and a random 0.1B on the CPU, a random 8B on a GPU
    python -m molmopoint.eval.speed nano --vs threads=2   # two settings, turn by turn

Every number is the median of several turns in one process. What is compared runs in the same turn, one right
after the other and in alternating order, so that a busy machine disturbs both; ratios are medians of the
ratios of the turns.
"""
