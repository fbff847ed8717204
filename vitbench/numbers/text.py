"""Text on stdout: cells are aligned in columns, and characters that stdout cannot write are replaced."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def align(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Pads cells to columns, of which the first `left` are aligned left and the others right; nothing is cut."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    ]


def say(text: str) -> None:
    """Prints text as it is, whatever the encoding of stdout."""
    print(speakable(text), end="")


def speakable(text: str) -> str:
    """Replaces what stdout's encoding lacks: under an ASCII locale ± becomes +- and any other letter its code."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.replace("±", "+-").encode(encoding, "backslashreplace").decode(encoding)
    return text
