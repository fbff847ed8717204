"""The learning curves of runs, and the pairs in which they are compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import geometric_mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitbench.comparing.axes import IMAGES, Axis
from vitbench.comparing.certificates import certificates_of
from vitbench.comparing.grouping import LineOfGroups, groups_of, lines_along
from vitbench.comparing.pairing import is_cnn, usual_pairs
from vitbench.comparing.select import Row, Runs
from vitbench.errors import UserError, check_choice, did_you_mean
from vitbench.fitting.limits import Point, Size, sizes_of, without_limits
from vitbench.fitting.references import FEWEST_SEEDS, FEWEST_SIZES, model_key, of_each_model, without_references
from vitbench.numbers.crossover import LEAST_SIZES
from vitbench.numbers.curves import Curve
from vitbench.numbers.words import CALIBRATION, plural, printable

FALLING = ("_error", "_loss")  # results whose names end so fall as images grow


@dataclass(frozen=True)
class CurveOfRuns:
    """A learning curve, the settings that tell it from others, and its runs."""

    settings: Mapping[str, Any]
    curve: Curve  # at all sizes
    rows: Sequence[Row] = ()
    sizes: Sequence[Size] = ()  # what is known of each size

    @property
    def label(self) -> str:
        return self.curve.label

    @cached_property
    def counted(self) -> Curve:
        """The curve at the sizes that count, on which verdicts rest; it may have none."""
        return self.curve.at([size.n for size in self.sizes if size.counts])

    @property
    def is_fitted(self) -> bool:
        """Whether enough sizes count for a fit."""
        return len(self.counted.n) >= LEAST_SIZES

    def in_form(self, form: str) -> CurveOfRuns:
        """Returns the same curve, fitted in this form."""
        return replace(self, curve=replace(self.curve, form=form))


def check_falling(runs: Runs, value: str, setting: str = "value") -> str:
    """Returns the result that was typed for a setting; raises UserError where no curve can be fitted to it."""
    falling = [column for column in runs.numbers() if column.endswith(FALLING) and column != CALIBRATION]
    if value not in falling and value in runs.numbers():
        raise UserError(f"{setting}={value}: a curve is fitted to an error or a loss; choices: {', '.join(falling)}")
    return check_choice(setting, value, falling)


def lines_of(
    runs: Runs,
    value: str,
    first: Sequence[str] = (),
    source: Callable[[Row], str] | None = None,
    error: type[UserError] = UserError,
    axis: Axis = IMAGES,
) -> tuple[list[CurveOfRuns], list[str]]:
    """Makes the curves of these runs, and a note for each seed, size or curve that is left out.

    `first` are settings that name a curve even where they do not vary; `source` names a run for an error line, and
    `error` is raised
    where two runs are one, or a value is none that a curve takes.
    """
    name = source or _name_run
    along_images = axis is IMAGES
    curve_runs = without_references(runs) if along_images else runs
    of_model = of_each_model(runs)
    certificates = {
        run_id: Point(row["train_images"], row["seed"], row[value], "", row.get("samples_seen"))
        for run_id, row in certificates_of(runs).items()
        if row.get(value) is not None
    }
    lines: list[CurveOfRuns] = []
    notes: list[str] = []
    run_lines = lines_along(groups_of(curve_runs), axis.column, first, otherwise=["model"])
    for line in run_lines:
        class_counts = {len(row.get("classes") or ()) for row in line.rows}
        classes = class_counts.pop() if len(class_counts) == 1 else 0
        points = _points_along(line, value, axis, name)
        curve, left_out = curve_of(line.name, points, value, classes, error, axis)
        notes.extend(f"{line.name}: {note}" for note in left_out)
        if curve is None:
            continue
        sizes = without_limits(curve)
        if along_images:
            own = {row["id"] for row in line.rows}
            others = [row for row in of_model[model_key(runs, line.rows[0])] if row["id"] not in own]
            references = filter(None, (_point(row, value, axis, name) for row in others))
            of_source = {name(row): certificates[row["id"]] for row in line.rows if row["id"] in certificates}
            sizes = sizes_of(curve, points, references, of_source)
        lines.append(CurveOfRuns(line.settings, curve, line.rows, sizes))
    if not lines:
        raise UserError("; ".join(printable(note) for note in notes[:2]) + f" ({len(run_lines)} curves, none to fit)")
    return lines, notes


def _name_run(row: Row) -> str:
    return f"run {row['id']}"


def _points_along(line: LineOfGroups, value: str, axis: Axis, source: Callable[[Row], str]) -> list[Point]:
    """The runs of a line as points. Seeds that cost a little more or less stand at one place, their geometric mean."""
    points = []
    for group in line.groups:
        of_group = [*filter(None, (_point(row, value, axis, source) for row in group.rows))]
        places = {point.n for point in of_group}
        points += [replace(point, n=geometric_mean(places)) for point in of_group] if len(places) > 1 else of_group
    return points


def _point(row: Row, value: str, axis: Axis, source: Callable[[Row], str]) -> Point | None:
    """A run as a point; None where it has no result, or its record does not say where on the axis it stands."""
    if row.get(value) is None or not row.get(axis.column):
        return None
    seed = (row.get("data.subset_seed"), row["seed"])
    trained = _trained(row, value)
    of_images = row.get("test_images")
    return Point(float(row[axis.column]), seed, row[value], source(row), row.get("samples_seen"), *trained, of_images)


def _trained(row: Row, value: str) -> tuple[float | None, float | None]:
    """The value on images that the run was trained on, and the test's value minus that.

    Records of before there was `train_eval_loss` have the loss of the last batches, as augmented and smoothed as they
    were: their gap is one of the loss, and smaller than that of images seen as test images are.
    """
    trained = row.get({"test_error": "train_eval_error", "test_loss": "train_eval_loss"}.get(value, ""))
    if trained is not None:
        return trained, row[value] - trained
    loss, of_batches = row.get("test_loss"), row.get("train_loss")
    if value not in ("test_error", "test_loss") or loss is None or of_batches is None:
        return None, None
    return None, loss - of_batches


def curve_of(
    label: str,
    points: Sequence[Point],
    value: str,
    classes: int,
    error: type[UserError] = UserError,
    axis: Axis = IMAGES,
) -> tuple[Curve | None, list[str]]:
    """Makes a curve that has each seed at each size, if enough are left, and notes on what is left out.

    Sizes that have only one seed are left out first, and then seeds that lack a size. An error of 0 has no logarithm:
    it counts as half a test image, or where nobody knows how many there are, as half of the curve's smallest above 0.
    """
    by_seed: dict[Hashable, dict[float, Point]] = {}
    for point in points:
        check_point(point, value, error, axis)
        first = by_seed.setdefault(point.seed, {}).setdefault(point.n, point)
        if first is not point:
            raise error(
                f"{point.source} repeats {first.source}: same settings, seed and {point.n:,.0f} {axis.unit}; keep one"
            )
    places = sorted({point.n for point in points})
    counts = {n: sum(n in by_size for by_size in by_seed.values()) for n in places}
    sizes = [n for n, count in counts.items() if count >= FEWEST_SEEDS]
    seeds = sorted((seed for seed, by_size in by_seed.items() if by_size.keys() >= set(sizes)), key=_seed_order)
    if counts and not sizes:
        return None, [f"one seed; a curve takes {FEWEST_SEEDS} or more"]
    if len(sizes) < FEWEST_SIZES:
        return None, [f"{plural(len(sizes), 'size')} of {axis.heading}; a curve takes {FEWEST_SIZES} or more"]
    if len(seeds) < FEWEST_SEEDS:
        complete = f"{len(seeds)} of {len(by_seed)} seeds have all {len(sizes)} sizes"
        return None, [f"{complete}; a curve takes {FEWEST_SEEDS} or more"]
    notes = [f"{n:,.0f} {axis.unit} are left out, they have one seed" for n in counts if n not in sizes]
    for seed, by_size in by_seed.items():
        if seed not in seeds:
            lacking = f"it lacks {len(set(sizes) - by_size.keys())} of the {len(sizes)} sizes"
            notes.append(f"seed {seed[1] if isinstance(seed, tuple) else seed} is left out, {lacking}")
    errors = np.array([[by_seed[seed][n].value for n in sizes] for seed in seeds], float)
    chance = math.nan if classes < 2 else math.log(classes) if value.endswith("_loss") else 1 - 1 / classes
    curve = Curve(label, np.array(sizes, float), errors, tuple(seeds), chance)
    if errors.all():
        return curve, notes
    if not errors.any():
        return None, [f"its {value} is 0 everywhere: nothing is left to fit"]
    least, what = _half_an_image(points, value, errors)
    runs = plural(int((errors == 0).sum()), "run")
    notes.append(
        f"{runs} of {errors.size} {'has' if runs == '1 run' else 'have'} a {value} of 0, which has no"
        f" logarithm; in fits it counts as {what} ({least:.2g})"
    )
    return replace(curve, least=least), notes


def _half_an_image(points: Sequence[Point], value: str, errors: NDArray[np.float64]) -> tuple[float, str]:
    """What an error of 0 counts as in a fit, and its name."""
    smallest = float(errors[errors > 0].min())
    tested = {point.test_images for point in points}
    images = tested.pop() if len(tested) == 1 else None
    if images and value.endswith("_error") and 1 / images <= smallest:
        return 0.5 / images, f"half of one of {images:,} test images"
    return smallest / 2, "half of the smallest of the curve"


def _seed_order(seed: Any) -> tuple[Any, ...]:
    """Sorts None first, then numbers by size and words by letter."""
    if isinstance(seed, tuple):
        return tuple(_seed_order(part) for part in seed)
    return (0, 0, "") if seed is None else (1, seed, "") if isinstance(seed, int | float) else (2, 0, str(seed))


def check_point(point: Point, value: str, error: type[UserError], axis: Axis = IMAGES) -> None:
    """Raises `error` where a value is no error or loss, or an error rate of 1, which nothing has that learned."""
    if not 0 <= point.value < float("inf") or (value.endswith("_error") and point.value >= 1):
        allowed = "below 1 and not below 0" if value.endswith("_error") else "that are not below 0"
        place = f"{point.n:,.0f} {axis.unit}"
        raise error(f"{point.source}: {value} is {point.value:g} with {place}; a curve takes values {allowed}")


def pairs(lines: Sequence[CurveOfRuns], against: str | None = None) -> list[tuple[CurveOfRuns, CurveOfRuns]]:
    """Chooses the curves to compare; the second of a pair is the reference.

    With `against` it is the curve of that label, and otherwise they are the usual pairs.
    """
    labels = [line.label for line in lines]
    if against is not None:
        if against not in labels:
            raise UserError(f"against={against}: {did_you_mean(against, labels)}")
        reference = lines[labels.index(against)]
        return [(line, reference) for line in lines if line is not reference]
    return usual_pairs(lines)


def main_pairs(lines: Sequence[CurveOfRuns]) -> list[tuple[CurveOfRuns, CurveOfRuns]]:
    """Chooses the pairs with a CNN, if there is one, because a figure has no room for all pairs."""
    chosen, cnns = pairs(lines), {line.label for line in lines if is_cnn(line)}
    return [pair for pair in chosen if pair[1].label in cnns] or chosen
