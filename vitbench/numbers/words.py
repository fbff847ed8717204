"""How settings and results are written for people: what they are called, their units and their digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from vitbench.numbers.intervals import Interval
from vitbench.numbers.result_names import PERCENT, PIXELS, name_of

SIGNS = (PERCENT, PIXELS)  # units that stand in the heads of tables
HOUR = 3600  # in seconds; of longer work on a processor, users are told what makes it shorter
CALIBRATION = "test_calibration_error"  # it is no 1 minus an accuracy, and guessing gives it no level
OF_A_CLASS = ("recall", "precision", "confusion")  # shares of the images of a class, or of those that were given it


class RenamedValue(str):
    """A setting's value for which a study has another word: people are shown the word, all else uses the value."""

    word: str

    def __new__(cls, value: str, word: str) -> RenamedValue:
        renamed = super().__new__(cls, value)
        renamed.word = word
        return renamed


def typed_value(value: Any) -> str:
    """Writes a value as one types it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed_value, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def listed(words: Iterable[str]) -> str:
    """Writes 450, 1,350 and 4,500."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def plural(n: int, word: str) -> str:
    """Writes 1 run, 2 runs, 3 classes."""
    return f"{n:,} {word}{'' if n == 1 else 'es' if word.endswith('s') else 's'}"


def is_share(column: str) -> bool:
    """Whether a result is a share of 1, which people read in percent."""
    return column.endswith(("_accuracy", "_error")) or column in OF_A_CLASS


def column_label(column: str) -> str:
    """Names a result for axes and captions, with its unit behind a comma; a setting keeps the name that one types."""
    name = name_of(column)
    if name is not None:
        return f"{name.long}, {name.unit}" if name.unit else name.long
    words = column if "." in column else column.replace("_", " ")
    return f"{words}, {PERCENT}" if is_share(column) else words


def column_words(column: str) -> str:
    """Names a result as `column_label` does, without its unit."""
    return column_label(column).partition(",")[0]


def column_phrase(column: str) -> str:
    """Names a result within a sentence: test accuracy in %, class unchanged by noise (share of images)."""
    words, _, unit = column_label(column).partition(", ")
    return f"{words} in {unit}" if unit in SIGNS else f"{words} ({unit})" if unit else words


def column_short(column: str) -> str:
    """Names a result where there is little room, without its unit; a setting keeps the name that one types."""
    name = name_of(column)
    return column_words(column) if name is None else name.short


def column_head(column: str) -> str:
    """Names a result for the head of a table, with its unit where that is a sign."""
    unit = column_label(column).partition(", ")[2]
    return f"{column_short(column)}, {unit}" if unit in SIGNS else column_short(column)


def says_what_to_type(column: str) -> bool:
    """Whether the short form of a result is what one types, but for its signs: test accuracy, test_accuracy."""
    return column_short(column).replace(" ", "_").replace("-", "") == column


def shown_value(value: Any) -> str:
    """Writes a setting for a table: as one types it, or a dash where the model has no such setting."""
    return "-" if value is None else printable(value.word if isinstance(value, RenamedValue) else typed_value(value))


def printable(text: str) -> str:
    """Removes line breaks, and escapes letters that would move the cursor of a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(text.splitlines()))


def decimals_of(column: str, intervals: Iterable[Interval]) -> int:
    """Counts the digits after the point with which a column's median interval keeps two; percents get one or two.

    Where there are no intervals, a thirtieth of the smallest mean takes their place.
    """
    scale = 100 if is_share(column) else 1
    with_value = [i for i in intervals if i.n]
    halves = sorted(scale * i.half for i in with_value if i.why is None)
    thirtieths = [abs(scale * i.mean) / 30 for i in with_value if i.mean]
    size = halves[len(halves) // 2] if halves else min(thirtieths, default=0.0)
    digits = 1 - math.floor(math.log10(size)) if size > 0 else 0
    # where two digits of the interval take more than two after the point, it gets one
    most = max(2, digits - 1) if halves and digits <= 6 else 2
    return min(max(digits, 1), most) if is_share(column) else min(max(digits, 0), 6)


def shown_number(column: str, value: float, digits: int) -> str:
    """Writes a result for people: a share in percent, parameters and multiply-adds in millions, of training in T."""
    if value != value:
        return "n/a"
    if is_share(column):
        return rounded(100 * value, digits)
    if column == "total_multiply_adds":
        return f"{value / 1e12:,.{_digits(value / 1e12)}f} T"
    if column in ("parameters", "multiply_adds"):
        return f"{value / 1e6:,.{_digits(value / 1e6)}f} M"
    return rounded(value, digits)


def rounded(value: float, digits: int) -> str:
    """Writes a number with so many digits after the point, and 0 without a minus, not as -0.00."""
    shown = f"{value:,.{digits}f}"
    return shown.lstrip("-") if not shown.strip("-0.") else shown


def rounded_half(half: float, digits: int) -> str:
    """Writes half an interval; one that is too small for the digits is written as <0.01, not as 0."""
    return f"<{10.0**-digits:.{digits}f}" if 0 < half < 0.5 * 10.0**-digits else f"{half:,.{digits}f}"


def signed_words(column: str, interval: Interval, digits: int) -> str:
    """Writes +3.1 ± 0.4 of a difference."""
    mean = shown_number(column, interval.mean, digits)
    half = "n/a" if math.isnan(interval.half) else shown_half(column, interval.half, digits)
    return f"{'+' if interval.mean > 0 and mean.strip('0.') else ''}{mean} ± {half}"


def shown_half(column: str, half: float, digits: int) -> str:
    """Writes half an interval of a result, or its deviation, as `shown_number` does."""
    shown = shown_number(column, half, digits)
    return rounded_half(100 * half if is_share(column) else half, digits) if not shown.strip("0.") else shown


def share_words(share: float) -> str:
    """Writes 3 %, or <1 % of a share that is small and above 0."""
    return "<1 %" if 0 < share < 0.005 else ">99 %" if 0.995 < share < 1 else f"{100 * share:.0f} %"


def number(n: float) -> str:
    """Writes a number of images with three digits, as no crossover is known more exactly; a large one as 2.6e12."""
    if n >= 1e9:
        return f"{n:.3g}".replace("e+", "e")
    if 0 < n < 10 and not float(n).is_integer():  # as of seconds of training, which can be few
        return f"{n:.2g}"
    return f"{float(f'{n:.3g}'):,.0f}" if not float(n).is_integer() or n > 1e6 else f"{n:,.0f}"


def spoken(seconds: float) -> str:
    """Writes a time that is roughly known: 80 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def times(ratio: float) -> str:
    """Writes a ratio with two digits or so: 0.45, 3.1, 120."""
    return f"{ratio:.2g}" if ratio < 1 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:,.0f}"


def bracketed(low: float, high: float, write: Callable[[float], str], least: float, most: float) -> str:
    """Writes [2.9, 4.4], with < and > where an end is outside the range in which there are numbers."""
    if math.isnan(low):
        return "[n/a]"

    def write_end(end: float) -> str:
        return f"< {write(least)}" if end < least else f"> {write(most)}" if end > most else write(end)

    return f"[{write_end(low)}, {write_end(high)}]"


def p_words(p: float) -> str:
    """Writes p = 0.03, p < 0.001, or p n/a."""
    shown = shown_p(p)
    return f"p {shown[0]} {shown[1:]}" if shown[0] == "<" else f"p {shown}" if math.isnan(p) else f"p = {shown}"


def shown_p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "<0.001"


def _digits(size: float) -> int:
    """The digits after the point with which a cost is written."""
    return 3 if size < 0.1 else 2 if size < 10 else 1 if size < 100 else 0
