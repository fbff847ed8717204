"""Draws a ladder: its rungs one above the other, their accuracy, and beside it what each bias is worth in images.

    vitbench plot study=cnn_ladder whole=resnet file=ladder.svg

The best rung is on top. An arrow is a bound: the reference has no number of images as large or as small as its end.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vitbench.comparing import figure
from vitbench.comparing.draw_panels import DODGE, draw_beside
from vitbench.comparing.figure import PlottedLine
from vitbench.comparing.frame import framed_figure
from vitbench.comparing.rungs import Ladder, find_ladder
from vitbench.comparing.select import Runs
from vitbench.comparing.wording import Wording
from vitbench.comparing.worth import RungAtSize, check_value, measure, usual_size
from vitbench.comparing.worth_table import worth_notes
from vitbench.numbers import look
from vitbench.numbers.setting_words import axis_label
from vitbench.numbers.words import is_number, is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_WIDTH = 30  # characters of a line of a rung's name
LABEL_SIZE = 8  # points
INCHES_A_CHARACTER, INCHES_A_LINE = 0.07, 0.13  # of a rung's name in this size
PANEL_INCHES = 2.9  # the width of each of the two
LEGEND_INCHES = 1.25  # the width of an entry of the legend, such as 1,350 images


def draw_ladder(runs: Runs, setting: str, words: str, *, y: str | None, wording: Wording, caveat: str) -> Figure:
    """Draws the ladder of `whole=WORDS` or `bare=WORDS`; raises UserError as find_ladder does."""
    value = check_value(runs, y)
    ladder = find_ladder(runs, setting, words)
    measured = measure(ladder, value)
    sizes = sorted({each.images for each in measured if each.rung is not ladder.reference})
    order = _order(measured, rising=value.endswith("accuracy"))
    words_of = {rung.name: rung.words for rung in ladder.all_rungs}
    names = wording.named({name: words_of[name] for name in reversed(order)})  # from the top to the foot
    labels = [wrapped_label(names[name]) for name in order]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    width = 0.3 + INCHES_A_CHARACTER * longest + 2 * PANEL_INCHES
    row = max(0.16 + 0.07 * len(sizes), INCHES_A_LINE * max(label.count("\n") + 1.5 for label in labels))
    what = f"{figure.describe_means([each.interval(value).n for each in measured])} {_describe_worth(ladder, value)}"
    what = f"{what} {figure.describe_chance(measured, value)}"
    notes = [*_notes(ladder, measured), caveat]
    drawn, above = framed_figure(
        wording,
        _usual_title(ladder),
        width,
        1.2 + row * len(order),
        lambda inches: figure.foot_text(runs, measured, what, notes, inches),
    )
    inches = drawn.get_size_inches()
    left, right = above.subplots(1, 2, sharey=True)
    handles = _draw_values(left, measured, value, order, sizes)
    _draw_worths(right, measured, order, sizes)
    for axes, label in (
        (left, axis_label(value) if wording.xlabel is None else wording.xlabel),
        (right, f"how many times the images it {'needs' if ladder.is_whole else 'saves'}"),
    ):
        axes.set_xlabel(look.wrapped(label, PANEL_INCHES * look.current().scale, 9))
        _separate_rungs(axes, len(order))
    if wording.ylabel is not None:
        left.set_ylabel(wording.ylabel)
    row_height = 72 * (above.bbox.height / drawn.dpi - look.points(1.1)) / len(order)
    size = min(look.points(LABEL_SIZE), row_height / 1.25 / max(label.count("\n") + 1 for label in labels))
    _label_rungs(left, labels, order.index(ladder.reference.name), size)
    columns = max(1, min(len(sizes), int(inches[0] / look.points(LEGEND_INCHES))))
    above.legend(handles, [f"{n:,} images" for n in sizes], loc="outside lower left", ncols=columns, frameon=False)
    return drawn


def _describe_worth(ladder: Ladder, value: str) -> str:
    """Says what the numbers of the right panel are."""
    name, reach = ladder.reference.words, "reach the same loss" if value.endswith("loss") else "make as many errors"
    if ladder.is_whole:
        return f"Right: the images that a network has, for each image that {name} needs to {reach}."
    return f"Right: the images that {name} needs to {reach}, for each image that a network has."


def wrapped_label(name: str) -> str:
    """Breaks a rung's name between its words, and a long setting after its equals sign."""
    lines = []
    for line in textwrap.wrap(name, LABEL_WIDTH, break_long_words=False, break_on_hyphens=False):
        key, equals, value = line.partition("=")
        lines += [line] if len(line) <= LABEL_WIDTH or not value else [f"{key}{equals}", value]
    return "\n".join(lines)


def _usual_title(ladder: Ladder) -> str:
    name = ladder.reference.words
    return (
        f"What each bias of {name} is worth in images" if ladder.is_whole else f"What a bias adds to {name}, in images"
    )


def _notes(ladder: Ladder, measured: Sequence[RungAtSize]) -> list[str]:
    """Lists what the right panel cannot show, and why."""
    notes = worth_notes(ladder, measured)
    if any(each.worth and math.isinf(each.worth.value) for each in measured):
        sizes = [*ladder.reference.groups]
        notes.append(
            f"Arrows are bounds: {ladder.reference.words} was trained on {sizes[0]:,} to {sizes[-1]:,} images only."
        )
    reasons = dict.fromkeys(each.reason for each in measured if each.reason)
    for reason in reasons:
        where = [f"{each.rung.words} at {each.images:,}" for each in measured if each.reason == reason]
        notes.append(f"no worth, {reason}: {', '.join(where)}")
    return notes


def _order(measured: Sequence[RungAtSize], rising: bool) -> list[str]:
    """Orders the rungs' names from the worst to the best at the size that most of them have.

    A rung that lacks this size stands by its next smaller one, or else by its smallest.
    """
    names = [*dict.fromkeys(each.rung.name for each in measured)]
    usual = usual_size(measured)

    def mean_there(name: str) -> float:
        means = {each.images: each.interval(each.value).mean for each in measured if each.rung.name == name}
        at = max((n for n in means if n <= usual), default=min(means))
        return -math.inf if math.isnan(means[at]) else means[at] if rising else -means[at]

    return sorted(names, key=mean_there)


# --------------------------------------------------------------------------------------------------------- panels


def _offset(i: int, sizes: Sequence[int]) -> float:
    return DODGE * ((i + 0.5) / len(sizes) - 0.5)


def _draw_values(
    axes: Axes, measured: Sequence[RungAtSize], value: str, order: Sequence[str], sizes: Sequence[int]
) -> list[Any]:
    """Draws the left panel; returns what stands for each size in the legend."""
    scale = 100 if is_share(value) else 1
    lines = []
    for n in sizes:
        there = [each for each in measured if each.images == n and each.interval(value).n]
        points = [
            (float(order.index(each.rung.name)), float(row[value]))
            for each in there
            for row in each.rows
            if is_number(row.get(value))
        ]
        means = [(float(order.index(each.rung.name)), each.interval(value)) for each in there]
        lines.append(PlottedLine(f"{n:,} images", points, means))
    handles = [draw_beside(axes, line, i, _offset(i, sizes), scale, across=True) for i, line in enumerate(lines)]
    figure.scale_axis(axes, "x", value, [y for line in lines for _, y in line.points], "")
    axes.set_xlim(*figure.y_limits([line for line in lines if line.points], value, False))
    figure.draw_chance(axes, measured, value, "x")
    return handles


def _draw_worths(axes: Axes, measured: Sequence[RungAtSize], order: Sequence[str], sizes: Sequence[int]) -> None:
    """Draws the right panel: worths with their intervals on a logarithmic axis, and bounds as arrows."""
    axes.axvline(1, color=look.current().reference, linewidth=look.points(0.8), zorder=1)
    drawn = [1.0]
    for each in measured:
        if each.worth is None or each.images not in sizes:
            continue
        i, worth = sizes.index(each.images), each.worth
        place = order.index(each.rung.name) + _offset(i, sizes)
        low, value, high = (min(max(end, worth.least), worth.most) for end in (worth.low, worth.value, worth.high))
        ends = [value, value] if math.isnan(worth.low) else [low, high]
        bar = [[value - ends[0]], [ends[1] - value]]
        style: dict[str, Any] = {
            "color": look.colour(i),
            "linestyle": "none",
            "elinewidth": look.points(1.2),
            "zorder": 3,
        }
        axes.errorbar(
            [value],
            [place],
            xerr=bar,
            capsize=0 if math.isnan(worth.low) else look.points(2.5),
            **style,
            **look.marker(i),
        )
        drawn += [value, *ends]
        if math.isinf(worth.value):
            _draw_arrow(axes, value, place, 1 if worth.value > 0 else -1, look.colour(i))
    figure.scale_axis(axes, "x", "worth, x images", drawn, "x")
    room = (max(drawn) / min(drawn)) ** 0.15  # for arrows, which have a length on paper
    axes.set_xlim(min(drawn) / max(room, 1.3), max(drawn) * max(room, 1.3))


def _draw_arrow(axes: Axes, x: float, y: float, direction: int, colour: str) -> None:
    arrow = {
        "arrowstyle": "<|-",
        "color": colour,
        "linewidth": look.points(1.2),
        "shrinkA": 0,
        "shrinkB": 3,
    }  # it ends at x, y
    axes.annotate("", (x, y), (look.points(15) * direction, 0), textcoords="offset points", arrowprops=arrow)


def _label_rungs(axes: Axes, labels: Sequence[str], reference: int, size: float) -> None:
    """Writes the rungs' names beside the left panel, that of the reference in bold."""
    axes.set_yticks(range(len(labels)), labels, fontsize=size)
    axes.get_yticklabels()[reference].set_fontweight("bold")
    axes.set_ylim(-0.5, len(labels) - 0.5)


def _separate_rungs(axes: Axes, count: int) -> None:
    axes.grid(False, axis="y")
    for lower, upper in pairwise(range(count)):
        axes.axhline((lower + upper) / 2, color=look.current().grid, linewidth=look.points(0.6), zorder=0)
