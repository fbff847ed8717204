"""Reads and writes what a run leaves on disk, and plans the runs of a study. Nothing here trains or imports torch."""
