"""What figures of runs share: axes, the line of chance, a line with its band, small print."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vitbench.comparing.grouping import Group, comparison_warnings, shared_settings
from vitbench.comparing.select import Runs
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.words import column_label, is_share, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vitbench.numbers.intervals import Interval


def scale(axes: Axes, letter: str, column: str, values: Sequence[float], log: str) -> None:
    """One axis (x or y): its label, its scale and ticks that one can read."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    axis = getattr(axes, f"{letter}axis")
    getattr(axes, f"set_{letter}label")(column_label(column))
    if letter in log:
        if min(values) <= 0:
            raise UserError(f"log={log}: {column} is {min(values):g} in a run, which has no place on such an axis")
        getattr(axes, f"set_{letter}scale")("log")
        spread = max(values) / min(values)
        subs = range(1, 10) if spread < 3 else (1, 2, 3, 4, 5, 7) if spread < 5 else (1, 2, 5) if spread < 200 else (1,)
        sizes = sorted(set(values))
        few = letter == "x" and len(sizes) <= 8 and all(b >= 1.3 * a for a, b in pairwise(sizes))
        axis.set_major_locator(FixedLocator(sizes) if few else LogLocator(10, subs=subs))
        if few and len(sizes) == 1:
            axes.set_xlim(sizes[0] / 2, sizes[0] * 2)
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def tick(value: float) -> str:
    """100, 1k, 2.5k, 1M: numbers as one says them."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def chance(axes: Axes, groups: Sequence[Group], y: str) -> None:
    """Where guessing lands, if all runs have as many classes; a word where it would squeeze the lines."""
    classes = {len(row["classes"]) for group in groups for row in group.rows if row.get("classes")}
    if not is_share(y) or len(classes) != 1:
        return
    share = 100 / classes.pop()
    above = y.endswith("_accuracy")  # where the word stands: on the side where the lines are
    level = share if above else 100 - share
    low, high = axes.get_ylim()
    if axes.get_yscale() == "linear" and max(low - level, level - high) > high - low:
        axes.annotate(
            f"chance: {level:.3g} %",
            (1, 0 if above else 1),
            xycoords="axes fraction",
            textcoords="offset points",
            xytext=(-2, 3 if above else -3),
            ha="right",
            va="bottom" if above else "top",
            fontsize=7,
            color="0.35",
        )
        return
    axes.set_ylim(min(low, level * 0.9), max(high, min(level * 1.05, 100.0)))
    axes.axhline(level, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        "chance",
        (1, level),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        xytext=(-2, 2 if above else -2),
        ha="right",
        va="bottom" if above else "top",
        fontsize=7,
        color="0.35",
    )


def diagonal(axes: Axes) -> None:
    """Where both accuracies are the same; the axes keep their limits."""
    x, y = axes.get_xlim(), axes.get_ylim()
    axes.axline((0, 0), slope=1, color="0.45", linewidth=0.8, linestyle=(0, (5, 2)), zorder=1)
    axes.set(xlim=x, ylim=y)
    middle = (max(x[0], y[0]) + min(x[1], y[1])) / 2
    axes.annotate(
        "equal",
        (middle, middle),
        textcoords="offset points",
        xytext=(-4, 4),
        ha="right",
        va="bottom",
        fontsize=7,
        color="0.35",
    )


def seeds(counts: Iterable[int]) -> tuple[str, bool]:
    """3 seeds, 2 to 3 seeds, one seed; and whether there are several."""
    ns = sorted({n for n in counts if n})
    several = ns[-1] > 1
    return ("one seed" if not several else f"{ns[0]} seeds" if len(ns) == 1 else f"{ns[0]} to {ns[-1]} seeds"), several


def is_banded(mean: Interval) -> bool:
    """Whether an interval is drawn: that of two runs, 12.7 standard errors to either side, would hide all else."""
    return mean.n > 2 and mean.why is None


def means_of(counts: Iterable[int]) -> str:
    """What points and bands are, for the small print."""
    counts = [*counts]
    over, several = seeds(counts)
    if not several:
        return "one seed, no interval"
    if max(counts) == 2:
        return f"mean over {over}, of which no interval is drawn: it reaches 12.7 standard errors to either side"
    return f"mean and 95 % t interval over {over}" + (", not drawn of two" if 2 in counts else "")


def foot(runs: Runs, groups: Sequence[Group], what: str, notes: Sequence[str], characters: int) -> str:
    """What a reader must know to trust the figure, in small print: what is drawn, settings, hardware, caveats."""
    machines = sorted(
        {
            " ".join(str(row.get(f"hardware.{key}") or "?") for key in ("name", "precision"))
            for group in groups
            for row in group.rows
        }
    )
    hardware = machines[0] if len(machines) == 1 else f"{len(machines)} kinds of hardware or precision"
    lines = [f"{what}; {shared_settings(groups)}; {hardware}", *comparison_warnings(groups), *runs.notes, *notes]
    return "\n".join(part for line in lines for part in textwrap.wrap(printable(line), characters))


DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2, 2, 2, 2, 2)))


@dataclass(frozen=True)
class PlottedLine:
    label: str
    points: list[tuple[float, float]]  # a run each
    means: list[tuple[float, Interval]]  # a group each, by x


def draw_line(axes: Axes, line: PlottedLine, i: int, scale: int) -> Any:
    drawing: dict[str, Any] = {"color": look.colour(i), "zorder": 3}
    (drawn,) = axes.plot(
        [at for at, _ in line.means],
        [scale * mean.mean for _, mean in line.means],
        label=line.label,
        clip_on=False,
        linestyle=DASHES[i % len(DASHES)],
        linewidth=1.4,
        **look.marker(i),
        **drawing,
    )
    axes.scatter(
        [at for at, _ in line.points], [scale * value for _, value in line.points], s=4, linewidths=0, **drawing
    )
    banded = [(at, mean) for at, mean in line.means if is_banded(mean)]
    if banded:
        low, high = [scale * mean.low for _, mean in banded], [scale * mean.high for _, mean in banded]
        axes.fill_between([at for at, _ in banded], low, high, color=drawing["color"], alpha=0.13, linewidth=0)
    return drawn


def limits(lines: Sequence[PlottedLine], y: str, log: bool) -> tuple[float, float]:
    """Room for all points, and for bands within reason: over three seeds they can be very wide."""
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
