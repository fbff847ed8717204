"""Text on stdout: aligned columns, and what an encoding cannot say."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def align(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Cells as lines of text, the first `left` columns to the left and the others to the right; nothing is cut."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    ]


def say(text: str) -> None:
    """Prints on any stdout."""
    print(speakable(text), end="")


def speakable(text: str) -> str:
    """Text that stdout's encoding can say: under an ASCII locale ± is +-, and a letter that is lacking its code."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("±", "+-").encode(encoding, "backslashreplace").decode(encoding)
    return text
