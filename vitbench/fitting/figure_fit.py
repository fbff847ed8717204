"""The figure of learning curves: every run, a fitted curve with its band for each model, and where two of them cross.

A curve is solid over its own sizes and dashed beyond, up to the guard on extrapolation. What is known of each crossover,
also that there is none, stands under the axes; one that was found has a mark.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vitbench.comparing import figure
from vitbench.comparing.figure import PlottedLine, draw_line, y_limits
from vitbench.comparing.grouping import Group
from vitbench.comparing.panels import Panel
from vitbench.comparing.select import Runs
from vitbench.errors import UserError
from vitbench.fitting.findings import Compared, Report
from vitbench.fitting.lines import falling, lines_of, main_pairs
from vitbench.fitting.sentences import brief
from vitbench.numbers import look
from vitbench.numbers.crossover import LEAST_SEEDS
from vitbench.numbers.curves import FEW_SEEDS, GUARD, Curve
from vitbench.numbers.words import is_share, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.5  # inches: the column of a page with one column, and of two with two
CHARACTERS = 112  # of the small print in that width
BEYOND = (0, (4, 2))  # dashes of what is extrapolated
CROSSED = ("observed", "extrapolated")  # verdicts with a place
NUMBERED = 8  # curves at most whose exponents stand in the legend
SAID = 8  # pairs at most that are written out
SIZE = 7.2  # points, of what is said of pairs
LINE = 1.3 / 72  # inches of a line of text per point of its size


def draw_fit(runs: Runs, panel: Panel, wanted: Sequence[str], title: str, caveat: str) -> Figure:
    from matplotlib.figure import Figure

    groups, drawn, y, log = panel.groups, panel.lines, panel.y, panel.log
    falling(runs, y, "y")
    try:
        lines, left_out = lines_of(runs, y, wanted)
    except UserError as error:  # nothing to fit: the runs are worth seeing all the same
        lines, left_out = [], [f"no fitted curves: {error}"]
    curves = {line.curve.label: line.curve for line in lines}
    scale = 100 if is_share(y) else 1
    compared = Report(y, [*curves.values()], main_pairs(lines)).pairs
    said = [part for line in _said(compared) for part in textwrap.wrap(line, CHARACTERS - 13, subsequent_indent="    ")]
    notes = [_not_fitted(drawn, curves), *left_out, caveat]
    foot = figure.foot_text(runs, groups, _what(groups, y, curves), notes, CHARACTERS)

    longest = max(len(line.label) for line in drawn)
    wide = longest > 24  # then the names stand under the axes
    columns = max(1, min(3, CHARACTERS // (longest + 12))) if wide else 1
    rows = math.ceil((len(drawn) + 2) * (1 if len(drawn) > NUMBERED else 2) / columns)
    heights = [
        3.4 + 0.15 * rows if wide else max(3.4, 0.2 * rows),
        len(said) * SIZE * LINE + len(foot.splitlines()) * look.SMALL * LINE + 0.12,
    ]
    made = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts: Any = made.subfigures(2, 1, height_ratios=heights, hspace=0)
    above, below = parts
    axes = above.subplots()
    left = 0.06 / WIDTH
    below.text(left, 1, "\n".join(said), va="top", fontsize=SIZE, linespacing=1.25)
    below.text(left, 0.05 / heights[1], foot, va="bottom", fontsize=look.SMALL, linespacing=1.25, color="0.35")
    for i, line in enumerate(drawn):
        curve = curves.get(line.label or next(iter(curves), ""))
        if curve is None:
            draw_line(axes, line, i, scale)
        else:
            _draw_curve(axes, line, curve, i, scale, len(drawn) <= NUMBERED)
    for one in compared:
        _mark(axes, one, [line.label for line in drawn], scale)
    figure.scale_axis(axes, "x", "train_images", [at for line in drawn for at, _ in line.points], log)
    values = [scale * value for line in drawn for _, value in line.points]
    figure.scale_axis(axes, "y", y, values, log)
    _limit(axes, drawn, curves, y, log)
    figure.draw_chance(axes, groups, y)
    axes.set_title(title, loc="left")
    if curves:
        axes.plot([], [], color="0.35", linestyle=BEYOND, linewidth=1.2, label="extrapolated")
    if any(one.crossover.verdict in CROSSED for one in compared):
        axes.plot([], [], color="0.35", linestyle="none", marker="*", markersize=9, label="crossover")
    if len(drawn) > 1 or curves:
        above.legend(
            loc="outside lower left" if wide else "outside right upper",
            ncols=columns,
            frameon=False,
            fontsize=7.8,
            labelspacing=0.45,
        )
    return made


def _draw_curve(axes: Axes, line: PlottedLine, curve: Curve, i: int, scale: int, numbered: bool) -> None:
    import numpy as np

    drawing: dict[str, Any] = {"color": look.colour(i), "zorder": 3}
    first, last = curve.n[0], curve.n[-1]
    inside, beyond = np.geomspace(first, last, 100), np.geomspace(last, GUARD * last, 60)
    for grid, alpha, dash in ((inside, 0.16, "-"), (beyond, 0.07, BEYOND)):
        if len(curve.seeds) >= LEAST_SEEDS:
            low, high = np.exp(np.percentile(curve.drawn_fits.logs(grid), [2.5, 97.5], axis=0)) * scale
            axes.fill_between(grid, low, high, color=drawing["color"], alpha=alpha, linewidth=0)
        axes.plot(grid, np.exp(curve.fitted.logs(grid)[0]) * scale, linestyle=dash, linewidth=1.2, **drawing)
    words = "\n".join(part for part in (line.label, *(_fitted(curve, scale) if numbered else [])) if part)
    axes.plot(
        curve.n,
        np.exp(curve.mean_logs) * scale,
        linestyle="none",
        label=words,
        **look.marker(i),
        **drawing | {"zorder": 4},
    )
    axes.scatter(
        [at for at, _ in line.points],
        [scale * value for _, value in line.points],
        s=4,
        linewidths=0,
        **drawing | {"zorder": 5},
    )


def _fitted(curve: Curve, scale: int) -> list[str]:
    """The numbers of a fit, for the legend."""
    mean, half, offset = curve.exponent.mean, curve.exponent.half, curve.offset
    digits = 3 if half < 0.0095 else 2
    lines = [f"  exponent {mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")]
    return lines if offset is None else [*lines, f"  offset {scale * offset.mean:.2g}{' %' if scale == 100 else ''}"]


def _mark(axes: Axes, compared: Compared, labels: Sequence[str], scale: int) -> None:
    """A star where two curves meet, the interval of the crossing as a bar through it."""
    import numpy as np

    found, pair = compared.crossover, compared.pair
    if found.verdict not in CROSSED:
        return
    e = scale * math.exp(np.mean([curve.fitted.logs(np.array([found.n])).item() for curve in (pair.a, pair.b)]))
    colour = look.colour(labels.index(compared.trail.label) if compared.trail.label in labels else 0)
    ends = np.clip([found.low, found.high], pair.n[0], GUARD * pair.n[-1])
    axes.plot(ends, [e, e], color="black", linewidth=0.9, solid_capstyle="butt", zorder=6)
    axes.plot(
        [found.n],
        [e],
        marker="*",
        markersize=10,
        markerfacecolor=colour,
        markeredgecolor="black",
        markeredgewidth=0.8,
        zorder=7,
        clip_on=False,
    )


def _limit(axes: Axes, drawn: Sequence[PlottedLine], curves: dict[str, Curve], y: str, log: str) -> None:
    """Room for the points and for the curves as far as they are carried, which is shaded."""
    low, high = y_limits(drawn, y, "y" in log)
    if curves:
        scale = 100 if is_share(y) else 1
        ends = [scale * curve.predict(GUARD * curve.n[-1]) for curve in curves.values()]
        low = min([low, *(end / 1.05 if "y" in log else end for end in ends)])
        last = max(curve.n[-1] for curve in curves.values())
        axes.axvspan(last, 1.02 * GUARD * last, color="0.96", linewidth=0, zorder=0)
        points = [at for line in drawn for at, _ in line.points]
        axes.set_xlim(min(points) / 1.15 if "x" in log else 0, 1.02 * GUARD * last)
    axes.set_ylim(low, high)


def _said(compared: Sequence[Compared]) -> list[str]:
    marks = ["\N{BLACK STAR}" if one.crossover.verdict in CROSSED else "-" for one in compared]
    lines = [printable(f"{mark} {brief(one)}") for mark, one in zip(marks, compared, strict=True)]
    more = len(lines) - SAID + 1
    return lines if more < 2 else [*lines[:-more], f"and {more} other pairs, see `vitbench fit`"]


def _what(groups: Sequence[Group], y: str, curves: dict[str, Curve]) -> str:
    seeds = [group.interval(y).n for group in groups]
    over = figure.count_seeds(seeds)
    if not curves and max(seeds) == 1:
        return f"points: single runs, {over}"
    if not curves:
        return f"markers: means over {over}; small points: single runs"
    ns = [len(c.seeds) for c in curves.values()]
    few = f", approximate below {FEW_SEEDS} seeds" if min(ns) < FEW_SEEDS else ""
    drawn = [f"bands: 95 % of fits to seeds drawn anew (bootstrap{few})"] if max(ns) >= LEAST_SEEDS else []
    bands = ", ".join([*drawn, *(["no bands of two seeds"] if min(ns) < LEAST_SEEDS else [])])
    forms = sorted({curve.form for curve in curves.values()})
    return (
        f"markers: geometric means over {over}; small points: single runs; lines: fitted curves ({', '.join(forms)}),"
        f" dashed beyond the largest size; {bands}; exponents with 95 % intervals"
    )


def _not_fitted(drawn: Sequence[PlottedLine], curves: dict[str, Curve]) -> str:
    lacking = [line.label for line in drawn if curves and line.label and line.label not in curves]
    return (
        f"no fitted curve, points joined, 95 % t intervals of three seeds or more: {', '.join(lacking)}"
        if lacking
        else ""
    )
