"""The machine under a run: disk, memory, processes, signals, hardware, progress. Nothing here knows of models or images."""
