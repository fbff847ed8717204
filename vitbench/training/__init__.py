"""One run from its settings to its record: the loop and what it needs. Who starts many runs is in `sweeping`."""
