"""`vitbench fit`: learning curves of runs, what they say of each pair of models, and how people are told."""
