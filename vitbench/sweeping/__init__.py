"""Hands the runs of a study to launchers, to SLURM or to one stacked model, and shows how they go.

A single run trains without this room.
"""
