"""Draws panels of runs side by side, with one legend and the small print at the foot.

Where a figure is one panel of few lines, each line has its name at its end and there is no legend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from vitbench.comparing import figure
from vitbench.comparing.figure import PlottedLine
from vitbench.comparing.frame import framed_figure
from vitbench.comparing.panels import Panel
from vitbench.comparing.select import Runs
from vitbench.comparing.wording import Wording
from vitbench.numbers import look
from vitbench.numbers.inline import describe_points
from vitbench.numbers.setting_words import axis_label, value_in_words
from vitbench.numbers.words import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DODGE = 0.7  # the lines of a category lie side by side in this share of the room between two categories
MOST_NAMED = 4  # so many lines at most have their names at their ends
NAME_SIZE = 8.5  # of these names, in points
MOST_MOVED = 0.8  # a name stands at most so many lines of text from the end of its line
NAME_INCHES = 1.7  # longer names are broken into lines
LEGEND_INCHES = 2.2  # a legend that would be wider stands below the axes


def draw_panels(runs: Runs, panels: Sequence[Panel], title: str, caveat: str, wording: Wording) -> Figure:
    """Draws panels side by side, or four of them two by two; `title` holds unless the wording has one."""
    # a line looks the same in all panels
    usual = {line.label: line.shown for panel in panels for line in panel.lines if line.points}
    if len({*usual.values()}) < len(usual):
        usual = {label: label for label in usual}
    shown = wording.named(usual)
    labels, several = [*usual], len(panels) > 1
    columns = 2 if len(panels) == 4 else len(panels)
    rows = len(panels) // columns
    width, height = (0.3 + 2.9 * columns, 0.5 + 2.7 * rows) if several else (_width(panels[0], labels), 3.3)
    entry = max(map(len, shown.values())) * 0.56 * NAME_SIZE / 72 + 0.5  # inches that an entry of the legend is wide
    has_names = any(shown.values())
    direct = has_names and not several and _can_be_named(panels[0])
    below = several or entry > LEGEND_INCHES  # where a legend goes, if there is one
    if direct:
        width += min(entry, NAME_INCHES + 0.1)
    elif has_names and below:
        height += 0.21 * math.ceil(len(labels) / _legend_columns(labels, width, entry))
    elif has_names:
        width, height = width + entry, max(height, 0.5 + 0.19 * len(labels))
    what, notes = _describe(panels), [*dict.fromkeys(note for panel in panels for note in panel.notes), caveat]
    drawn, above = framed_figure(
        wording, title, width, height, lambda inches: figure.foot_text(runs, panels[0].groups, what, notes, inches)
    )
    handles: dict[str, Any] = {}
    inches = drawn.get_size_inches()
    for panel, axes in zip(panels, above.subplots(rows, columns, squeeze=False).flat, strict=True):
        handles = _draw_panel(axes, panel, labels, shown, wording) | handles
        _place_y_label(axes, panel, wording, several)
    if direct:
        lines = [line for line in panels[0].lines if line.points]
        direct = _name_ends(axes, lines, labels, shown, above.bbox.height / drawn.dpi)
    if has_names and not direct:
        # a legend leaves out what begins with _, so a space comes first
        texts = [f" {words}" if words.startswith("_") else words for words in shown.values()]
        place: dict[str, Any] = {"loc": "outside right upper"}
        if below:
            place = {"loc": "outside lower left", "ncols": _legend_columns(labels, inches[0], look.points(entry))}
        above.legend([handles[label] for label in labels], texts, frameon=False, **place)
    return drawn


def _legend_columns(labels: Sequence[str], width: float, entry: float) -> int:
    """The columns of a legend below the axes; `width` and that of an entry are in inches."""
    return max(1, min(len(labels), int(width / entry)))


def _describe(panels: Sequence[Panel]) -> str:
    """Says what markers, bands and lines are, and what guessing would give."""
    sentences = [figure.describe_means([mean.n for panel in panels for line in panel.lines for _, mean in line.means])]
    if paths := [*dict.fromkeys(panel.path for panel in panels if panel.path)]:
        sentences.append(f"Lines follow growing {' and '.join(map(axis_label, paths))}.")
    several = len({panel.y for panel in panels}) > 1
    sentences += dict.fromkeys(figure.describe_chance(panel.groups, panel.y, named=several) for panel in panels)
    return " ".join(filter(None, sentences))


def _place_y_label(axes: Axes, panel: Panel, wording: Wording, several: bool) -> None:
    """Puts the label of y above the axes where panels are several or it is long.

    If the title has the same words, its unit alone stays beside the axes.
    """
    is_long = "\n" in axes.get_ylabel()
    if is_long and not several and wording.title is None and wording.ylabel is None:
        axes.set_ylabel(axis_label(panel.y).partition(", ")[2])
    elif is_long or several:
        label = look.wrapped(axes.get_ylabel().replace("\n", " "), figure.width_of(axes), 9)
        axes.set_title(label, loc="left", fontweight="normal", fontsize=look.points(9))
        axes.set_ylabel("")


def _width(panel: Panel, labels: Sequence[str]) -> float:
    """The inches of a panel's axes: fewer where all points lie above one place."""
    places = {x for line in panel.lines for x, _ in line.points} if panel.categories is None else panel.categories
    return 2.6 if len(places) == 1 and len(labels) < 8 else 5.0


def _draw_panel(
    axes: Axes, panel: Panel, labels: Sequence[str], shown: dict[str, str], wording: Wording
) -> dict[str, Any]:
    """Draws one panel; returns what stands for each line in the legend."""
    handles: dict[str, Any] = {}
    x, y, log = panel.x, panel.y, panel.log
    scale = 100 if is_share(y) else 1
    lines = [replace(line, words=shown[line.label]) for line in panel.lines if line.points]
    for line in lines:
        i = labels.index(line.label)
        if panel.categories is None:
            handles[line.label] = figure.draw_line(axes, line, i, scale)
        else:
            offset = DODGE * ((i + 0.5) / len(labels) - 0.5)
            handles[line.label] = draw_beside(axes, line, i, offset, scale)
    x_label = (panel.x_label or None) if wording.xlabel is None else wording.xlabel
    if panel.categories is None:
        figure.scale_axis(axes, "x", x, [at for line in lines for at, _ in line.points], log, x_label)
    else:
        _label_categories(axes, panel.categories, x, x_label)
    figure.scale_axis(axes, "y", y, [value for line in lines for _, value in line.points], log, wording.ylabel)
    axes.set_ylim(*figure.y_limits(lines, y, "y" in log))
    figure.draw_chance(axes, panel.groups, y)
    if x.endswith("accuracy") and y.endswith("accuracy"):
        figure.draw_diagonal(axes)
    return handles


def draw_beside(axes: Axes, line: PlottedLine, i: int, offset: float, scale: int, across: bool = False) -> Any:
    """Draws means with error bars and their runs; no line joins them, because nothing lies between categories.

    `across`: categories lie along y, and values along x.
    """
    places = [place + offset for place, _ in line.means]
    values = [scale * mean.mean for _, mean in line.means]
    halves = [scale * mean.half if figure.is_banded(mean) else 0.0 for _, mean in line.means]
    has_bars = any(halves)  # without one the legend would have bars too
    drawn_means = axes.errorbar(
        *((values, places) if across else (places, values)),
        xerr=halves if across and has_bars else None,
        yerr=halves if not across and has_bars else None,
        label=line.shown,
        linestyle="none",
        elinewidth=look.points(1.2),
        capsize=look.points(2.5),
        color=look.colour(i),
        zorder=3,
        **look.marker(i),
    )
    describe_points(drawn_means.lines[0], figure.values_of(line, scale))
    figure.draw_runs(axes, line, i, scale, zorder=4, offset=offset, across=across)
    return drawn_means


def _label_categories(axes: Axes, categories: Sequence[Any], x: str, label: str | None) -> None:
    """Writes the categories along x, turned where they would touch, and draws a line between each two."""
    words = [value_in_words(x, category) for category in categories]
    axes.set_xticks(range(len(words)), words)
    if max(map(len, words)) * len(words) > 60 / look.current().scale:
        for text in axes.get_xticklabels():
            text.set(rotation=25, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.5, len(words) - 0.5)
    figure.write_label(axes, "x", axis_label(x) if label is None else label)
    axes.grid(False, axis="x")
    for i in range(1, len(words)):
        axes.axvline(i - 0.5, color=look.current().grid, linewidth=look.points(0.6), zorder=0)


# --------------------------------------------------------------------------------------------- names at lines' ends


def _can_be_named(panel: Panel) -> bool:
    """Whether the lines of a panel are few and all end at the same, last place."""
    lines = [line for line in panel.lines if line.points]
    if panel.categories is not None or panel.path or len(lines) > MOST_NAMED or not all(line.means for line in lines):
        return False
    ends = {line.means[-1][0] for line in lines}
    return len(ends) == 1 and ends == {max(x for line in lines for x, _ in line.means)} and bool(lines[0].shown)


def _name_ends(
    axes: Axes, lines: Sequence[PlottedLine], labels: Sequence[str], shown: dict[str, str], height: float
) -> bool:
    """Writes the names of lines at their ends, in their colours; returns False where they would touch.

    Names that are a little too near are moved apart, each by most of a line of text at most.
    """
    is_log = axes.get_yscale() == "log"
    low, high = (np.log(axes.get_ylim()) if is_log else np.array(axes.get_ylim())).tolist()
    ends = [float(np.asarray(axes.get_lines()[i].get_ydata())[-1]) for i in range(len(lines))]
    room = 0.8 * height  # inches of the axes, below the title and above their label
    ends_in_inches = [room * ((math.log(end) if is_log else end) - low) / (high - low) for end in ends]
    texts = [look.wrapped(shown[line.label], NAME_INCHES * look.current().scale, NAME_SIZE) for line in lines]
    line_height = 1.2 * look.points(NAME_SIZE) / 72
    heights = [line_height * (text.count("\n") + 1) for text in texts]
    order = sorted(range(len(lines)), key=ends_in_inches.__getitem__)
    places = dict(enumerate(ends_in_inches))
    for _ in range(20):  # each pair that touches is moved apart by equal parts
        for lower, upper in pairwise(order):
            lacking = (heights[lower] + heights[upper]) / 2 - (places[upper] - places[lower])
            if lacking > 1e-6:
                places[lower] -= lacking / 2
                places[upper] += lacking / 2
    if any(abs(places[i] - end) > MOST_MOVED * line_height for i, end in enumerate(ends_in_inches)):
        return False
    for i, line in enumerate(lines):
        axes.annotate(
            texts[i],
            (1, ends[i]),
            (look.points(7), 72 * (places[i] - ends_in_inches[i])),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=look.points(NAME_SIZE),
            color=look.text_colour(labels.index(line.label)),
        )
    return True
