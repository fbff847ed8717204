"""A run is one folder with one record: claimed by one process, resumed from its state, finished when the record is there.

    runs/<id>/  config.yaml             the settings, written first
                metrics.csv             a line per evaluation
                state.safetensors       what resuming needs (and state.previous.safetensors), removed at the end
                checkpoint.100.safetensors  the weights after 100 steps, where keep= asked for them
                checkpoint.safetensors  the weights, when training is over
                predictions.npy         the predicted class of every test image
                labels.npy              their true classes, in the same order
                record.json             last: present = finished (or diverged)
                failure.json            the traceback, where something else ended the run

No torch here.
"""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitbench.errors import StorageError, TryAgain, UserError
from vitbench.machine.disk import storage, write, write_all, write_beside
from vitbench.machine.provenance import now
from vitbench.runs.records import NewerSchema, read_record
from vitbench.settings.identity import run_id

METRICS = ("step", "epoch", "lr", "train_loss", "val_accuracy", "val_loss", "train_seconds")

LOOKING_SECONDS = 1.0  # a lock may be taken for a moment by who asks whether the run is held


@dataclass(frozen=True)
class Run:
    """The folder of one run. Every write is whole or not at all; what goes wrong names the file."""

    folder: Path
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Run:
        return cls(Path(settings["runs"]).expanduser() / run_id(settings), settings)

    @property
    def id(self) -> str:
        return self.folder.name

    def record(self) -> dict[str, Any] | None:
        """The record of a finished or diverged run; None while there is no whole one."""
        try:
            return read_record(self.folder / "record.json")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (NewerSchema, StorageError):
            raise
        except UserError:
            return None  # torn by something other than us: the run is done again

    def failure(self) -> str | None:
        """Why the run failed, where it did."""
        try:
            return str(json.loads((self.folder / "failure.json").read_text())["error"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "unreadable failure.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Holds the run for this process; raises TryAgain naming the holder. The lock dies with the process."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock")
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=LOOKING_SECONDS)
            except Timeout:
                raise TryAgain(f"{self.id} is held by {self._holder()}; try again when it has ended") from None
        try:
            holder = {"pid": os.getpid(), "host": socket.gethostname()}
            write(self.folder / ".holder.json", json.dumps(holder).encode())
            yield
        finally:
            with suppress(OSError):  # the folder may be gone; what went wrong before says so
                (self.folder / ".holder.json").unlink(missing_ok=True)
                if not any(path.name != ".lock" for path in self.folder.iterdir()):  # refused before it began
                    (self.folder / ".lock").unlink(missing_ok=True)
                    self.folder.rmdir()
            lock.release()

    def held(self) -> str | None:
        """Who holds the run now; None where nobody does."""
        from filelock import FileLock, Timeout

        if not (self.folder / ".lock").exists():
            return None
        try:
            with FileLock(self.folder / ".lock", blocking=False):
                return None
        except Timeout:
            return f"held by {self._holder()}"

    def _holder(self) -> str:
        for _ in range(20):  # a holder writes its name a moment after it has the lock
            try:
                holder = json.loads((self.folder / ".holder.json").read_text())
                return f"process {holder['pid']} on {holder['host']}"
            except (OSError, ValueError, KeyError):
                time.sleep(0.05)
        return "another process"

    def start(self) -> None:
        """Writes the settings, so that a folder says what it is from its first moment."""
        (self.folder / "failure.json").unlink(missing_ok=True)
        for torn in self.folder.glob(".*.tmp"):
            torn.unlink(missing_ok=True)
        self._write_settings()

    def _write_settings(self) -> None:
        import yaml

        write(self.folder / "config.yaml", yaml.safe_dump(dict(self.settings), sort_keys=False).encode())

    def states(self) -> list[Path]:
        """The saved states, newest first."""
        paths = [self.folder / "state.safetensors", self.folder / "state.previous.safetensors"]
        return [path for path in paths if path.exists()]

    def save_state(self, blob: bytes) -> None:
        """The new state takes the old one's place only when it is whole; the old one is kept for one generation."""
        path = self.folder / "state.safetensors"
        fresh = write_beside(path, blob)
        with storage(path):
            if path.exists():
                os.replace(path, path.with_name("state.previous.safetensors"))
            os.replace(fresh, path)

    def weights(self, step: int | None = None) -> Path:
        """The file of the weights, of the end or of a step that `keep` names."""
        return self.folder / ("checkpoint.safetensors" if step is None else f"checkpoint.{step}.safetensors")

    def kept(self) -> list[int]:
        """The steps after which the weights were kept."""
        steps = (path.name.split(".")[1] for path in self.folder.glob("checkpoint.*.safetensors"))
        return sorted(int(step) for step in steps if step.isdigit())

    def lost(self) -> list[int]:
        """The steps that `keep` names and whose weights are not there."""
        wanted = self.settings["keep"]
        return sorted({*wanted} - {*self.kept()}) if wanted else []

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a line to metrics.csv in one write; what an objective measures follows METRICS."""
        path = self.folder / "metrics.csv"
        columns = [*METRICS, *(key for key in row if key not in METRICS)]
        text = _csv_line(columns) if not path.exists() else ""
        text += _csv_line([_shown(row.get(column)) for column in columns])
        with storage(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                write_all(descriptor, text.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rewind(self, step: int) -> None:
        """Drops the lines of metrics.csv after `step`, and a torn last one: they will be written again."""
        path = self.folder / "metrics.csv"
        rows = [row for row in read_metrics(self.folder) if int(row["step"]) <= step]
        if not rows:  # the next line brings the header, with the columns of the objective
            path.unlink(missing_ok=True)
        else:
            write(path, "".join([_csv_line(rows[0]), *(_csv_line(row.values()) for row in rows)]).encode())

    def finish(self, record: Mapping[str, Any]) -> None:
        """The last write of a run; what only resuming needed goes."""
        write(self.folder / "record.json", json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
        self.tidy()

    def tidy(self) -> None:
        """Removes what only resuming needed."""
        for path in self.states():
            with suppress(OSError):
                path.unlink()

    def fail(self, error: str, traceback: str) -> None:
        failure = {"error": error, "traceback": traceback, "time": now()}
        self._write_settings()
        write(self.folder / "failure.json", json.dumps(failure, indent=1).encode())


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The whole lines of metrics.csv; a torn last one is dropped."""
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [row for row in rows if None not in row.values() and row.get("step", "").isdigit()]


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _shown(value: Any) -> Any:
    return "" if value is None else value
