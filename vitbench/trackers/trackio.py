"""Trackio: a database on this machine, in TRACKIO_DIR or ~/.cache/huggingface/trackio, which `trackio show` draws.

The run is written directly into the database. `trackio.init` would ask Hugging Face who the user is, send data to
TRACKIO_SPACE_ID, and print. Here nothing leaves the machine, and no server is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vitbench.trackers.base import Settings

PROJECT = "vitbench"
_OF_A_LOG = ("step", "timestamp")  # the fields that Trackio adds to the values


class Trackio:
    def __init__(self, run: str, folder: Path, settings: Settings) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        self._run, self._settings, self._storage = run, settings, SQLiteStorage

    def held(self) -> dict[str, set[int]]:
        held: dict[str, set[int]] = {}
        for log in self._storage.get_logs(PROJECT, self._run, run_id=self._run):
            for name in log.keys() - _OF_A_LOG:
                held.setdefault(name, set()).add(log["step"])
        return held

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._storage.bulk_log(
            PROJECT,
            self._run,
            [dict(values)],
            steps=[step],
            config=dict(self._settings),
            log_ids=[f"{self._run} {step} {' '.join(sorted(values))}"],  # the database stores an id only once
            run_id=self._run,
        )

    def close(self) -> None:
        pass
