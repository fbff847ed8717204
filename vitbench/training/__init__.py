"""Trains one run, from its settings to its record. Starting many runs is the business of `sweeping`."""
