"""Reads records: one, or all below a folder as rows for tables, plots and notebooks. record.py says what one holds.

Imports no torch, so that reading a thousand records need not wait for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

from vitbench.errors import StorageError, UserError, did_you_mean
from vitbench.machine.disk import read_json
from vitbench.machine.seal import SEAL, is_whole
from vitbench.numbers.words import is_number
from vitbench.runs.costs import samples_seen, total_cost
from vitbench.runs.fields import fault_of, fault_of_settings
from vitbench.runs.probe_rows import read_probes
from vitbench.runs.record import RECORD_SCHEMA, Record, default_settings, flat_settings, stated
from vitbench.settings.choices import COLUMN_OF_CHOICE, MENU_GROUPS, column_of, typed_key
from vitbench.settings.compose import flatten
from vitbench.settings.identity import RESULTS_VERSION
from vitbench.settings.types import types_of_settings

if TYPE_CHECKING:
    import pandas as pd


class NewerSchema(UserError):
    """A later version of vitbench wrote the record."""


REMEDY = (
    "a disk or a copy damaged it, or somebody edited it; restore it, or "
    "`vitbench check repair=true` moves the run aside"
)


class Damaged(UserError):
    """The record is there, but it is not what a run wrote."""


def read_record(path: Path) -> Record:
    """Reads the record in a file.

    Raises UserError where the file holds no record, StorageError where it cannot be read, and FileNotFoundError or
    NotADirectoryError where there is no such file.
    """
    try:
        record = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError:
        raise Damaged(f"{path} is not a whole record (broken JSON)") from None
    if type(record.get("schema")) is not int:
        raise Damaged(f"{path} is not a record of vitbench")
    if record["schema"] > RECORD_SCHEMA:
        raise NewerSchema(
            f"{path} has schema {record['schema']}, but this vitbench reads up to {RECORD_SCHEMA}; upgrade vitbench"
        )
    if (SEAL in record or "files" in record) and not is_whole(record):
        raise Damaged(f"{path} is damaged (its checksum differs): {REMEDY}")
    if fault := fault_of(Record, record) or fault_of_settings(record["config"]):
        raise Damaged(f"{path} is not a whole record: {fault}")
    return cast(Record, record)


def find_record(folder: Path) -> Record:
    """Reads the record of a finished or diverged run. Where there is none, raises UserError with similar ids."""
    try:
        return read_record(folder / "record.json")
    except (FileNotFoundError, NotADirectoryError):
        known = [path.parent.name for path in folder.parent.glob("*/record.json")]
        hint = did_you_mean(folder.name, known) if known else f"there is none in {folder.parent}"
        raise UserError(f"{folder} is no finished run; {hint}") from None


class ReadRuns(NamedTuple):
    """What a folder of runs holds."""

    rows: list[dict[str, Any]]  # one for each finished or diverged run, with the columns that its own record has
    settings: list[str]  # the columns that are settings; the others are results
    problems: list[str]  # a line for each file that could not be read, and for each folder that is no run
    unfinished: list[str]  # the ids of runs that have begun but not ended
    swept: dict[str, list[dict[str, Any]]]  # by run, what probes measured along an axis (vitbench/runs/probe_rows.py)


def read_runs(runs: Path) -> ReadRuns:
    """Reads all records below a folder into plain rows, because pandas takes a second to import.

    Columns are named as follows: choices by COLUMN_OF_CHOICE, other settings by their key on the command line
    (`data.fraction`), results by the record's own fields (`hardware.name`), and what probes measured by probe, part and
    metric (`shift.crop.consistency`).
    """
    read = ReadRuns([], [], [], [], {})
    settings: dict[str, None] = {}  # used as a set that keeps its order
    for folder in run_folders(runs):
        path = folder / "record.json"
        try:
            record = read_record(path)
            if (version := stated(record, "results_version")) != RESULTS_VERSION:
                raise UserError(
                    f"{path} has results_version {version}, but version {RESULTS_VERSION} gives other numbers; run it"
                    " again"
                )
            row, its_settings = row_of(folder.name, record)
            steps = {"trained": record["steps"]}
            if not row.get("init"):
                steps["init"] = 0  # a run that begins from other weights has no untrained network at its step 0
            scalars, swept, problems = read_probes(folder, steps)
            read.rows.append(row | scalars)
            read.swept[folder.name] = swept
            read.problems.extend(problems)
            settings |= dict.fromkeys(its_settings)
        except (FileNotFoundError, NotADirectoryError):
            if (folder / "config.yaml").exists():
                read.unfinished.append(folder.name)
            else:
                read.problems.append(f"{folder} holds no run")
        except UserError as error:
            read.problems.append(str(error))
    for apart in folders_kept_apart(runs):
        read.problems.append(f"{apart} has runs whose images have changed; runs={apart} shows them")
    read.settings.extend(settings)
    return read


def load_runs(runs: Path) -> pd.DataFrame:
    """Returns the rows of `read_runs` as a DataFrame, with the other fields of ReadRuns in its `.attrs`."""
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
    """Returns the folders of runs below `runs`, sorted by name; an empty list where `runs` does not exist."""
    try:
        with os.scandir(runs) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        return sorted(runs / name for name in names if not KEPT_APART.fullmatch(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"runs={runs}: {error.strerror}") from None


KEPT_APART = re.compile(r"images-[0-9a-f]{16}(-\d+)?")  # folders of runs whose images have changed


def kept_apart(runs: Path, fingerprint: str) -> Path:
    """Returns the folder that keeps runs on images with this fingerprint, once these images have changed."""
    return runs / f"images-{fingerprint}"


def folders_kept_apart(runs: Path) -> list[Path]:
    """Returns the folders of runs whose images have changed. Each can be read as `runs=`, and no table mixes them."""
    try:
        return sorted(path for path in runs.iterdir() if KEPT_APART.fullmatch(path.name) and any(path.iterdir()))
    except OSError:
        return []


def result_of(record: Record) -> str:
    """Returns the result of a finished run as it is printed: `54.2 %`, or its loss where it learned no classes."""
    accuracy = record.get("test_accuracy")
    return loss_of(record) if accuracy is None else f"{100 * accuracy:.1f} %"


def divergence_of(record: Record) -> str:
    """Says where a run diverged, and what to try."""
    optim = record["config"].get("optim")
    lr = optim.get("lr") if isinstance(optim, dict) else None
    remedy = f"; try a smaller optim.lr than {lr:g}" if is_number(lr) else ""
    return f"diverged, the loss was not finite at step {record.get('diverged_step')}{remedy}"


def loss_of(record: Record) -> str:
    """Returns the result of a run that learned no classes as it is printed: `loss 0.7483`."""
    loss = record.get("train_loss")  # None where somebody removed metrics.csv before the run ended
    return "loss unknown" if loss is None else f"loss {loss:.4f}"


def derived(row: Mapping[str, Any]) -> dict[str, float]:
    """Computes the columns that follow from others of a row, where these are known: errors, costs, accuracy by cost."""
    accuracy, train_accuracy = row.get("test_accuracy"), row.get("train_eval_accuracy")
    samples, images = samples_seen(row, row), row.get("train_images")
    columns = total_cost(row, row).as_totals | {
        "samples_seen": samples,
        "epochs_seen": samples / images if samples is not None and images else None,
        "moved_share": row.get("data.permute_share") if row.get("data.permute", "none") != "none" else 0.0,
        "train_eval_error": None if train_accuracy is None else 1 - train_accuracy,
    }
    known: dict[str, float] = {key: value for key, value in columns.items() if value is not None}
    if accuracy is None:
        return known
    costs = {
        "million_parameters": (row.get("parameters") or 0) / 1e6,
        "million_multiply_adds": (row.get("multiply_adds") or 0) / 1e6,
        "train_second": row.get("train_seconds") or 0,
    }
    by_cost = {f"test_accuracy_per_{unit}": accuracy / cost for unit, cost in costs.items() if cost}
    return known | {"test_error": 1 - accuracy} | by_cost


def settings_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a run by the names of their columns."""
    flat = flat_settings(config)
    settings = {column: flat.pop(key, None) for key, column in COLUMN_OF_CHOICE.items()}
    return settings | {typed_key(key): value for key, value in flat.items()}


def default_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, by the names of columns, the values of settings that a run's row lacks because they came later."""
    choices = {name: row.get(column_of(group.name_key)) for name, group in MENU_GROUPS.items()}
    return {column_of(key): value for key, value in default_settings(**choices).items()}


def columns_that_came_later(row: Mapping[str, Any], columns: Collection[str]) -> dict[str, Any]:
    """Returns those settings among `columns` that a run with these choices has but the row of an older runs.csv lacks.

    A row lacks a setting if its column is not there. It also lacks a setting that is never null but has an empty cell,
    because the column was there for another network.
    """
    types = types_of_settings({group.name_key: row.get(column_of(group.name_key)) for group in MENU_GROUPS.values()})
    nullable = {column_of(key) for key, hint in types.items() if type(None) in get_args(hint)}
    defaults = default_columns(row)
    return {
        column: defaults.get(column)
        for column in columns
        if column not in row or (row[column] is None and column in defaults and column not in nullable)
    }


# fields of a record that do not become columns themselves
BESIDE = ("config", "id", "status", "files", "sha256", "scan", "packages")


def row_of(name: str, record: Record) -> tuple[dict[str, Any], list[str]]:
    """Returns the columns of a run, and the names of those that are settings. Lists become tuples, to group by them."""
    settings = settings_columns(record["config"])
    row: dict[str, Any] = {"id": name, "status": record["status"]} | settings
    row |= flatten({key: value for key, value in record.items() if key not in BESIDE})
    row |= derived(row)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}, list(settings)
