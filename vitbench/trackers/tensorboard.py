"""TensorBoard: an event file in the run's folder, which `tensorboard --logdir runs` finds and names after the folder.

The package's own writer writes it and its own reader reads it, so torch is not needed. TensorBoard stores values as
float32. Settings are written as hyperparameters, by which TensorBoard compares runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitbench.trackers.base import Settings


class TensorBoard:
    def __init__(self, run: str, folder: Path, settings: Settings) -> None:
        self._run, self._folder, self._settings = run, folder, settings
        self._writer: Any = None  # opened by the first value, so that a run without new values makes no new file

    def held(self) -> dict[str, set[int]]:
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

        held: dict[str, set[int]] = {}
        for file in self._files():  # each is read alone, because together some files would hide others
            events = EventAccumulator(str(file), size_guidance={SCALARS: 0})  # 0 reads all of them
            events.Reload()
            for name in events.Tags()[SCALARS]:
                held.setdefault(name, set()).update(event.step for event in events.Scalars(name))
        return held

    def log(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None:
            self._open()
        self._add(Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]), step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _open(self) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        is_new = not self._files()
        self._writer = EventFileWriter(str(self._folder))
        if is_new:
            self._add(hparams_pb(dict(self._settings), trial_id=self._run), 0)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.glob("events.out.tfevents.*") if path.is_file()]

    def _add(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
