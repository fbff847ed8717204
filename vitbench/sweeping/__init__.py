"""The runs of a study, handed to launchers, to SLURM or to one stacked model. Whoever trains a single run never opens this room."""
