"""Images and labels: a menu of sources, each a function that returns two `Split`s, and the cache of decoded images."""
