"""`hydra/launcher=gpus`: joblib's launcher, whose processes each see one GPU (vitbench/sweeping/gpus.py)."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher


class GpusLauncher(JoblibLauncher):
    def __init__(self, devices: Any, per_gpu: Any) -> None:
        super().__init__(batch_size=1)  # a process that gets several runs at once keeps them from the others
        self.task_function: Any = None
        self._settings = {"devices": devices, "per_gpu": per_gpu}
        self._folder: Path | None = None  # of the slots, for as long as this launcher lives

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        from joblib.externals.loky import get_reusable_executor

        from vitbench.sweeping.gpus import OnOneGpu, slots

        assert self.config is not None
        typed = [dict(word.split("=", 1) for word in words if "=" in word) for words in job_overrides]
        device_of_runs = (words.get("machine.device", self.config.machine.device) for words in typed)
        its_slots = slots(self._settings, device_of_runs)
        if self._folder is None:
            get_reusable_executor().shutdown()  # processes that joblib keeps from before may have met a GPU already
            self._folder = Path(tempfile.mkdtemp(prefix="vitbench-gpus-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        task = self.task_function
        self.task_function = OnOneGpu(task, self._folder, tuple(its_slots))
        self.joblib["n_jobs"] = min(len(its_slots), len(job_overrides))
        try:
            return super().launch(job_overrides, initial_job_idx)
        finally:
            self.task_function = task


ConfigStore.instance().store(
    group="hydra/launcher",
    name="gpus",
    node={
        "_target_": f"{GpusLauncher.__module__}.{GpusLauncher.__qualname__}",
        "devices": None,  # their numbers or UUIDs, for example [0,1]; null: all that are visible
        "per_gpu": 1,  # how many processes share each of them
    },
    provider="vitbench",
)
