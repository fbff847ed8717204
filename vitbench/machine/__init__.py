"""The machine under a run: disk, memory, processes, signals, hardware, progress. It knows no models or images."""
