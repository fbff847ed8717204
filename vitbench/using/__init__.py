"""Using what a run trained: `vitbench predict` gives classes to images, `vitbench export` a file to other programs."""
