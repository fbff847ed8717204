"""`vitbench fit`: learning curves of runs, what they say of each pair, and how that is said in tables, sentences and figures."""
