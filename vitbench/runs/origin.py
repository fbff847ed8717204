"""`init=`: which weights a run begins from, and what they cost. training/transfer.py puts them into a model.

    init=vit-rope-shapes-f1-s0-3fa9c1d2    a finished run in runs=
    init=FILE.safetensors                  a file, ours or another's
    init=torchvision:NAME, timm:NAME       pretrained weights, which the library fetches
    init='data.fraction=1'                 words: the run that differs from this one in these settings alone

No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.runs.ancestor import FinishedRun, finished_parent
from vitbench.runs.records import total_seconds
from vitbench.runs.run import Run
from vitbench.settings.identity import file_of_init, id_of
from vitbench.settings.overrides import is_words


class Origin(NamedTuple):
    typed: str  # what follows init=
    source: str  # run, file, torchvision or timm
    name: str  # the run's id, the file as typed, the library's name of the network
    path: Path | None = None  # of the weights
    classes: tuple[str, ...] | None = None  # of a run; a file of ours says so itself
    seconds: float | None = None  # of training, with all that went before; None: nobody says


def find_origin(settings: Mapping[str, Any]) -> Origin | None:
    """Where a run begins from, None for random weights; UserError where that is not there or not finished."""
    typed = settings["init"]
    if typed is None:
        return None
    if run := id_of(settings, "init"):
        folder, record = finished_parent(settings, "init")
        typed = f"'{typed}'" if is_words(typed) else typed
        seconds = total_seconds(record, record["config"])
        return Origin(typed, "run", run, Run(folder, {}).weights(), tuple(record["classes"]), seconds)
    if typed.endswith(".safetensors"):
        return Origin(typed, "file", typed, file_of_init(typed))
    library, _, name = typed.partition(":")
    return Origin(typed, library, name)


class Parents(NamedTuple):
    """What has to be there before a run can train: found before torch is imported and images are decoded."""

    origin: Origin | None  # the weights that it begins from; None for random ones
    teacher: FinishedRun | None  # the run that it learns from

    @property
    def seconds(self) -> float | None:
        """The training time of both, with all that went before them; None where nobody says."""
        origin = self.origin.seconds if self.origin else 0.0
        teacher = total_seconds(self.teacher.record, self.teacher.record["config"]) if self.teacher else 0.0
        return None if origin is None or teacher is None else origin + teacher


def find_parents(settings: Mapping[str, Any]) -> Parents:
    """UserError where one of them is not there or has not finished."""
    return Parents(find_origin(settings), finished_parent(settings, "teacher") if settings["teacher"] else None)
