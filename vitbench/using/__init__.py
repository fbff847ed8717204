"""Uses what a run trained: `vitbench predict` classifies images, `vitbench export` writes files for other programs."""
