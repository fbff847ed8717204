"""What all figures of runs share: a line with its band, axes, the level of chance, and the small print at the foot."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

from vitbench.comparing.grouping import Group, comparison_warnings, shared_settings
from vitbench.comparing.select import Runs
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.inline import Point, describe_points
from vitbench.numbers.words import CALIBRATION, column_label, is_share, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vitbench.numbers.intervals import Interval

DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2, 2, 2, 2, 2)))
ANNOTATION: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": 7, "color": "0.35"}


@dataclass(frozen=True)
class PlottedLine:
    """A line of a figure: small points are runs, and markers are the means of groups of runs."""

    label: str
    points: list[tuple[float, float]]  # x and y of each run
    means: list[tuple[float, Interval]]  # x and the mean y of each group, in the order in which a line joins them
    across: Sequence[Interval] = ()  # the mean x of each group, where x is an outcome, too, and has an interval


def draw_line(axes: Axes, line: PlottedLine, i: int, scale: int) -> Any:
    """Draws line i of a figure with its runs and its band; returns what stands for it in a legend."""
    (drawn_means,) = axes.plot(
        [x for x, _ in line.means],
        [scale * mean.mean for _, mean in line.means],
        label=line.label,
        clip_on=False,
        linestyle=DASHES[i % len(DASHES)],
        linewidth=1.4,
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
    """The means of a line as numbers, for whoever reads the figure on a page."""
    return [
        Point(line.label, x, scale * mean.mean, scale * mean.low, scale * mean.high, mean.n) for x, mean in line.means
    ]


def _draw_band(axes: Axes, line: PlottedLine, i: int, scale: int) -> None:
    """Draws the intervals of a line as bands, which stop at a mean without one; one that stands alone is a bar."""
    for has_band, neighbours in groupby(line.means, key=lambda point: is_banded(point[1])):
        if not has_band:
            continue
        x, means = zip(*neighbours, strict=True)
        low, high = [scale * mean.low for mean in means], [scale * mean.high for mean in means]
        if len(x) > 1:
            axes.fill_between(x, low, high, color=look.colour(i), alpha=0.13, linewidth=0)
        else:
            axes.vlines(x, low, high, color=look.colour(i), alpha=0.35, linewidth=1.2)


def _draw_crosses(axes: Axes, line: PlottedLine, i: int, scale: int) -> None:
    """Draws the intervals of means in both directions, as thin bars."""
    bars: dict[str, Any] = {"color": look.colour(i), "alpha": 0.35, "linewidth": 1.0}
    for (x, mean), across in zip(line.means, line.across, strict=True):
        if is_banded(mean):
            axes.vlines(x, scale * mean.low, scale * mean.high, **bars)
        if is_banded(across):
            axes.hlines(scale * mean.mean, across.low, across.high, **bars)


def draw_runs(
    axes: Axes, line: PlottedLine, i: int, scale: int, zorder: int, offset: float = 0, across: bool = False
) -> None:
    """Draws a small point for each run of line i, moved along x by `offset`; `across`: with x and y exchanged."""
    x, y = [x + offset for x, _ in line.points], [scale * y for _, y in line.points]
    if across:
        x, y = y, x
    axes.scatter(x, y, s=4, linewidths=0, color=look.colour(i), zorder=zorder)


def is_banded(mean: Interval) -> bool:
    """Says whether an interval is drawn; that of two runs would hide all else, as it is 25 standard errors wide."""
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


def scale_axis(axes: Axes, letter: str, column: str, values: Sequence[float], log: str) -> None:
    """Gives axis x or y its label, its scale and ticks that one can read; `log` holds the letters of log axes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    axis = getattr(axes, f"{letter}axis")
    getattr(axes, f"set_{letter}label")(column_label(column))
    if letter in log:
        if min(values) <= 0:
            raise UserError(f"log={log}: {column} is {min(values):g} in a run, which has no place on such an axis")
        getattr(axes, f"set_{letter}scale")("log")
        spread = max(values) / min(values)
        subs = range(1, 10) if spread < 3 else (1, 2, 3, 4, 5, 7) if spread < 5 else (1, 2, 5) if spread < 200 else (1,)
        distinct = sorted(set(values))
        # a few values that stand apart, such as the sizes of a study, get a tick each
        tick_each = letter == "x" and len(distinct) <= 8 and all(b >= 1.3 * a for a, b in pairwise(distinct))
        axis.set_major_locator(FixedLocator(distinct) if tick_each else LogLocator(10, subs=subs))
        if tick_each and len(distinct) == 1:
            axes.set_xlim(distinct[0] / 2, distinct[0] * 2)
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))


def tick_label(value: float) -> str:
    """Writes numbers as one says them: 100, 1k, 2.5k, 1M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def draw_chance(axes: Axes, groups: Sequence[Group], y: str, letter: str = "y") -> None:
    """Draws where guessing lands if all runs have one number of classes; far from the lines it is only written.

    `letter` is the axis along which y is drawn.
    """
    class_counts = {len(row["classes"]) for group in groups for row in group.rows if row.get("classes")}
    if not is_share(y) or y == CALIBRATION or len(class_counts) != 1:
        return
    share = min((5 if "_top5_" in y else 1) * 100 / class_counts.pop(), 100)
    rises = y.endswith("_accuracy")  # the word stands on the side of the lines
    level, side = (share, 1) if rises else (100 - share, -1)
    upright = letter == "y"
    placed: dict[str, Any] = ANNOTATION | {"va": "bottom" if rises or not upright else "top"}
    if not upright:
        placed |= {"ha": "left" if rises else "right"}
    low, high = getattr(axes, f"get_{letter}lim")()
    if getattr(axes, f"get_{letter}scale")() == "linear" and max(low - level, level - high) > high - low:
        corner = (1, 0 if rises else 1) if upright else (0 if rises else 1, 0)
        offset = (-2, 3 * side) if upright else (3 * side, 2)
        axes.annotate(f"chance: {level:.3g} %", corner, xycoords="axes fraction", xytext=offset, **placed)
        return
    getattr(axes, f"set_{letter}lim")(min(low, level * 0.9), max(high, min(level * 1.05, 100.0)))
    draw_line = axes.axhline if upright else axes.axvline
    draw_line(level, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    if upright:
        axes.annotate("chance", (1, level), xycoords=("axes fraction", "data"), xytext=(-2, 2 * side), **placed)
    else:
        axes.annotate("chance", (level, 0), xycoords=("data", "axes fraction"), xytext=(2 * side, 2), **placed)


def draw_diagonal(axes: Axes) -> None:
    """Draws the line on which two accuracies are equal, without a change to the limits of the axes."""
    x, y = axes.get_xlim(), axes.get_ylim()
    axes.axline((0, 0), slope=1, color="0.45", linewidth=0.8, linestyle=(0, (5, 2)), zorder=1)
    axes.set(xlim=x, ylim=y)
    middle = (max(x[0], y[0]) + min(x[1], y[1])) / 2
    axes.annotate("equal", (middle, middle), xytext=(-4, 4), va="bottom", **ANNOTATION)


# ------------------------------------------------------------------------------------------------------- small print


def foot_text(runs: Runs, groups: Sequence[Group], what: str, notes: Sequence[str], characters: int) -> str:
    """Writes what a reader must know to trust the figure: what is drawn, shared settings, hardware and caveats."""
    rows = [row for group in groups for row in group.rows]
    machines = {f"{row.get('hardware.name') or '?'} {row.get('hardware.precision') or '?'}" for row in rows}
    hardware = machines.pop() if len(machines) == 1 else f"{len(machines)} kinds of hardware or precision"
    lines = [f"{what}; {shared_settings(groups)}; {hardware}", *comparison_warnings(groups), *runs.notes, *notes]
    return "\n".join(part for line in lines for part in textwrap.wrap(printable(line), characters))


def describe_means(counts: Collection[int]) -> str:
    """Says what markers and bands are; `counts` are the seeds of each mean."""
    if max(counts) == 1:
        return "one seed, no interval"
    over = count_seeds(counts)
    if max(counts) == 2:
        return f"mean over {over}, of which no interval is drawn: it reaches 12.7 standard errors to either side"
    return f"mean and 95 % t interval over {over}" + (", not drawn of two" if 2 in counts else "")


def count_seeds(counts: Collection[int]) -> str:
    """Writes one seed, 3 seeds, or 2 to 3 seeds; a mean of no seeds does not count."""
    least, most = min(n for n in counts if n), max(counts)
    return "one seed" if most == 1 else f"{most} seeds" if least == most else f"{least} to {most} seeds"
