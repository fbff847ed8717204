"""Writes cells as text, in aligned columns or as CSV, and replaces characters that stdout cannot write."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from typing import Any

# what is written where stdout's encoding lacks a letter; the last nine are the blocks of a bar
PLAIN = {"±": "+-", "†": "*", "‡": "**", "→": "->", **dict(zip("▁▂▃▄▅▆▇█░", "_.-~=+*#.", strict=True))}


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


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Writes cells as CSV; lines end as they do on Unix."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue()


def say(text: str) -> None:
    """Prints text as it is, whatever the encoding of stdout."""
    print(speakable(text), end="")


def speakable(text: str) -> str:
    """Replaces what stdout's encoding lacks: in an ASCII locale ± becomes +-, and unknown letters their code."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for letter, plain in PLAIN.items():
            text = text.replace(letter, plain)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text
