"""`runs.csv`: the runs of a study as one file, from which its tables, figures and verdicts can be made again; beside it
`probes.csv`, where its figures draw what probes measured along something (the other results of probes are in runs.csv).

A row a run that was planned. Columns: id and status; the settings, up to `schema`, which are named as on the command
line; then the results, named as in `record.json`. A run that has no result (missing, failed) has its id and status.
Cells are JSON, but for words that cannot be taken for it: 0.1, [0.5, 0.5], true, cifar10, "3". Nothing is an empty cell.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitbench.comparing.grouping import ordered_keys, sort_key
from vitbench.comparing.select import UNIMPORTANT_KEYS, Row, Runs
from vitbench.errors import DataError
from vitbench.numbers.words import printable
from vitbench.runs.record import RECORD_SCHEMA, REQUIRED_FIELDS
from vitbench.runs.records import derived

FIRST_RESULT = "schema"
ENDED = ("finished", "diverged")


def evidence_text(runs: Runs, others: Mapping[str, str]) -> str:
    """The file's text; `others` are the planned runs that have no result, and what became of them."""
    settings = [key for key in [*ordered_keys(runs.settings)[:-1]] if key in {*runs.settings} - {*UNIMPORTANT_KEYS}]
    results = dict.fromkeys(key for row in runs.rows for key in row if key not in {"id", "status", *runs.settings})
    head = ["id", "status", *settings, FIRST_RESULT, *(key for key in sorted(results) if key != FIRST_RESULT)]
    rows = sorted(runs.rows, key=lambda row: (sort_key({key: row.get(key) for key in settings}), row["id"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(row.get(key)) for key in head] for row in rows)
    writer.writerows([name, state] + [""] * (len(head) - 2) for name, state in sorted(others.items()))
    return out.getvalue()


def read_evidence(path: Path) -> Runs:
    """What `dump` wrote; raises DataError where the file is something else or was damaged."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *lines = list(csv.reader(file))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is no runs.csv: {printable(str(error))}") from None
    if head[:2] != ["id", "status"] or FIRST_RESULT not in head or len(set(head)) < len(head):
        raise DataError(f"{path} is no runs.csv: its columns must be id, status, settings, {FIRST_RESULT}, results")
    settings = head[2 : head.index(FIRST_RESULT)]
    rows: list[Row] = []
    absent: list[str] = []
    ids: dict[str, int] = {}
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(head):
            raise DataError(f"{path} line {number}: {len(cells)} cells under {len(head)} column names")
        if cells[0] in ids:
            raise DataError(f"{path} line {number}: {cells[0]} is there twice, in line {ids[cells[0]]} too")
        ids[cells[0]] = number
        if cells[1] not in ENDED:
            absent.append(cells[1])
            continue
        row = {key: _value(cell) for key, cell in zip(head, cells, strict=True)} | {"id": cells[0]}
        _check(row, f"{path} line {number}")
        # a setting that a model does not have is None; a result that a run does not have is not there
        rows.append(derived(row) | {key: value for key, value in row.items() if key in settings or value is not None})
    if not rows:
        raise DataError(f"{path}: no run there has ended")
    notes = [f"{len(absent)} of the {len(ids)} planned runs have no result: {_counted(absent)}"] if absent else []
    return Runs(rows, settings, notes)


SWEPT = ("id", "column", "layer", "at", "at_unit", "value", "low", "high", "reason")


def swept_text(runs: Runs, columns: Iterable[str]) -> str:
    """The text of probes.csv; empty where no run has such rows."""
    wanted = {*columns}
    rows = [{"id": id_, **row} for id_, its in sorted(runs.swept.items()) for row in its if row["column"] in wanted]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(SWEPT)
    writer.writerows([_cell(row.get(key)) for key in SWEPT] for row in rows)
    return out.getvalue() if rows else ""


def read_swept(path: Path) -> dict[str, list[Row]]:
    """What `dump_swept` wrote, by run; nothing where there is no such file."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *lines = list(csv.reader(file))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {printable(str(error))}") from None
    swept: dict[str, list[Row]] = {}
    for number, cells in enumerate(lines, 2):
        row = {key: value for key, cell in zip(head, cells, strict=False) if (value := _value(cell)) is not None}
        if tuple(head) != SWEPT or len(cells) != len(head) or not isinstance(row.get("value"), int | float):
            raise DataError(f"{path} line {number}: is no row of a probe; its columns must be {', '.join(SWEPT)}")
        swept.setdefault(str(row["id"]), []).append(row)
    return swept


def _check(row: Row, where: str) -> None:
    needed = {key: kind for key, kind in REQUIRED_FIELDS.items() if key not in ("config", "warnings")} | {
        "classes": tuple
    }
    for key, kind in needed.items():
        if not isinstance(row.get(key), kind):
            raise DataError(f"{where}: {key} is {row.get(key)!r}, which no run can have")
    if row[FIRST_RESULT] != RECORD_SCHEMA:
        raise DataError(f"{where}: schema {row[FIRST_RESULT]}; this vitbench reads {RECORD_SCHEMA}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json.dumps(value)
    # what a reader, or a spreadsheet, would take for something else than these letters
    return json.dumps(value) if _value(value) != value or value[:1] in "=+-@\t\r" or "\n" in value else value


def _value(cell: str) -> Any:
    if cell == "":
        return None
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    return tuple(value) if isinstance(value, list) else value


def _counted(words: Iterable[str]) -> str:
    words = list(words)
    return ", ".join(f"{words.count(word)} {word}" for word in sorted(set(words)))
