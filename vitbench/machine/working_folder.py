"""The working folder is no place to import from: somebody else may have filled it.

`python -m vitbench` puts it first on the path of imports, as an empty entry of PYTHONPATH does, and Hydra runs every
`hydra_plugins` that it finds on that path. This module imports only what Python has loaded before.
"""

import os
import sys


def leave_working_folder() -> None:
    """Takes the working folder off the path of imports, here and in processes that are started from here.

    It stays where vitbench itself is imported from there, and where PYTHONPATH names it in full or a package that is
    installed lies there.
    """
    try:
        here = os.path.realpath(os.getcwd())
    except FileNotFoundError:
        return
    typed = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here in {_own_place(), *(os.path.realpath(place) for place in typed if os.path.isabs(place))}:
        return
    library = os.path.dirname(os.__file__)  # what comes behind it is installed
    first = sys.path.index(library) if library in sys.path else len(sys.path)
    sys.path[:first] = [place for place in sys.path[:first] if os.path.realpath(place or here) != here]
    os.environ["PYTHONSAFEPATH"] = "1"
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(place for place in typed if os.path.realpath(place or here) != here)


def _own_place() -> str:
    """The folder that vitbench is imported from."""
    return os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
