"""`python -m vitbench` is for torchrun, and for where the program `vitbench` is not on the path."""

from vitbench.machine.working_folder import leave_working_folder

if __name__ == "__main__":  # a worker process imports this file again, under another name
    leave_working_folder()
    from vitbench.cli import main

    main()
