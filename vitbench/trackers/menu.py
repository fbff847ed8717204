"""The menu of trackers. Each needs the package of the same name, which the extra of this name installs."""

from __future__ import annotations

import importlib.util
from typing import Any

from vitbench.errors import UserError, check_choice
from vitbench.menu import Choice

MENU = {
    "tensorboard": Choice(
        "vitbench.trackers.tensorboard:TensorBoard", "a file in each run's folder: `tensorboard --logdir runs`"
    ),
    "trackio": Choice("vitbench.trackers.trackio:Trackio", "a database on this machine: `trackio show`"),
    "wandb": Choice("vitbench.trackers.wandb:Wandb", "wandb.ai; with WANDB_MODE=offline, files for `wandb sync`"),
}


def check_trackers(typed: Any) -> list[str] | None:
    """Returns the trackers that were typed, one or a list, each once; None if there are none.

    Raises UserError for a tracker that is not on the menu or whose package is not installed.
    """
    words = typed if isinstance(typed, list | tuple) else [] if typed is None else [typed]
    names = [check_choice("trackers", str(word), MENU) for word in words]
    for name in names:
        if not _is_installed(name):
            raise UserError(f"trackers={name}: comes with an extra: pip install 'vitbench[{name}]'")
    return [*dict.fromkeys(names)] or None


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # another object has its place in sys.modules
        return False
