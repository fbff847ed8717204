"""The runs of a study, handed to launchers, to SLURM or to one stacked model. Who trains a single run never comes here."""
