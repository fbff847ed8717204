"""Trackers: programs in which people look at curves of runs. Each has a file, and three methods that `base` describes.

They take plain arguments and know nothing of runs: vitbench/runs/follow.py reads what a run wrote and hands it over,
while the run trains and, by `vitbench track`, later. So this room stands below `settings`, which checks the names of
its menu. No package of a tracker is imported before a tracker is opened.
"""
