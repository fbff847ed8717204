"""`vitbench bench`: how fast training is, as ratios of sides that are timed in turns. A row of it is a function."""
