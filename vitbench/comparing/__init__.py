"""Runs side by side: which are selected, which are alike but for the seed, and how they are printed and drawn.

Learning curves and verdicts are in `fitting`.
"""
