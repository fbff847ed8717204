"""Does the runs of a study within a time, by `vitbench sweep`: when the time is over, no more runs are started."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from vitbench.advising.plan import setting_word
from vitbench.errors import RunFailed, TryAgain
from vitbench.machine.interrupt import Stopped
from vitbench.machine.provenance import cores
from vitbench.sweeping import sweep


def launcher_of(device: str) -> tuple[str, int]:
    """Returns the launcher that suits this machine, and how many runs it does at a time."""
    import torch

    gpus = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if gpus:
        return "gpus", gpus
    at_once = cores() if device in ("auto", "cpu") else 1
    return ("joblib", at_once) if at_once > 1 else ("basic", 1)


def train_before(end: float, config: Any) -> int:
    """Trains a run of the sweep; raises TryAgain where `time.time()` is past `end`."""
    if time.time() > end:
        raise TryAgain("not begun, the time is over")
    try:
        return sweep.main(config)
    except Stopped as stopped:  # Hydra would take any other exception for a run that failed
        raise SystemExit(stopped.exit_code) from None


def do_runs(study: Path, words: Sequence[str], launcher: str, end: float) -> list[str]:
    """Sweeps the study, and returns a line for each run that did not finish. Raises Stopped after a signal.

    What the sweep prints goes to stderr, because stdout is for the advice.
    """
    from hydra.core.global_hydra import GlobalHydra

    hydra: Any = GlobalHydra.instance().hydra
    assert hydra is not None
    typed = [setting_word("study", str(study)), f"hydra/launcher={launcher}", *words]
    try:
        with redirect_stdout(sys.stderr):
            hydra.multirun(config_name="sweep", task_function=partial(train_before, end), overrides=typed)
    except Stopped:
        raise
    except (RunFailed, TryAgain) as error:
        return [line.strip() for line in str(error).splitlines()[1:]]
    return []
