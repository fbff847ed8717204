"""How means and differences are written in the cells of a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from vitbench.comparing.degenerate import MARK, mark_note
from vitbench.comparing.grouping import Group
from vitbench.numbers.intervals import Interval, smallest_difference
from vitbench.numbers.words import column_short, decimals_of, is_number, is_share, shown_half, shown_number


class Cell(str):
    """The text of a cell, and its number with all digits, which a page sorts by and tells on request."""

    number: float
    exact: str  # in words

    def __new__(cls, text: str, number: float, exact: str) -> Cell:
        cell = super().__new__(cls, text)
        cell.number, cell.exact = number, exact
        return cell

    def __add__(self, more: str) -> Cell:
        return Cell(f"{self!s}{more}", self.number, self.exact)


SHOW = {"ci95": "mean ± 95 % interval", "sd": "mean ± standard deviation", "mean": "mean"}


def cell_writer(groups: Sequence[Group], value: str, show: str, signed: bool) -> Callable[[Group], Cell]:
    """Returns a function that writes a group's result, with as many digits as those of the others, and its mark."""
    digits = decimals_of(value, [group.interval(value) for group in groups])

    def write_cell(group: Group) -> Cell:
        interval = group.interval(value)
        mean = shown_number(value, interval.mean, digits)
        mean = f"+{mean}" if signed and interval.mean > 0 and mean.strip("0.") else mean
        mark = MARK if group.degenerate(value) else ""
        if show != "mean" and interval.n:
            mean += f" ± {shown_half(value, interval.half if show == 'ci95' else interval.sd, digits)}"
        return Cell(mean + mark, interval.mean, exact_words(interval))

    return write_cell


def exact_words(interval: Interval) -> str:
    """Writes a mean with seven digits, its interval, if it has one, and its n."""
    if not interval.n:
        return "not measured"
    ends = f", 95 % interval {interval.low:.7g} to {interval.high:.7g}" if interval.low < interval.high else ""
    return f"mean {interval.mean:.7g}{ends}, {'one run' if interval.n == 1 else f'n={interval.n}'}"


def shown_of_seeds(intervals: Sequence[Interval], show: str) -> str:
    """What can be shown: means alone where no mean is one of two runs, and else what was asked for."""
    return show if any(interval.n > 1 for interval in intervals) else "mean"


def describe_seeds(intervals: Sequence[Interval], show: str) -> str:
    """Writes, for a caption, what stands after the ± and over how many seeds."""
    ns = {interval.n for interval in intervals if interval.n}
    return "one seed" if ns == {1} else f"{SHOW[show]} over {f'{ns.pop()} ' if len(ns) == 1 else ''}seeds"


def no_interval_notes(intervals: Sequence[Interval], show: str) -> list[str]:
    """Explains n/a after the ±, if a cell has one."""
    why = sorted({interval.why for interval in intervals if interval.n and interval.why})
    return [f"n/a: no interval from {' or '.join(why)}"] if why and show == "ci95" else []


def degenerate_notes(groups: Sequence[Group], values: Sequence[str]) -> list[str]:
    """Explains the mark, if a cell has one."""
    marked = {run_id for group in groups for value in values for run_id in group.degenerate(value)}
    measured = {
        row["id"] for group in groups for row in group.all_rows if any(is_number(row.get(value)) for value in values)
    }
    return [mark_note(len(marked), len(measured))] if marked else []


def power_notes(groups: Sequence[Group], values: Sequence[str]) -> list[str]:
    """Says, for a table of differences, which true difference so many seeds would show in four of five studies."""
    said = []
    for value in values:
        differences = [group.interval(value) for group in groups]
        sizes = sorted(size for each in differences if not math.isnan(size := smallest_difference(each)))
        if not sizes:
            continue
        digits = decimals_of(value, differences)
        least, median, most = (
            shown_number(value, size, digits) for size in (sizes[0], statistics.median(sizes), sizes[-1])
        )
        among = f" (median of {len(sizes)}; {least} to {most})" if len(sizes) > 1 else ""
        unit = " points" if is_share(value) else ""
        said.append(f"{column_short(value) + ' ' if len(values) > 1 else ''}{median}{unit}{among}")
    opening = "smallest true difference that this many seeds would show in four of five studies (80 % power)"
    return [f"{opening}: {', '.join(said)}"] if said else []
