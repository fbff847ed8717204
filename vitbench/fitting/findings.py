"""What `vitbench fit` finds: curves, and for each pair its differences, crossover, image ratios and costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from vitbench.comparing.axes import IMAGES, Axis
from vitbench.comparing.evidence import Counted
from vitbench.comparing.formats import TOTAL_SECONDS
from vitbench.comparing.grouping import MATCHED, comparison_warnings, groups_of
from vitbench.comparing.select import Row, Runs
from vitbench.fitting.limits import Size
from vitbench.fitting.lines import CurveOfRuns, pairs
from vitbench.fitting.mcnemar import Checkpoints, Count, Missing, compare_checkpoints
from vitbench.numbers.crossover import LEAST_SIZES, Crossover, find_crossover
from vitbench.numbers.curves import Curve, FormChoice, choose_form
from vitbench.numbers.efficiency import Ratio, label_efficiency
from vitbench.numbers.intervals import Interval, holm, mean_interval
from vitbench.numbers.pair import LEAST_SEEDS, Pair, Pooled, pool
from vitbench.numbers.words import is_share, number, printable
from vitbench.runs.record import total_seconds

CERTAIN = 0.5  # a fall that is surely below this share of a difference cannot take the difference away


class Difference(NamedTuple):
    """The errors of two models at one size, the second subtracted from the first, paired by seed."""

    n: float
    interval: Interval
    counts: bool  # whether verdicts rest on it


class Tested(NamedTuple):
    """McNemar's test of two runs."""

    checkpoints: Checkpoints
    p_holm: float  # corrected over all such tests of the report


class Compared(NamedTuple):
    """What was found of two curves, the second of which is the reference."""

    whole: Pair  # at all sizes
    pair: Pair  # at the sizes that count for both
    differences: list[Difference]  # at all sizes
    pooled_pair: Pair  # at the sizes over which the difference is pooled: all of them where the verdict is `limited`
    pooled: Pooled
    p_holm: float  # of the pooled test, corrected over the pairs of the report
    crossover: Crossover
    leader: Curve  # it leads at the largest size
    follower: Curve
    ratios: list[Ratio]  # how many times the leader's images the follower needs
    costs: Mapping[str, float]
    tested: list[Tested]
    solved: frozenset[float] = frozenset()  # the sizes at which one of the two has nothing left to learn

    @property
    def first_follower(self) -> Curve:
        """The curve that does not lead at the smallest size, and overtakes where the two cross."""
        return self.pair.b if self.crossover.first_leader == self.pair.a.label else self.pair.a

    @property
    def is_sure(self) -> bool:
        """Whether the pooled test says which model errs less; two seeds never do."""
        return self.pooled.interval.n >= LEAST_SEEDS and self.p_holm < 0.05

    @property
    def left_out(self) -> list[float]:
        """The sizes that do not count because images do not limit one of the models there, not because both guess."""
        return [n for n in self.whole.n.tolist() if n not in self.pair.n]


class PairFacts(NamedTuple):
    """What is known of a pair's runs beside their curves."""

    costs: Mapping[str, float]  # those of the first over those of the second
    checkpoints: Sequence[Checkpoints]  # at the largest size


class Target(NamedTuple):
    """How far along the axis a model would have to go to err so little."""

    curve: Curve
    needed: Interval  # inf where the fit never falls so low


class Certified(NamedTuple):
    """Runs that were done again with more samples."""

    curve: Curve
    size: Size
    difference: float  # the smallest that a verdict rests on at this size; NaN where none does

    @property
    def is_certified(self) -> bool:
        """Whether the fall is surely too small to take the difference away."""
        certificate = self.size.certificate
        return certificate is not None and certificate.fall.high < CERTAIN * self.difference


@dataclass(frozen=True)
class Report:
    """All that one call of `vitbench fit` finds."""

    value: str  # the result that was fitted, such as test_error
    lines: Sequence[CurveOfRuns]
    line_pairs: Sequence[tuple[CurveOfRuns, CurveOfRuns]]  # those that are compared
    heading: str = ""
    warnings: Sequence[str] = ()  # what makes the comparison weaker than it looks
    notes: Sequence[str] = ()
    facts: Mapping[tuple[str, str], PairFacts] = field(default_factory=dict)  # by the labels of a pair
    axis: Axis = IMAGES
    asked_form: str | None = None
    asked_target: float | None = None  # an error, or a loss
    study: str = ""  # the name of the study whose runs these are

    @property
    def counted(self) -> list[Counted]:
        """The counts behind McNemar's tests, as they are kept in mcnemar.csv."""
        return [
            Counted(a, b, test.images, test.seed, test.id_a, test.id_b, test.test_images, test.only_a, test.only_b)
            for (a, b), facts in self.facts.items()
            for test in facts.checkpoints
        ]

    @property
    def rises(self) -> list[str]:
        """Says of each curve whose error surely rises, though the images grow, where it rises most."""
        said = []
        for curve in (line.curve for line in self.lines):
            if curve.rise:
                what, scale, unit = (self.value, 100, " %") if is_share(self.value) else (self.value, 1, "")
                first, last = (
                    f"{scale * curve.errors[:, i].mean():.3g}{unit} at {number(curve.n[i])}" for i in curve.rise
                )
                said.append(
                    f"{curve.label}: its {what} surely rises with the {self.axis.unit}, from {first} to {last}, where"
                    " it should fall. Are these accuracies, or were the runs trained too little?"
                )
        return said

    @cached_property
    def form(self) -> FormChoice:
        """The one form in which all curves are fitted."""
        return choose_form([line.counted for line in self.lines if line.is_fitted], self.asked_form)

    @cached_property
    def fitted_lines(self) -> dict[str, CurveOfRuns]:
        """The lines in the report's form, by label."""
        return {line.label: line.in_form(self.form.form) for line in self.lines}

    @property
    def curves(self) -> list[Curve]:
        """The curves that could be fitted, at the sizes that count."""
        return [line.counted for line in self.fitted_lines.values() if line.is_fitted]

    @cached_property
    def pairs(self) -> list[Compared]:
        """What was found of each pair; p values are corrected for the number of tests in all pairs."""
        lines = [(self.fitted_lines[a.label], self.fitted_lines[b.label]) for a, b in self.line_pairs]
        interpolated = self.axis is not IMAGES
        at_all = [Pair.of(a.curve, b.curve, interpolated) for a, b in lines]
        at_counted = [Pair.of(a.counted, b.counted, interpolated) for a, b in lines]
        pooled_pairs = [
            whole if _is_limited(whole, pair) else pair for whole, pair in zip(at_all, at_counted, strict=True)
        ]
        pooled = [pool(pair) for pair in pooled_pairs]
        p_pooled = holm([each.p for each in pooled])
        facts = [self.facts.get((a.label, b.label), PairFacts({}, [])) for a, b in lines]
        p_checkpoints = iter(holm([test.p for pair_facts in facts for test in pair_facts.checkpoints]))
        compared = []
        for i, (whole, pair, (costs, checkpoints)) in enumerate(zip(at_all, at_counted, facts, strict=True)):
            a_leads = pair.paired and len(pair.n) > 0 and pair.differences[:, -1].mean() < 0
            leader, follower = (pair.a, pair.b) if a_leads else (pair.b, pair.a)
            compared.append(
                Compared(
                    whole,
                    pair,
                    _differences(whole, pair),
                    pooled_pairs[i],
                    pooled[i],
                    p_pooled[i],
                    _verdict(whole, pair, p_pooled[i]),
                    leader,
                    follower,
                    label_efficiency(Pair(leader, follower, interpolated)) if pair.paired and len(pair.n) else [],
                    costs,
                    [Tested(test, next(p_checkpoints)) for test in checkpoints],
                    frozenset(size.n for line in lines[i] for size in line.sizes if size.is_solved),
                )
            )
        return compared

    @property
    def targets(self) -> list[Target]:
        """What each curve would need for the error that was asked for."""
        error = self.asked_target
        return [] if error is None else [Target(curve, curve.needed_for(error)) for curve in self.curves]

    @property
    def certified(self) -> list[Certified]:
        """The sizes of all curves that have certificates."""
        return [
            Certified(line.curve, size, self._rests_on(line.label, size.n))
            for line in self.lines
            for size in line.sizes
            if size.certificate
        ]

    @cached_property
    def certified_sizes(self) -> set[tuple[str, float]]:
        """The label and the size of each point whose certificate shows that the budget does not limit it."""
        return {(found.curve.label, found.size.n) for found in self.certified if found.is_certified}

    def _rests_on(self, label: str, n: float) -> float:
        """The smallest difference of a curve that a verdict rests on: the pooled one, or that at n where it changes."""
        resting = []
        for compared in self.pairs:
            if label not in (compared.pair.a.label, compared.pair.b.label):
                continue
            if compared.pooled.changes:
                resting += [abs(difference.interval.mean) for difference in compared.differences if difference.n == n]
            elif compared.is_sure:
                resting.append(abs(compared.pooled.interval.mean))
        return min(resting, default=math.nan)

    @property
    def in_other_forms(self) -> list[Report]:
        """The same report in each other form that fits about as well, or better than one that was asked for."""
        return [replace(self, asked_form=form) for form in self.form.as_good]


def _is_limited(whole: Pair, pair: Pair) -> bool:
    """Whether a pair has enough seeds and sizes, and too few of the sizes count."""
    enough = whole.paired and len(whole.a.seeds) >= LEAST_SEEDS and len(whole.n) >= LEAST_SIZES
    return enough and len(pair.n) < LEAST_SIZES


def _verdict(whole: Pair, pair: Pair, p: float) -> Crossover:
    """The verdict at the sizes that count; where there are too few sizes at all, it says why."""
    if _is_limited(whole, pair):
        return Crossover("limited")
    return find_crossover(whole if len(whole.n) < LEAST_SIZES else pair, p)


def _differences(whole: Pair, pair: Pair) -> list[Difference]:
    """Compares two curves at each size of the pair, over the seeds that have both."""
    if not {*whole.a.seeds} & {*whole.b.seeds}:
        return []
    rows = [(whole.a.seeds.index(seed), whole.b.seeds.index(seed)) for seed in whole.a.seeds if seed in whole.b.seeds]
    a, b = (curve.errors_at(whole.shared) for curve in (whole.a, whole.b))
    differences = [[float(a[i, k] - b[j, k]) for i, j in rows] for k in range(len(whole.shared))]
    counted = {*pair.n.tolist()}
    return [
        Difference(n, mean_interval(values, scale=whole.scale), n in counted)
        for n, values in zip(whole.shared.tolist(), differences, strict=True)
    ]


def report_of(
    value: str,
    lines: Sequence[CurveOfRuns],
    left_out: Sequence[str],
    runs: Runs | None = None,
    against: str | None = None,
    heading: str = "",
    count: Count | None = None,
    axis: Axis = IMAGES,
    form: str | None = None,
    target: float | None = None,
) -> Report:
    """Composes a report of curves; McNemar's test is made if `count` says where its counts come from."""
    line_pairs = pairs(lines, against)
    facts: dict[tuple[str, str], PairFacts] = {}
    missing = ""
    for a, b in line_pairs:
        shared_sizes = {*a.curve.n.tolist()} & {*b.curve.n.tolist()} if axis is IMAGES else {}
        if not shared_sizes or not a.rows or not b.rows:
            continue
        checkpoints: list[Checkpoints] = []
        if count is not None and value == "test_error":
            try:
                checkpoints = compare_checkpoints(count, a.rows, b.rows, max(shared_sizes))
            except Missing as error:
                missing = missing or f"no McNemar: {error}"
        facts[a.label, b.label] = PairFacts(cost_ratios(a.rows, b.rows, max(shared_sizes)), checkpoints)
    warnings = [*(comparison_warnings(groups_of(runs)) if runs else []), *map(printable, left_out)]
    notes = [*(runs.notes if runs else []), *([missing] if missing else [])]
    return Report(value, lines, line_pairs, heading, warnings, notes, facts, axis, form, target)


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
