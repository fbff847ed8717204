"""Images and labels: a menu of sources, each a function to two `Split`s; decoded once into a memory-mapped cache."""
