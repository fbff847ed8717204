"""`hydra/launcher=gpus`: joblib's launcher with processes that each see one GPU (vitbench/sweeping/gpus.py)."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher

SECONDS_IDLE = 300.0  # a process that has no run for this long ends


class GpusLauncher(JoblibLauncher):
    def __init__(self, devices: Any, per_gpu: Any) -> None:
        super().__init__()
        self.task_function: Any = None
        self._settings = {"devices": devices, "per_gpu": per_gpu}
        self._folder: Path | None = None  # folder of the slots, which exists as long as this launcher

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        from hydra.core.singleton import Singleton
        from hydra.core.utils import setup_globals
        from hydra_plugins.hydra_joblib_launcher._core import execute_job
        from joblib.externals.loky import get_reusable_executor, wait

        from vitbench.sweeping.gpus import OnOneGpu, slots

        assert self.config is not None
        typed = [dict(word.split("=", 1) for word in words if "=" in word) for words in job_overrides]
        device_of_runs = (words.get("machine.device", self.config.machine.device) for words in typed)
        its_slots = slots(self._settings, device_of_runs)
        if self._folder is None:
            get_reusable_executor().shutdown()  # older processes that joblib keeps may have used a GPU already
            self._folder = Path(tempfile.mkdtemp(prefix="vitbench-gpus-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        task = OnOneGpu(self.task_function, self._folder, tuple(its_slots))
        setup_globals()
        # joblib itself would train a single run, or the runs of a single slot, in this process, which must not use a
        # GPU.
        processes = get_reusable_executor(min(len(its_slots), len(job_overrides)), timeout=SECONDS_IDLE)
        jobs = [
            processes.submit(
                execute_job,
                initial_job_idx + index,
                words,
                self.hydra_context,
                self.config,
                task,
                Singleton.get_state(),
            )
            for index, words in enumerate(job_overrides)
        ]
        try:
            wait(jobs)
        except BaseException:
            processes.shutdown(kill_workers=True)
            raise
        return [job.result() for job in jobs]


ConfigStore.instance().store(
    group="hydra/launcher",
    name="gpus",
    node={
        "_target_": f"{GpusLauncher.__module__}.{GpusLauncher.__qualname__}",
        "devices": None,  # numbers or UUIDs of GPUs, for example [0,1]; null: all visible GPUs
        "per_gpu": 1,  # number of processes that share a GPU
    },
    provider="vitbench",
)
