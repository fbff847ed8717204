"""Hands the runs of a study to launchers, to SLURM or to one stacked model. A single run trains without this room."""
