"""The panels of a figure of runs: what each draws along its x, and the drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vitbench.comparing import figure
from vitbench.comparing.figure import PlottedLine, draw_line, limits
from vitbench.comparing.grouping import Group, groups_of, lines_along, sort_key
from vitbench.comparing.select import SEED_KEYS, Runs
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.intervals import mean_interval
from vitbench.numbers.words import column_label, is_share, plural, shown_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vitbench.numbers.intervals import Interval


LOG = {"x": "x", "y": "y", "xy": "xy", "none": ""}


DODGE = 0.7  # of the room between two categories, taken by the lines side by side


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    groups: Sequence[Group]
    lines: Sequence[PlottedLine]
    x: str
    y: str
    log: str
    names: Sequence[Any] | None = None  # of categories along x
    swept: bool = False


def _panel(
    runs: Runs,
    x: str | None,
    y: str | None,
    lines: Any,
    log: str | None,
    fit: bool | None,
    at: float | None,
    layer: str | None,
) -> Panel:
    swept = {row["column"] for rows in runs.swept.values() for row in rows}
    y = runs.check("y", y or ("test_error" if fit else "test_accuracy"), {*runs.numbers(), *swept})
    along = _abscissas(runs, y)
    if x in along or (along and y not in runs.numbers()):
        if x not in {*along, None} or fit:
            raise UserError(
                f"y={y}: was measured along {' and '.join(sorted(along))}, which is its x; leave x= and fit= out"
            )
        return _swept_panel(runs, y, x, runs.listed("lines", lines), log, at, layer)
    if at is not None or layer is not None:
        raise UserError(f"at= layer=: choose among what a probe measured along something, and y={y} was not")
    x = x or "train_images"
    if x not in _numeric(runs):
        runs.check("x", x, _numeric(runs) | set(runs.keys))
    wanted = runs.listed("lines", lines)
    groups = groups_of(runs)
    names = None if x in _numeric(runs) else _categories(groups, x)
    log = LOG[runs.check("log", log or ("xy" if fit else "none" if names else "x"), LOG)]
    if names and "x" in log:
        raise UserError(f"log={log}: {x} is no number in every run; choices: none, y")
    drawn = _lines(groups, x, y, wanted, names)
    if not any(line.points for line in drawn):
        raise UserError(f"y={y}: none of {plural(len(runs.rows), 'run')} has both {x} and {y}")
    if len(drawn) > len(look.COLOURS) * len(look.MARKERS):
        raise UserError(f"{len(drawn)} lines are too many to tell apart; choose some with where.KEY=VALUE")
    if fit and x != "train_images":
        raise UserError(f"fit=true x={x}: learning curves are fitted over train_images")
    return Panel(groups, drawn, x, y, log, names)


def _numeric(runs: Runs) -> set[str]:
    """Results and settings that are numbers in every run that has them."""
    found: dict[str, bool] = {}
    for row in runs.rows:
        for key, value in row.items():
            if value is not None:
                found[key] = found.get(key, True) and isinstance(value, int | float) and not isinstance(value, bool)
    return {key for key, numeric in found.items() if numeric} - {*SEED_KEYS}


def _categories(groups: Sequence[Group], x: str) -> list[Any]:
    """The values of a setting that is no number, in the order in which they stand side by side."""
    return sorted({group.settings[x] for group in groups}, key=lambda value: sort_key({x: value}))


def _lines(
    groups: Sequence[Group], x: str, y: str, wanted: Sequence[str], names: Sequence[Any] | None = None
) -> list[PlottedLine]:
    made = []
    scale = 100 if names is None and is_share(x) else 1  # an axis of shares is in %
    for line in lines_along(groups, x, wanted):
        points: list[tuple[float, float]] = []
        means: list[tuple[float, Interval]] = []
        for group in line.groups:
            at = [row.get(x) if names is None else names.index(group.settings[x]) for row in group.rows]
            here = [
                (scale * float(a), float(row[y]))
                for a, row in zip(at, group.rows, strict=True)
                if a is not None and row.get(y) is not None
            ]
            if here:
                points += here
                means.append((mean_interval(at for at, _ in here).mean, mean_interval(value for _, value in here)))
        made.append(PlottedLine(line.name, sorted(points), sorted(means, key=lambda pair: pair[0])))
    return made


def _along(row: Mapping[str, Any]) -> set[str]:
    """What a swept row was measured along: `layer`, or the unit of its abscissa, or both."""
    return ({"layer"} if "layer" in row else set()) | ({row.get("at_unit", "at")} if "at" in row else set())


def _abscissas(runs: Runs, y: str) -> set[str]:
    return {name for rows in runs.swept.values() for row in rows if row["column"] == y for name in _along(row)}


def _swept_panel(
    runs: Runs,
    y: str,
    wanted_x: str | None,
    wanted: Sequence[str],
    log: str | None,
    at: float | None,
    layer: str | None,
) -> Panel:
    """Swept rows against their abscissa, or against the depth of their layer: a line a group of runs."""
    rows = {
        id_: [
            row
            for row in its
            if row["column"] == y
            and (at is None or row.get("at") == at)
            and (layer is None or row.get("layer") == layer)
            and (wanted_x is None or wanted_x in _along(row))
        ]
        for id_, its in runs.swept.items()
    }
    kept = [row for its in rows.values() for row in its]
    for name, asked in {"at": at, "layer": layer}.items():
        if asked is not None and not kept:
            there = {
                f"{row[name]:g}" if name == "at" else row[name]
                for its in runs.swept.values()
                for row in its
                if row["column"] == y and name in row
            }
            raise UserError(f"{name}={asked}: {y} has {', '.join(sorted(there)) or f'no {name}'}")
    along_at = {row["at"] for row in kept if "at" in row}
    along_layer = {row["layer"] for row in kept if "layer" in row}
    if len(along_at) > 1 and len(along_layer) > 1:
        layers = ", ".join(sorted(along_layer)[:8])
        raise UserError(
            f"y={y}: was measured along two things; choose layer=NAME ({layers}, ...) or at=NUMBER "
            f"({', '.join(f'{value:g}' for value in sorted(along_at))})"
        )
    by_layer = len(along_layer) > 1
    if not by_layer and (wanted_x == "layer" or any("at" not in row for row in kept)):
        typed = f"y={y}" if layer is None else f"y={y} layer={layer}"
        raise UserError(
            f"{typed}: is of one layer, {', '.join(along_layer)}, and lies along nothing"
            f"{'' if layer is None else '; leave layer= out'}"
        )
    x = "relative depth of the layer" if by_layer else next((row["at_unit"] for row in kept if "at_unit" in row), "at")
    groups = groups_of(runs)
    drawn = []
    for line in lines_along(groups, x, wanted):
        points = [point for row in line.rows for point in _swept_points(rows.get(row["id"], []), by_layer)]
        places = sorted({place for place, _ in points})
        means = [(place, mean_interval(value for at_, value in points if at_ == place)) for place in places]
        if points:
            drawn.append(PlottedLine(line.name, sorted(points), means))
    if not drawn:
        raise UserError(f"y={y}: no number in any run")
    return Panel(groups, drawn, x, y, LOG[runs.check("log", log or "none", LOG)], swept=True)


def _swept_points(rows: Sequence[Mapping[str, Any]], by_layer: bool) -> list[tuple[float, float]]:
    """(abscissa, value) of one run; layers lie evenly from 0, the first, to 1, the last."""
    places = [i / max(len(rows) - 1, 1) for i in range(len(rows))] if by_layer else [row["at"] for row in rows]
    return [(place, row["value"]) for place, row in zip(places, rows, strict=True) if row["value"] == row["value"]]


def _figure(runs: Runs, panels: Sequence[Panel], title: str, caveat: str) -> Any:
    from matplotlib.figure import Figure

    several = len(panels) > 1
    labels = [*dict.fromkeys(line.label for panel in panels for line in panel.lines if line.points)]  # a look each
    high = max(3.7, 0.8 + 0.19 * len(labels))
    across = 2 if len(panels) == 4 else len(panels)
    down = len(panels) // across
    long_names = 0.07 * max(0, max(map(len, labels)) - 22)  # inches beside the axes
    size = (1.4 + 2.9 * across, 0.6 + 2.8 * down) if several else (6.4, high)
    made = Figure(figsize=(size[0] + long_names, size[1]), layout="constrained")
    handles: dict[str, Any] = {}
    for panel, axes in zip(panels, made.subplots(down, across, squeeze=False).flat, strict=True):
        handles = _draw_panel(axes, panel, labels) | handles
        if several:
            axes.set_title(axes.get_ylabel(), loc="left", fontweight="normal", fontsize=9)
            axes.set_ylabel("")
    if several:
        made.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    else:
        axes.set_title(title, loc="left")
    if named := [name for name in labels if name]:
        shown_as = [f" {name}" if name.startswith("_") else name for name in named]  # which a legend would leave out
        made.legend([handles[name] for name in named], shown_as, loc="outside right upper", frameon=False)
    what = figure.means_of(mean.n for panel in panels for line in panel.lines for _, mean in line.means)
    characters = 125 if not several else 20 + 60 * across
    groups = panels[0].groups
    look.small_print(made, figure.foot(runs, groups, f"{what}; small points: single runs", [caveat], characters))
    return made


def _draw_panel(axes: Axes, panel: Panel, labels: Sequence[str]) -> dict[str, Any]:
    """Returns what stands for each line in the legend."""
    handles: dict[str, Any] = {}
    x, y, log, names = panel.x, panel.y, panel.log, panel.names
    drawn = [line for line in panel.lines if line.points]
    for line in drawn:
        i = labels.index(line.label)
        if names is None:
            handles[line.label] = draw_line(axes, line, i, 100 if is_share(y) else 1)
        else:
            offset = DODGE * ((i + 0.5) / len(labels) - 0.5)
            handles[line.label] = _draw_beside(axes, line, i, offset, 100 if is_share(y) else 1)
    if names is None:
        figure.scale(axes, "x", x, [at for line in drawn for at, _ in line.points], log)
    else:
        _name(axes, names, x)
    figure.scale(axes, "y", y, [value for line in drawn for _, value in line.points], log)
    axes.set_ylim(*limits(drawn, y, "y" in log))
    figure.chance(axes, panel.groups, y)
    if x.endswith("accuracy") and y.endswith("accuracy"):
        figure.diagonal(axes)
    return handles


def _draw_beside(axes: Axes, line: PlottedLine, i: int, offset: float, scale: int) -> Any:
    """Means with error bars, and their runs beside them: between words there is nothing to draw a line through."""
    drawing: dict[str, Any] = {"color": look.colour(i), "zorder": 3}
    at = [place + offset for place, _ in line.means]
    bars = [scale * mean.half if figure.is_banded(mean) else 0.0 for _, mean in line.means]
    drawn = axes.errorbar(
        at,
        [scale * mean.mean for _, mean in line.means],
        bars,
        label=line.label,
        linestyle="none",
        elinewidth=1.2,
        capsize=2.5,
        **look.marker(i),
        **drawing,
    )
    axes.scatter(
        [place + offset for place, _ in line.points],
        [scale * value for _, value in line.points],
        s=4,
        linewidths=0,
        **drawing | {"zorder": 4},
    )
    return drawn


def _name(axes: Axes, names: Sequence[Any], x: str) -> None:
    """Categories along x, turned where they would touch."""
    words = [shown_value(name) for name in names]
    axes.set_xticks(range(len(words)), words)
    if max(map(len, words)) * len(words) > 60:
        for text in axes.get_xticklabels():
            text.set(rotation=25, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(words) - 0.5)
    axes.set_xlabel(column_label(x))
    axes.grid(False, axis="x")
    for between in range(1, len(words)):
        axes.axvline(between - 0.5, color="0.9", linewidth=0.6, zorder=0)
