"""What all figures of runs share: a line with its band, axes, the level of chance, and the small print at the foot."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from vitbench.comparing.grouping import Group, comparison_warnings, what_is_shared
from vitbench.comparing.select import Runs
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.inline import Point, describe_points
from vitbench.numbers.setting_words import axis_label, in_words, without_unit
from vitbench.numbers.words import CALIBRATION, is_share, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vitbench.numbers.intervals import Interval

FAR = 0.35  # chance is not drawn if it lies farther from the data than this share of their range


@dataclass(frozen=True)
class PlottedLine:
    """A line of a figure: small points are runs, and markers are the means of groups of runs."""

    label: str  # by its settings as one types them, which tells it from others
    points: list[tuple[float, float]]  # x and y of each run
    means: list[tuple[float, Interval]]  # x and the mean y of each group, in the order in which a line joins them
    across: Sequence[Interval] = ()  # the mean x of each group, if x is an outcome and so has intervals
    words: str = ""  # what the figure calls it, where that is not its label

    @property
    def shown(self) -> str:
        """What the figure calls the line."""
        return self.words or self.label


def draw_line(axes: Axes, line: PlottedLine, i: int, scale: int) -> Any:
    """Draws line i of a figure with its runs and its band; returns what stands for it in a legend."""
    (drawn_means,) = axes.plot(
        [x for x, _ in line.means],
        [scale * mean.mean for _, mean in line.means],
        label=line.shown,
        clip_on=False,
        linewidth=look.points(1.4),
        color=look.colour(i),
        zorder=3,
        **look.marker(i),
    )
    describe_points(drawn_means, values_of(line, scale))
    draw_runs(axes, line, i, scale, zorder=3)
    if line.across:
        _draw_crosses(axes, line, i, scale)
    else:
        _draw_band(axes, line, i, scale)
    return drawn_means


def values_of(line: PlottedLine, scale: int) -> list[Point]:
    """The means of a line as numbers, which a page tells of each marker."""
    return [
        Point(line.shown, x, scale * mean.mean, scale * mean.low, scale * mean.high, mean.n) for x, mean in line.means
    ]


def _draw_band(axes: Axes, line: PlottedLine, i: int, scale: int) -> None:
    """Draws the intervals of a line as a band.

    The band stops at a mean that has no interval. An interval between two such means is drawn as a bar.
    """
    for has_band, neighbours in groupby(line.means, key=lambda point: is_banded(point[1])):
        if not has_band:
            continue
        x, means = zip(*neighbours, strict=True)
        low, high = [scale * mean.low for mean in means], [scale * mean.high for mean in means]
        if len(x) > 1:
            axes.fill_between(x, low, high, color=look.colour(i), alpha=0.13, linewidth=0)
        else:
            axes.vlines(x, low, high, color=look.colour(i), alpha=0.35, linewidth=look.points(1.2))


def _draw_crosses(axes: Axes, line: PlottedLine, i: int, scale: int) -> None:
    """Draws the intervals of means in both directions, as thin bars."""
    bars: dict[str, Any] = {"color": look.colour(i), "alpha": 0.35, "linewidth": look.points(1.0)}
    for (x, mean), across in zip(line.means, line.across, strict=True):
        if is_banded(mean):
            axes.vlines(x, scale * mean.low, scale * mean.high, **bars)
        if is_banded(across):
            axes.hlines(scale * mean.mean, across.low, across.high, **bars)


def draw_runs(
    axes: Axes, line: PlottedLine, i: int, scale: int, zorder: int, offset: float = 0, across: bool = False
) -> None:
    """Draws a small point for each run of line i, moved along x by `offset`; `across`: with x and y exchanged.

    Where each mean is of one run, its marker shows it already.
    """
    if line.means and all(mean.n <= 1 for _, mean in line.means):
        return
    x, y = [x + offset for x, _ in line.points], [scale * y for _, y in line.points]
    if across:
        x, y = y, x
    axes.scatter(x, y, s=look.points(2) ** 2, linewidths=0, color=look.colour(i), zorder=zorder)


def is_banded(mean: Interval) -> bool:
    """Says whether an interval is drawn. That of two runs is not: it is 25 standard errors wide and hides all else."""
    return mean.n > 2 and mean.why is None


def y_limits(lines: Sequence[PlottedLine], y: str, log: bool) -> tuple[float, float]:
    """Makes room for all points, and for bands within reason, because those of three seeds can be very wide."""
    scale = 100 if is_share(y) else 1
    values = [scale * value for line in lines for _, value in line.points]
    means = [mean for line in lines for _, mean in line.means if is_banded(mean)]
    bands = [scale * end for mean in means for end in (mean.low, mean.high)]
    low, high = min(values), max(values)
    if log:
        return max(min([low, *bands]), low / 1.6) / 1.05, min(max([high, *bands]), high * 1.6) * 1.05
    room = (high - low) or abs(high) or 1.0
    bottom = max(min([low, *bands]), low - 0.25 * room) - 0.07 * room
    top = min(max([high, *bands]), high + 0.25 * room) + 0.07 * room
    return (max(bottom, 0.0), min(top, 100.0)) if is_share(y) else (bottom, top)


# -------------------------------------------------------------------------------------------------------------- axes


def scale_axis(
    axes: Axes, letter: str, column: str, values: Sequence[float], log: str, label: str | None = None
) -> None:
    """Gives axis x or y its label, its scale and ticks that one can read; `log` holds the letters of log axes.

    `label` stands under the axis in place of the words for the column, unless it is None.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    axis = getattr(axes, f"{letter}axis")
    write_label(axes, letter, axis_label(column) if label is None else label)
    unnamed: set[float] = set()  # ticks whose numbers would touch others
    if letter in log:
        if min(values) <= 0:
            raise UserError(f"log={log}: {column} is {min(values):g} in a run, which has no place on such an axis")
        getattr(axes, f"set_{letter}scale")("log")
        spread = max(values) / min(values)
        subs = range(1, 10) if spread < 3 else (1, 2, 3, 4, 5, 7) if spread < 5 else (1, 2, 5) if spread < 200 else (1,)
        distinct = sorted(set(values))
        # a few values that stand apart, such as the sizes of a study, get a tick each
        tick_each = letter == "x" and len(distinct) <= 12 and all(b >= 1.1 * a for a, b in pairwise(distinct))
        axis.set_major_locator(FixedLocator(distinct) if tick_each else LogLocator(10, subs=subs))
        if tick_each and len(distinct) == 1:
            axes.set_xlim(distinct[0] / 2, distinct[0] * 2)
        elif tick_each:
            unnamed = _crowded(axes, distinct)
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: "" if value in unnamed else tick_label(value)))


def write_label(axes: Axes, letter: str, label: str) -> None:
    """Writes the label of axis x or y, on as many lines as the side of the axes needs."""
    inches = width_of(axes) if letter == "x" else 0.75 * _height_of(axes)  # a title and a legend still take room
    getattr(axes, f"set_{letter}label")(look.wrapped(label, inches, 9))


def width_of(axes: Axes) -> float:
    """The inches that axes are wide before their labels have taken room."""
    return float(axes.get_position().width * axes.figure.bbox.width / axes.figure.dpi)


def _height_of(axes: Axes) -> float:
    return float(axes.get_position().height * axes.figure.bbox.height / axes.figure.dpi)


def _crowded(axes: Axes, values: Sequence[float]) -> set[float]:
    """Finds the ticks of a logarithmic x axis, from the left, whose numbers would touch the one before them."""
    letter = 0.62 * look.points(9) / 72 / width_of(axes)  # the width of a digit as a share of the axis
    places = [math.log(value / values[0]) / math.log(values[-1] / values[0]) for value in values]
    crowded, end = set(), -math.inf
    for value, place in zip(values, places, strict=True):
        half = len(tick_label(value)) * letter / 2
        if place - half < end:
            crowded.add(value)
        else:
            end = place + half + letter
    return crowded


def tick_label(value: float) -> str:
    """Writes numbers as people write them: 0.5, 1,350, 12M, 2.6e12."""
    size = abs(value)
    if size >= 1e9:
        return f"{value:.3g}".replace("e+", "e")
    if size >= 1e7:
        return f"{value / 1e6:.4g}M"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def chance_level(groups: Sequence[Group], y: str) -> float | None:
    """Returns what guessing gives in percent; None if y is no share, or if runs differ in their number of classes."""
    class_counts = {len(row["classes"]) for group in groups for row in group.rows if row.get("classes")}
    if not is_share(y) or y == CALIBRATION or len(class_counts) != 1:
        return None
    share = min((5 if "_top5_" in y else 1) * 100 / class_counts.pop(), 100)
    return share if y.endswith("_accuracy") else 100 - share


def describe_chance(groups: Sequence[Group], y: str, named: bool = False) -> str:
    """Says what guessing gives, and if `named` of which result; it is empty where that is unknown."""
    level = chance_level(groups, y)
    of_what = f" ({without_unit(axis_label(y))})" if named else ""
    return "" if level is None else f"Guessing would give {level:.3g} %{of_what}."


def draw_chance(axes: Axes, groups: Sequence[Group], y: str, letter: str = "y") -> None:
    """Draws where guessing lands, unless that is far from the data; `letter` is the axis along which y is drawn."""
    level = chance_level(groups, y)
    if level is None:
        return
    limits = getattr(axes, f"get_{letter}lim")()
    is_log = getattr(axes, f"get_{letter}scale")() == "log"
    low, high, at = (math.log(max(end, 1e-3)) if is_log else end for end in (*limits, level))
    if max(low - at, at - high) > FAR * (high - low):
        return
    getattr(axes, f"set_{letter}lim")(min(limits[0], level * 0.9), max(limits[1], min(level * 1.05, 100.0)))
    draw_level = axes.axhline if letter == "y" else axes.axvline
    place = _free_place(axes, level) if letter == "y" else 1.0
    draw_level(level, color=look.current().reference, linewidth=look.points(0.8), linestyle=(0, (1, 2)), zorder=1)
    is_low = y.endswith("_accuracy")  # the word stands on the side of the data
    style: dict[str, Any] = {"fontsize": look.points(7), "color": look.current().soft, "textcoords": "offset points"}
    if place is None:
        return  # the small print says it
    if letter == "x":
        style |= {"ha": "left" if is_low else "right", "va": "bottom"}
        axes.annotate("chance", (level, 0), (2 if is_low else -2, 2), ("data", "axes fraction"), **style)
        return
    style |= {"ha": {0.0: "left", 0.5: "center", 1.0: "right"}[place], "va": "bottom" if is_low else "top"}
    axes.annotate("chance", (place, level), (0, 2 if is_low else -2), ("axes fraction", "data"), **style)


def _free_place(axes: Axes, level: float) -> float | None:
    """Finds where along x the data are farthest from a level of y: at the right, the left or in the middle.

    Returns None where they are near everywhere.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    drawn = [to_axes.transform(line.get_xydata()) for line in axes.get_lines() if np.size(line.get_xydata())]
    at = to_axes.transform((axes.get_xlim()[0], level))[1]

    def clearance(place: float) -> float:
        near = [abs(y - at) for points in drawn for x, y in points.tolist() if abs(x - place) < 0.2]
        return round(min(near, default=1.0), 2)

    place = max((1.0, 0.0, 0.5), key=clearance)
    return place if clearance(place) > 0.03 else None


def draw_diagonal(axes: Axes) -> None:
    """Draws the line on which two accuracies are equal, without a change to the limits of the axes."""
    x, y = axes.get_xlim(), axes.get_ylim()
    axes.axline((0, 0), slope=1, color=look.current().reference, linewidth=look.points(0.8), zorder=1)
    axes.set(xlim=x, ylim=y)
    middle = (max(x[0], y[0]) + min(x[1], y[1])) / 2
    style: dict[str, Any] = {"fontsize": look.points(7), "color": look.current().soft, "ha": "right", "va": "bottom"}
    axes.annotate("equal", (middle, middle), (-4, 4), textcoords="offset points", **style)


# ------------------------------------------------------------------------------------------------------- small print


def foot_text(runs: Runs, groups: Sequence[Group], what: str, notes: Sequence[str], inches: float) -> str:
    """Writes what a reader must know to trust the figure: what is drawn, shared settings, hardware and caveats.

    Its lines fit into so many inches.
    """
    rows = [row for group in groups for row in group.rows]
    machines = {f"{row.get('hardware.name') or '?'}, {row.get('hardware.precision') or '?'}" for row in rows}
    hardware = machines.pop() if len(machines) == 1 else f"{len(machines)} kinds of hardware or precision"
    shared = what_is_shared(groups)
    steps = {"optim.steps": shared.pop("steps")} if "steps" in shared else {}
    in_all = f"All runs: {in_words(shared | steps)}. " if shared or steps else ""
    lines = [f"{what.strip()} {in_all}Hardware: {hardware}.", *comparison_warnings(groups), *runs.notes, *notes]
    return look.wrapped("\n".join(printable(line) for line in lines if line), inches - 0.1, look.SMALL)


def describe_means(counts: Collection[int]) -> str:
    """Says what markers and bands are; `counts` are the seeds of each mean."""
    if max(counts) == 1:
        return "Each marker is one run: there is one seed, so no interval."
    over = count_seeds(counts)
    if max(counts) == 2:
        return f"Markers are means of {over}, small points single runs. Two seeds are too few to draw an interval."
    but = ", except where there are two seeds" if 2 in counts else ""
    return f"Markers are means of {over} with 95 % t intervals{but}; small points are single runs."


def count_seeds(counts: Collection[int]) -> str:
    """Writes one seed, 3 seeds, or 2 to 3 seeds; a mean of no seeds does not count."""
    least, most = min(n for n in counts if n), max(counts)
    return "one seed" if most == 1 else f"{most} seeds" if least == most else f"{least} to {most} seeds"
