"""vitbench: what a CNN knows before it sees data, what a ViT must learn, and when the difference stops mattering.

The functions here do in Python what the commands of the same names do. Each takes the words of the command line as
keyword arguments (docs/reference/python.md), computes the same, and raises `UserError` where the command line prints an
error. Every command imports this file first, so it imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# The package vitbench.runs has the name of a function below. When Python first imports it, it sets `vitbench.runs` to
# that package. So the import comes first, and then the function takes the name. `from vitbench.runs.record import ...`
# still works.
import vitbench.runs as _room_of_runs
from vitbench.errors import UserError
from vitbench.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from vitbench.api import Fit
    from vitbench.runs.record import Record

__all__ = ["Loaded", "UserError", "__version__", "fit", "load", "probe", "runs", "sweep", "train"]

del _room_of_runs


class Loaded(NamedTuple):
    """What `load` returns of a finished run."""

    model: nn.Module  # in evaluation mode, on the CPU
    config: dict[str, Any]
    record: Record  # vitbench/runs/record.py says what its fields hold


def train(**settings: Any) -> Record:
    """Trains or resumes one run, or finds that it is done: `vitbench train`.

    `record = vitbench.train(model="vit", pe="rope", **{"optim.steps": 150, "data.fraction": 0.1})`

    Returns the run's record (docs/reference/records.md): `record["test_accuracy"]`, `record["id"]`. Raises RunFailed
    where the run diverged, TryAgain where another process holds it or a signal ended it after it was saved, and
    UserError for a wrong setting. Interrupting a notebook raises KeyboardInterrupt after the run is saved; the same
    call then continues it.
    """
    from vitbench import api

    return api.train(settings)


def sweep(**settings: Any) -> pd.DataFrame:
    """Does the missing runs of a study: `vitbench sweep`. The study is a name or the path of a .yaml file.

    `runs = vitbench.sweep(study="quickstart", **{"hydra/launcher": "joblib"})`

    Returns the study's runs that have ended, as `runs` does. Where there are none, for example after `dry_run=True`,
    which only prints the plan, it returns no rows. Raises RunFailed or TryAgain, with a line for each run that did not
    finish, and UserError for a wrong setting.
    """
    from vitbench import api

    return api.sweep(settings)


def runs(
    study: str | Path | None = None, runs: str | Path = "runs", where: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Returns the finished and diverged runs of a folder, or those of a study in it, as a table with a row for each.

    `vitbench.runs(study="quickstart", where={"model": "vit", "data.fraction": [0.1, 1]})`

    The columns are those of runs.csv (docs/reference/records.md): settings have their names on the command line,
    results their names in records, and numbers of probes names such as `shift.crop.consistency`. `certifies` names the
    run that a certificate repeats with more samples. Raises UserError where there is no such run.
    """
    from vitbench import api

    return api.runs(study, runs, where)


def fit(**settings: Any) -> Fit:
    """Fits learning curves and compares them in pairs: `vitbench fit`.

    `found = vitbench.fit(study="quickstart", target=0.7)`

    Returns what was found: `print(found)` prints what the command line prints, `found.sentences` has the verdicts,
    `found.tables` has the tables, and `found.numbers` has a row for every number. Raises UserError where there are too
    few runs.
    """
    from vitbench import api

    return api.fit(settings)


def probe(**settings: Any) -> pd.DataFrame:
    """Measures what networks do when their images move, turn or are damaged: `vitbench probe`.

    `rows = vitbench.probe(run=record["id"], probe="shift", images=500)`

    Numbers that are measured already are read. Returns a row for each number: the run's `id`, `probe`, `checkpoint`,
    the `column` that `runs` has for it, `value` with its interval `low` and `high`, and `layer` or `at` where it is one
    of several numbers along the network or an axis (docs/reference/metrics.md). Where something cannot be measured, it
    measures the rest and then raises UserError. With `file=` it draws one figure and returns no rows.
    """
    from vitbench import api

    return api.probe(settings)


def load(run_id: str, runs: str | Path = "runs") -> Loaded:
    """Loads a run into a notebook: `model, config, record = vitbench.load("vit-rope-shapes-f1-s0-3fa9c1d2")`.

    The model takes images (B,C,H,W) with values in 0..1, normalised by `record["mean"]` and `record["std"]`. If the run
    has `data.permute`, the images must also be rearranged: `vitbench.settings.share.places_of(config, 32)` says which
    pixel belongs at each place of an image of 32 px. Raises UserError where there is no such run, it did not finish, or
    its checkpoint is damaged or another run's.
    """
    from vitbench import api

    return Loaded(*api.load(run_id, runs))
