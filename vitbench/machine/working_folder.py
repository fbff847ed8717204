"""Keeps Python from importing modules from the working folder, which may hold files of other people.

`python -m vitbench` puts the working folder first on the import path, as does an empty entry of PYTHONPATH, and Hydra
runs every `hydra_plugins` that it finds on that path. This module imports only what Python has already loaded.
"""

import os
import sys


def leave_working_folder() -> None:
    """Removes the working folder from the import path, in this process and in processes that it starts.

    It stays if vitbench itself is imported from there, if PYTHONPATH names its full path, or if an installed package
    lies there.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:
        return
    typed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here in {_own_place(), *(os.path.realpath(place) for place in typed if os.path.isabs(place))}:
        return
    library = os.path.dirname(os.__file__)  # entries after it are installed packages
    first = sys.path.index(library) if library in sys.path else len(sys.path)
    sys.path[:first] = [place for place in sys.path[:first] if os.path.realpath(place or here) != here]
    os.environ["PYTHONSAFEPATH"] = "1"
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(place for place in typed if os.path.realpath(place or here) != here)


def _own_place() -> str:
    """Returns the folder that vitbench is imported from."""
    return os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
