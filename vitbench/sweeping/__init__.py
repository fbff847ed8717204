"""Gives the runs of a study to launchers, to SLURM or to one stacked model, and shows how the runs are doing.

A single run needs nothing from this room.
"""
