"""Learning curves of runs, and what they say of each pair: `vitbench fit study=data_scaling`, `vitbench fit file=t.csv`.

A curve is a model: its runs on all shares of the images. Curves are compared in pairs that differ in the model or its
encoding and in nothing else that varies: every ViT with every CNN, and every encoding with `pe=none`. Where there are
no such pairs (a table of one's own), each two curves. `docs/metrics.md` says what the numbers mean.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench import compare, formats
from vitbench.compare import Row, Runs, shown
from vitbench.errors import DataError, UserError, did_you_mean

if TYPE_CHECKING:
    from vitbench.curves import Curve

SIZES, SEEDS = 3, 2  # the fewest that make a curve
FALLING = ("_error", "_loss")  # results that a curve can be fitted to


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench import study as studies
    from vitbench.verdict import Report, render

    asked: Any = OmegaConf.to_container(config, resolve=True)
    form, value = asked["format"], asked["value"]
    if form not in formats.ENDINGS.values():
        raise UserError(f"format={form}: {did_you_mean(form, formats.ENDINGS.values())}")
    heading, warnings, notes = "", [], []
    if asked["file"] is not None:
        if asked["study"] is not None or asked["where"]:
            raise UserError(f"file={asked['file']}: is read whole; study= and where. choose among runs")
        value, lines = read_table(Path(asked["file"]).expanduser(), value)
    else:
        study = studies.load(asked["study"]) if asked["study"] is not None else None
        runs = compare.select(asked["runs"], asked["where"], study)
        value = falling(runs, value or "test_error")
        lines, left_out = lines_of(runs, value)
        warnings, notes = [*compare.warnings(compare.groups(runs)), *map(compare.plain, left_out)], runs.notes
        heading = compare.plain(f"{study.title}. {study.question}") if study else ""
    report = Report(value, [line.curve for line in lines], pairs(lines, asked["against"]), heading, warnings, notes)
    if form == "text" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formats.print_rich(report.tables(), heading, report.words())
    else:
        formats.say(render(form, report))
        for note in [*warnings, *notes] if form == "csv" else []:
            print(f"vitbench: {compare.plain(note)}", file=sys.stderr)
    return 0


def falling(runs: Runs, value: str, setting: str = "value") -> str:
    """`value`, if a curve can be fitted to it."""
    numbers = [name for name in runs.numbers() if name.endswith(FALLING)]
    if value not in numbers and value in runs.numbers():
        raise UserError(f"{setting}={value}: a curve is fitted to an error or a loss; choices: {', '.join(numbers)}")
    return runs.check(setting, value, numbers)


# ------------------------------------------------------------------------------------------------------------- lines


@dataclass(frozen=True)
class Line:
    """A curve, and the settings that tell it from the others."""

    settings: Mapping[str, Any]
    curve: Curve


@dataclass(frozen=True)
class Point:
    n: int
    seed: Hashable  # seed and subset seed: what pairs it with another model's
    value: float
    source: str  # what to call it in an error line


def lines_of(runs: Runs, value: str, first: Sequence[str] = ()) -> tuple[list[Line], list[str]]:
    """The curves of these runs, and a note for each seed, size or curve that is left out.

    `first` are settings that name a curve even where they do not vary.
    """
    groups = compare.groups(runs)
    keys = compare.telling(groups, first, without=compare.along(groups, "train_images")) or ["model"]
    groups.sort(key=lambda group: compare.sort_key({key: group.settings[key] for key in keys}))
    rows: dict[tuple[Any, ...], list[Row]] = {}
    for group in groups:
        rows.setdefault(tuple(group.settings[key] for key in keys), []).extend(group.rows)
    lines: list[Line] = []
    notes: list[str] = []
    for values, its_rows in rows.items():
        settings = dict(zip(keys, values, strict=True))
        words = [shown(setting) if key in ("model", "data") else f"{key}={shown(setting)}"
                 for key, setting in settings.items() if setting is not None]  # fmt: skip
        points = [Point(row["train_images"], (row.get("data.subset_seed"), row["seed"]), row[value], f"run {row['id']}")
                  for row in its_rows if row.get(value) is not None and row.get("train_images")]  # fmt: skip
        classes = {len(row.get("classes") or ()) for row in its_rows}
        curve, why = _curve(" ".join(words), points, value, classes.pop() if len(classes) == 1 else 0)
        notes.extend(f"{' '.join(words)}: {line}" for line in why)
        if curve is not None:
            lines.append(Line(settings, curve))
    if not lines:
        raise UserError("; ".join(compare.plain(note) for note in notes[:2]) + f" ({len(rows)} curves, none to fit)")
    return lines, notes


def _curve(label: str, points: Sequence[Point], value: str, classes: int) -> tuple[Curve | None, list[str]]:
    """Every seed at every size; sizes that have one seed only are left out, then seeds that lack a size."""
    import math

    import numpy as np

    from vitbench.curves import Curve

    found: dict[Hashable, dict[int, Point]] = {}
    for point in points:
        _check(point, value, UserError)
        before = found.setdefault(point.seed, {}).setdefault(point.n, point)
        if before is not point:
            raise UserError(
                f"{point.source} repeats {before.source}: same settings, seed and {point.n:,} images; keep one"
            )
    counts = {n: sum(n in row for row in found.values()) for n in sorted({point.n for point in points})}
    sizes = [n for n, count in counts.items() if count >= SEEDS]
    seeds = sorted((seed for seed, row in found.items() if row.keys() >= set(sizes)), key=_order)
    notes = [f"{n:,} images are left out, they have one seed" for n in counts if n not in sizes]
    if counts and not sizes:
        notes = [f"one seed; a curve takes {SEEDS} or more"]
    elif len(sizes) < SIZES:
        plural = "" if len(sizes) == 1 else "s"
        notes = [f"{len(sizes)} size{plural} of training images; a curve takes {SIZES} or more"]
    elif len(seeds) < SEEDS:
        notes = [f"{len(seeds)} of {len(found)} seeds have all {len(sizes)} sizes; a curve takes {SEEDS} or more"]
    else:
        notes += [f"seed {seed[1] if isinstance(seed, tuple) else seed} is left out, it lacks {len(set(sizes) - row.keys())} of the {len(sizes)} sizes"
                  for seed, row in found.items() if seed not in seeds]  # fmt: skip
        errors = np.array([[found[seed][n].value for n in sizes] for seed in seeds], float)
        chance = math.nan if classes < 2 else math.log(classes) if value.endswith("_loss") else 1 - 1 / classes
        return Curve(label, np.array(sizes, float), errors, tuple(seeds), chance), notes
    return None, notes


def _order(seed: Any) -> tuple[Any, ...]:
    """Numbers by size, words by letter, nothing first."""
    if isinstance(seed, tuple):
        return tuple(_order(part) for part in seed)
    return (0, 0, "") if seed is None else (1, seed, "") if isinstance(seed, int | float) else (2, 0, str(seed))


def _check(point: Point, value: str, error: type[UserError]) -> None:
    """A log scale has no 0, and an error of 1 is no error rate of anything that learned."""
    if not 0 < point.value < float("inf") or (value.endswith("_error") and point.value >= 1):
        allowed = "between 0 and 1" if value.endswith("_error") else "above 0"
        raise error(
            f"{point.source}: {value} is {point.value:g} with {point.n:,} images; a curve takes values {allowed}, ends excluded"
        )


def pairs(lines: Sequence[Line], against: str | None = None) -> list[tuple[Curve, Curve]]:
    """Which curves are compared: the second of a pair is the reference."""
    labels = [line.curve.label for line in lines]
    if against is not None:
        if against not in labels:
            raise UserError(f"against={against}: {did_you_mean(against, labels)}")
        reference = lines[labels.index(against)].curve
        return [(line.curve, reference) for line in lines if line.curve is not reference]
    cnns = [line for line in lines if _is_cnn(line)]
    without = [line for line in lines if line.settings.get("pe") == "none"]
    others = [line for line in lines if not _is_cnn(line)]
    chosen = [(a, b) for references in (cnns, without) for b in references for a in others
              if a is not b and _context(a) == _context(b)]  # fmt: skip
    if not chosen:
        chosen = [(a, b) for i, a in enumerate(lines) for b in lines[i + 1 :] if _context(a) == _context(b)]
    return [(a.curve, b.curve) for a, b in chosen]


def main_pairs(lines: Sequence[Line]) -> list[tuple[Curve, Curve]]:
    """Those with a CNN, where there is one: what a figure has room for."""
    chosen, cnns = pairs(lines), {line.curve.label for line in lines if _is_cnn(line)}
    return [pair for pair in chosen if pair[1].label in cnns] or chosen


def _is_cnn(line: Line) -> bool:
    return "pe" in line.settings and line.settings["pe"] is None


def _context(line: Line) -> dict[str, Any]:
    """What two curves must share to be a pair: all that varies but the model, its encoding and its recipe."""
    return {key: value for key, value in line.settings.items()
            if key not in ("model", "pe", "optim") and not key.startswith(("pe.", "optim."))
            and (key == "model.size" or not key.startswith("model."))}  # fmt: skip


# ----------------------------------------------------------------------------------------------- tables of one's own

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


def read_table(path: Path, value: str | None = None) -> tuple[str, list[Line]]:
    """A CSV file with a row a run: model, images, seed, and error, accuracy (both shares of 1) or loss.

    `classes` (optional) gives chance, which the m4 form needs; other columns are not read. Every seed of a model must
    be there at every size, once.
    """
    result, rows = _rows(path, value)
    models: dict[str, list[Point]] = {}
    classes: dict[str, set[int]] = {}
    for number, row in rows:
        where = f"file={path} line {number}"
        images = _number(where, "images", row["images"])
        if images < 1 or images != int(images):
            raise DataError(f"{where}: images={row['images']}: a number of images is whole and above 0")
        measured = _number(where, result, row[result])
        if result != "loss" and measured > 1:
            raise DataError(f"{where}: {result}={row[result]}: shares of 1 are wanted (0.12, not 12)")
        model, seed = compare.plain(row["model"].strip()), row["seed"].strip()
        if not model or not seed:
            raise DataError(f"{where}: {'seed' if model else 'model'} is empty")
        point = Point(int(images), seed, 1 - measured if result == "accuracy" else measured, where)
        _check(point, "test_loss" if result == "loss" else "test_error", DataError)
        models.setdefault(model, []).append(point)
        if row.get("classes"):
            classes.setdefault(model, set()).add(int(_number(where, "classes", row["classes"])))
    lines = []
    for model, points in models.items():
        _complete(path, model, points)
        its = classes.get(model, set())
        curve, _ = _curve(
            model, points, "test_loss" if result == "loss" else "test_error", its.pop() if len(its) == 1 else 0
        )
        assert curve is not None
        lines.append(Line({"model": model}, curve))
    return "test_loss" if result == "loss" else "test_error", lines


def _rows(path: Path, value: str | None) -> tuple[str, list[tuple[int, dict[str, str]]]]:
    """Which column is the result, and each row under our names, with its line number."""
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            head = [name.strip() for name in next(reader, [])]
            cells = [(reader.line_num, row) for row in reader if any(row)]
    except OSError as error:
        raise UserError(f"file={path}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"file={path}: no CSV text in UTF-8: {error}") from None
    there = {name: next(alias for alias in aliases if alias in head)
             for name, aliases in COLUMNS.items() if set(aliases) & set(head)}  # fmt: skip
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


def _complete(path: Path, model: str, points: Sequence[Point]) -> None:
    """Refuses rows that are missing or there twice, and too few of them."""
    seen: dict[tuple[Hashable, int], Point] = {}
    for point in points:
        before = seen.setdefault((point.seed, point.n), point)
        if before is not point:
            raise DataError(
                f"{point.source} repeats {before.source.rsplit('line ', 1)[1]}: model={model} images={point.n} seed={point.seed}"
            )
    sizes, seeds = sorted({n for _, n in seen}), dict.fromkeys(seed for seed, _ in seen)
    for seed in seeds:
        for n in sizes:
            if (seed, n) not in seen:
                raise DataError(
                    f"file={path}: no row with model={model} images={n} seed={seed}; every seed needs every size"
                )
    for what, count, least in (("size", len(sizes), SIZES), ("seed", len(seeds), SEEDS)):
        if count < least:
            raise DataError(
                f"file={path}: model={model} has {count} {what}{'s' if count > 1 else ''}; a curve takes {least} or more"
            )


def _number(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise DataError(f"{where}: {column}={compare.plain(text)[:40]} is no number") from None
    if number != number or number in (float("inf"), -float("inf")):
        raise DataError(f"{where}: {column}={text.strip()} is no number")
    return number


def _some(names: Iterable[str]) -> str:
    listed = [compare.plain(name)[:30] or "(no name)" for name in names]
    return ", ".join(listed[:10]) + (f" and {len(listed) - 10} others" if len(listed) > 10 else "") or "none"
