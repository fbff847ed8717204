"""Writes and reads the files of probes: rows of what a probe measured in one call. Imports no torch.

    runs/<id>/probes/<probe>.csv       of the network as training left it
    runs/<id>/probes/<probe>.init.csv  of the network before its first step
    runs/<id>/probes/<probe>.100.csv   of the network after 100 steps, where training kept its weights

Each line of a file says with which images, seed and options it was measured, so that it can be read alone. Another call
of the same probe replaces the file, even if its options differ, so that a column of a run has only one meaning. Each
line ends in the SHA-256 of the file without these checksums, so that a damaged file is not read.

A row without `layer` and without `at` (a place on an axis) is a scalar. Scalars become columns of the run, such as
`shift.crop.consistency`, or `init.shift.crop.consistency` for the untrained network. All other rows are called swept,
and figures draw them. Scalars that were measured at several steps of training are swept rows, too; `at` is then the
step.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import LARGE, read_file, write
from vitbench.machine.provenance import commit, now
from vitbench.machine.seal import SEAL
from vitbench.numbers.text import csv_text
from vitbench.numbers.words import printable
from vitbench.runs.fields import LARGEST

ProbeRow = dict[str, Any]

CHECKPOINTS = ("trained", "init")  # the checkpoints with a name; the others are steps
NUMBERS = ("value", "low", "high")
OWN_COLUMNS = ("protocol", "metric", "layer", "at", "at_unit", *NUMBERS, "reason")  # they differ from row to row
CALL_COLUMNS = ("images", "seed", "options", "commit", "hardware", "created")  # the same in all rows of a call
OLD_COLUMNS = (*OWN_COLUMNS, *CALL_COLUMNS)  # the columns of old files, which have no checksum
COLUMNS = (*OLD_COLUMNS, SEAL)


def path_of(folder: Path, probe: str, checkpoint: str) -> Path:
    """Returns the file of a probe's rows, in the folder of a run."""
    return picture_of(folder, probe, checkpoint, ".csv")


def picture_of(folder: Path, probe: str, checkpoint: str, ending: str) -> Path:
    """Returns the file of a probe's picture, with the given ending."""
    return folder / "probes" / f"{probe}{'' if checkpoint == 'trained' else f'.{checkpoint}'}{ending}"


def files_of(folder: Path) -> list[Path]:
    """Returns the files of all probes of a run, sorted by name."""
    try:
        names = sorted(name for name in os.listdir(folder / "probes") if name.endswith(".csv"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / "probes" / name for name in names]


def save_rows(
    path: Path, rows: Sequence[ProbeRow], *, images: int, seed: int, options: Mapping[str, Any], hardware: str
) -> None:
    """Writes the rows of one call to a file, all of them or none."""
    call = {
        "images": images,
        "seed": seed,
        "options": canonical(options),
        "commit": commit(),
        "hardware": hardware,
        "created": now(),
    }
    assert all({*row} <= {*OWN_COLUMNS} for row in rows), rows
    cells = [[{**row, **call}.get(column, "") for column in OLD_COLUMNS] for row in rows]
    digest = _digest(cells)
    write(path, csv_text([COLUMNS, *([*line, digest] for line in cells)]).encode())


def _digest(cells: Iterable[Sequence[Any]]) -> str:
    return hashlib.sha256(csv_text([OLD_COLUMNS, *cells]).encode()).hexdigest()


def canonical(options: Mapping[str, Any]) -> str:
    """Returns the options as text that is the same for the same options."""
    return json.dumps(options, sort_keys=True)


def read_rows(path: Path) -> list[ProbeRow]:
    """Reads the rows of a file, without empty cells and with numbers as numbers.

    Raises UserError where no probe wrote the file, or it is damaged.
    """
    try:
        head, *lines = csv.reader(io.StringIO(read_file(path, LARGE).decode(), newline=""), strict=True) or [[]]
        if tuple(head) not in (COLUMNS, OLD_COLUMNS):
            raise ValueError("its columns are not those of a probe")
        if any(len(cells) != len(head) for cells in lines):
            raise ValueError("a line has more or fewer cells than there are columns")
        if tuple(head) == COLUMNS:
            own = _digest(cells[:-1] for cells in lines)
            if any(cells[-1] != own for cells in lines):
                raise ValueError("it is damaged (its checksum differs); `vitbench probe` measures it again")
        return [_parsed(dict(zip(head, cells, strict=True))) for cells in lines]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is no file of a probe: {printable(str(error))[:120]}") from None


def _parsed(line: Mapping[str, str]) -> ProbeRow:
    row: ProbeRow = {key: value for key, value in line.items() if value != "" and key != SEAL}
    row |= {key: float(row[key]) for key in (*NUMBERS, "at") if key in row}
    if not {"protocol", "metric", "value"} <= {*row}:
        raise ValueError("a line lacks protocol, metric or value")
    for key in (*NUMBERS, "at"):
        if abs(row.get(key, 0.0)) > LARGEST:
            raise ValueError(f"{key} is {row[key]}; no such number can be right")
    version_of(row)
    return row | {"images": int(line["images"]), "seed": int(line["seed"])}


def is_done(path: Path, *, images: int, seed: int, options: Mapping[str, Any], version: int) -> bool:
    """Whether a file already has what a call would write: the same images, seed, options and protocol version."""
    if not path.is_file():
        return False
    try:
        rows = read_rows(path)
    except UserError:
        return False  # the file is damaged or from another version of vitbench, and is written again
    wanted = (images, seed, canonical(options), version)
    return bool(rows) and all((r["images"], r["seed"], r.get("options"), version_of(r)) == wanted for r in rows)


def version_of(row: ProbeRow) -> int:
    """Returns the version of a row's protocol, 2 for `shift.crop@v2`; 0 where it names none."""
    return int(row["protocol"].partition("@v")[2] or 0)


def column(row: ProbeRow, checkpoint: str) -> str:
    """Returns the name of a row's column in tables: `shift.crop.consistency`, or `init.shift.crop.consistency`."""
    name = f"{row['protocol'].partition('@')[0]}.{row['metric']}"
    return name if checkpoint == "trained" else f"{checkpoint}.{name}"


def read_probes(
    folder: Path, named_steps: Mapping[str, int] | None = None
) -> tuple[ProbeRow, list[ProbeRow], list[str]]:
    """Reads all that probes measured of a run: its columns, its swept rows, and a line for each unreadable file.

    A swept row has the name of its column as `column`. `named_steps` has the steps of the checkpoints with a name (0
    for `init`), which begin and end a curve over training. An undefined scalar (NaN) becomes no column, because the run
    has no such result.
    """
    named_steps = named_steps or {}
    at_steps: list[tuple[int, bool, ProbeRow]] = []
    scalars: ProbeRow = {}
    swept: list[ProbeRow] = []
    problems: list[str] = []
    for path in files_of(folder):
        checkpoint = path.name.removesuffix(".csv").partition(".")[2] or "trained"
        try:
            rows = read_rows(path)
        except UserError as error:
            problems.append(str(error))
            continue
        for row in rows:
            if "layer" in row or "at" in row:
                swept.append({"column": column(row, checkpoint), **row})
                continue
            if not math.isnan(row["value"]) and not checkpoint.isdigit():
                scalars[column(row, checkpoint)] = row["value"]
            if checkpoint.isdigit() or checkpoint in named_steps:
                step = int(checkpoint) if checkpoint.isdigit() else named_steps[checkpoint]
                row_at_step = {"column": column(row, "trained"), **row, "at": float(step), "at_unit": "step"}
                at_steps.append((step, checkpoint.isdigit(), row_at_step))
    return scalars, swept + _curves(at_steps), problems


def _curves(at_steps: Iterable[tuple[int, bool, ProbeRow]]) -> list[ProbeRow]:
    """Returns the rows of each column along the steps of training, each step once.

    `at_steps` has the step of a row, whether `keep` kept its weights, and the row. Rows of different calls do not make
    one curve: a column is drawn from its call with the most steps, if `keep` kept one of these steps.
    """
    by_column: dict[str, dict[tuple[Any, ...], dict[int, tuple[bool, ProbeRow]]]] = {}
    for step, kept, row in at_steps:
        call = tuple(row.get(key) for key in ("protocol", "images", "seed", "options"))
        by_column.setdefault(row["column"], {}).setdefault(call, {})[step] = kept, row
    longest = [max(curves.values(), key=len) for curves in by_column.values()]
    return [curve[step][1] for curve in longest if any(kept for kept, _ in curve.values()) for step in sorted(curve)]


def undefined(rows: Iterable[ProbeRow]) -> list[str]:
    """Returns a line for each reason why numbers are undefined, with the columns that lack a number for that reason."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if math.isnan(row["value"]):
            reasons.setdefault(str(row.get("reason") or "no reason given"), []).append(column(row, "trained"))
    return [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items()]
