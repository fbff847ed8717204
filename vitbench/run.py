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

No torch here: tables and plots read a thousand records without it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.errors import StorageError, TryAgain, UserError, did_you_mean
from vitbench.identity import RESULTS_VERSION, run_id

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1  # of record.json

REQUIRED: dict[str, Any] = {"config": dict, "status": str, "classes": list, "warnings": list, "steps": int,
                            "train_images": int, "test_images": int, "train_seconds": int | float}  # fmt: skip

METRICS = ("step", "epoch", "lr", "train_loss", "val_accuracy", "val_loss", "train_seconds")


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
        except OSError as error:
            raise StorageError(f"{self.folder / 'record.json'} cannot be read: {error.strerror}") from error
        except NewerSchema:
            raise
        except UserError:
            return None  # torn by something other than us: the run is done again

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Holds the run for this process; raises TryAgain naming the holder. The lock dies with the process."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock", blocking=False)
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
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
        fresh = _write_beside(path, blob)
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
                _write_all(descriptor, text.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rewind(self, step: int) -> None:
        """Drops the lines of metrics.csv after `step`, and a torn last one: they will be written again."""
        path = self.folder / "metrics.csv"
        rows = [row for row in read_metrics(self.folder) if int(row["step"]) <= step]
        if step == 0:
            path.unlink(missing_ok=True)
        elif path.exists():
            lines = [_csv_line(rows[0] if rows else METRICS)] + [_csv_line(row.values()) for row in rows]
            write(path, "".join(lines).encode())

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


# ---------------------------------------------------------------------------------------------------- whole writes


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turns what the disk refuses into one line with the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def write(path: Path, blob: bytes) -> None:
    """Writes a file whole or not at all."""
    fresh = _write_beside(path, blob)
    with storage(path):
        os.replace(fresh, path)


def _write_beside(path: Path, blob: bytes) -> Path:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage(path):
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                _write_all(descriptor, blob)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    return fresh


def _write_all(descriptor: int, blob: bytes) -> None:
    view = memoryview(blob)
    while view:
        view = view[os.write(descriptor, view) :]


def _csv_line(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _shown(value: Any) -> Any:
    return "" if value is None else value


# --------------------------------------------------------------------------------------------------------- reading


class NewerSchema(UserError):
    """A record that a later vitbench wrote."""


def read_record(path: Path) -> dict[str, Any]:
    """A record, or one line that says why it is none."""
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not a whole record (broken JSON)") from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise UserError(f"{path} is not a record of vitbench")
    if record["schema"] > SCHEMA:
        raise NewerSchema(f"{path} has schema {record['schema']}, this vitbench reads up to {SCHEMA}; upgrade vitbench")
    if lacking := [name for name, kind in REQUIRED.items() if not isinstance(record.get(name), kind)]:
        raise UserError(f"{path} is not a whole record (no {', '.join(lacking)})")
    return record


def find_record(folder: Path) -> dict[str, Any]:
    """The record of a finished or diverged run, or near misses of its name."""
    if not (folder / "record.json").is_file():
        known = [path.parent.name for path in folder.parent.glob("*/record.json")]
        raise UserError(
            f"{folder} is no finished run; {did_you_mean(folder.name, known) if known else f'there is none in {folder.parent}'}"
        )
    return read_record(folder / "record.json")


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The whole lines of metrics.csv; a torn last one is dropped."""
    try:
        text = (folder / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    rows = csv.DictReader(io.StringIO(whole))
    return [row for row in rows if None not in row.values() and row.get("step", "").isdigit()]


class Read(NamedTuple):
    """What a folder of runs holds. A row has the columns that its own record has."""

    rows: list[dict[str, Any]]  # one a finished or diverged run
    settings: list[str]  # the columns that are settings; the others are results
    problems: list[str]  # a line for each folder without a readable record
    unfinished: list[str]  # the names of runs that have begun
    swept: dict[str, list[dict[str, Any]]]  # what probes measured along something, by run (vitbench/probes/rows.py)


def read_runs(runs: Path) -> Read:
    """All records below a folder, as plain rows: tables and plots do without the second that pandas takes to import.

    Choices are `model pe data augment optim`, other settings their key on the command line (`data.fraction`), results
    the record's own names, and what probes measured `shift.crop.consistency`.
    """
    from vitbench.probes.rows import of_run

    read = Read([], [], [], [], {})
    settings: dict[str, None] = {}  # a set in order
    for folder in run_folders(runs):
        path = folder / "record.json"
        try:
            record = read_record(path)
            if record.get("results_version", RESULTS_VERSION) != RESULTS_VERSION:
                raise UserError(
                    f"{path} has results_version {record['results_version']}, and {RESULTS_VERSION} gives other numbers; run it again"
                )
            row, its_settings = _row(folder.name, record)
            steps = {"trained": record["steps"]} | ({} if record["config"].get("init") else {"init": 0})
            scalars, swept, problems = of_run(folder, steps)
            read.rows.append(row | scalars)
            read.swept[folder.name] = swept
            read.problems.extend(problems)
            settings |= dict.fromkeys(its_settings)
        except FileNotFoundError:
            if (folder / "config.yaml").exists():
                read.unfinished.append(folder.name)
            else:
                read.problems.append(f"{folder} holds no run")
        except (UserError, KeyError, TypeError, AttributeError) as error:
            read.problems.append(str(error) if isinstance(error, UserError) else f"{path} lacks {error}")
        except OSError as error:
            read.problems.append(f"{path}: {error.strerror}")
    read.settings.extend(settings)
    return read


def load_runs(runs: Path) -> pd.DataFrame:
    """`read_runs` as one DataFrame for notebooks; its other parts are in `.attrs`, by their names."""
    import pandas as pd

    read = read_runs(runs)
    frame = pd.DataFrame(read.rows)
    frame.attrs |= {
        "settings": read.settings,
        "problems": read.problems,
        "unfinished": read.unfinished,
        "swept": read.swept,
    }
    return frame


def run_folders(runs: Path) -> list[Path]:
    """The folders below `runs` by name; none where it does not exist."""
    try:
        return sorted(path for path in runs.iterdir() if path.is_dir() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"runs={runs}: {error.strerror}") from None


@cache
def _frame() -> dict[str, Any]:
    """The defaults of what every run has."""
    from vitbench.config import TrainConfig, flatten

    flat = flatten(asdict(TrainConfig()))
    return {key: value for key, value in flat.items() if not key.startswith("machine.")}


CHOICES = {"model.name": "model", "model.pe.name": "pe", "data.name": "data", "augment.name": "augment", "optim.name": "optim",
           "objective.name": "objective"}  # fmt: skip
LATER = {"objective.name": "classify", "model.distill_token": False}  # what older records mean, which lack the setting


def _row(name: str, record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns of one run, and which of them are settings."""
    from vitbench.config import flatten

    flat = {key: value for key, value in flatten(record["config"]).items() if not key.startswith("machine.")}
    if "optim" in record["config"]:  # trained here, if long ago: settings that came since are at their defaults
        flat = _frame() | LATER | flat
    settings = {column: flat.pop(key, None) for key, column in CHOICES.items()}
    settings |= {key.replace("model.pe.", "pe."): value for key, value in flat.items()}
    row = {"id": name, "status": record["status"]} | settings
    row |= flatten({key: value for key, value in record.items() if key not in ("config", "id", "status")})
    row.setdefault("total_train_seconds", record["train_seconds"])
    if record.get("test_accuracy") is not None:
        row["test_error"] = 1 - record["test_accuracy"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}, list(settings)


# ------------------------------------------------------------------------------------------------------ provenance


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@cache
def commit() -> str | None:
    """The commit of the checkout vitbench runs from, with a plus where files differ; None where it is installed."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5
        )
        if head.returncode:
            return None
        state = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True, timeout=5)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")


@cache
def processor() -> str:
    """The name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
