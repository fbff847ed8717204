"""Statistics, and how a number, a line of text or a figure looks. Nothing here knows what a run is."""
