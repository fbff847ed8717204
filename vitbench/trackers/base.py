"""What every tracker does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

Settings = Mapping[str, bool | int | float | str]


class Tracker(Protocol):
    """One run in a tracker. It says itself what it holds, so that a run that was killed goes on without doubles."""

    def __init__(self, run: str, folder: Path, settings: Settings) -> None:
        """Opens a run by its id, which is there or not; `folder` is the run's own, where a tracker can keep files."""

    def held(self) -> Mapping[str, Iterable[int]]:
        """By the name of each value that it holds: the steps that have one."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values of a step, What it has returned from, no kill takes back."""

    def close(self) -> None:
        """Lets go of files and services."""
