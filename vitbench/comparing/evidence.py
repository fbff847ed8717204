"""Evidence: three CSV files from which a study's tables, figures and verdicts can be made again without its runs.

`runs.csv` has a row for each planned run. Its columns are id and status; the settings, named as on the command line;
and from `schema` on the results, named as in `record.json`. A run without a result (missing, failed) has only its id
and status. Of a certificate (`certify:` of a study) the column `certifies` names the run that was done again with more
samples. Cells are JSON (0.1, [0.5, 0.5], true, "3"), but words that cannot be taken for JSON stand without quotes
(cifar10), and an empty cell is null.

`probes.csv` holds what probes measured along something, if a figure draws it; their other results are in runs.csv.

`mcnemar.csv` holds the counts of McNemar's test, which come from predictions that only the runs' folders hold.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vitbench.comparing.grouping import ordered_keys, sort_key
from vitbench.comparing.select import CERTIFIES, UNIMPORTANT_KEYS, Row, Runs, select_runs
from vitbench.comparing.sums import read_checked
from vitbench.errors import DataError, UserError
from vitbench.numbers.result_names import RUNS
from vitbench.numbers.text import csv_text
from vitbench.numbers.words import is_number, printable
from vitbench.runs.fields import fault_of_row
from vitbench.runs.record import RECORD_SCHEMA, REQUIRED_FIELDS, Record
from vitbench.runs.records import columns_that_came_later, derived

if TYPE_CHECKING:
    from vitbench.runs.study import Study

FIRST_RESULT = "schema"
ENDED = ("finished", "diverged")  # the states of runs that have results
NOT_ENDED = ("missing", "unfinished", "failed")  # the states of planned runs that have none
OWN_PAGE = "Made by `vitbench report`"  # results/README.md says so
SWEPT_COLUMNS = ("id", "column", "layer", "at", "at_unit", "value", "low", "high", "reason")


class Counted(NamedTuple):
    """Two runs of one seed on the same test images; the fields are the columns of mcnemar.csv."""

    model: str  # the label of the first run's curve
    against: str  # that of the second run's curve
    images: int  # the training images of both
    seed: int
    id: str  # of the first run
    against_id: str
    test_images: int
    only_model: int  # the number of test images that only the first run classifies correctly
    only_against: int


def evidence_text(runs: Runs, without_result: Mapping[str, str]) -> str:
    """Writes runs.csv; `without_result` holds the state of each planned run that has no result, by its id."""
    head, rows = columns_and_rows(runs)
    cells = [[_write_cell(row.get(key)) for key in head] for row in rows]
    empty = [[run_id, state] + [""] * (len(head) - 2) for run_id, state in sorted(without_result.items())]
    return csv_text([head, *cells, *empty])


def columns_and_rows(runs: Runs) -> tuple[list[str], list[Row]]:
    """The columns of runs.csv, and its rows in their order."""
    settings = [key for key in [*ordered_keys(runs.settings)[:-1]] if key in {*runs.settings} - {*UNIMPORTANT_KEYS}]
    every = [*runs.rows, *runs.certificates]
    no_results = {"id", "status", *runs.settings}
    results = {key for row in every for key in row} - no_results
    head = ["id", "status", *settings, FIRST_RESULT, *(key for key in sorted(results) if key != FIRST_RESULT)]
    return head, sorted(every, key=lambda row: (sort_key({key: row.get(key) for key in settings}), row["id"]))


def read_evidence(path: Path) -> Runs:
    """Reads runs.csv; raises DataError where the file is something else or was damaged."""
    try:
        head, *lines = _read_csv(path) or [[]]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no runs.csv: {printable(str(error))}") from None
    if not head:
        raise DataError(f"{path} is empty")
    if head[:2] != ["id", "status"] or FIRST_RESULT not in head or len(set(head)) < len(head):
        raise DataError(f"{path} is no runs.csv: its columns must be id, status, settings, {FIRST_RESULT}, results")
    settings = head[2 : head.index(FIRST_RESULT)]
    rows: list[Row] = []
    other_states: list[str] = []
    line_of_id: dict[str, int] = {}
    for number, cells in enumerate(lines, 2):
        if len(cells) != len(head):
            raise DataError(f"{path} line {number}: {len(cells)} cells under {len(head)} column names")
        if cells[0] in line_of_id:
            raise DataError(f"{path} line {number}: {cells[0]} is there twice, in line {line_of_id[cells[0]]} too")
        line_of_id[cells[0]] = number
        if cells[1] not in (*ENDED, *NOT_ENDED):
            known = ", ".join((*ENDED, *NOT_ENDED))
            raise DataError(f"{path} line {number}: status is {printable(repr(cells[1]))}; choices: {known}")
        if cells[1] not in ENDED:
            other_states.append(cells[1])
            continue
        row = {key: _read_cell(cell) for key, cell in zip(head, cells, strict=True)} | {"id": cells[0]}
        _check_row(row, settings, f"{path} line {number}")
        # a setting that a model does not have is None, but a result that a run does not have is not in the row
        rows.append(derived(row) | {key: value for key, value in row.items() if key in settings or value is not None})
    if not rows:
        raise DataError(f"{path}: no run there has ended")
    notes = []
    if other_states:
        states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(other_states).items()))
        notes.append(f"{len(other_states)} of the {len(line_of_id)} planned runs have no result: {states}")
    certificates = [row for row in rows if CERTIFIES in row]
    return Runs([row for row in rows if CERTIFIES not in row], settings, notes, certificates=certificates)


def is_table(place: str) -> bool:
    """Whether `runs=` names a CSV file, and not a folder of runs."""
    path = Path(place).expanduser()
    return path.suffix.lower() == ".csv" and not path.is_dir()


def choose_runs(place: str, where: Mapping[str, Any], study: Study | None = None) -> Runs:
    """Reads the runs that `runs=` names, a folder or a runs.csv, and keeps those of the study that pass the filters."""
    if not is_table(place):
        return select_runs(place, where, study)
    path = Path(place).expanduser()
    if not path.is_file():
        raise UserError(f"runs={place}: there is no such file or folder")
    return runs_of_study(path, study).filtered(where)


def runs_of_study(path: Path, study: Study | None) -> Runs:
    """Reads a runs.csv, all of it, and what the probes.csv beside it holds, with the words of the study for values.

    Which of the rows the study plans is not asked: a runs.csv holds the runs of one study, and what was typed for its
    sweeps (`data=cifar10`) is no more known.
    """
    probes = path.with_name("probes.csv")
    runs = replace(read_evidence(path), swept=read_swept(probes), lacks_probes=not probes.is_file())
    if study is None:
        return runs
    if asker_of(str(path), study) is None:
        other = path.absolute().parent.name
        runs.notes.append(f"{path.name} holds the runs of study={other}, and all of them are shown")
    return runs.renamed(study.names)


def asker_of(place: str, study: Study | None) -> Study | None:
    """The study, if its question and its caveat are about the runs: a runs.csv can be that of another study."""
    if study is None or not is_table(place):
        return study
    folder = Path(place).expanduser().absolute().parent
    is_of_another = (folder / "study.yaml").is_file() and study.name not in (folder.name, "study")
    return None if is_of_another else study


def refuse_table(place: str, per: str) -> None:
    """Refuses to look in a runs.csv for what only the folders of runs hold."""
    if is_table(place):
        raise UserError(f"per={per} runs={place}: predictions are in the folders of runs; type such a folder for runs=")


def joined(runs: Runs, before: Runs, ids: Collection[str]) -> Runs:
    """The runs together with the rows of these ids of an older runs.csv, which may lack settings that came since."""
    rows, certificates = (
        [{**row, **columns_that_came_later(row, runs.settings)} for row in its if row["id"] in ids]
        for its in (before.rows, before.certificates)
    )
    swept = {run_id: rows for run_id, rows in before.swept.items() if run_id in ids}
    settings = dict.fromkeys([*runs.settings, *before.settings])
    return Runs([*runs.rows, *rows], [*settings], runs.notes, swept | runs.swept, [*runs.certificates, *certificates])


def swept_text(runs: Runs, columns: Collection[str]) -> str:
    """Writes probes.csv with the swept rows of these columns; the text is empty where there are no such rows."""
    rows = [
        {"id": run_id, **row}
        for run_id, swept_rows in sorted(runs.swept.items())
        for row in swept_rows
        if row["column"] in columns
    ]
    if not rows:
        return ""
    return csv_text([SWEPT_COLUMNS, *([_write_cell(row.get(key)) for key in SWEPT_COLUMNS] for row in rows)])


def read_swept(path: Path) -> dict[str, list[Row]]:
    """Reads probes.csv: the swept rows of each run by its id, or nothing where there is no such file."""
    try:
        head, *lines = _read_csv(path) or [[]]
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {printable(str(error))}") from None
    if not head:
        raise DataError(f"{path} is empty")
    swept: dict[str, list[Row]] = {}
    for number, cells in enumerate(lines, 2):
        row = {key: value for key, cell in zip(head, cells, strict=False) if (value := _read_cell(cell)) is not None}
        if row.get("value") == "nan" and "reason" in row:  # the probe says why it has no number there
            row["value"] = math.nan
        if tuple(head) != SWEPT_COLUMNS or len(cells) != len(head) or not isinstance(row.get("value"), int | float):
            columns = ", ".join(SWEPT_COLUMNS)
            raise DataError(f"{path} line {number}: is no row of a probe; its columns must be {columns}")
        swept.setdefault(str(row["id"]), []).append(row)
    return swept


def counts_text(counted: Iterable[Counted]) -> str:
    """Writes mcnemar.csv; the text is empty where nothing was counted."""
    rows = sorted(counted)
    return csv_text([Counted._fields, *(map(_write_cell, row) for row in rows)]) if rows else ""


def read_counts(path: Path, runs: Sequence[Row]) -> list[Counted]:
    """Reads mcnemar.csv beside the evidence of `runs`, or nothing where there is no such file.

    Raises DataError, with the line, where a cell is damaged or disagrees with the run that its row names.
    """
    try:
        head, *lines = _read_csv(path) or [[]]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {printable(str(error))}") from None
    if tuple(head) != Counted._fields:
        raise DataError(f"{path} line 1: the columns must be {', '.join(Counted._fields)}")
    run_of_id = {row["id"]: row for row in runs}
    line_of_pair: dict[tuple[str, str], int] = {}
    counted = []
    for number, cells in enumerate(lines, 2):
        where = f"{path} line {number}"
        if len(cells) != len(head):
            raise DataError(f"{where}: {len(cells)} cells under {len(head)} column names")
        row = Counted(*map(_read_cell, cells))
        _check_counted(row, run_of_id, where)
        first = line_of_pair.setdefault((row.id, row.against_id), number)
        if first != number:
            raise DataError(f"{where}: {row.id} and {row.against_id} are there twice, in line {first} too")
        counted.append(row)
    return counted


def _check_counted(row: Counted, run_of_id: Mapping[str, Row], where: str) -> None:
    """Raises DataError where a count is none, or a cell is not what runs.csv says of the two runs."""
    for column, run_id in (("id", row.id), ("against_id", row.against_id)):
        run = run_of_id.get(run_id)
        if run is None:
            raise DataError(f"{where}: {column} is {run_id!r}, which is no run with a result in runs.csv")
        said = {"images": run.get("train_images"), "seed": run.get("seed"), "test_images": run.get("test_images")}
        for name, value in said.items():
            if getattr(row, name) != value:
                raise DataError(f"{where}: {name} is {getattr(row, name)!r}; runs.csv has {value!r} for {run_id}")
    for name, count in (("only_model", row.only_model), ("only_against", row.only_against)):
        if type(count) is not int or not 0 <= count <= row.test_images:
            raise DataError(f"{where}: {name} is {count!r}; it must be a whole number from 0 to {row.test_images}")
    if row.only_model + row.only_against > row.test_images:
        raise DataError(
            f"{where}: only_model + only_against is {row.only_model + row.only_against}, above the {row.test_images}"
            " test images"
        )


def _read_csv(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(read_checked(path).decode("utf-8-sig"), newline="")))


def _check_row(row: Row, settings: Collection[str], where: str) -> None:
    """Raises DataError where a result is lacking, or a cell holds what no record can."""
    for key, kind in {**REQUIRED_FIELDS, "classes": tuple}.items():
        if key not in ("config", "warnings") and not isinstance(row.get(key), kind):
            raise DataError(f"{where}: {key} is {row.get(key)!r}, which no run can have")
    for key in settings:
        parts = row[key] if isinstance(row[key], tuple) else (row[key],)
        if any(isinstance(part, dict | list) for part in parts):
            raise DataError(f"{where}: {key} is {printable(repr(row[key]))}; it must be a word, a number or a list")
    if row["train_images"] == 0 < row["steps"]:  # only a network that was trained elsewhere has neither
        raise DataError(f"{where}: train_images is 0, with {row['steps']} steps")
    if row["status"] == "finished" and row.get("objective") == "classify" and row.get("test_accuracy") is None:
        raise DataError(f"{where}: test_accuracy is empty; each finished run that learned classes has one")
    if row[FIRST_RESULT] != RECORD_SCHEMA:
        raise DataError(f"{where}: schema {row[FIRST_RESULT]}; this vitbench reads {RECORD_SCHEMA}")
    for key in RUNS.keys() & row.keys():
        if row[key] is not None and not is_number(row[key]):
            raise DataError(f"{where}: {key} is {printable(repr(row[key]))}; it must be a number")
    if fault := fault_of_row(row, settings, Record):
        raise DataError(f"{where}: {fault}")


def _write_cell(value: Any) -> str:
    if value is None:
        return ""
    if type(value) in (int, float):
        return repr(value)
    if not isinstance(value, str):
        return json.dumps(value)
    # words stand in quotes where `_read_cell`, or a spreadsheet, would take them for something else
    return json.dumps(value) if _read_cell(value) != value or value[:1] in "=+-@\t\r" or "\n" in value else value


@lru_cache(100_000)  # most cells of a column are alike, and nobody changes a tuple
def _read_cell(cell: str) -> Any:
    if cell == "":
        return None
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    return tuple(value) if isinstance(value, list) else value


def check_results(results: Path, study: str | None, replace: bool) -> None:
    """Raises UserError where a report would replace files that none wrote: a README.md, or a folder of a study's name.

    A study's folder is known by its runs.csv and by the commands above its study.yaml, so that whoever has a copy of
    results/ can write it anew.
    """
    if replace:
        return
    remedy = "type another results=, or replace=true to lose what is there"
    folders = [*(path.parent for path in results.glob("*/runs.csv")), *([results / study] if study else [])]
    marks = {results / name: OWN_PAGE for name in ("README.md", "index.html")}
    marks |= {folder / "study.yaml": "# $ vitbench " for folder in folders}
    marks |= {path.with_suffix(".md"): "Speed on " for path in results.glob("bench/*.json")}
    for path, mark in marks.items():
        if path.is_file() and mark not in path.read_text(encoding="utf-8", errors="replace"):
            raise UserError(f"results={results}: {path} was not written by `vitbench report`; {remedy}")
    for folder in folders:
        others = [path.name for path in sorted(folder.glob("*")) if path.name != "notes.md"]
        if others and "runs.csv" not in others:
            raise UserError(f"results={results}: {folder} has {others[0]} and is no folder of a report; {remedy}")
