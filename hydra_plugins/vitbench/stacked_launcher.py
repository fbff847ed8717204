"""`hydra/launcher=stacked`: holds its settings. The study sweeper gives the runs to `vitbench/sweeping/stacked.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StackedLauncher(Launcher):
    def __init__(self, max_runs: int) -> None:  # the sweep reads max_runs in the configuration
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        pass

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        from vitbench.errors import UserError

        raise UserError(
            "hydra/launcher=stacked is for the runs of a study: vitbench sweep study=NAME hydra/launcher=stacked"
        )


ConfigStore.instance().store(
    group="hydra/launcher",
    name="stacked",
    node={
        "_target_": f"{StackedLauncher.__module__}.{StackedLauncher.__qualname__}",
        "max_runs": 8,  # largest number of runs in a stack; the memory of the GPU limits it
    },
    provider="vitbench",
)
