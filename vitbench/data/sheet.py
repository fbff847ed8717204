"""Draws the suspicious images of a folder on one sheet, each with its name and the reason."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vitbench.data.decode import picture
from vitbench.data.suspects import Finding, Images, Suspect
from vitbench.errors import DataError
from vitbench.numbers import look
from vitbench.numbers.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 6  # number of pictures in a row; a pair takes two
NAMES = 4  # most lines of names for a finding about names, which has no pictures
PIXELS = 256  # pixels along the longer side of a picture
# Lengths are in points.
SIDE, GAP, MARGIN, LINE, HEADING = 74, 10, 14, 8.5, 14
LETTERS = 23  # most characters of a folder, a file or a reason below a picture


def contact_sheet(what: str, images: Images, paths: Sequence[str], findings: Sequence[Finding], file: Path) -> bytes:
    """Returns the bytes of a figure, in the format of the file's ending.

    It has a row for each finding with its first suspects, decoded as in training but not cut to a square.
    """
    from matplotlib.figure import Figure

    width = 2 * MARGIN + COLUMNS * SIDE + (COLUMNS - 1) * GAP
    rows = [_Row(images, paths, finding) for finding in findings]
    tops = np.cumsum([MARGIN + 2 * HEADING, *(row.height for row in rows)])
    height = tops[-1] + MARGIN + (0 if rows else HEADING)
    with look.figure_style():
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        title = f"{printable(what)}: {len(images.names):,} images"
        axes.text(MARGIN, MARGIN, title, fontsize=11, weight="bold", va="top")
        if not rows:
            axes.text(MARGIN, tops[-1], "nothing suspicious was found", fontsize=9, va="top")
        for row, (top, _) in zip(rows, pairwise(tops), strict=True):
            row.draw(axes, float(top))
        axes.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
        return look.save_figure(figure, file.suffix.lower())


class _Row:
    """The row of a finding: its heading, what it means, and its first suspects."""

    def __init__(self, images: Images, paths: Sequence[str], finding: Finding) -> None:
        self.images, self.paths, self.finding = images, paths, finding
        self.means = textwrap.wrap(finding.means, 112)
        self.pictured = bool(finding.suspects[0].images)
        most = COLUMNS // len(finding.suspects[0].images) if self.pictured else NAMES
        self.suspects = finding.suspects[:most]

    @property
    def height(self) -> float:
        below = SIDE + 3 * LINE if self.pictured else len(self.suspects) * LINE
        return HEADING + len(self.means) * LINE + below + 2 * GAP

    def draw(self, axes: Axes, top: float) -> None:
        shown, total = len(self.suspects), len(self.finding.suspects)
        what = f"{self.finding.what[0].upper()}{self.finding.what[1:]}: {total:,}"
        heading = what + (f", of which {shown} are shown" if shown < total else "")
        axes.text(MARGIN, top, heading, fontsize=9, weight="bold", va="top")
        top += HEADING
        for line in self.means:
            axes.text(MARGIN, top, line, fontsize=7, va="top", color="0.25")
            top += LINE
        left: float = MARGIN
        for suspect in self.suspects:
            if self.pictured:
                for place, (number, name) in enumerate(zip(suspect.images, suspect.names, strict=True)):
                    self._picture(axes, left, top + 3, number, name, suspect.reason)
                    if place:
                        sign = "≈" if suspect.reason.startswith("nearly") else "="
                        axes.text(left - GAP / 2, top + 3 + SIDE / 2, sign, fontsize=9, ha="center", va="center")
                    left += SIDE + GAP
            else:
                axes.text(MARGIN, top + 3, _line(suspect), fontsize=7, va="top", clip_on=True)
                top += LINE

    def _picture(self, axes: Axes, left: float, top: float, number: int, name: str, reason: str) -> None:
        """Draws one whole picture in the middle of its square, with its name and the reason below."""
        pixels = self._pixels(number)
        if pixels is None:
            axes.text(left + SIDE / 2, top + SIDE / 2, "cannot\nbe shown", fontsize=7, ha="center", va="center")
            pixels = np.full((1, 1, 3), 225, np.uint8)
        high, wide = (SIDE * side / max(pixels.shape[:2]) for side in pixels.shape[:2])
        x, y = left + (SIDE - wide) / 2, top + (SIDE - high) / 2
        extent: Any = (x, x + wide, y + high, y)
        axes.imshow(pixels, extent=extent, interpolation="none" if max(pixels.shape) < PIXELS / 2 else "antialiased")
        folder, _, file = name.rpartition("/")
        for place, line in enumerate([folder, file, reason] if folder else [file, reason]):
            y = top + SIDE + 2 + place * (LINE - 1)
            colour = look.colour(3) if line is reason else "0.1"
            axes.text(left, y, _shortened(printable(line)), fontsize=5.5, va="top", color=colour)

    def _pixels(self, number: int) -> NDArray[np.uint8] | None:
        """Returns one image (H, W, 3); None if it cannot be shown."""
        if not self.paths:
            return self.images.thumbnails[number].transpose(1, 2, 0)
        if self.images.facts[number].error is not None:
            return None
        try:
            image, _ = picture(self.paths[number], PIXELS, known=True)
            image.thumbnail((PIXELS, PIXELS))
            return np.asarray(image)
        except (ValueError, DataError):
            return None


def _line(suspect: Suspect) -> str:
    return " = ".join(map(printable, suspect.names)) + (f" ({printable(suspect.reason)})" if suspect.reason else "")


def _shortened(name: str) -> str:
    """Shortens a name that is too long to its beginning and its end."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS // 2]}…{name[1 + LETTERS // 2 - LETTERS :]}"
