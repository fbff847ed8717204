"""Runs side by side: which are selected, which differ in nothing but their seeds, and how they are printed and drawn.

Learning curves and verdicts are in `fitting`.
"""
