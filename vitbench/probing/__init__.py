"""`vitbench probe` and `vitbench features`: choose networks and images, and write rows. `probes` has the measures."""
