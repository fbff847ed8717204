"""Whether a file in results/ is the text that its evidence gives: the same words, and numbers up to rounding."""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path

from vitbench.errors import DataError
from vitbench.machine.disk import LARGE, read_file

TOLERANCE = 1e-6  # a number that is made again may differ by this share of itself
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")


def check_file(path: Path, made_again: str) -> None:
    """Raises DataError at the first line of a committed file that is not what its runs.csv gives."""
    try:
        committed = read_file(path, LARGE).decode(errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; `vitbench report` makes it") from None
    lines = zip_longest(committed.splitlines(), made_again.splitlines(), fillvalue="(nothing)")
    for number, (old, new) in enumerate(lines, 1):
        if not _same(old, new):
            raise DataError(f"{path} line {number}: `{old[:160]}`; its runs.csv gives `{new[:160]}`")


def _same(old: str, new: str) -> bool:
    """Says whether two lines have the same words, and numbers that differ by no more than TOLERANCE."""
    if old == new:
        return True
    if NUMBER.sub("", old) != NUMBER.sub("", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    floats = ((float(a.replace(",", "") or 0), float(b.replace(",", "") or 0)) for a, b in pairs)
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in floats)
