"""The interface of trackers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

Settings = Mapping[str, bool | int | float | str]


class Tracker(Protocol):
    """One run in a tracker. The tracker knows what it holds, so a run that was killed continues without duplicates."""

    def __init__(self, run: str, folder: Path, settings: Settings) -> None:
        """Opens a new or existing run by its id. `folder` is the run's folder, where a tracker can keep files."""

    def held(self) -> Mapping[str, Iterable[int]]:
        """Returns, by the name of each value that it holds, the steps that have this value."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds values of a step. When it has returned, the values are stored, even if the process is killed."""

    def close(self) -> None:
        """Closes files and services."""
