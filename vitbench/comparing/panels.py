"""The panels of a figure of runs: which lines each of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vitbench.comparing.axes import AXIS_OF_COLUMN
from vitbench.comparing.degenerate import without_degenerate
from vitbench.comparing.figure import PlottedLine
from vitbench.comparing.grouping import Group, LineOfGroups, groups_of, lines_along, path_of, sort_key
from vitbench.comparing.select import SEED_KEYS, Row, Runs
from vitbench.errors import UserError, check_choice
from vitbench.numbers import look
from vitbench.numbers.intervals import mean_interval
from vitbench.numbers.setting_words import DEPTH, in_words, swept_label
from vitbench.numbers.words import is_number, is_share, plural

if TYPE_CHECKING:
    from vitbench.numbers.intervals import Interval

LOG_AXES = {"x": "x", "y": "y", "xy": "xy", "none": ""}  # from what one types to the axes that are logarithmic


@dataclass(frozen=True)
class Panel:
    """One pair of axes and the lines to draw in it."""

    groups: Sequence[Group]
    lines: Sequence[PlottedLine]
    x: str
    y: str
    log: str  # the axes that are logarithmic: x, y, xy, or empty
    categories: Sequence[Any] | None = None  # the values along x, where they are no numbers
    x_label: str = ""  # what stands under the axis, where it is not the word for x
    path: str | None = None  # if x is an outcome: the result that grows along a line
    notes: Sequence[str] = ()  # say which runs are left out


def build_panel(
    runs: Runs,
    *,
    x: str | None,
    y: str | None,
    lines: Any,
    log: str | None,
    fit: bool | None,
    at: float | None,
    layer: str | None,
    degenerate: bool = False,
) -> Panel:
    """Builds the panel that was asked for; raises UserError where there is nothing to draw.

    What a probe measured of a degenerate network is left out unless `degenerate` asks for it.
    """
    [y], _ = runs.measured("y", [y or ("test_error" if fit else "test_accuracy")], runs.swept_columns)
    runs, notes = (runs, []) if degenerate else without_degenerate(runs, y, "; degenerate=true draws them")
    abscissas = swept_abscissas(runs, y)
    if x in abscissas or (abscissas and y not in runs.numbers()):
        if x not in {*abscissas, None} or fit:
            raise UserError(
                f"y={y}: was measured along {' and '.join(sorted(abscissas))}, which is its x; leave x= and fit= out"
            )
        panel = _build_swept_panel(runs, y, x, runs.listed("lines", lines), log, at, layer)
        return replace(panel, notes=notes)
    if at is not None or layer is not None:
        raise UserError(f"at= layer=: choose among what a probe measured along something, and y={y} was not")
    groups = groups_of(runs)
    x = x or "train_images"
    if x == "data.fraction" and _has_one_size(groups):
        x = "train_images"  # people read numbers of images and not shares of a set
    numeric = numeric_columns(runs)
    if x not in numeric:
        check_choice("x", x, numeric | {*runs.keys})
    first_keys = runs.listed("lines", lines)
    categories = None if x in numeric else categories_along(groups, x)
    path = path_of(groups, [x, y], first_keys) if x.endswith("accuracy") else None
    usual_log = "xy" if fit else "none" if categories or path else "x"
    log = LOG_AXES[check_choice("log", log or usual_log, LOG_AXES)]
    if categories and "x" in log:
        raise UserError(f"log={log}: {x} is no number in every run; choices: none, y")
    plotted = plotted_lines(groups, x, y, first_keys, categories, path)
    if not any(line.points for line in plotted):
        raise UserError(f"y={y}: none of {plural(len(runs.rows), 'run')} has both {x} and {y}")
    if len(plotted) > len(look.COLOURS) * len(look.MARKERS):
        raise UserError(f"{len(plotted)} lines are too many to tell apart; choose some with where.KEY=VALUE")
    if fit and x not in AXIS_OF_COLUMN:
        raise UserError(f"fit=true x={x}: curves are fitted along {', '.join(AXIS_OF_COLUMN)}")
    return Panel(groups, plotted, x, y, log, categories, path=path, notes=notes)


def numeric_columns(runs: Runs) -> set[str]:
    """Finds the results and settings that are numbers in every run that has them; seeds are not among them."""
    numeric: dict[str, bool] = {}
    for row in runs.rows:
        for key, value in row.items():
            if value is not None:
                numeric[key] = numeric.get(key, True) and is_number(value)
    return {key for key, all_numbers in numeric.items() if all_numbers} - {*SEED_KEYS}


def categories_along(groups: Sequence[Group], x: str) -> list[Any]:
    """Lists the values of a setting that is no number, in the order in which they stand side by side."""
    return sorted({group.settings[x] for group in groups}, key=lambda value: sort_key({x: value}))


def plotted_lines(
    groups: Sequence[Group],
    x: str,
    y: str,
    first_keys: Sequence[str],
    categories: Sequence[Any] | None = None,
    path: str | None = None,
) -> list[PlottedLine]:
    """Makes the lines of y along x; `first_keys` are always in their labels.

    If x has categories, the x of a point is the place of its category. A line joins its groups in the order of x. If x
    is an outcome, a line may have a `path`, a result such as train_images, and joins its groups in the order of that.
    """
    has_spread = categories is None and x.endswith("accuracy")
    scale = 100 if categories is None and is_share(x) else 1  # an axis of shares is in percent
    plotted = []
    for line in lines_along(groups, path or x, first_keys):
        points: list[tuple[float, float]] = []
        means: list[tuple[float, Interval, Interval]] = []  # what orders the groups, their x and their y
        for group in line.groups:
            xs = [row.get(x) if categories is None else categories.index(group.settings[x]) for row in group.rows]
            group_points = [
                (scale * float(at), float(row[y]))
                for at, row in zip(xs, group.rows, strict=True)
                if at is not None and row.get(y) is not None
            ]
            if group_points:
                points += group_points
                across, mean = map(mean_interval, zip(*group_points, strict=True))
                means.append((group.interval(path).mean if path else across.mean, across, mean))
        means.sort(key=lambda mean: mean[0])
        by_x = [(across.mean, mean) for _, across, mean in means]
        intervals = [across for _, across, _ in means] if has_spread else ()
        plotted.append(PlottedLine(line.name, sorted(points), by_x, intervals, _words_of(line)))
    return plotted


def _words_of(line: LineOfGroups) -> str:
    """Names a line in words; a share of images becomes their number, if all groups of the line have the same."""
    if "data.fraction" not in line.settings or not _has_one_size(line.groups):
        return in_words(line.settings)
    images = line.rows[0].get("train_images")
    renamed = {("train_images" if key == "data.fraction" else key): value for key, value in line.settings.items()}
    return in_words(renamed | {"train_images": images})


def _has_one_size(groups: Sequence[Group]) -> bool:
    """Whether all runs of one share of the images have the same number of training images."""
    sizes: dict[Any, set[Any]] = {}
    for group in groups:
        sizes.setdefault(group.settings.get("data.fraction"), set()).update(
            row.get("train_images") for row in group.rows
        )
    return all(len(its) == 1 and None not in its for its in sizes.values())


# ----------------------------------------------------------------------------- what a probe measured along something


def swept_abscissas(runs: Runs, y: str) -> set[str]:
    """Finds what a probe measured y along: layers, the unit of another abscissa, or both."""
    return {
        abscissa for rows in runs.swept.values() for row in rows if row["column"] == y for abscissa in _abscissas(row)
    }


def _abscissas(row: Row) -> set[str]:
    return ({"layer"} if "layer" in row else set()) | ({row.get("at_unit", "at")} if "at" in row else set())


def _build_swept_panel(
    runs: Runs, y: str, x: str | None, first_keys: Sequence[str], log: str | None, at: float | None, layer: str | None
) -> Panel:
    """Builds a panel of swept rows along their abscissa, or along the depth of their layers."""
    rows_by_run = _choose_swept_rows(runs, y, x, at, layer)
    chosen_rows = [row for rows in rows_by_run.values() for row in rows]
    places = {row["at"] for row in chosen_rows if "at" in row}
    layers = {row["layer"] for row in chosen_rows if "layer" in row}
    if len(places) > 1 and len(layers) > 1:
        raise UserError(
            f"y={y}: was measured along two things; choose layer=NAME ({', '.join(sorted(layers)[:8])}, ...) or "
            f"at=NUMBER ({', '.join(f'{place:g}' for place in sorted(places))})"
        )
    by_layer = len(layers) > 1
    if not by_layer and (x == "layer" or any("at" not in row for row in chosen_rows)):
        typed, hint = (f"y={y}", "") if layer is None else (f"y={y} layer={layer}", "; leave layer= out")
        raise UserError(f"{typed}: is of one layer, {', '.join(layers)}, and lies along nothing{hint}")
    x = "layer" if by_layer else next((row["at_unit"] for row in chosen_rows if "at_unit" in row), "at")
    groups = groups_of(runs)
    plotted = []
    for line in lines_along(groups, x, first_keys):
        points = [point for row in line.rows for point in _swept_points(rows_by_run.get(row["id"], []), by_layer)]
        values_at: dict[float, list[float]] = {}
        for place, value in points:
            values_at.setdefault(place, []).append(value)
        if points:
            means = [(place, mean_interval(values)) for place, values in sorted(values_at.items())]
            plotted.append(PlottedLine(line.name, sorted(points), means, words=_words_of(line)))
    if not plotted:
        raise UserError(f"y={y}: no number in any run")
    log = LOG_AXES[check_choice("log", log or "none", LOG_AXES)]
    return Panel(groups, plotted, x, y, log, x_label=DEPTH if by_layer else swept_label(y, x))


def _choose_swept_rows(runs: Runs, y: str, x: str | None, at: float | None, layer: str | None) -> dict[str, list[Row]]:
    """Keeps, by run, the swept rows that were asked for; raises UserError where y has no such place or layer."""
    wanted = {key: value for key, value in {"at": at, "layer": layer}.items() if value is not None}
    rows_of_y = {run_id: [row for row in rows if row["column"] == y] for run_id, rows in runs.swept.items()}

    def is_wanted(row: Row) -> bool:
        return all(row.get(key) == value for key, value in wanted.items()) and (x is None or x in _abscissas(row))

    chosen = {run_id: [row for row in rows if is_wanted(row)] for run_id, rows in rows_of_y.items()}
    for key, value in wanted.items():
        if not any(chosen.values()):
            known = {row[key] for rows in rows_of_y.values() for row in rows if key in row}
            words = sorted({f"{known_value:g}" if key == "at" else known_value for known_value in known})
            raise UserError(f"{key}={value}: {y} has {', '.join(words) or f'no {key}'}")
    return chosen


def _swept_points(rows: Sequence[Row], by_layer: bool) -> list[tuple[float, float]]:
    """Returns (abscissa, value) of one run's rows; layers lie evenly between 0, the first, and 1, the last."""
    places = [i / max(len(rows) - 1, 1) for i in range(len(rows))] if by_layer else [row["at"] for row in rows]
    return [(place, row["value"]) for place, row in zip(places, rows, strict=True) if row["value"] == row["value"]]
