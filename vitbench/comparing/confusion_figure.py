"""Draws which class a network takes for which: `vitbench plot per=confusion where.KEY=VALUE file=confusion.svg`.

A row is a class of the test images, and a column a class that they are given. Up to MATRIX classes stand in their own
order; more are put side by side with those that they are confused with, by average linkage. Of more than NAMED, the
most confused are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitbench.comparing import figure
from vitbench.comparing.frame import check_room, framed_figure
from vitbench.comparing.per_class import MATRIX, Network, confused_pairs, networks_of, only_network, refuse_others
from vitbench.comparing.select import Runs
from vitbench.comparing.wording import Wording
from vitbench.errors import check_choice
from vitbench.numbers import look
from vitbench.numbers.setting_words import in_words
from vitbench.numbers.words import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

NUMBERED = 20  # so many classes at most have numbers in their cells
NAMED = 60  # so many classes at most are all drawn
SHOWN = 40  # so many are drawn of more classes
LONGEST_NAME = 22  # characters
WORST = 5  # pairs that are named below
USUAL_TITLE = "Which class is taken for which"
MIDDLE_LUMINANCE = 0.22  # of a cell on which dark digits and light ones have the same contrast
TICKS = (0, 1, 5, 10, 25, 50, 75, 100)  # of the colour bar, %


def draw_confusion(
    runs: Runs,
    folder: str,
    *,
    per: str,
    others: Mapping[str, Any],
    wording: Wording,
    caveat: str,
    ending: str,
    style: str = "paper",
) -> bytes:
    """Returns the bytes of the file; `others` are settings of usual figures, of which it takes none."""
    check_choice("per", per, ("confusion",))
    refuse_others(per, others)
    networks, classes, notes = networks_of(runs, Path(folder).expanduser(), per)
    network = only_network(networks, per)
    classes = [*wording.named({name: name for name in classes}).values()]
    with look.figure_style(style):
        drawn = _draw(runs, network, classes, wording, notes, caveat)
        check_room(drawn, wording.inches)
        return look.save_figure(drawn, ending)


def _draw(
    runs: Runs, network: Network, classes: Sequence[str], wording: Wording, notes: Sequence[str], caveat: str
) -> Figure:
    shares, pairs = network.shares(), confused_pairs(network)
    order = drawn_classes(network)
    K, names = len(order), [short_name(classes[k]) for k in order]
    side = min(max(2.6 + 0.3 * K, 3.6), 8.0)
    label = 0.02 * max(map(len, names))  # inches: a turned name below the cells needs them besides
    accuracy = 100 * float(np.mean([counts.trace() / counts.sum() for counts in network.counts]))
    seeds = figure.count_seeds([len(network.rows)])
    what = f"Of {int(network.images.sum()):,} test images {accuracy:.1f} % are right ({seeds})."
    if len(classes) > K:
        what += f" The figure has {K} of {len(classes):,} classes: those in the most frequent confusions."
    if K > MATRIX:
        what += " Classes that are confused stand side by side."
        worst = [
            f"{short_name(classes[k])} for {short_name(classes[other])} ({100 * shares[k, other]:.0f} %)"
            for k, other in pairs[:WORST]
        ]
        notes = [f"The most frequent confusions: {listed(worst)}.", *notes] if worst else notes
    notes = [*notes, caveat] if caveat else notes
    drawn, above = framed_figure(
        wording,
        f"Which class {in_words(network.settings)} takes for which" if network.settings else USUAL_TITLE,
        side + 1.5,
        side + 0.4 + label,
        lambda inches: figure.foot_text(runs, [network.group], what, notes, inches),
    )
    axes = above.subplots()
    draw_matrix(above, axes, 100 * shares[np.ix_(order, order)])
    label_classes(axes, names)
    if wording.xlabel is not None:
        axes.set_xlabel(wording.xlabel)
    if wording.ylabel is not None:
        axes.set_ylabel(wording.ylabel)
    return drawn


def drawn_classes(network: Network) -> list[int]:
    """The classes that are drawn, in their order from left to right."""
    shares = network.shares()
    shown = [*range(len(shares))]
    if len(shown) > NAMED:
        shown = sorted([*dict.fromkeys(k for pair in confused_pairs(network) for k in pair)][:SHOWN] or shown[:SHOWN])
    return [shown[place] for place in class_order(shares[np.ix_(shown, shown)])]


def class_order(shares: NDArray[np.float64]) -> list[int]:
    """The order in which classes are drawn, by the shares (K,K) that are taken for each other."""
    K = len(shares)
    if K <= MATRIX:
        return [*range(K)]
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    mutual = np.nan_to_num(shares)
    mutual = mutual + mutual.T
    distance = mutual.max() - mutual
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [int(k) for k in leaves_list(tree)]


def draw_matrix(drawn: FigureBase, axes: Axes, percent: NDArray[np.float64]) -> None:
    """Draws the cells, their numbers where these fit, and the colour bar; a class without images has grey cells."""
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    K = len(percent)
    dark = look.current().ground != "#FFFFFF"
    colours = colormaps["Blues_r" if dark else "Blues"].with_extremes(bad="0.3" if dark else "0.85")
    image = axes.imshow(percent, cmap=colours, norm=PowerNorm(0.5, 0, 100), aspect="equal", interpolation="nearest")
    beside = axes.inset_axes((1.03, 0.12, 0.035, 0.76))  # it stays beside the cells, however wide the figure is
    bar = drawn.colorbar(image, cax=beside, ticks=TICKS)
    bar.set_label("share of the images of a class, %")
    bar.outline.set_visible(False)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    if K > NUMBERED:
        return
    least = 0.5 if K <= MATRIX else 1.0
    for row, column in np.argwhere(percent >= least).tolist():
        value = percent[row, column]
        luminance = np.array([0.2126, 0.7152, 0.0722]) @ np.array(image.to_rgba(np.array([value]))[0, :3]) ** 2.2
        # pure white would become the colour of the paper on a dark page
        colour = "0.15" if luminance > MIDDLE_LUMINANCE else "0.99"
        size = look.points(7.5 if K <= MATRIX else 6)
        axes.text(column, row, f"{math.floor(value + 0.5)}", ha="center", va="center", fontsize=size, color=colour)


def label_classes(axes: Axes, names: Sequence[str]) -> None:
    """Writes the classes of rows and columns beside the cells."""
    axes.set_ylabel("class of the image")
    axes.set_xlabel("class that it is given")
    size = look.points(8 if len(names) <= MATRIX else 7 if len(names) <= 25 else max(250 / len(names), 4))
    axes.set_xticks(range(len(names)), names, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    if len(names) * max(map(len, names)) > 45:
        for text in axes.get_xticklabels():
            text.set(
                rotation=90 if len(names) > MATRIX else 40, ha="right", va="center" if len(names) > MATRIX else "top"
            )
            text.set_rotation_mode("anchor")


def short_name(name: str) -> str:
    """A class's name, cut where it would be too long for a figure."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
