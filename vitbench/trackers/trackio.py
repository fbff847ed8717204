"""Trackio: a database of this machine, below TRACKIO_DIR, else ~/.cache/huggingface/trackio; `trackio show` draws it.

The run is written into the database itself. `trackio.init` would ask Hugging Face who the user is, follow
TRACKIO_SPACE_ID to the network, and print; here nothing leaves the machine and no server is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vitbench.trackers.base import Settings

PROJECT = "vitbench"
_OF_A_LOG = ("step", "timestamp")  # what Trackio adds to the values


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
            log_ids=[f"{self._run} {step} {' '.join(sorted(values))}"],  # the database takes none twice
            run_id=self._run,
        )

    def close(self) -> None:
        pass
