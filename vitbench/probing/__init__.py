"""`vitbench probe`: which networks are measured, with which images, and where the rows go. How a probe measures is in `probes`."""
