"""How a figure looks, and how it is saved.

There are three styles: `paper` for a column of a paper, `slides` with larger letters and lines on a wide page, and
`dark` with light lines on a dark ground. The colours are those of Okabe and Ito (2008, "Color Universal Design"), which
people of any colour vision can tell apart; `dark` has lighter ones. Each line has its own marker too, so that lines can
be told apart when they are printed in grey.
"""

from __future__ import annotations

import io
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vitbench.numbers.words import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURE_ENDINGS = (".svg", ".png", ".pdf")
# Neighbours differ in lightness as well: blue, orange, green, vermillion, sky blue, purple, black.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
LIGHT_COLOURS = ("#5E7CFF", "#FFDB28", "#00B569", "#E87814", "#A8D6FF", "#D481A9", "#FFFFFF")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL = 6.5  # the size of the small print in points, in the style paper


class Style(NamedTuple):
    """What the styles differ in."""

    colours: tuple[str, ...] = COLOURS
    ink: str = "#000000"  # of letters and axes
    soft: str = "0.35"  # of the small print and of notes within the axes
    reference: str = "0.45"  # of lines that are no data, such as the level of chance
    grid: str = "0.9"
    shade: str = "0.96"  # of the part of the axes where curves are extrapolated
    ground: str = "#FFFFFF"
    scale: float = 1.0  # letters, lines and markers are so many times those of a paper
    room: float = 1.0  # axes are so many times as wide and as high as in a paper
    ratio: float | None = None  # width over height; None: what the content needs


STYLES = {
    "paper": Style(),
    "slides": Style(scale=1.6, room=1.25, ratio=16 / 9),  # letters are larger beside their axes
    "dark": Style(LIGHT_COLOURS, "#F2F2F2", "#B8B8B8", "#9A9A9A", "#3A3A3A", "#262626", "#161616"),
}
# Families that have the letters of many languages; those that are installed serve letters that DejaVu Sans lacks.
OTHER_LETTERS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Arial Unicode MS",
)

_current = STYLES["paper"]


def current() -> Style:
    """The style within whose `figure_style` we are; outside, the style paper."""
    return _current


def colour(i: int) -> str:
    return _current.colours[i % len(_current.colours)]


def text_colour(i: int) -> str:
    """The colour of line i, mixed with that of the letters until it can be read as text."""
    from matplotlib.colors import to_hex, to_rgb

    mixed = 0.6 * np.array(to_rgb(colour(i))) + 0.4 * np.array(to_rgb(_current.ink))
    return to_hex((mixed[0], mixed[1], mixed[2]))


def points(size: float) -> float:
    """The size of letters, lines or markers in this style, from the size that they have in a paper."""
    return size * _current.scale


def marker(i: int) -> dict[str, Any]:
    """How the means of line i are marked, so that they stand out among the points of its runs."""
    return {
        "marker": MARKERS[i % len(MARKERS)],
        "markersize": points(5.5),
        "markerfacecolor": _current.ground,
        "markeredgewidth": points(1.2),
    }


@cache
def fonts_of_other_letters() -> list[str]:
    """The families of OTHER_LETTERS that this machine has."""
    from matplotlib.font_manager import fontManager

    installed = {*fontManager.get_font_names()}
    return [family for family in OTHER_LETTERS if family in installed]


@contextmanager
def figure_style(name: str = "paper") -> Iterator[None]:
    """Sets sizes and colours of one of STYLES, text that is never read as mathematics, and ids that never change."""
    global _current
    import matplotlib

    before, _current = _current, STYLES[name]
    style = _current
    settings: Any = {
        "font.family": ["sans-serif", *fonts_of_other_letters()],
        "font.size": points(9),
        "axes.titlesize": points(10),
        "axes.titleweight": "bold",
        "legend.fontsize": points(8.5),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": style.grid,
        "grid.linewidth": points(0.6),
        "axes.axisbelow": True,
        "text.parse_math": False,
        "svg.hashsalt": "vitbench",
        "pdf.fonttype": 42,
        "figure.dpi": 200,
    }
    if style.scale != 1:
        settings |= {f"{axis}tick.{kind}": points(size) for axis in "xy" for kind, size in _TICKS.items()}
        settings |= {"axes.linewidth": points(0.8)}
    if style.ink != STYLES["paper"].ink:
        letters = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
        settings |= dict.fromkeys(letters, style.ink)
        settings |= dict.fromkeys(("figure.facecolor", "savefig.facecolor", "axes.facecolor"), style.ground)
    try:
        with matplotlib.rc_context(settings):
            yield
    finally:
        _current = before


_TICKS = {"major.size": 3.5, "minor.size": 2.0, "major.width": 0.8, "minor.width": 0.6, "major.pad": 3.5}


def wrapped(text: str, inches: float, size: float) -> str:
    """Breaks text into lines that fit into so many inches; `size` is that of its letters in a paper, in points."""
    letters = max(8, int(inches * 72 / (0.56 * points(size))))  # DejaVu Sans is 0.56 of its size wide on average
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, letters) or [""])


def small_print(figure: Figure, text: str) -> None:
    figure.supxlabel(text, x=0.01, ha="left", fontsize=points(SMALL), color=_current.soft)


def save_figure(figure: Figure, ending: str, told: bool = True) -> bytes:
    """Returns the file's bytes, without a date, so that the same figure always gives the same bytes.

    Letters that no font of this machine has are drawn as boxes, and one line says which if `told`.
    """
    undated: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format=ending[1:], metadata=undated[ending])
    lacking: dict[str, None] = {}
    for warning in caught:
        words = str(warning.message).split()
        if words[:1] == ["Glyph"] and words[1].isdigit():
            lacking[chr(int(words[1]))] = None
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if lacking and told:
        shown = " ".join(map(printable, [*lacking][:12])) + (
            f" and {len(lacking) - 12} more" if len(lacking) > 12 else ""
        )
        print(f"vitbench: no font here has these letters, so the figure shows boxes for them: {shown}", file=sys.stderr)
    return buffer.getvalue()
