"""Trackers, programs that show the training curves of runs. Each has its own file and the three methods of `base`.

They take plain arguments and know nothing about runs. vitbench/runs/follow.py reads what a run wrote and sends it to
them, while the run trains or later, by `vitbench track`. So this room lies below `settings`, which checks the names of
its menu. The package of a tracker is imported only when the tracker is opened.
"""
