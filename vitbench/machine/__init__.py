"""What a run needs of the machine: disk, memory, processes, signals, hardware, progress. No models or images here."""
