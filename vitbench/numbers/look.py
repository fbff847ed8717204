"""How a figure looks, and how it is saved.

The colours are those of Okabe and Ito (2008, "Color Universal Design"), which people of any colour vision can tell
apart. Each line has its own marker too, so that lines can be told apart when printed in grey.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_ENDINGS = (".svg", ".png", ".pdf")
# Neighbours differ in lightness as well: blue, orange, green, vermillion, sky blue, purple, black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL = 6.5  # the size of the small print, in points


def colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def marker(i: int) -> dict[str, Any]:
    """How the means of line i are marked, so that they stand out among the points of its runs."""
    return {"marker": MARKERS[i % len(MARKERS)], "markersize": 5.5, "markerfacecolor": "white", "markeredgewidth": 1.2}


@contextmanager
def figure_style() -> Iterator[None]:
    """Sets sizes for a column of a paper, text that is never read as mathematics, and ids that never change."""
    import matplotlib

    settings: Any = {
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "legend.fontsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "0.9",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "text.parse_math": False,
        "svg.hashsalt": "vitbench",
        "pdf.fonttype": 42,
        "figure.dpi": 200,
    }
    with matplotlib.rc_context(settings):
        yield


def small_print(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color="0.35")


def save_figure(figure: Figure, ending: str) -> bytes:
    """Returns the file's bytes, without a date, so that the same figure always gives the same bytes."""
    undated: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    buffer = io.BytesIO()
    figure.savefig(buffer, format=ending[1:], metadata=undated[ending])
    return buffer.getvalue()
