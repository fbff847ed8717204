"""What runs left behind, read: one record, or all below a folder as rows that tables, plots and notebooks take.

No torch here: a thousand records are read without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.errors import StorageError, UserError, did_you_mean
from vitbench.runs.probe_rows import of_run
from vitbench.settings.choices import COLUMN_OF_CHOICE, GROUPS, typed_key
from vitbench.settings.identity import RESULTS_VERSION

if TYPE_CHECKING:
    import pandas as pd

RECORD_SCHEMA = 1  # of record.json

REQUIRED_FIELDS: dict[str, Any] = {
    "config": dict,
    "status": str,
    "classes": list,
    "warnings": list,
    "steps": int,
    "train_images": int,
    "test_images": int,
    "train_seconds": int | float,
}


class NewerSchema(UserError):
    """A record that a later vitbench wrote."""


def read_record(path: Path) -> dict[str, Any]:
    """A record, or one line that says why it is none; FileNotFoundError or NotADirectoryError where there is no file."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise UserError(f"{path} is not a whole record (broken JSON)") from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise UserError(f"{path} is not a record of vitbench")
    if record["schema"] > RECORD_SCHEMA:
        raise NewerSchema(
            f"{path} has schema {record['schema']}, this vitbench reads up to {RECORD_SCHEMA}; upgrade vitbench"
        )
    if lacking := [name for name, kind in REQUIRED_FIELDS.items() if not isinstance(record.get(name), kind)]:
        raise UserError(f"{path} is not a whole record (no {', '.join(lacking)})")
    return record


def find_record(folder: Path) -> dict[str, Any]:
    """The record of a finished or diverged run, or near misses of its name."""
    try:
        return read_record(folder / "record.json")
    except (FileNotFoundError, NotADirectoryError):
        known = [path.parent.name for path in folder.parent.glob("*/record.json")]
        raise UserError(
            f"{folder} is no finished run; {did_you_mean(folder.name, known) if known else f'there is none in {folder.parent}'}"
        ) from None


class ReadRuns(NamedTuple):
    """What a folder of runs holds. A row has the columns that its own record has."""

    rows: list[dict[str, Any]]  # one a finished or diverged run
    settings: list[str]  # the columns that are settings; the others are results
    problems: list[str]  # a line for each folder without a readable record
    unfinished: list[str]  # the names of runs that have begun
    swept: dict[str, list[dict[str, Any]]]  # what probes measured along something, by run (vitbench/runs/probe_rows.py)


def read_runs(runs: Path) -> ReadRuns:
    """All records below a folder, as plain rows: tables and plots do without the second that pandas takes to import.

    Choices are `model pe data augment optim`, other settings their key on the command line (`data.fraction`), results
    the record's own names, and what probes measured `shift.crop.consistency`.
    """
    read = ReadRuns([], [], [], [], {})
    settings: dict[str, None] = {}  # a set in order
    for folder in run_folders(runs):
        path = folder / "record.json"
        try:
            record = read_record(path)
            if record.get("results_version", RESULTS_VERSION) != RESULTS_VERSION:
                raise UserError(
                    f"{path} has results_version {record['results_version']}, and {RESULTS_VERSION} gives other numbers; run it again"
                )
            row, its_settings = row_of(folder.name, record)
            steps = {"trained": record["steps"]} | ({} if record["config"].get("init") else {"init": 0})
            scalars, swept, problems = of_run(folder, steps)
            read.rows.append(row | scalars)
            read.swept[folder.name] = swept
            read.problems.extend(problems)
            settings |= dict.fromkeys(its_settings)
        except (FileNotFoundError, NotADirectoryError):
            if (folder / "config.yaml").exists():
                read.unfinished.append(folder.name)
            else:
                read.problems.append(f"{folder} holds no run")
        except (UserError, KeyError, TypeError, AttributeError) as error:
            read.problems.append(str(error) if isinstance(error, UserError) else f"{path} lacks {error}")
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
    from vitbench.settings.compose import flatten
    from vitbench.settings.schema import TrainConfig

    flat = flatten(asdict(TrainConfig()))
    return {key: value for key, value in flat.items() if not key.startswith("machine.")}


# what older records mean, which lack the setting
LATER = {its.name_key: its.implied for its in GROUPS.values() if its.implied} | {"model.distill_token": False}


def loss_of(record: Mapping[str, Any]) -> str:
    """What a run without labels has for a result: loss 0.7483"""
    loss = record["train_loss"]  # null where metrics.csv was lost after the last step
    return "loss unknown" if loss is None else f"loss {loss:.4f}"


def total_seconds(its: Mapping[str, Any], settings: Mapping[str, Any]) -> float | None:
    """Of training that a run cost, with all that it started from; None: nobody says."""
    alone = settings.get("init") is None and settings.get("teacher") is None
    seconds: float | None = its.get("total_train_seconds", its.get("train_seconds") if alone else None)
    return seconds


def derived(row: Mapping[str, Any]) -> dict[str, float]:
    """What follows from a run's results: its error, and its accuracy by what it costs."""
    accuracy = row.get("test_accuracy")
    if accuracy is None:
        return {}
    costs = {
        "million_parameters": (row.get("parameters") or 0) / 1e6,
        "million_multiply_adds": (row.get("multiply_adds") or 0) / 1e6,
        "train_second": row.get("train_seconds") or 0,
    }
    by_cost = {f"test_accuracy_per_{unit}": accuracy / cost for unit, cost in costs.items() if cost}
    return {"test_error": 1 - accuracy} | by_cost


def row_of(name: str, record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns of one run, and which of them are settings."""
    from vitbench.settings.compose import flatten

    flat = {key: value for key, value in flatten(record["config"]).items() if not key.startswith("machine.")}
    if "optim" in record["config"]:  # trained here, if long ago: settings that came since are at their defaults
        flat = _frame() | LATER | flat
    settings = {column: flat.pop(key, None) for key, column in COLUMN_OF_CHOICE.items()}
    settings |= {typed_key(key): value for key, value in flat.items()}
    row = {"id": name, "status": record["status"]} | settings
    row |= flatten({key: value for key, value in record.items() if key not in ("config", "id", "status")})
    row["total_train_seconds"] = total_seconds(record, record["config"])
    row |= derived(row)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}, list(settings)
