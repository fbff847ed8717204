"""Weights & Biases. wandb reads WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY, WANDB_DIR and the key as usual.

wandb gets the run's id, its settings and its values. It is prevented from collecting more: the command line, which may
contain a key, the code, its repository, the output, and facts about the machine. It never asks for a key.

A note in the run's folder lists what was sent, because wandb cannot tell when it is offline.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vitbench.machine.disk import read_json, write
from vitbench.trackers.base import Settings

PROJECT = "vitbench"
NOTE = ".wandb.json"
SECONDS_TO_BEGIN = 30.0


class Wandb:
    def __init__(self, run: str, folder: Path, settings: Settings) -> None:
        self._id, self._settings, self._note = run, settings, folder / NOTE
        self._run: Any = None  # opened by the first value
        self._newest: dict[str, int] = {}
        with suppress(OSError, ValueError):
            self._newest = {name: step for name, step in read_json(self._note).items() if type(step) is int}

    def held(self) -> dict[str, range]:
        return {name: range(newest + 1) for name, newest in self._newest.items()}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._run is None:
            self._begin()
        if step < self._run.step:  # wandb takes no values for earlier steps
            self._run.summary.update(dict(values))
        else:
            self._run.log(dict(values), step=step)
        if not self._run.disabled:
            self._newest |= dict.fromkeys(values, step)
            write(self._note, json.dumps(self._newest).encode())

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()

    def _begin(self) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self._id,
            name=self._id,
            config=dict(self._settings),
            resume="allow",
            reinit="create_new",  # several runs can train in one process
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                init_timeout=SECONDS_TO_BEGIN,
                x_disable_meta=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
