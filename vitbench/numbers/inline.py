"""A figure within a page: real text, the colours of the page, and the values of its points for those who ask.

The colours of a figure become CSS variables (`--ink`, `--paper`, `--grid`, `--shade`), so that one picture is readable
on a light and on a dark page. A point says its values in a `<title>`, which browsers show and screen readers read
without a script.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary
from xml.etree import ElementTree

from vitbench.numbers import look

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
PAGE_COLOURS = {  # what matplotlib writes for black, white and its greys
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    "#595959": "var(--soft-ink)",  # 0.35, of small print
    "#737373": "var(--soft-ink)",  # 0.45, of the level of chance
    "#e5e5e5": "var(--grid)",  # 0.9
    "#e6e6e6": "var(--grid)",
    "#f5f5f5": "var(--shade)",  # 0.96, where curves are extrapolated
}


class Point(NamedTuple):
    """The mean of some runs, as a figure shows it."""

    line: str
    x: float
    y: float
    low: float  # NaN: no interval
    high: float
    n: int  # runs


_points: WeakKeyDictionary[Artist, list[Point]] = WeakKeyDictionary()


def describe_points(artist: Artist, points: Iterable[Point]) -> None:
    """Notes what the markers of a drawn line stand for, in their order."""
    _points[artist] = [*points]


def inline_svg(figure: Figure, prefix: str, alternative: str) -> str:
    """Returns the figure as an <svg> element; to be called within `look.figure_style`.

    `prefix` keeps its ids apart from those of other figures of the page, and `alternative` is what a screen reader
    says of it.
    """
    from matplotlib import rc_context
    from matplotlib.lines import Line2D

    described = {
        f"points{number}": (artist, _points[artist])
        for number, artist in enumerate(figure.findobj(Line2D))
        if artist in _points
    }
    for gid, (artist, _) in described.items():
        artist.set_gid(gid)
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    with rc_context({"svg.fonttype": "none"}):
        root = ElementTree.fromstring(look.save_figure(figure, ".svg", told=False))
    for number, (gid, (artist, points)) in enumerate(described.items()):
        _tell_values(root, gid, _words_of(artist, points), number)
    for metadata in root.findall(f"{{{SVG}}}metadata"):  # which name addresses
        root.remove(metadata)
    width, _ = (root.attrib.pop(side).removesuffix("pt") for side in ("width", "height"))
    sizes = f"min-width: {float(width):.0f}px; max-width: {float(width) * 1.5:.0f}px"
    root.attrib |= {"role": "img", "aria-label": alternative, "style": sizes}
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    text = ElementTree.tostring(root, encoding="unicode")
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text.replace("url(#", f"url(#{prefix}-"))
    for written, of_page in _page_colours().items():
        text = text.replace(written, of_page)
    for family in look.fonts_of_other_letters():  # a page has the fonts of its reader, whatever this machine has
        text = text.replace(f", '{family}'", "")
    return text


def _page_colours() -> dict[str, str]:
    """What stands in a page for each colour that matplotlib writes; the names of lines are mixed with its ink."""
    mixed = {
        look.text_colour(i): f"color-mix(in srgb, {look.colour(i)} 60%, var(--ink))"
        for i in range(len(look.COLOURS))
        if look.colour(i) not in PAGE_COLOURS
    }
    return mixed | PAGE_COLOURS


def _tell_values(root: ElementTree.Element, gid: str, words: Sequence[str], line: int) -> None:
    """Writes its values into each marker of a line."""
    group = next((element for element in root.iter(f"{{{SVG}}}g") if element.get("id") == gid), None)
    markers = [] if group is None else [*group.iter(f"{{{SVG}}}use")]
    if len(markers) != len(words):  # a marker without a place on paper is not drawn, so nobody knows which is which
        return
    for marker, said in zip(markers, words, strict=True):
        marker.set("class", "point")
        marker.set("data-line", str(line))
        ElementTree.SubElement(marker, f"{{{SVG}}}title").text = said


def _words_of(artist: Artist, points: Sequence[Point]) -> list[str]:
    """Writes what a point is in words, with the labels of its axes."""
    from matplotlib.axes import Axes
    from matplotlib.ticker import FixedFormatter

    axes = artist.axes
    assert isinstance(axes, Axes)
    x_label, y_label = axes.get_xlabel(), axes.get_ylabel() or axes.get_title(loc="left")
    names = axes.xaxis.get_major_formatter()  # of what stands side by side at 0, 1, 2 ...
    if isinstance(axes.yaxis.get_major_formatter(), FixedFormatter):  # or one above the other
        names, y_label = axes.yaxis.get_major_formatter(), x_label
    told = []
    for point in points:
        if isinstance(names, FixedFormatter):
            at = str(names.seq[round(point.x)]).replace("\n", " ")
        else:
            at = f"{x_label} {point.x:,.6g}"
        value = f"{y_label} {point.y:.4g}"
        interval = "" if math.isnan(point.low) else f", 95 % interval {point.low:.4g} to {point.high:.4g}"
        told.append("; ".join(part for part in (point.line, at, f"{value}{interval}, {_runs(point.n)}") if part))
    return told


def _runs(n: int) -> str:
    return "one run" if n == 1 else f"mean of {n} runs"
