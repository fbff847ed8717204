"""`python -m vitbench`, for torchrun and for where the program `vitbench` is not on the path."""

from vitbench.cli import main

if __name__ == "__main__":  # worker processes import this file again, under another name
    main()
