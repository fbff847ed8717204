"""Reads tables for `vitbench fit runs=FILE.csv`: a table of one's own, or the runs.csv that `vitbench report` writes.

Nothing is guessed: an error names the line of a row that is missing or repeated, or of a cell that no run can have.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing.axes import IMAGES, Axis
from vitbench.comparing.evidence import runs_of_study
from vitbench.comparing.grouping import Group, LineOfGroups, groups_of, lines_along
from vitbench.comparing.select import Runs
from vitbench.errors import DataError, UserError, did_you_mean
from vitbench.fitting.limits import Point, sizes_of
from vitbench.fitting.lines import CurveOfRuns, check_falling, check_point, curve_of, lines_of
from vitbench.fitting.references import FEWEST_SEEDS, FEWEST_SIZES
from vitbench.machine.disk import LARGE, read_file
from vitbench.numbers.words import plural, printable

if TYPE_CHECKING:
    from vitbench.runs.study import Study

COLUMNS = {
    "model": ("model",),
    "images": ("images", "train_images"),
    "seed": ("seed",),
    "error": ("error", "test_error"),
    "accuracy": ("accuracy", "test_accuracy"),
    "loss": ("loss", "test_loss"),
    "classes": ("classes",),
    "epochs": ("epochs",),
    "train_eval_accuracy": ("train_eval_accuracy",),
    "train_loss": ("train_loss",),
}
RESULTS = ("error", "accuracy", "loss")
# These columns, and all that begin with such a prefix, tell curves apart.
SETTINGS = ("pe", "data", "model.size", "augment", "optim")
PREFIXES = ("pe.", "model.", "data.", "augment.", "optim.")


def read_table(
    path: Path,
    value: str | None = None,
    axis: Axis = IMAGES,
    where: Mapping[str, Any] | None = None,
    study: Study | None = None,
) -> tuple[str, list[CurveOfRuns], list[str], Runs | None]:
    """Reads the fitted result, its curves, notes on what they leave out, and, of a runs.csv, the runs.

    `where` and `study` choose among the runs of a runs.csv.
    """
    head, lines = _read_csv(path)
    if head[:2] == ["id", "status"]:
        runs = runs_of_study(path, study).filtered(where or {})
        return _fit_runs(path, runs, {cells[0]: number for number, cells in lines}, value, axis, whole=not where)
    if study is not None or where:
        raise UserError(f"{path}: is read whole; study= and where. choose among runs")
    if axis is not IMAGES:
        raise UserError(f"{path}: a table of one's own is read along images; drop x=")
    return *_read_own(path, head, lines, value), None


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Reads the names of the columns, and the cells of each row with its line number."""
    try:
        reader = csv.reader(io.StringIO(read_file(path, LARGE).decode("utf-8-sig"), newline=""))
        head = [column.strip() for column in next(reader, [])]
        if not head:
            raise DataError(f"{path} is empty")
        return head, [(reader.line_num, cells) for cells in reader if any(cells)]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no CSV text in UTF-8: {error}") from None


# --------------------------------------------------------------------------------------------------------- runs.csv


def _fit_runs(
    path: Path, runs: Runs, line_of: dict[str, int], value: str | None, axis: Axis, whole: bool
) -> tuple[str, list[CurveOfRuns], list[str], Runs]:
    """Makes the curves of runs; raises DataError where those of a `whole` runs.csv lack a size of a seed."""
    value = check_falling(runs, value or "test_error")
    lines, left_out = lines_of(
        runs, value, source=lambda row: f"{path} line {line_of[row['id']]}", error=DataError, axis=axis
    )
    # a note tells of planned runs that have no result, and so no row with a number
    if whole and not runs.notes and axis is IMAGES:
        for line in lines_along(groups_of(runs), "train_images", otherwise=["model"]):
            _check_sizes(path, line, line_of)
    return value, lines, left_out, runs


def _check_sizes(path: Path, line: LineOfGroups, line_of: dict[str, int]) -> None:
    """Raises DataError where a seed lacks a size that another seed of the same curve has."""
    by_seed: dict[tuple[Any, Any], dict[int, int]] = {}
    for row in line.rows:
        line_of_size = by_seed.setdefault((row.get("data.subset_seed"), row["seed"]), {})
        line_of_size[row["train_images"]] = line_of[row["id"]]
    for n in sorted({n for line_of_size in by_seed.values() for n in line_of_size}):
        for (_, seed), line_of_size in by_seed.items():
            if n not in line_of_size:
                numbers = ", ".join(map(str, sorted(line_of_size.values())))
                raise DataError(
                    f"{path}: no row with {line.name} images={n} seed={seed}, whose other sizes are in line"
                    f" {numbers}; every seed needs every size"
                )


# ---------------------------------------------------------------------------------------------- a table of one's own


def _read_own(
    path: Path, head: list[str], lines: list[tuple[int, list[str]]], value: str | None
) -> tuple[str, list[CurveOfRuns], list[str]]:
    """Reads a table with a row for each run: model, images, seed, and error, accuracy (both as shares of 1) or loss.

    `classes` (optional) gives the level of chance, which the m4 form needs. Settings (`pe`) tell curves apart, as they
    do among runs. Other columns are not read.
    """
    result, rows = _choose_columns(path, head, lines, value)
    value = "test_loss" if result == "loss" else "test_error"
    keys = ["model", *(key for key in rows[0][1] if key not in COLUMNS)]
    groups: dict[tuple[str | None, ...], Group] = {}
    for number, row in rows:
        where = f"{path} line {number}"
        images = _read_number(where, "images", row["images"])
        if images < 1 or images != int(images):
            raise DataError(f"{where}: images={row['images']}: a number of images is whole and above 0")
        measured = _read_number(where, result, row[result])
        if result != "loss" and measured > 1:
            raise DataError(f"{where}: {result}={row[result]}: shares of 1 are wanted (0.12, not 12)")
        settings = {key: printable(row[key].strip()) or None for key in keys}
        seed = row["seed"].strip()
        if not settings["model"] or not seed:
            raise DataError(f"{where}: {'seed' if settings['model'] else 'model'} is empty")
        error_or_loss = 1 - measured if result == "accuracy" else measured
        point = Point(
            int(images), seed, error_or_loss, where, *_read_training(where, row, images, result, error_or_loss)
        )
        check_point(point, value, DataError)
        classes = _read_classes(where, row.get("classes", "").strip())
        group = groups.setdefault(tuple(settings.values()), Group(settings, []))
        group.rows.append({"point": point, "classes": classes})
    fitted, notes = [], []
    for line in lines_along([*groups.values()], "train_images", otherwise=["model"], menus=False):
        points = [row["point"] for row in line.rows]
        _check_complete(path, line.name if len(keys) > 1 else f"model={line.name}", points)
        class_counts = {row["classes"] for row in line.rows if row["classes"] is not None}
        curve, left_out = curve_of(line.name, points, value, class_counts.pop() if len(class_counts) == 1 else 0)
        notes += [f"{line.name}: {note}" for note in left_out]
        if curve is not None:
            fitted.append(CurveOfRuns(line.settings, curve, sizes=sizes_of(curve, points, [], {})))
    if not fitted:
        raise DataError(f"{path}: {'; '.join(notes[:2])}")
    return value, fitted, notes


def _read_classes(where: str, cell: str) -> int | None:
    """Reads the optional number of classes, which gives the error of guessing."""
    classes = _read_number(where, "classes", cell) if cell else None
    if classes is not None and (classes < 2 or classes != int(classes)):
        raise DataError(f"{where}: classes={cell}: a number of classes is whole and above 1")
    return None if classes is None else int(classes)


def _read_training(
    where: str, row: dict[str, str], images: float, result: str, value: float
) -> tuple[float | None, float | None, float | None]:
    """Reads what the optional columns say of a run: samples seen, the value on training images, and the gap."""
    cells = {name: row.get(name, "").strip() for name in ("epochs", "train_eval_accuracy", "train_loss", "loss")}
    given = {name: _read_number(where, name, cell) for name, cell in cells.items() if cell}
    if given.get("epochs", 1) <= 0:
        raise DataError(f"{where}: epochs={cells['epochs']}: how often each image was seen is a number above 0")
    accuracy = given.get("train_eval_accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise DataError(
            f"{where}: train_eval_accuracy={cells['train_eval_accuracy']}: shares of 1 are wanted (0.12, not 12)"
        )
    samples = given["epochs"] * images if "epochs" in given else None
    if result != "loss" and accuracy is not None:
        return samples, 1 - accuracy, value - (1 - accuracy)
    if "train_loss" in given and "loss" in given:
        return samples, None, given["loss"] - given["train_loss"]  # of batches, as without `train_eval_loss`
    return samples, None, None


def _choose_columns(
    path: Path, head: list[str], lines: list[tuple[int, list[str]]], value: str | None
) -> tuple[str, list[tuple[int, dict[str, str]]]]:
    """Chooses the column of the result; returns it, and each row's line number and its cells by our names."""
    columns = {name: alias for name, aliases in COLUMNS.items() for alias in reversed(aliases) if alias in head}
    for name in ("model", "images", "seed"):
        if name not in columns:
            raise DataError(f"{path}: no column {name}; there are {_list_columns(head)}")
    result = (
        value.removeprefix("test_") if value is not None else next((name for name in RESULTS if name in columns), "")
    )
    if value is not None and result not in RESULTS:
        raise UserError(f"value={value}: {did_you_mean(value, ['test_error', 'test_loss'])}")
    if result == "error" and "error" not in columns and "accuracy" in columns:
        result = "accuracy"
    if result not in columns:
        raise DataError(f"{path}: no column {result or 'error, accuracy or loss'}; there are {_list_columns(head)}")
    columns |= {column: column for column in head if column in SETTINGS or column.startswith(PREFIXES)}
    repeated = next((column for column in columns.values() if head.count(column) > 1), None)
    if repeated is not None:
        raise DataError(f"{path}: two columns are called {repeated}")
    if not lines:
        raise DataError(f"{path}: no row below the column names")
    for number, cells in lines:
        if len(cells) != len(head):
            raise DataError(f"{path} line {number}: {len(cells)} cells under {len(head)} column names")
    places = {name: head.index(column) for name, column in columns.items()}
    return result, [(number, {name: cells[place] for name, place in places.items()}) for number, cells in lines]


def _check_complete(path: Path, name: str, points: Sequence[Point]) -> None:
    """Raises DataError where a curve has too few rows, or a row is missing or repeated."""
    first_of: dict[tuple[Hashable, float], Point] = {}
    for point in points:
        first = first_of.setdefault((point.seed, point.n), point)
        if first is not point:
            number = first.source.rsplit("line ", 1)[1]
            raise DataError(f"{point.source} repeats {number}: {name} images={point.n} seed={point.seed}")
    sizes, seeds = sorted({n for _, n in first_of}), dict.fromkeys(seed for seed, _ in first_of)
    for seed in seeds:
        for n in sizes:
            if (seed, n) not in first_of:
                raise DataError(f"{path}: no row with {name} images={n} seed={seed}; every seed needs every size")
    for what, count, least in (("size", len(sizes), FEWEST_SIZES), ("seed", len(seeds), FEWEST_SEEDS)):
        if count < least:
            raise DataError(f"{path}: {name} has {plural(count, what)}; a curve takes {least} or more")


def _read_number(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise DataError(f"{where}: {column}={printable(text)[:40]} is no number") from None
    if not math.isfinite(number):
        raise DataError(f"{where}: {column}={text.strip()} is no number")
    return number


def _list_columns(head: Iterable[str]) -> str:
    listed = [printable(column)[:30] or "(no name)" for column in head]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} others" if len(listed) > 10 else "") or "none"
