"""`vitbench bench`: measures how fast training is, by ratios of contestants that are timed in turn.

Each row is a function of a Bench that yields figures.
"""
