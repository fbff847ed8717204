"""The figure of learning curves: every run, a fitted curve with its band for each model, and where two of them cross.

A curve is solid over its own sizes and dashed beyond them, up to the guard on extrapolation. Text under the axes says
for each pair whether and where the two cross; a star marks each crossover.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vitbench.comparing import figure
from vitbench.comparing.axes import AXIS_OF_COLUMN, IMAGES, Axis
from vitbench.comparing.figure import PlottedLine
from vitbench.comparing.frame import NOTE_SIZE, framed_figure
from vitbench.comparing.grouping import Group
from vitbench.comparing.panels import Panel
from vitbench.comparing.select import Runs
from vitbench.comparing.wording import Wording
from vitbench.errors import UserError
from vitbench.fitting.findings import Compared, Report
from vitbench.fitting.lines import CurveOfRuns, check_falling, lines_of, main_pairs
from vitbench.fitting.sentences import crossover_note
from vitbench.numbers import look
from vitbench.numbers.curves import FEW_SEEDS, GUARD, Curve
from vitbench.numbers.inline import Point, describe_points
from vitbench.numbers.pair import LEAST_SEEDS
from vitbench.numbers.words import is_share, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.5  # inches: the width of a page's text
DASHED = (0, (4, 2))  # how a curve is drawn where it is extrapolated, and nothing else is
CROSSED = ("observed", "extrapolated")  # the verdicts that say where two curves cross
MOST_NUMBERED = 8  # with more curves, exponents do not fit into the legend
MOST_NOTES = 8  # of more pairs the last line says only how many they are
LEGEND_SIZE = 7.8  # in points


def draw_fit(runs: Runs, panel: Panel, first_keys: Sequence[str], title: str, caveat: str, wording: Wording) -> Figure:
    """Draws a panel's lines with the curves that can be fitted to them; `first_keys` are always in their names.

    `title` holds unless the wording has one.
    """
    y = panel.y
    check_falling(runs, y, "y")
    axis = AXIS_OF_COLUMN[panel.x]
    shown = wording.named({line.label: line.shown for line in panel.lines})
    lines = [replace(line, label=shown[line.label], words="") for line in panel.lines]
    panel = replace(panel, lines=lines)
    try:
        fitted, left_out = lines_of(runs, y, first_keys, axis=axis)
    except UserError as error:  # even where nothing can be fitted, the runs are worth seeing
        one_seed = max(group.interval(y).n for group in panel.groups) == 1  # the small print says so in any case
        fitted, left_out = [], [] if one_seed else [f"No curve could be fitted: {error}."]
    fitted = [_renamed(curve, shown) for curve in fitted]
    report = Report(y, fitted, main_pairs(fitted), axis=axis)
    curves, compared = report.fitted_lines, report.pairs
    notes = [_without_curve(lines, curves), *(_names_in_words(note, shown) for note in left_out), caveat]

    longest = max(len(line.label) for line in lines)
    letter = 0.56 * LEGEND_SIZE / 72  # inches
    legend_below = longest > 24
    columns = max(1, min(3, int((wording.inches or (WIDTH, 0))[0] / (letter * (longest + 8))))) if legend_below else 1
    rows = math.ceil((len(lines) + 2) * (1 if len(lines) > MOST_NUMBERED else 2) / columns)
    axes_height = 3.4 + 0.15 * rows if legend_below else max(3.4, 0.2 * rows)
    what = f"{_what(panel.groups, y, fitted)} {figure.describe_chance(panel.groups, y)}"
    drawn, above = framed_figure(
        wording,
        title,
        WIDTH,
        axes_height,
        lambda inches: figure.foot_text(runs, panel.groups, what, notes, inches),
        lambda inches: "\n".join(_wrap_notes(compared, axis, inches)),
    )
    axes = above.subplots()
    _draw_axes(axes, panel, curves, compared, wording)
    soft = look.current().soft
    if any(map(_is_extrapolated, curves.values())):
        axes.plot([], [], color=soft, linestyle=DASHED, linewidth=look.points(1.2), label="extrapolated")
    if any(pair.crossover.verdict in CROSSED for pair in compared):
        axes.plot([], [], color=soft, linestyle="none", marker="*", markersize=look.points(9), label="crossover")
    if axes.get_legend_handles_labels()[1]:
        place: dict[str, Any] = {"loc": "outside lower left" if legend_below else "outside right upper"}
        above.legend(**place, ncols=columns, frameon=False, fontsize=look.points(LEGEND_SIZE), labelspacing=0.45)
    return drawn


def _renamed(curve: CurveOfRuns, shown: Mapping[str, str]) -> CurveOfRuns:
    return replace(curve, curve=replace(curve.curve, label=shown.get(curve.label, curve.label)))


def _names_in_words(note: str, shown: Mapping[str, str]) -> str:
    """Writes a note on curves, `vit pe=none: one seed`, with the names that the figure has for them."""
    for label in sorted(filter(None, shown), key=len, reverse=True):
        note = re.sub(rf"(?<!\S){re.escape(label)}: ", f"{shown[label]}: ".replace("\\", r"\\"), note)
    return note


def _draw_axes(
    axes: Axes, panel: Panel, curves: Mapping[str, CurveOfRuns], compared: Sequence[Compared], wording: Wording
) -> None:
    """Draws a panel's lines or their curves, stars at crossovers, and the axes."""
    y, lines, log = panel.y, panel.lines, panel.log
    scale = 100 if is_share(y) else 1
    for i, line in enumerate(lines):
        curve = curves.get(line.label or next(iter(curves), ""))
        if curve is None:
            figure.draw_line(axes, line, i, scale)
        else:
            _draw_curve(axes, line, curve, i, scale, len(lines) <= MOST_NUMBERED)
    for pair in compared:
        _mark_crossover(axes, pair, [line.label for line in lines], scale)
    figure.scale_axis(axes, "x", panel.x, [n for line in lines for n, _ in line.points], log, wording.xlabel)
    values = [scale * value for line in lines for _, value in line.points]
    figure.scale_axis(axes, "y", y, values, log, wording.ylabel)
    _set_limits(axes, panel, [*curves.values()], scale)
    figure.draw_chance(axes, panel.groups, y)


def _draw_curve(axes: Axes, line: PlottedLine, fitted: CurveOfRuns, i: int, scale: int, numbered: bool) -> None:
    """Draws runs, their means and the fitted curve; means that do not count are hollow.

    If `numbered`, the numbers of the fit stand in the legend.
    """
    colour, curve, marker = look.colour(i), fitted.counted, look.marker(i)
    if fitted.is_fitted:
        first, last = curve.n[0], curve.n[-1]
        inside, beyond = np.geomspace(first, last, 100), np.geomspace(last, GUARD * last, 60)
        parts = [(inside, 0.16, "-"), *([(beyond, 0.07, DASHED)] if _is_extrapolated(fitted) else [])]
        for grid, alpha, dashes in parts:
            if len(curve.seeds) >= LEAST_SEEDS:
                low, high = np.exp(np.percentile(curve.drawn_fits.logs(grid), [2.5, 97.5], axis=0)) * scale
                axes.fill_between(grid, low, high, color=colour, alpha=alpha, linewidth=0)
            fit = np.exp(curve.fitted.logs(grid)[0]) * scale
            axes.plot(grid, fit, linestyle=dashes, linewidth=look.points(1.2), color=colour, zorder=3)
    in_numbers = _fit_in_numbers(curve, scale) if numbered and fitted.is_fitted else []
    label = "\n".join(part for part in (line.label, *in_numbers) if part)
    at_all = fitted.curve
    for counts, name in ((True, label), (False, label if not len(curve.n) else None)):
        shown = np.array([size.counts == counts for size in fitted.sizes])
        means = np.exp(at_all.mean_logs[shown]) * scale
        style = {**marker, "markerfacecolor": colour if counts else look.current().ground}
        if len(means):
            (drawn,) = axes.plot(at_all.n[shown], means, linestyle="none", label=name, color=colour, zorder=4, **style)
            seeds = len(at_all.seeds)
            places = zip(at_all.n[shown].tolist(), means.tolist(), strict=True)
            describe_points(drawn, [Point(line.label, n, mean, math.nan, math.nan, seeds) for n, mean in places])
    figure.draw_runs(axes, line, i, scale, zorder=5)


def _is_extrapolated(fitted: CurveOfRuns) -> bool:
    """Whether a curve is drawn beyond its sizes. It is not if there are runs at larger ones, which show how it goes."""
    return fitted.is_fitted and fitted.counted.n[-1] == fitted.curve.n[-1]


def _fit_in_numbers(curve: Curve, scale: int) -> list[str]:
    mean, half, offset = curve.exponent.mean, curve.exponent.half, curve.offset
    digits = 3 if half < 0.0095 else 2
    lines = [f"  exponent {mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")]
    return lines if offset is None else [*lines, f"  offset {scale * offset.mean:.2g}{' %' if scale == 100 else ''}"]


def _mark_crossover(axes: Axes, compared: Compared, labels: Sequence[str], scale: int) -> None:
    """Draws a star where two curves cross, and through it the interval of the crossover as a bar."""
    crossover, pair = compared.crossover, compared.pair
    if crossover.verdict not in CROSSED:
        return
    error = scale * math.exp(np.mean([curve.fitted.logs(np.array([crossover.n])).item() for curve in (pair.a, pair.b)]))
    follower = compared.first_follower.label
    ends = np.clip([crossover.low, crossover.high], pair.n[0], GUARD * pair.n[-1])
    ink = look.current().ink
    axes.plot(ends, [error, error], color=ink, linewidth=look.points(0.9), solid_capstyle="butt", zorder=6)
    colour = look.colour(labels.index(follower) if follower in labels else 0)
    star: dict[str, Any] = {"marker": "*", "markersize": look.points(10), "markeredgewidth": look.points(0.8)}
    axes.plot([crossover.n], [error], markerfacecolor=colour, markeredgecolor=ink, zorder=7, clip_on=False, **star)


def _set_limits(axes: Axes, panel: Panel, curves: Sequence[CurveOfRuns], scale: int) -> None:
    """Makes room for all points and curves, and shades where the curves are extrapolated."""
    log_x, log_y = "x" in panel.log, "y" in panel.log
    low, high = figure.y_limits(panel.lines, panel.y, log_y)
    beyond = [fitted.counted for fitted in curves if _is_extrapolated(fitted)]
    if curves:
        places = [n for line in panel.lines for n, _ in line.points]
        last = max([1.15 * max(places), *(1.02 * GUARD * curve.n[-1] for curve in beyond)])
        axes.set_xlim(min(places) / 1.15 if log_x else 0, last)
    if beyond:
        ends = [scale * curve.predict(GUARD * curve.n[-1]) for curve in beyond]
        low = min([low, *(end / 1.05 if log_y else end for end in ends)])
        axes.axvspan(max(curve.n[-1] for curve in beyond), last, color=look.current().shade, linewidth=0, zorder=0)
    axes.set_ylim(low, high)


def _wrap_notes(compared: Sequence[Compared], axis: Axis, inches: float) -> list[str]:
    """Wraps the notes on pairs for the text under the axes."""
    return [
        line
        for note in _pair_notes(compared, axis)
        for line in look.wrapped(note, inches - 0.1, NOTE_SIZE).replace("\n", "\n    ").split("\n")
    ]


def _pair_notes(compared: Sequence[Compared], axis: Axis = IMAGES) -> list[str]:
    """Writes a note on each pair, with a star if its crossover has one; where pairs are many, the rest is counted."""
    marks = ["\N{BLACK STAR}" if pair.crossover.verdict in CROSSED else "-" for pair in compared]
    notes = [printable(f"{mark} {crossover_note(pair, axis)}") for mark, pair in zip(marks, compared, strict=True)]
    rest = len(notes) - MOST_NOTES + 1
    return notes if rest < 2 else [*notes[:-rest], f"`vitbench fit` compares {rest} other pairs."]


def _what(groups: Sequence[Group], y: str, lines: Sequence[CurveOfRuns]) -> str:
    """Says what markers, points, lines and bands are."""
    counts = [group.interval(y).n for group in groups]
    over = figure.count_seeds(counts)
    curves = [line.counted for line in lines if line.is_fitted]
    hollow = (
        "Hollow markers are limited by the budget or the network's size, not by images." if _any_hollow(lines) else ""
    )
    if not curves and max(counts) == 1:
        return "Each marker is one run: there is one seed, so no curve."
    if not curves:
        return " ".join(filter(None, [f"Markers are means of {over}, small points single runs.", hollow]))
    ns = [len(curve.seeds) for curve in curves]
    few = f", approximate below {FEW_SEEDS} seeds" if min(ns) < FEW_SEEDS else ""
    bands = [f"Bands hold 95 % of fits to seeds drawn anew (bootstrap{few})."] if max(ns) >= LEAST_SEEDS else []
    bands += ["Two seeds have no band."] if min(ns) < LEAST_SEEDS else []
    beyond = ", dashed beyond the largest size" if any(map(_is_extrapolated, lines)) else ""
    forms = sorted({curve.form for curve in curves})
    sentences = [
        f"Markers are geometric means of {over}, small points single runs.",
        f"Lines are fitted curves ({', '.join(forms)}){beyond}.",
        *bands,
        "Exponents have 95 % intervals.",
        hollow,
    ]
    return " ".join(filter(None, sentences))


def _any_hollow(lines: Sequence[CurveOfRuns]) -> bool:
    return any(not size.counts for line in lines for size in line.sizes)


def _without_curve(lines: Sequence[PlottedLine], curves: Mapping[str, CurveOfRuns]) -> str:
    """Names the lines whose points are joined, because there is no fitted curve; it is empty where all have one."""
    lacking = [line.label for line in lines if curves and line.label and line.label not in curves]
    if not lacking:
        return ""
    names = "; ".join(lacking)
    return f"Without a fitted curve, with points joined and 95 % t intervals of three seeds or more: {names}."
