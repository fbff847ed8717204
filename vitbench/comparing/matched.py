"""Tables of differences at equal accuracy: `table value=shift.crop.conditional_consistency matched=test_accuracy`.

What a probe measures changes with accuracy, which grows along a line of runs: with the training images, with the steps,
or with the steps of kept checkpoints. So a line's result is made a function of its accuracy, for each seed, and two
lines are compared over the accuracies that both reach (vitbench/numbers/matching.py). The difference at equal images or
steps stands beside it, because accuracy itself is an outcome of training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vitbench.comparing import differences
from vitbench.comparing.cells import cell_writer, describe_seeds, power_notes, shown_of_seeds
from vitbench.comparing.degenerate import without_degenerate
from vitbench.comparing.differences import Against
from vitbench.comparing.formats import Table
from vitbench.comparing.grouping import Group, comparison_warnings, groups_of, line_name, lines_along, path_of
from vitbench.comparing.heads import captions
from vitbench.comparing.pairing import usual_pairs
from vitbench.comparing.select import SEED_KEYS, Row, Runs
from vitbench.errors import UserError, check_choice
from vitbench.numbers.intervals import Interval, mean_interval
from vitbench.numbers.matching import AtEqual, PathPoint, compare_at_equal
from vitbench.numbers.words import column_head, column_words, is_number, is_share, plural, shown_number, shown_value

KEPT_STEPS = "step"  # the path of a run's own kept checkpoints

SeedPaths = dict[tuple[Any, ...], list[PathPoint]]  # a line's points by seed and subset seed


@dataclass(frozen=True)
class EqualDifference(Against):
    """A line minus its reference where both are equal in `at_equal`: the accuracy, or the place along the path."""

    path: str
    at_equal: str
    low: float  # the range of `at_equal` that both have, the mean of its ends over seeds
    high: float
    differences: Sequence[float]  # a number for each seed
    note: str  # says why seeds have no difference; empty where all have one
    scale: float  # the largest of the values that were subtracted

    def interval(self, column: str) -> Interval:
        return mean_interval(self.differences, scale=self.scale)

    def facts(self) -> dict[str, Any]:
        return {
            "reference": line_name(self.reference.settings),
            "path": self.path,
            "at_equal": self.at_equal,
            "from": self.low,
            "to": self.high,
            "reason": self.note,
        }


def build_matched_table(
    name: str, runs: Runs, *, rows: Any, value: Any, show: str, against: str | None, matched: str
) -> Table:
    """Builds the table of one result; raises UserError where no line has two places along a path."""
    swept = {row["column"] for rows in runs.swept.values() for row in rows if row.get("at_unit") == KEPT_STEPS}
    [matched], _ = runs.measured("matched", [str(matched)], swept)
    check_choice("matched", matched, [column for column in {*runs.numbers(), *swept} if column.endswith("accuracy")])
    if value is None or isinstance(value, list):
        raise UserError(f"matched={matched}: compares one result; say which with value=, such as what a probe measured")
    [value], _ = runs.measured("value", [str(value)], swept)
    runs, left_out = without_degenerate(runs, value)
    path, lines, paths = find_paths(runs, value, matched, runs.listed("rows", rows))
    keys, all_groups = [*lines[0].settings], groups_of(runs)
    notes = [*comparison_warnings(all_groups), *left_out]
    if against is None:
        pairs = [Against(a.settings, a.rows, b) for a, b in usual_pairs(lines)]
        if not pairs:
            raise UserError(f"matched={matched}: no two lines to compare; there: {', '.join(map(_name, lines))}")
    else:
        pairs, unpaired = differences.against(lines, keys, None, str(against))
        notes += [f"no {against} to compare with: {', '.join(unpaired)}"] if unpaired else []
    compared: list[tuple[EqualDifference, EqualDifference]] = []
    for pair in pairs:
        a, b = paths[_name(pair)], paths[_name(pair.reference)]
        found = [compare_at_equal(a[seed], b[seed]) for seed in a if seed in b and a[seed] and b[seed]]
        compared.append(_differences(pair, found, path, matched))
    notes += [both[0].note for both in compared if both[0].note]
    power = power_notes([both[0] for both in compared], [value])
    notes += [f"at equal {column_words(matched)}, {note}" for note in power]
    groups = [group for both in compared for group in both]
    intervals = [group.interval(value) for group in groups]
    show = shown_of_seeds(intervals, show)
    write_cell = cell_writer(groups, value, show, signed=True)
    table_lines = []
    for both in compared:
        settings = [shown_value(both[0].settings[key]) for key in keys]
        numbers = [cell for group in both for cell in (write_cell(group), str(group.interval(value).n))]
        table_lines.append([*settings, _name(both[0].reference), _write_range(both[0], matched), *numbers])
    along = column_words(path)
    head = [*keys, "against", column_head(matched), f"at equal {column_words(matched)}", "n", f"at equal {along}", "n"]
    caption, printed = captions(
        f"{groups[0].phrase(value)}, minus that of {against or 'another line'}, along {along}, paired by seed,"
        f" {describe_seeds(intervals, show)}",
        all_groups,
    )
    left = len(keys) + 1
    return Table(name, caption, head, table_lines, left, notes, [*groups], keys, [value], caption_in_print=printed)


def find_paths(
    runs: Runs, value: str, matched: str, first_keys: Sequence[str]
) -> tuple[str, list[Group], dict[str, SeedPaths]]:
    """Returns what the lines lie along, the lines, and each line's points by its name.

    It is the first of training images, steps, and the steps of kept checkpoints of which a line has two places.
    """
    groups = groups_of(runs)
    path = path_of(groups, [value, matched], first_keys) or KEPT_STEPS
    lines = lines_along(groups, path, first_keys, otherwise=["model"])
    paths = {line.name: _paths_by_seed(runs, line.rows, path, value, matched) for line in lines}
    points = [points for by_seed in paths.values() for points in by_seed.values()]
    if not any(len({point.place for point in seed_points}) > 1 for seed_points in points):
        raise UserError(
            f"value={value} matched={matched}: no line has both at two sizes, numbers of steps or kept checkpoints"
        )
    return path, [Group(line.settings, line.rows) for line in lines], paths


def _paths_by_seed(runs: Runs, rows: Sequence[Row], path: str, value: str, matched: str) -> SeedPaths:
    paths: SeedPaths = {}
    for row in rows:
        points = paths.setdefault(tuple(map(row.get, SEED_KEYS)), [])
        if path == KEPT_STEPS:
            points += _kept_points(runs.swept.get(row["id"], []), value, matched)
        elif is_number(row.get(path)) and is_number(row.get(value)) and is_number(row.get(matched)):
            points.append(PathPoint(row[path], row[matched], row[value]))
    return paths


def _kept_points(swept: Sequence[Row], value: str, matched: str) -> Iterator[PathPoint]:
    """Yields a point for each kept checkpoint of a run that has both results."""
    at_step: dict[str, dict[float, float]] = {value: {}, matched: {}}
    for row in swept:
        if row.get("at_unit") == KEPT_STEPS and row["column"] in at_step and row["value"] == row["value"]:
            at_step[row["column"]][row["at"]] = row["value"]
    for step in sorted(at_step[value].keys() & at_step[matched].keys()):
        yield PathPoint(step, at_step[matched][step], at_step[value][step])


def _differences(
    pair: Against, found: Sequence[AtEqual], path: str, matched: str
) -> tuple[EqualDifference, EqualDifference]:
    """Returns a pair's difference at equal accuracy, and that at equal places along the path."""
    common = [each for each in found if each.low < each.high]
    low, high = (mean_interval(ends).mean for ends in ([each.low for each in common], [each.high for each in common]))
    places = [place for each in found for place in each.places]
    first, last = min(places, default=math.nan), max(places, default=math.nan)
    at_accuracy = [each.at_equal_accuracy for each in common]
    at_places = [each.at_equal_places for each in found]
    line = pair.settings, pair.rows, pair.reference, path
    scale = max((each.scale for each in found), default=0.0)
    no_place = "" if places else f"no {column_words(path)} that both have"
    return (
        EqualDifference(*line, matched, low, high, at_accuracy, _range_note(pair, found, matched), scale),
        EqualDifference(*line, path, first, last, at_places, no_place, scale),
    )


def _range_note(pair: Against, found: Sequence[AtEqual], matched: str) -> str:
    """Says where two lines have no accuracy in common, in all seeds or in some; it is empty where they have."""
    names = f"{_name(pair)} and {_name(pair.reference)}"
    if not found:
        return f"{names}: no seed in common"
    apart = [each for each in found if each.low >= each.high]
    if not apart:
        return ""
    ends, begins = (mean_interval(ends).mean for ends in ([each.high for each in apart], [each.low for each in apart]))
    unit = " %" if is_share(matched) else ""
    where = f"one ends at {shown_number(matched, ends, 1)}{unit}"
    where += f", the other begins at {shown_number(matched, begins, 1)}{unit}"
    seeds = "" if len(apart) == len(found) else f" in {len(apart)} of {plural(len(found), 'seed')}, left out here"
    return f"{names}: no {column_words(matched)} that both reach{seeds}: {where}"


def _write_range(difference: EqualDifference, matched: str) -> str:
    if math.isnan(difference.low):
        return "none in common"
    return " to ".join(shown_number(matched, end, 1) for end in (difference.low, difference.high))


def _name(line: Group) -> str:
    return line_name(line.settings)
