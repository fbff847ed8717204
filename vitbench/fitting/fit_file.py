"""Tables for `vitbench fit file=`: one that someone else made, or the runs.csv that `vitbench report` writes.

Nothing is guessed: rows that are missing or there twice, and cells that no run can have, are refused by their line.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

from vitbench.comparing.grouping import Group, groups_of, lines_along
from vitbench.comparing.select import Row, Runs
from vitbench.errors import DataError, UserError, did_you_mean
from vitbench.fitting.lines import (
    FEWEST_SEEDS,
    FEWEST_SIZES,
    CurveOfRuns,
    Point,
    check_point,
    curve_of,
    falling,
    lines_of,
)
from vitbench.numbers.words import printable

COLUMNS = {
    "model": ("model",),
    "images": ("images", "train_images"),
    "seed": ("seed",),
    "error": ("error", "test_error"),
    "accuracy": ("accuracy", "test_accuracy"),
    "loss": ("loss", "test_loss"),
    "classes": ("classes",),
}
RESULTS = ("error", "accuracy", "loss")

# columns that tell curves apart, and all with such a prefix
SETTINGS = ("pe", "data", "model.size", "augment", "optim")
PREFIXES = ("pe.", "model.", "data.", "augment.", "optim.")


def read_table(path: Path, value: str | None = None) -> tuple[str, list[CurveOfRuns], list[str], Runs | None]:
    """What the curves are of, the curves, what is left out of them, and the runs, where the table says all about them."""
    if _head(path)[:2] == ["id", "status"]:
        return _evidence(path, value)
    return *_own(path, value), [], None


# --------------------------------------------------------------------------------------------------------- runs.csv


def _evidence(path: Path, value: str | None) -> tuple[str, list[CurveOfRuns], list[str], Runs]:
    from vitbench.comparing.evidence import read_evidence

    runs = read_evidence(path)
    value = falling(runs, value or "test_error")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        numbers = {cells[0]: reader.line_num for cells in reader if cells}
    lines, left_out = lines_of(
        runs, value, source=lambda row: f"file={path} line {numbers[row['id']]}", error=DataError
    )
    if not runs.notes:  # where planned runs have no result, that says which rows have no number
        for one in lines_along(groups_of(runs), "train_images", otherwise=["model"]):
            _all_there(path, one.name, one.rows, numbers)
    return value, lines, left_out, runs


def _all_there(path: Path, name: str, rows: Sequence[Row], numbers: dict[str, int]) -> None:
    by_seed: dict[tuple[Any, Any], dict[int, int]] = {}
    for row in rows:
        by_seed.setdefault((row.get("data.subset_seed"), row["seed"]), {})[row["train_images"]] = numbers[row["id"]]
    for n in sorted({n for there in by_seed.values() for n in there}):
        for (_, seed), there in by_seed.items():
            if n not in there:
                at = ", ".join(map(str, sorted(there.values())))
                raise DataError(
                    f"file={path}: no row with {name} images={n} seed={seed}, whose other sizes are in line {at}; "
                    "every seed needs every size"
                )


# ----------------------------------------------------------------------------------------------- tables of one's own


def _own(path: Path, value: str | None) -> tuple[str, list[CurveOfRuns]]:
    """A CSV file with a row a run: model, images, seed, and error, accuracy (both shares of 1) or loss.

    `classes` (optional) gives chance, which the m4 form needs; settings (`pe`) tell curves apart as they do among runs;
    other columns are not read.
    """
    result, rows = _rows(path, value)
    value = "test_loss" if result == "loss" else "test_error"
    keys = ["model", *(key for key in rows[0][1] if key not in COLUMNS)]
    groups: dict[tuple[str | None, ...], Group] = {}
    for number, row in rows:
        where = f"file={path} line {number}"
        images = _number(where, "images", row["images"])
        if images < 1 or images != int(images):
            raise DataError(f"{where}: images={row['images']}: a number of images is whole and above 0")
        measured = _number(where, result, row[result])
        if result != "loss" and measured > 1:
            raise DataError(f"{where}: {result}={row[result]}: shares of 1 are wanted (0.12, not 12)")
        settings = {key: printable(row[key].strip()) or None for key in keys}
        seed = row["seed"].strip()
        if not settings["model"] or not seed:
            raise DataError(f"{where}: {'seed' if settings['model'] else 'model'} is empty")
        point = Point(int(images), seed, 1 - measured if result == "accuracy" else measured, where)
        check_point(point, value, DataError)
        classes = int(_number(where, "classes", row["classes"])) if row.get("classes") else None
        group = groups.setdefault(tuple(settings.values()), Group(settings, []))
        group.rows.append({"point": point, "classes": classes})
    lines = []
    for one in lines_along([*groups.values()], "train_images", otherwise=["model"], menus=False):
        name, points = one.name, [row["point"] for row in one.rows]
        _complete(path, name if len(keys) > 1 else f"model={name}", points)
        its_classes = {row["classes"] for row in one.rows if row["classes"] is not None}
        curve, _ = curve_of(name, points, value, its_classes.pop() if len(its_classes) == 1 else 0)
        assert curve is not None
        lines.append(CurveOfRuns(one.settings, curve))
    return value, lines


def _head(path: Path) -> list[str]:
    return _cells(path)[0]


def _cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names of the columns, and each row with its line number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            head = [name.strip() for name in next(reader, [])]
            return head, [(reader.line_num, row) for row in reader if any(row)]
    except OSError as error:
        raise UserError(f"file={path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"file={path}: no CSV text in UTF-8: {error}") from None


def _rows(path: Path, value: str | None) -> tuple[str, list[tuple[int, dict[str, str]]]]:
    """Which column is the result, and each row under our names, with its line number."""
    head, cells = _cells(path)
    there = {
        name: next(alias for alias in aliases if alias in head)
        for name, aliases in COLUMNS.items()
        if set(aliases) & set(head)
    }
    settings = {name: name for name in head if name in SETTINGS or name.startswith(PREFIXES)}
    for name in ("model", "images", "seed"):
        if name not in there:
            raise DataError(f"file={path}: no column {name}; there are {_some(head)}")
    result = value.removeprefix("test_") if value is not None else next((name for name in RESULTS if name in there), "")
    if value is not None and result not in RESULTS:
        raise UserError(f"value={value}: {did_you_mean(value, ['test_error', 'test_loss'])}")
    if result == "error" and "error" not in there and "accuracy" in there:
        result = "accuracy"
    if result not in there:
        wanted = result or "error, accuracy or loss"
        raise DataError(f"file={path}: no column {wanted}; there are {_some(head)}")
    there |= settings
    twice = next((name for name in there.values() if head.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"file={path}: two columns are called {twice}")
    if not cells:
        raise DataError(f"file={path}: no row below the column names")
    for number, row in cells:
        if len(row) != len(head):
            raise DataError(f"file={path} line {number}: {len(row)} cells under {len(head)} column names")
    return result, [
        (number, {name: row[head.index(column)] for name, column in there.items()}) for number, row in cells
    ]


def _complete(path: Path, name: str, points: Sequence[Point]) -> None:
    """Refuses rows that are missing or there twice, and too few of them."""
    seen: dict[tuple[Hashable, int], Point] = {}
    for point in points:
        before = seen.setdefault((point.seed, point.n), point)
        if before is not point:
            raise DataError(
                f"{point.source} repeats {before.source.rsplit('line ', 1)[1]}: {name} images={point.n}"
                f" seed={point.seed}"
            )
    sizes, seeds = sorted({n for _, n in seen}), dict.fromkeys(seed for seed, _ in seen)
    for seed in seeds:
        for n in sizes:
            if (seed, n) not in seen:
                raise DataError(f"file={path}: no row with {name} images={n} seed={seed}; every seed needs every size")
    for what, count, least in (("size", len(sizes), FEWEST_SIZES), ("seed", len(seeds), FEWEST_SEEDS)):
        if count < least:
            raise DataError(
                f"file={path}: {name} has {count} {what}{'s' if count > 1 else ''}; a curve takes {least} or more"
            )


def _number(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise DataError(f"{where}: {column}={printable(text)[:40]} is no number") from None
    if number != number or number in (float("inf"), -float("inf")):
        raise DataError(f"{where}: {column}={text.strip()} is no number")
    return number


def _some(names: Iterable[str]) -> str:
    listed = [printable(name)[:30] or "(no name)" for name in names]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} others" if len(listed) > 10 else "") or "none"
