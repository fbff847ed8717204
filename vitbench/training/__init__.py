"""Trains one run, from its settings to its record. The room `sweeping` starts many runs."""
