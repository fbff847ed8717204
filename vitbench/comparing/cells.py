"""How means and differences are written in the cells of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vitbench.comparing.grouping import Group
from vitbench.numbers.intervals import Interval
from vitbench.numbers.words import decimals_of, shown_number

SHOW = {"ci95": "mean ± 95 % interval", "sd": "mean ± standard deviation", "mean": "mean"}


def cell_writer(groups: Sequence[Group], value: str, show: str, signed: bool) -> Callable[[Interval], str]:
    """Returns a function that writes an interval with as many digits as those of the other groups."""
    digits = decimals_of(value, [group.interval(value) for group in groups])

    def write_cell(interval: Interval) -> str:
        mean = shown_number(value, interval.mean, digits)
        mean = f"+{mean}" if signed and interval.mean > 0 else mean
        if show == "mean" or interval.n == 0:
            return mean
        return f"{mean} ± {shown_number(value, interval.half if show == 'ci95' else interval.sd, digits)}"

    return write_cell
