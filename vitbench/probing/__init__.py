"""`vitbench probe`: which networks are measured, on which images, and where the rows go. `probes` has the measures."""
