"""`init=`: finds the weights that a run begins from, and what they cost. training/transfer.py puts them into a model.

    init=vit-rope-shapes-f1-s0-3fa9c1d2    a finished run in runs=
    init=ID checkpoint=STEP                the state of that run after STEP, from which this run branches off
    init=FILE.safetensors                  a file, which vitbench or another program wrote
    init=torchvision:NAME, timm:NAME       pretrained weights, which the library fetches
    init=pretrained                        the pretrained weights of model.arch, with model=timm or model=torchvision
    init='data.fraction=1'                 words: the run that differs from this one only in these settings

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.runs.ancestor import FinishedRun, finished_parent
from vitbench.runs.branch import state_of_branch
from vitbench.runs.costs import FREE, Cost, total_cost
from vitbench.runs.run import Run, metadata_of
from vitbench.settings.identity import file_of_init, id_of
from vitbench.settings.overrides import PRETRAINED, is_file_of_weights, is_words


class Origin(NamedTuple):
    """The weights that a run begins from."""

    typed: str  # what follows init=
    source: str  # run, branch, file, torchvision or timm
    name: str  # the run's id, the file as it was typed, or the library's name of the network
    path: Path | None = None  # the file of the weights; None where a library fetches them
    classes: tuple[str, ...] | None = None  # a run's classes; a file that vitbench wrote names its own
    # what training the weights cost, parents included; nothing for a branch, which counts all steps as its own
    cost: Cost = Cost()
    normalised_by: tuple[list[float], list[float]] | None = None  # the mean and std of a run's images, where known

    @property
    def is_branch(self) -> bool:
        """Whether the run continues from the whole state of another run, not only from its weights."""
        return self.source == "branch"


def find_origin(settings: Mapping[str, Any]) -> Origin | None:
    """Returns the weights that a run begins from; None for random ones.

    Raises UserError where they are missing, or the run that trains them has not finished.
    """
    typed = settings["init"]
    if typed is None:
        return None
    if run := id_of(settings, "init"):
        folder, record = finished_parent(settings, "init")
        classes = tuple(record["classes"])
        if settings["checkpoint"] is not None:
            branch = state_of_branch(settings, folder, record)
            return Origin(typed, "branch", run, branch, classes, FREE, (record["mean"], record["std"]))
        typed = f"'{typed}'" if is_words(typed) else typed
        cost = total_cost(record, record["config"])
        return Origin(typed, "run", run, Run(folder, {}).weights(), classes, cost, (record["mean"], record["std"]))
    if is_file_of_weights(typed):
        path = file_of_init(typed)
        return Origin(typed, "file", typed, path, normalised_by=_normalised_by(path))
    if typed == PRETRAINED:
        return Origin(typed, settings["model"]["name"], settings["model"]["arch"])
    library, _, name = typed.partition(":")
    return Origin(typed, library, name)


def _normalised_by(path: Path) -> tuple[list[float], list[float]] | None:
    """Returns the mean and std of the run whose weights a file holds; None where vitbench did not write the file."""
    about = metadata_of(path)
    with suppress(KeyError, TypeError, ValueError, OverflowError):
        mean, std = ([float(number) for number in about[key]] for key in ("mean", "std"))
        if 0 < len(mean) == len(std) and all(map(math.isfinite, mean)) and all(0 < number < math.inf for number in std):
            return mean, std
    return None


class Parents(NamedTuple):
    """The runs and weights that must be there before a run can train."""

    origin: Origin | None  # None for random weights
    teacher: FinishedRun | None

    @property
    def cost(self) -> Cost:
        """What training both cost, their own parents included."""
        origin = self.origin.cost if self.origin else FREE
        return origin.plus(total_cost(self.teacher.record, self.teacher.record["config"]) if self.teacher else FREE)


def find_parents(settings: Mapping[str, Any]) -> Parents:
    """Finds both, before torch is imported and images are decoded. Raises UserError where one is missing or
    unfinished."""
    return Parents(find_origin(settings), finished_parent(settings, "teacher") if settings["teacher"] else None)
