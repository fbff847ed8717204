"""What `vitbench fit` found: the curves, each pair's differences and crossover, and what the two cost side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import NamedTuple

from vitbench.comparing.formats import TOTAL_SECONDS
from vitbench.comparing.grouping import MATCHED
from vitbench.comparing.select import Row
from vitbench.fitting.mcnemar import Checkpoints
from vitbench.numbers.crossover import Crossover, Pair, Ratio, crossover, label_efficiency
from vitbench.numbers.curves import Curve
from vitbench.numbers.intervals import Paired, holm, paired
from vitbench.runs.record import total_seconds


class Difference(NamedTuple):
    """Two models at one size."""

    n: float
    paired: Paired
    p_holm: float  # corrected over all differences of the report


class Facts(NamedTuple):
    """What is known of the runs of a pair beside their curves."""

    costs: Mapping[str, float]  # of the first over the second's
    checkpoints: Sequence[Checkpoints]  # at the largest size


class Tested(NamedTuple):
    """Two runs on the same test images."""

    checkpoints: Checkpoints
    p_holm: float  # corrected over all such tests of the report


class Compared(NamedTuple):
    """Two curves: the second one is the reference."""

    pair: Pair
    differences: list[Difference]
    crossover: Crossover
    follower: Curve  # which needs more images to match the leader's error at the largest size
    leader: Curve
    ratios: list[Ratio]  # how many times the leader's images
    costs: Mapping[str, float]
    tested: list[Tested]

    @property
    def name(self) -> str:
        """The two, and in which of their costs they are matched."""
        words = cost_words(self.costs)
        return f"{self.pair.a.label} against {self.pair.b.label}" + (f" ({words})" if words else "")

    @property
    def trail(self) -> Curve:
        """The one that does not lead at the smallest size."""
        return self.pair.b if self.crossover.leader == self.pair.a.label else self.pair.a


@dataclass(frozen=True)
class Report:
    value: str  # test_error
    curves: Sequence[Curve]
    chosen: Sequence[tuple[Curve, Curve]]
    heading: str = ""
    warnings: Sequence[str] = ()  # what makes the comparison weaker than it looks
    notes: Sequence[str] = ()
    facts: Mapping[tuple[str, str], Facts] = field(default_factory=dict)  # by the labels of a pair

    @cached_property
    def pairs(self) -> list[Compared]:
        found = []
        for a, b in self.chosen:
            pair = Pair.of(a, b)
            seeds = [seed for seed in a.seeds if seed in b.seeds]
            at = [
                (n, *(dict(zip(c.seeds, c.errors[:, c.n.tolist().index(n)].tolist(), strict=True)) for c in (a, b)))
                for n in pair.n.tolist()
                if seeds
            ]
            found.append((pair, [(n, paired(of_a, of_b)) for n, of_a, of_b in at]))
        corrected = iter(holm([one.p for _, differences in found for _, one in differences]))
        facts = [self.facts.get((a.label, b.label), Facts({}, [])) for a, b in self.chosen]
        p_holm = iter(holm([one.p for its in facts for one in its.checkpoints]))
        made = []
        for (pair, tested), its in zip(found, facts, strict=True):
            differences = [Difference(n, one, next(corrected)) for n, one in tested]
            ahead = pair.paired and len(pair.n) > 0 and pair.ratios[:, -1].mean() < 0
            follower, leader = (pair.b, pair.a) if ahead else (pair.a, pair.b)
            ratios = label_efficiency(Pair(leader, follower)) if pair.paired else []
            made.append(
                Compared(
                    pair,
                    differences,
                    crossover(pair),
                    follower,
                    leader,
                    ratios,
                    its.costs,
                    [Tested(one, next(p_holm)) for one in its.checkpoints],
                )
            )
        return made


# ------------------------------------------------------------------------------------------------- costs side by side

WORDS = {
    "multiply_adds": ("FLOP-matched", "FLOPs"),
    "parameters": ("param-matched", "parameters"),
    TOTAL_SECONDS: ("time-matched", "training time"),
}  # of what is matched, and of what is not


def cost_ratios(a: Sequence[Row], b: Sequence[Row], images: float) -> dict[str, float]:
    """Costs of model `a` over those of `b`, as far as they are known; training time at that many images, with that of what
    a run began from or learned from.

    Times compare on one kind of hardware only: where runs of the two differ in any of `hardware.*` there is no ratio.
    """
    found = {}
    for cost in ("multiply_adds", "parameters"):
        its, others = ({row.get(cost) or math.nan for row in rows} for rows in (a, b))
        if len(its) == len(others) == 1:
            found[cost] = its.pop() / others.pop()
    at = [[row for row in rows if row.get("train_images") == images and total_seconds(row, row)] for rows in (a, b)]
    kinds = {
        tuple(sorted((key, str(value)) for key, value in row.items() if key.startswith("hardware.")))
        for rows in at
        for row in rows
    }
    if all(at) and len(kinds) == 1 and () not in kinds:
        seconds = [fmean(total_seconds(row, row) or math.nan for row in rows) for rows in at]
        found[TOTAL_SECONDS] = seconds[0] / seconds[1]
    return {cost: ratio for cost, ratio in found.items() if math.isfinite(ratio)}


def is_matched(ratio: float) -> bool:
    return 1 / MATCHED <= ratio <= MATCHED


def cost_words(found: Mapping[str, float]) -> str:
    """FLOP-matched 0.94x; parameters 4.1x; time-matched 1.02x"""
    return "; ".join(f"{WORDS[cost][not is_matched(ratio)]} {_times(ratio)}" for cost, ratio in found.items())


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:,.0f}x"
