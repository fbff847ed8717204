"""A run is a folder. One process at a time holds it, saves in it what resuming needs, and at the end writes a record.

    runs/<id>/  config.yaml             the settings, written first
                metrics.csv             a line for each evaluation
                state.safetensors       what resuming needs; it and state.previous.safetensors are removed at the end
                checkpoint.100.safetensors  the weights after 100 steps, where keep= asked for them
                state.100.safetensors   the state after these steps, with optim.schedule=wsd: a branch begins from it
                checkpoint.safetensors  the weights at the end of training
                predictions.npy         the predicted class of every test image
                labels.npy              their true classes, in the same order
                probabilities.npy       what the network gives each class, (M, K), in the same order; not in old runs
                record.json             written last: where it is present, the run has finished or diverged; it holds
                                        the SHA-256 of the other files and of itself
                record.damaged.json     a record that was damaged, or another run's; the run was done again
                *.safetensors.damaged   damaged weights and states that keep= had asked for
                failure.json            the traceback, where an error ended the run

Imports no torch.
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

from vitbench.errors import StorageError, TryAgain
from vitbench.machine.disk import (
    LARGE,
    check_folder,
    read_file,
    read_json,
    sha256_of,
    storage,
    write,
    write_all,
    write_beside,
)
from vitbench.machine.locks import is_held, lock_errors
from vitbench.machine.provenance import now
from vitbench.machine.redact import redacted
from vitbench.machine.seal import sealed
from vitbench.runs.record import Record
from vitbench.runs.records import Damaged, read_record
from vitbench.settings.identity import run_id

METRICS = ("step", "epoch", "lr", "train_loss", "val_accuracy", "val_loss", "train_seconds")  # columns of metrics.csv

STATES = ("state.safetensors", "state.previous.safetensors")  # newest first; removed at the end
FILES = ("config.yaml", "metrics.csv", "*.safetensors", "*.npy")  # the record has checksums of these, without STATES
HEADER = 100_000_000  # no safetensors file has a longer header, in bytes
MOST_STEPS = 15  # a number of steps has at most so many digits
MOST_LETTERS = 10_000  # a line of metrics.csv has at most so many letters

LOOKING_SECONDS = 1.0  # a claim waits so long for the lock, because another process's `held` takes it for a moment


@dataclass(frozen=True)
class Run:
    """The folder of one run. Each file is written whole or not at all, and an error of the disk names the file."""

    folder: Path
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Run:
        return cls(Path(settings["runs"]).expanduser() / run_id(settings), settings)

    @property
    def id(self) -> str:
        return self.folder.name

    def record(self) -> Record | None:
        """Returns the record of a run that has finished or diverged; None where there is no whole record of it."""
        try:
            record = read_record(self.folder / "record.json")
            return record if record["id"] == self.id else None
        except (FileNotFoundError, NotADirectoryError, Damaged):
            return None  # something other than vitbench damaged the record, so the run is done again

    def damage(self) -> str | None:
        """Says what is wrong with the record; None where it is whole or there is none."""
        try:
            record = read_record(self.folder / "record.json")
        except Damaged as error:
            return str(error)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if record["id"] == self.id else f"{self.folder / 'record.json'} is the record of {record['id']}"

    def failure(self) -> str | None:
        """Returns the error that ended the run; None where none did."""
        try:
            return str(read_json(self.folder / "failure.json")["error"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError):
            return "unreadable failure.json"

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Holds the run for this process. If the process ends, in whatever way, the run is free again.

        Raises TryAgain, which names the holder, where another process holds the run.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock")
        check_folder(self.folder.parent, "runs")
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with lock_errors(self.folder / ".lock"):
                    lock.acquire(timeout=LOOKING_SECONDS)
            except Timeout:
                raise TryAgain(f"{self.id} is held by {self._holder()}; try again when it has ended") from None
        try:
            holder = {"pid": os.getpid(), "host": socket.gethostname()}
            write(self.folder / ".holder.json", json.dumps(holder).encode())
            yield
        finally:
            with suppress(OSError):  # if the folder is gone, the error that is being raised says more
                (self.folder / ".holder.json").unlink(missing_ok=True)
                if not any(path.name != ".lock" for path in self.folder.iterdir()):  # the run was refused
                    (self.folder / ".lock").unlink(missing_ok=True)
                    self.folder.rmdir()
            lock.release()

    def held(self) -> str | None:
        """Says which process holds the run now; None where none does."""
        return f"held by {self._holder()}" if is_held(self.folder / ".lock") else None

    def holder(self) -> tuple[int, str] | None:
        """Returns the id and the host of the process that holds the run; None where they are not noted."""
        try:
            holder = read_json(self.folder / ".holder.json")
            pid, host = holder["pid"], holder["host"]
        except (OSError, ValueError, KeyError):
            return None
        return (pid, host) if type(pid) is int and 0 < pid < 2**31 and isinstance(host, str) else None

    def _holder(self) -> str:
        for _ in range(20):  # a process writes .holder.json a moment after it takes the lock
            if holder := self.holder():
                return f"process {holder[0]} on {holder[1]}"
            time.sleep(0.05)
        return "another process"

    def start(self) -> None:
        """Writes the settings, so that the folder says at once which run it is, and removes what a failure left.

        A damaged record is renamed and kept, because somebody may want to read it.
        """
        (self.folder / "failure.json").unlink(missing_ok=True)
        with storage(self.folder), suppress(FileNotFoundError):
            os.replace(self.folder / "record.json", self.folder / "record.damaged.json")
        for torn in self.folder.glob(".*.tmp"):
            torn.unlink(missing_ok=True)
        self._write_settings()

    def _write_settings(self) -> None:
        import yaml

        write(self.folder / "config.yaml", yaml.safe_dump(redacted(self.settings), sort_keys=False).encode())

    def note_begun(self) -> None:
        """Writes the settings of a run that ends before its first step, so that its folder says which run it is."""
        if not (self.folder / "config.yaml").exists():
            self._write_settings()

    def saved_step(self) -> int | None:
        """Reads the step of the newest saved state from its header; None where none was saved, or it is damaged."""
        steps = (metadata_of(path).get("step") for path in self.states())
        return next((step for step in steps if type(step) is int and 0 <= step < 10**MOST_STEPS), None)

    def states(self) -> list[Path]:
        """Returns the files of the saved states, newest first."""
        return [path for path in (self.folder / file for file in STATES) if path.exists()]

    def save_state(self, blob: bytes) -> None:
        """Saves a state. It replaces the previous state only when it is whole, and the previous one is kept as well."""
        path = self.folder / "state.safetensors"
        fresh = write_beside(path, blob)
        with storage(path):
            if path.exists():
                os.replace(path, path.with_name("state.previous.safetensors"))
            os.replace(fresh, path)

    def weights(self, step: int | None = None) -> Path:
        """Returns the file of the weights at the end of training, or after a step that `keep` names."""
        return self.folder / ("checkpoint.safetensors" if step is None else f"checkpoint.{step}.safetensors")

    def kept(self) -> list[int]:
        """Returns the steps for which the folder has the weights."""
        return self._steps_of("checkpoint")

    def kept_state(self, step: int) -> Path:
        """Returns the file of the state after a step that `keep` names, from which runs can branch off."""
        return self.folder / f"state.{step}.safetensors"

    def kept_states(self) -> list[int]:
        """Returns the steps for which the folder has the state."""
        return self._steps_of("state")

    def files_kept(self, step: int) -> list[Path]:
        """Returns the files of the weights and states that were kept up to a step."""
        weights, states = map(self.weights, self.kept()), map(self.kept_state, self.kept_states())
        return [path for path in (*weights, *states) if int(path.name.split(".")[1]) <= step]

    def _steps_of(self, kind: str) -> list[int]:
        steps = (path.name.split(".")[1] for path in self.folder.glob(f"{kind}.*.safetensors"))
        return sorted(int(step) for step in steps if _is_step(step))

    def lost(self) -> list[int]:
        """Returns the steps in `keep` for which the folder lacks the weights, or the state where it should have one."""
        wanted = {*(self.settings["keep"] or [])}
        if not wanted:
            return []
        kept = {*self.kept()}
        if self.settings["optim"]["schedule"] == "wsd":
            kept &= {*self.kept_states()}
        return sorted(wanted - kept)

    def log(self, row: Mapping[str, Any]) -> None:
        """Appends a line to metrics.csv in one write. The objective's own measures come after METRICS."""
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

    def lines(self) -> bytes:
        """Returns the content of metrics.csv; nothing where there is none."""
        path = self.folder / "metrics.csv"
        try:
            return read_file(path, LARGE)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error

    def rewind(self, step: int, lines: bytes | None = None) -> None:
        """Makes metrics.csv what it was when a state was saved: `lines`, where the state has them.

        An old state does not have them. Then lines after its `step`, and a torn last line, are dropped.
        """
        path = self.folder / "metrics.csv"
        if lines:
            return write(path, lines)
        rows = [row for row in read_metrics(self.folder) if int(row["step"]) <= step] if lines is None else []
        if not rows:  # `log` will write the header again, with the columns of the objective
            path.unlink(missing_ok=True)
        else:
            write(path, "".join([_csv_line(rows[0]), *(_csv_line(row.values()) for row in rows)]).encode())

    def finish(self, record: Record) -> None:
        """Writes the record, which is the last write of a run, and removes the states."""
        write_record(self.folder, record)
        self.tidy()

    def tidy(self) -> None:
        """Removes the states, which only resuming needs."""
        for path in self.states():
            with suppress(OSError):
                path.unlink()

    def fail(self, error: str, traceback: str) -> None:
        """Writes the error that ended the run into its folder."""
        failure = redacted({"error": error, "traceback": traceback, "time": now()})
        self._write_settings()
        write(self.folder / "failure.json", json.dumps(failure, indent=1).encode())


def write_record(folder: Path, record: Record) -> None:
    """Writes a record with the checksums of the run's files and its own checksum."""
    try:
        found = sorted(path for pattern in FILES for path in folder.glob(pattern) if path.is_file())
        files = {path.name: sha256_of(path) for path in found if path.name not in STATES}
    except OSError as error:
        raise StorageError(f"{error.filename} cannot be read: {error.strerror}") from error
    words = {key: redacted(value) for key, value in record.items() if key in ("config", "init", "scan", "warnings")}
    text = json.dumps(sealed({**record, **words, "files": files}), indent=1, allow_nan=False)
    write(folder / "record.json", text.encode() + b"\n", folders=True)


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """Reads the lines of metrics.csv by their columns, without torn and damaged ones; none where there is no file."""
    text = Run(folder, {}).lines().decode(errors="replace")
    # a quote would join its line with later ones, and vitbench writes none
    whole = text[: text.rfind("\n") + 1].translate({0: None, 13: None})
    lines = [line for line in whole.split("\n") if '"' not in line and len(line) < MOST_LETTERS]
    return [row for row in csv.DictReader(lines) if _is_line(row)]


def _is_line(row: Mapping[Any, Any]) -> bool:
    """Whether a row has a step, and a number or nothing in each other cell."""
    cells = [*row.values()]
    if None in cells or None in row or not _is_step(row.get("step", "")):
        return False
    try:
        return all(len(cell) < 40 and float(cell or 0) is not None for cell in cells)
    except ValueError:
        return False


def _is_step(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MOST_STEPS


def _csv_line(cells: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def metadata_of(path: Path) -> dict[str, Any]:
    """Reads what vitbench wrote beside the tensors of a file, from its header; {} for other and broken files."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, MemoryError, RecursionError):
        if path.is_file():  # reading a pipe would wait
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length)) if length <= HEADER else {}
            return dict(json.loads(header["__metadata__"]["vitbench"].partition(" ")[2]))
    return {}
