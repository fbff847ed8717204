"""The files of probes, `runs/<id>/probes/<probe>.csv` (`<probe>.init.csv`: of the untrained network, `<probe>.100.csv`: after
100 steps). No torch here.

A file holds the rows of one call: every line repeats what it was made with (images, seed, options), so a line alone says
what it is. Another call of the same probe with other options replaces the file: a run's column has one meaning.
Rows without layer and abscissa are scalars and become columns of the run, `shift.crop.consistency`, those of the
untrained network with `init.` before; the others are swept rows, which figures draw. So are scalars of weights that were kept
in training: rows of the same column, with the step as their abscissa.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import write
from vitbench.machine.provenance import commit, now

ProbeRow = dict[str, Any]

CHECKPOINTS = ("trained", "init")
NUMBERS = ("value", "low", "high")
MEASURED = ("protocol", "metric", "layer", "at", "at_unit", *NUMBERS, "reason")  # of a probe's own row
MADE = ("images", "seed", "options", "commit", "hardware", "created")  # of the call
COLUMNS = (*MEASURED, *MADE)


def path_of(folder: Path, probe: str, checkpoint: str) -> Path:
    return picture_of(folder, probe, checkpoint, ".csv")


def picture_of(folder: Path, probe: str, checkpoint: str, ending: str) -> Path:
    return folder / "probes" / f"{probe}{'' if checkpoint == 'trained' else f'.{checkpoint}'}{ending}"


def save_rows(
    path: Path, rows: Sequence[ProbeRow], *, images: int, seed: int, options: Mapping[str, Any], hardware: str
) -> None:
    """Writes the rows of one call whole or not at all."""
    made = {
        "images": images,
        "seed": seed,
        "options": canonical(options),
        "commit": commit(),
        "hardware": hardware,
        "created": now(),
    }
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None else value for key, value in {**row, **made}.items()})
    write(path, out.getvalue().encode())


def canonical(options: Mapping[str, Any]) -> str:
    return json.dumps(options, sort_keys=True)


def read_rows(path: Path) -> list[ProbeRow]:
    """The rows of a file, numbers as numbers; raises UserError where it is none of ours."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file)
            if tuple(lines.fieldnames or ()) != COLUMNS:
                raise ValueError("its columns are not those of a probe")
            return [_parsed(line) for line in lines]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is no file of a probe: {str(error)[:120]}") from None


def _parsed(line: Mapping[str, str]) -> ProbeRow:
    row: ProbeRow = {key: value for key, value in line.items() if value != ""}
    row |= {key: float(row[key]) for key in (*NUMBERS, "at") if key in row}
    if not {"protocol", "metric", "value"} <= {*row}:
        raise ValueError("a line lacks protocol, metric or value")
    return row | {"images": int(line["images"]), "seed": int(line["seed"])}


def is_done(path: Path, *, images: int, seed: int, options: Mapping[str, Any], version: int) -> bool:
    """Whether a file holds what such a call would give: the same images, seed, options and version of the protocols."""
    if not path.is_file():
        return False
    try:
        rows = read_rows(path)
    except UserError:
        return False  # torn or of another time: made again
    wanted = (images, seed, canonical(options), version)
    return bool(rows) and all((r["images"], r["seed"], r.get("options"), version_of(r)) == wanted for r in rows)


def version_of(row: ProbeRow) -> int:
    return int(row["protocol"].partition("@v")[2] or 0)


def column(row: ProbeRow, checkpoint: str) -> str:
    """shift.crop.consistency, and init.shift.crop.consistency"""
    name = f"{row['protocol'].partition('@')[0]}.{row['metric']}"
    return name if checkpoint == "trained" else f"{checkpoint}.{name}"


def of_run(folder: Path, steps: Mapping[str, int] | None = None) -> tuple[ProbeRow, list[ProbeRow], list[str]]:
    """What the probes of a run found: its columns, its swept rows with their `column`, and a line for each unreadable file.

    `steps` are those of checkpoints with a name, which begin and end a curve over training. A scalar that is undefined
    (NaN) is no column: the run has no such result.
    """
    at_steps: list[tuple[int, bool, ProbeRow]] = []
    scalars: ProbeRow = {}
    swept: list[ProbeRow] = []
    problems: list[str] = []
    for path in sorted((folder / "probes").glob("*.csv")):
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
            if checkpoint.isdigit() or checkpoint in (steps or {}):
                step = int(checkpoint) if checkpoint.isdigit() else (steps or {})[checkpoint]
                along = {"column": column(row, "trained"), **row, "at": float(step), "at_unit": "step"}
                at_steps.append((step, checkpoint.isdigit(), along))
    return scalars, swept + _curves(at_steps), problems


def _curves(at_steps: Iterable[tuple[int, bool, ProbeRow]]) -> list[ProbeRow]:
    """Each result along the steps of training, where weights were kept: of one call's images, seed and options, the one with
    most steps, and each step once."""
    alike: dict[str, dict[tuple[Any, ...], dict[int, tuple[bool, ProbeRow]]]] = {}
    for step, kept, row in at_steps:
        made = tuple(row.get(key) for key in ("protocol", "images", "seed", "options"))
        alike.setdefault(row["column"], {}).setdefault(made, {})[step] = kept, row
    longest = [max(curves.values(), key=len) for curves in alike.values()]
    return [curve[step][1] for curve in longest if any(kept for kept, _ in curve.values()) for step in sorted(curve)]


def undefined(rows: Iterable[ProbeRow]) -> list[str]:
    """What a probe could not say, and why."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if math.isnan(row["value"]):
            reasons.setdefault(str(row.get("reason") or "no reason given"), []).append(column(row, "trained"))
    return [f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in reasons.items()]
