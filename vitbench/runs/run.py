"""A run is a folder: one process at a time holds it, saves there what resuming needs, and at last writes a record.

    runs/<id>/  config.yaml             the settings, written first
                metrics.csv             a line for each evaluation
                state.safetensors       what resuming needs, and state.previous.safetensors; both removed at the end
                checkpoint.100.safetensors  the weights after 100 steps, where keep= asked for them
                state.100.safetensors   the state after these steps, with optim.schedule=wsd: a branch begins from it
                checkpoint.safetensors  the weights at the end of training
                predictions.npy         the predicted class of every test image
                labels.npy              their true classes, in the same order
                probabilities.npy       what the network gives each class, (M, K), in the same order; not in old runs
                record.json             written last: where it is present, the run has finished or diverged
                failure.json            the traceback, where an error ended the run

This module imports no torch.
"""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitbench.errors import StorageError, TryAgain, UserError
from vitbench.machine.disk import storage, write, write_all, write_beside
from vitbench.machine.provenance import now
from vitbench.runs.record import Record
from vitbench.runs.records import NewerSchema, read_record
from vitbench.settings.identity import run_id

METRICS = ("step", "epoch", "lr", "train_loss", "val_accuracy", "val_loss", "train_seconds")  # columns of metrics.csv

LOOKING_SECONDS = 1.0  # how long a claim waits for the lock, which `held` of another process may take for a moment


@dataclass(frozen=True)
class Run:
    """The folder of one run. A file is written whole or not at all, and an error of the disk names the file."""

    folder: Path
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Run:
        return cls(Path(settings["runs"]).expanduser() / run_id(settings), settings)

    @property
    def id(self) -> str:
        return self.folder.name

    def record(self) -> Record | None:
        """The record of a run that has finished or diverged; None while there is no whole record."""
        try:
            return read_record(self.folder / "record.json")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (NewerSchema, StorageError):
            raise
        except UserError:
            return None  # something other than vitbench tore the record, and the run is done again

    def failure(self) -> str | None:
        """The error that ended the run; None where none did."""
        try:
            return str(json.loads((self.folder / "failure.json").read_text())["error"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return "unreadable failure.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Holds the run for this process, and lets go of it when the process ends, however it ends.

        Raises TryAgain, which names the holder, where another process holds the run.
        """
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
            with suppress(OSError):  # the folder may be gone, and the error that is then on its way says more
                (self.folder / ".holder.json").unlink(missing_ok=True)
                if not any(path.name != ".lock" for path in self.folder.iterdir()):  # the run was refused
                    (self.folder / ".lock").unlink(missing_ok=True)
                    self.folder.rmdir()
            lock.release()

    def held(self) -> str | None:
        """Says which process holds the run now; None where none does."""
        from filelock import FileLock, Timeout

        if not (self.folder / ".lock").exists():
            return None
        try:
            with FileLock(self.folder / ".lock", blocking=False):
                return None
        except Timeout:
            return f"held by {self._holder()}"

    def _holder(self) -> str:
        for _ in range(20):  # a process writes .holder.json a moment after it took the lock
            try:
                holder = json.loads((self.folder / ".holder.json").read_text())
                return f"process {holder['pid']} on {holder['host']}"
            except (OSError, ValueError, KeyError):
                time.sleep(0.05)
        return "another process"

    def start(self) -> None:
        """Writes the settings, so that the folder says at once which run it is, and removes what a failure left."""
        (self.folder / "failure.json").unlink(missing_ok=True)
        for torn in self.folder.glob(".*.tmp"):
            torn.unlink(missing_ok=True)
        self._write_settings()

    def _write_settings(self) -> None:
        import yaml

        write(self.folder / "config.yaml", yaml.safe_dump(dict(self.settings), sort_keys=False).encode())

    def note_begun(self) -> None:
        """Writes the settings of a run that is ended before its first step, so that its folder says which it is."""
        if not (self.folder / "config.yaml").exists():
            self._write_settings()

    def saved_step(self) -> int | None:
        """The step of the newest saved state, by its header alone; None where none was saved, or it is damaged."""
        for path in self.states():
            with suppress(ValueError, KeyError, TypeError):
                return int(metadata_of(path)["step"])
        return None

    def states(self) -> list[Path]:
        """The saved states, newest first."""
        paths = [self.folder / "state.safetensors", self.folder / "state.previous.safetensors"]
        return [path for path in paths if path.exists()]

    def save_state(self, blob: bytes) -> None:
        """Saves a state. It takes the place of the state before it only when it is whole, and that one is kept, too."""
        path = self.folder / "state.safetensors"
        fresh = write_beside(path, blob)
        with storage(path):
            if path.exists():
                os.replace(path, path.with_name("state.previous.safetensors"))
            os.replace(fresh, path)

    def weights(self, step: int | None = None) -> Path:
        """The file of the weights at the end of training, or after a step that `keep` names."""
        return self.folder / ("checkpoint.safetensors" if step is None else f"checkpoint.{step}.safetensors")

    def kept(self) -> list[int]:
        """The steps of which the folder has the weights."""
        steps = (path.name.split(".")[1] for path in self.folder.glob("checkpoint.*.safetensors"))
        return sorted(int(step) for step in steps if step.isdigit())

    def kept_state(self, step: int) -> Path:
        """The file of the state after a step that `keep` names, where runs can branch off."""
        return self.folder / f"state.{step}.safetensors"

    def kept_states(self) -> list[int]:
        """The steps of which the folder has the state."""
        steps = (path.name.split(".")[1] for path in self.folder.glob("state.*.safetensors"))
        return sorted(int(step) for step in steps if step.isdigit())

    def lost(self) -> list[int]:
        """The steps that `keep` names and of which the folder lacks the weights, or the state where it should be."""
        wanted, kept = {*(self.settings["keep"] or [])}, {*self.kept()}
        if wanted and self.settings["optim"]["schedule"] == "wsd":
            kept &= {*self.kept_states()}
        return sorted(wanted - kept)

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a line to metrics.csv in one write. What the objective itself measures stands behind METRICS."""
        path = self.folder / "metrics.csv"
        columns = [*METRICS, *(key for key in row if key not in METRICS)]
        text = _csv_line(columns) if not path.exists() else ""
        text += _csv_line(map(row.get, columns))
        with storage(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                write_all(descriptor, text.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rewind(self, step: int) -> None:
        """Drops the lines of metrics.csv after `step`, and a torn last line, because resuming writes them again."""
        path = self.folder / "metrics.csv"
        rows = [row for row in read_metrics(self.folder) if int(row["step"]) <= step]
        if not rows:  # `log` then writes the header, too, and knows the columns of the objective
            path.unlink(missing_ok=True)
        else:
            write(path, "".join([_csv_line(rows[0]), *(_csv_line(row.values()) for row in rows)]).encode())

    def finish(self, record: Record) -> None:
        """Writes the record, which is the last write of a run, and tidies."""
        write(self.folder / "record.json", json.dumps(record, indent=1, allow_nan=False).encode() + b"\n")
        self.tidy()

    def tidy(self) -> None:
        """Removes the states, which only resuming needed."""
        for path in self.states():
            with suppress(OSError):
                path.unlink()

    def fail(self, error: str, traceback: str) -> None:
        """Writes down the error that ended the run, for those who look at the folder later."""
        failure = {"error": error, "traceback": traceback, "time": now()}
        self._write_settings()
        write(self.folder / "failure.json", json.dumps(failure, indent=1).encode())


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The lines of metrics.csv by their columns, without a torn last line; none where there is no such file."""
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [row for row in rows if None not in row.values() and row.get("step", "").isdigit()]


def _csv_line(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def metadata_of(path: Path) -> dict[str, Any]:
    """What vitbench wrote beside the tensors of a file, by its header alone; nothing of other files and broken ones."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, OverflowError, MemoryError):
        with path.open("rb") as file:
            header = json.loads(file.read(*struct.unpack("<Q", file.read(8))))
        return dict(json.loads(header["__metadata__"]["vitbench"].partition(" ")[2]))
    return {}
