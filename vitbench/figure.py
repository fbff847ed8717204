"""What all figures share: colours, style, axes, the line of chance, small print, bytes.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which people of any colour vision tell apart; each
line has a marker of its own too, for print in grey. The same runs give the same bytes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vitbench import compare
from vitbench.compare import Group, Runs, label
from vitbench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vitbench.stats import Interval

# neighbours differ in lightness as well: blue, orange, green, vermillion, sky blue, purple, black
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL = 6.5  # points, of the small print


def colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> dict[str, Any]:
    """The mean of line i, which stands out among the points of its runs."""
    return {"marker": MARKERS[i % len(MARKERS)], "markersize": 5.5, "markerfacecolor": "white", "markeredgewidth": 1.2}


@contextmanager
def style() -> Iterator[None]:
    """Small print for a column of a paper, text that is never read as mathematics, and ids that do not change."""
    import matplotlib

    settings: Any = {
        "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "legend.fontsize": 8.5,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "0.9",
        "grid.linewidth": 0.6, "axes.axisbelow": True, "text.parse_math": False, "svg.hashsalt": "vitbench",
        "pdf.fonttype": 42, "figure.dpi": 200,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        yield


def scale(axes: Axes, letter: str, column: str, values: Sequence[float], log: str) -> None:
    """One axis (x or y): its label, its scale and ticks that one can read."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    axis = getattr(axes, f"{letter}axis")
    getattr(axes, f"set_{letter}label")(label(column))
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
    if not compare.is_share(y) or len(classes) != 1:
        return
    share = 100 / classes.pop()
    above = y.endswith("_accuracy")  # where the word stands: on the side where the lines are
    level = share if above else 100 - share
    low, high = axes.get_ylim()
    if axes.get_yscale() == "linear" and max(low - level, level - high) > high - low:
        axes.annotate(f"chance: {level:.3g} %", (1, 0 if above else 1), xycoords="axes fraction", textcoords="offset points",
                      xytext=(-2, 3 if above else -3), ha="right", va="bottom" if above else "top", fontsize=7, color="0.35")  # fmt: skip
        return
    axes.set_ylim(min(low, level * 0.9), max(high, min(level * 1.05, 100.0)))
    axes.axhline(level, color="0.45", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate("chance", (1, level), xycoords=("axes fraction", "data"), textcoords="offset points",
                  xytext=(-2, 2 if above else -2), ha="right", va="bottom" if above else "top", fontsize=7,
                  color="0.35")  # fmt: skip


def diagonal(axes: Axes) -> None:
    """Where both accuracies are the same; the axes keep their limits."""
    x, y = axes.get_xlim(), axes.get_ylim()
    axes.axline((0, 0), slope=1, color="0.45", linewidth=0.8, linestyle=(0, (5, 2)), zorder=1)
    axes.set(xlim=x, ylim=y)
    middle = (max(x[0], y[0]) + min(x[1], y[1])) / 2
    axes.annotate("equal", (middle, middle), textcoords="offset points", xytext=(-4, 4), ha="right", va="bottom",
                  fontsize=7, color="0.35")  # fmt: skip


def seeds(counts: Iterable[int]) -> tuple[str, bool]:
    """3 seeds, 2 to 3 seeds, one seed; and whether there are several."""
    ns = sorted({n for n in counts if n})
    several = ns[-1] > 1
    return ("one seed" if not several else f"{ns[0]} seeds" if len(ns) == 1 else f"{ns[0]} to {ns[-1]} seeds"), several


def banded(mean: Interval) -> bool:
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
    machines = sorted({" ".join(str(row.get(f"hardware.{key}") or "?") for key in ("name", "precision"))
                       for group in groups for row in group.rows})  # fmt: skip
    hardware = machines[0] if len(machines) == 1 else f"{len(machines)} kinds of hardware or precision"
    lines = [f"{what}; {compare.common(groups)}; {hardware}", *compare.warnings(groups), *runs.notes, *notes]
    return "\n".join(part for line in lines for part in textwrap.wrap(compare.plain(line), characters))


def small_print(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color="0.35")


def save(figure: Figure, ending: str) -> bytes:
    stamp: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    out = io.BytesIO()
    figure.savefig(out, format=ending[1:], metadata=stamp[ending])
    return out.getvalue()
