"""The frame of a figure: its size, and the notes and the small print below what is drawn."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vitbench.comparing.wording import Wording
from vitbench.errors import UserError
from vitbench.numbers import look
from vitbench.numbers.words import typed_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

NOTE_SIZE = 7.2  # in points: the size of notes between the axes and the small print
LINE = 1.3 / 72  # the height of a line of text in inches, per point of its size
LEFT = 0.06  # inches before a line of text
LEAST_AXES = 1.2  # inches that axes need in width and height, besides all that is written


def framed_figure(
    wording: Wording,
    title: str,
    width: float,
    height: float,
    foot: Callable[[float], str],
    notes: Callable[[float], str] | None = None,
) -> tuple[Figure, SubFigure]:
    """Makes a figure and returns it with its upper part, which has the title and in which axes and legend go.

    `title` holds unless the wording has one. `width` and `height` are those of the upper part, in inches of the style
    paper. `foot` and `notes` write their text for a figure of so many inches.
    """
    from matplotlib.figure import Figure

    inches = wording.size(width, height)
    texts, heights = _texts(inches[0], foot, notes)
    if wording.inches is None:
        inches = (inches[0], inches[1] + sum(heights))
        if (ratio := look.current().ratio) is not None:
            inches = (max(inches[0], inches[1] * ratio), max(inches[1], inches[0] / ratio))
            texts, heights = _texts(inches[0], foot, notes)
    above_height = max(inches[1] - sum(heights), LEAST_AXES)
    drawn = Figure(figsize=inches, layout="constrained")
    subfigures: Any = drawn.subfigures(2, 1, height_ratios=[above_height, sum(heights)], hspace=0)
    above, below = subfigures
    title = look.wrapped(title if wording.title is None else wording.title, inches[0] - 0.2, 11)
    above.suptitle(title, x=LEFT / inches[0], ha="left", fontsize=look.points(10), fontweight="bold")
    top = 1.0
    for (text, size, colour), its_height in zip(texts, heights, strict=True):
        style: dict[str, Any] = {"va": "top", "linespacing": 1.25, "color": colour, "fontsize": look.points(size)}
        below.text(LEFT / inches[0], top, text, **style)
        top -= its_height / sum(heights)
    return drawn, above


def check_room(drawn: Figure, inches: Any) -> None:
    """Raises UserError where a figure of `inches` that somebody chose has too little room for its axes or its words."""
    if inches is None:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawn.draw_without_rendering()
    boxes = [axes.get_window_extent() for axes in drawn.axes]
    words: list[Any] = [artist for axes in drawn.axes for artist in (axes.xaxis.label, axes.yaxis.label, *axes.texts)]
    words += [artist for part in drawn.subfigs[:1] for artist in (*part.texts, *part.legends)]
    ends = [artist.get_window_extent() for artist in words]
    page, slack = drawn.bbox, 0.1 * drawn.dpi
    is_too_small = (
        any("constrained_layout" in str(warning.message) for warning in caught)
        or any(min(box.width, box.height) < LEAST_AXES * drawn.dpi for box in boxes)
        or any(min(end.x0, end.y0) < -slack or end.x1 > page.x1 + slack or end.y1 > page.y1 + slack for end in ends)
    )
    if is_too_small:
        raise UserError(
            f"inches={typed_value(inches)}: too small for what the figure says; type more, or leave inches= out for "
            "the size that it needs"
        )


def _texts(
    inches: float, foot: Callable[[float], str], notes: Callable[[float], str] | None
) -> tuple[list[tuple[str, float, str]], list[float]]:
    """The texts below what is drawn, with the sizes and colours of their letters, and the inches that each is high."""
    texts = [(foot(inches), look.SMALL, look.current().soft)]
    if notes is not None and (text := notes(inches)):
        texts.insert(0, (text, NOTE_SIZE, look.current().ink))
    return texts, [look.points((text.count("\n") + 1) * size) * LINE + 0.06 for text, size, _ in texts]
