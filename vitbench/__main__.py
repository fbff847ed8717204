"""`python -m vitbench` is for torchrun, and for where the program `vitbench` is not on the path."""

from vitbench.cli import main

if __name__ == "__main__":  # a worker process imports this file again, under another name
    main()
