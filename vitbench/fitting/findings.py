"""What `vitbench fit` finds: curves, and for each pair its differences, crossover, image ratios and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from vitbench.comparing.evidence import Counted
from vitbench.comparing.formats import TOTAL_SECONDS
from vitbench.comparing.grouping import MATCHED, comparison_warnings, groups_of
from vitbench.comparing.select import Row, Runs
from vitbench.fitting.lines import CurveOfRuns, pairs
from vitbench.fitting.mcnemar import Checkpoints, Count, Missing, compare_checkpoints
from vitbench.numbers.crossover import Crossover, Pair, Ratio, find_crossover, label_efficiency
from vitbench.numbers.curves import Curve
from vitbench.numbers.intervals import Paired, holm, paired
from vitbench.numbers.words import printable
from vitbench.runs.record import total_seconds


class Difference(NamedTuple):
    """The errors of two models at one size, paired by seed."""

    n: float
    paired: Paired
    p_holm: float  # corrected over all differences of the report


class Tested(NamedTuple):
    """McNemar's test of two runs."""

    checkpoints: Checkpoints
    p_holm: float  # corrected over all such tests of the report


class Compared(NamedTuple):
    """What was found of two curves, the second of which is the reference."""

    pair: Pair
    differences: list[Difference]
    crossover: Crossover
    leader: Curve  # it leads at the largest size
    follower: Curve
    ratios: list[Ratio]  # how many times the leader's images the follower needs
    costs: Mapping[str, float]
    tested: list[Tested]

    @property
    def first_follower(self) -> Curve:
        """The curve that does not lead at the smallest size, and overtakes where the two cross."""
        return self.pair.b if self.crossover.first_leader == self.pair.a.label else self.pair.a


class PairFacts(NamedTuple):
    """What is known of a pair's runs beside their curves."""

    costs: Mapping[str, float]  # those of the first over those of the second
    checkpoints: Sequence[Checkpoints]  # at the largest size


@dataclass(frozen=True)
class Report:
    """All that one call of `vitbench fit` finds."""

    value: str  # the result that was fitted, such as test_error
    curves: Sequence[Curve]
    curve_pairs: Sequence[tuple[Curve, Curve]]  # those that are compared
    heading: str = ""
    warnings: Sequence[str] = ()  # what makes the comparison weaker than it looks
    notes: Sequence[str] = ()
    facts: Mapping[tuple[str, str], PairFacts] = field(default_factory=dict)  # by the labels of a pair

    @property
    def counted(self) -> list[Counted]:
        """The counts behind McNemar's tests, as they are kept in mcnemar.csv."""
        return [
            Counted(a, b, test.images, test.seed, test.id_a, test.id_b, test.test_images, test.only_a, test.only_b)
            for (a, b), facts in self.facts.items()
            for test in facts.checkpoints
        ]

    @cached_property
    def pairs(self) -> list[Compared]:
        """What was found of each pair; p values are corrected for the number of tests in all pairs."""
        shared = [Pair.of(a, b) for a, b in self.curve_pairs]
        facts = [self.facts.get((a.label, b.label), PairFacts({}, [])) for a, b in self.curve_pairs]
        differences = [_differences(a, b, pair) for (a, b), pair in zip(self.curve_pairs, shared, strict=True)]
        p_differences = iter(holm([difference.p for by_size in differences for _, difference in by_size]))
        p_checkpoints = iter(holm([test.p for pair_facts in facts for test in pair_facts.checkpoints]))
        compared = []
        for pair, by_size, (costs, checkpoints) in zip(shared, differences, facts, strict=True):
            a_leads = pair.paired and len(pair.n) > 0 and pair.ratios[:, -1].mean() < 0
            leader, follower = (pair.a, pair.b) if a_leads else (pair.b, pair.a)
            ratios = label_efficiency(Pair(leader, follower)) if pair.paired else []
            corrected = [Difference(n, difference, next(p_differences)) for n, difference in by_size]
            tested = [Tested(test, next(p_checkpoints)) for test in checkpoints]
            compared.append(Compared(pair, corrected, find_crossover(pair), leader, follower, ratios, costs, tested))
        return compared


def _differences(a: Curve, b: Curve, pair: Pair) -> list[tuple[float, Paired]]:
    """Compares two curves at each size of the pair, if they share a seed."""
    sizes = pair.n.tolist() if {*a.seeds} & {*b.seeds} else []
    return [(n, paired(_errors_at(a, n), _errors_at(b, n))) for n in sizes]


def _errors_at(curve: Curve, n: float) -> dict[object, float]:
    errors = curve.errors[:, curve.n.tolist().index(n)]
    return dict(zip(curve.seeds, errors.tolist(), strict=True))


def report_of(
    value: str,
    lines: Sequence[CurveOfRuns],
    left_out: Sequence[str],
    runs: Runs | None = None,
    against: str | None = None,
    heading: str = "",
    count: Count | None = None,
) -> Report:
    """Composes a report of curves; McNemar's test is made if `count` says where its counts come from."""
    curve_pairs = pairs(lines, against)
    rows_of = {line.curve.label: line.rows for line in lines}
    facts: dict[tuple[str, str], PairFacts] = {}
    missing = ""
    for a, b in curve_pairs:
        rows_a, rows_b = rows_of[a.label], rows_of[b.label]
        shared_sizes = {*a.n.tolist()} & {*b.n.tolist()}
        if not shared_sizes or not rows_a or not rows_b:
            continue
        checkpoints: list[Checkpoints] = []
        if count is not None and value == "test_error":
            try:
                checkpoints = compare_checkpoints(count, rows_a, rows_b, max(shared_sizes))
            except Missing as error:
                missing = missing or f"no McNemar: {error}"
        facts[a.label, b.label] = PairFacts(cost_ratios(rows_a, rows_b, max(shared_sizes)), checkpoints)
    warnings = [*(comparison_warnings(groups_of(runs)) if runs else []), *map(printable, left_out)]
    notes = [*(runs.notes if runs else []), *([missing] if missing else [])]
    return Report(value, [line.curve for line in lines], curve_pairs, heading, warnings, notes, facts)


def cost_ratios(a: Sequence[Row], b: Sequence[Row], images: float) -> dict[str, float]:
    """Divides the costs of model `a` by those of `b`, as far as they are known.

    Training time is that of runs with so many images, and includes what they began from or learned from. Times compare
    on one kind of hardware only: there is no ratio where the runs differ in any of `hardware.*`.
    """
    ratios = {}
    for cost in ("multiply_adds", "parameters"):
        costs_a, costs_b = ({row.get(cost) or math.nan for row in rows} for rows in (a, b))
        if len(costs_a) == len(costs_b) == 1:
            ratios[cost] = costs_a.pop() / costs_b.pop()
    timed = [[row for row in rows if row.get("train_images") == images and total_seconds(row, row)] for rows in (a, b)]
    hardware = {
        tuple(sorted((key, str(value)) for key, value in row.items() if key.startswith("hardware.")))
        for rows in timed
        for row in rows
    }
    if all(timed) and len(hardware) == 1 and () not in hardware:
        seconds_a, seconds_b = (fmean(total_seconds(row, row) or math.nan for row in rows) for rows in timed)
        ratios[TOTAL_SECONDS] = seconds_a / seconds_b
    return {cost: ratio for cost, ratio in ratios.items() if math.isfinite(ratio)}


def is_matched(ratio: float) -> bool:
    """Says whether two costs count as equal."""
    return 1 / MATCHED <= ratio <= MATCHED
