"""What a bias is worth in images: how many times the images a network without it needs for the same error.

Rungs and their reference are those of vitbench/comparing/rungs.py. A rung has an error e at n images, and the curve of
the reference has this error at n_ref images. A bias that the rung has and the reference lacks (`bare=`) is worth
n_ref / n, and one that the reference has and the rung lacks (`whole=`) is worth n / n_ref. This is the label-efficiency
ratio of vitbench/numbers/efficiency.py, at each number of images apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vitbench.comparing.degenerate import run_is_at_chance
from vitbench.comparing.differences import Against
from vitbench.comparing.grouping import Group
from vitbench.comparing.rungs import PLACE, Ladder, Rung
from vitbench.comparing.select import Runs
from vitbench.errors import UserError, check_choice
from vitbench.numbers.curves import Curve
from vitbench.numbers.efficiency import Ratio, label_efficiency
from vitbench.numbers.intervals import Interval, smallest_difference
from vitbench.numbers.pair import Pair
from vitbench.numbers.words import CALIBRATION

FALLING = ("_error", "_loss")  # results with these endings fall as images grow; those that end in `accuracy` rise
Errors = dict[tuple[Any, ...], float]  # by seed and subset seed


@dataclass(frozen=True)
class RungAtSize(Group):
    """A rung's runs at one number of images, with what the reference does there."""

    rung: Rung
    value: str  # the result that is compared
    difference: Against | None  # from the reference at as many images; None of the reference, or where it has no runs
    multiply_adds_ratio: float  # to the reference
    worth: Ratio | None  # of what tells rung and reference apart
    reason: str  # why there is no worth; empty of the reference, and where there is one

    @property
    def images(self) -> int:
        return int(self.settings[PLACE])

    @property
    def differs(self) -> bool:
        """Whether the 95 % interval of the difference from the reference excludes 0."""
        interval = self.difference.interval(self.value) if self.difference else NO_INTERVAL
        return interval.low > 0 or interval.high < 0

    @property
    def is_told(self) -> bool:
        """Whether the worth has an interval without 1, and the difference, where there is one, has one without 0.

        A bootstrap over three seeds excludes 1 wherever all of them agree, as they do by chance in a quarter of cases.
        """
        if self.worth is None or (self.difference is not None and not self.differs):
            return False
        return self.worth.low > 1 or self.worth.high < 1

    def facts(self) -> dict[str, Any]:
        """The numbers beside the mean, for CSV and JSON; NaN where there is none or it lies outside the bounds."""
        difference = self.difference.interval(self.value) if self.difference else NO_INTERVAL
        worth = self.worth or Ratio(self.images, math.nan, math.nan, math.nan, math.nan, math.nan)
        bound = {math.inf: ">", -math.inf: "<"}.get(worth.value)
        value = {">": worth.most, "<": worth.least}.get(bound or "", worth.value)
        low, high = (end if math.isfinite(end) else math.nan for end in (worth.low, worth.high))
        return {
            "rung": self.rung.name,
            "difference": difference.mean,
            "difference_ci95_low": difference.low,
            "difference_ci95_high": difference.high,
            "smallest_difference": smallest_difference(difference),
            "worth": value,
            "worth_low": low,
            "worth_high": high,
            "worth_bound": bound,
            "reason": self.reason or None,
            "multiply_adds_ratio": self.multiply_adds_ratio,
        }


NO_INTERVAL = Interval(math.nan, math.nan, math.nan, 0, math.nan)


def check_value(runs: Runs, value: str | None) -> str:
    """Returns the result that was typed; raises UserError where it is no accuracy, error or loss of these runs."""
    results = [column for column in runs.numbers() if column.endswith(("accuracy", *FALLING)) and column != CALIBRATION]
    [value], _ = runs.measured("value", [str(value or "test_accuracy")])
    return check_choice("value", value, results)


def measure(ladder: Ladder, value: str) -> list[RungAtSize]:
    """Measures every rung at every number of images, the reference first.

    Raises UserError where the reference has the result at fewer than two numbers of images.
    """
    sizes = [n for n, group in ladder.reference.groups.items() if group.interval(value).n]
    if len(sizes) < 2:
        few = f"{sizes[0]:,} images alone" if sizes else "no number of images"
        raise UserError(f"{ladder.asked}: {ladder.reference.name} has {value} at {few}, and a curve takes two or more")
    cost = next(iter(ladder.reference.groups.values())).interval("multiply_adds").mean
    measured = []
    for rung in ladder.all_rungs:
        for images, group in rung.groups.items():
            there = None if rung is ladder.reference else ladder.reference.groups.get(images)
            difference = None if there is None else Against(group.settings, group.rows, there)
            ratio, reason = (None, "") if rung is ladder.reference else _worth(ladder, group, images, value)
            costs = group.interval("multiply_adds").mean / cost if cost else math.nan
            measured.append(RungAtSize(group.settings, group.rows, rung, value, difference, costs, ratio, reason))
    return measured


def usual_size(measured: Sequence[RungAtSize]) -> int:
    """The number of images at which most rungs were trained, the largest of several."""
    counts = Counter(each.images for each in measured if each.difference or each.worth or each.reason)
    return max(n for n, count in counts.items() if count == max(counts.values()))


def _worth(ladder: Ladder, group: Group, images: int, value: str) -> tuple[Ratio | None, str]:
    """Computes n_ref / n, or its inverse where the rung is the one without the bias; otherwise says why it cannot.

    The reference's curve has the sizes at which it has all seeds that it shares with the rung here.
    """
    errors, name = _errors(group, value), ladder.reference.name
    if not errors:
        return None, f"no {value}"
    if all(map(run_is_at_chance, group.rows)):
        return None, "at chance"
    if not any(error > 0 for error in errors.values()):
        return None, "it errs in nothing"
    curves = {n: _errors(its, value) for n, its in ladder.reference.groups.items()}
    known = {seed for its in curves.values() for seed in its}
    seeds = [seed for seed in errors if seed in curves.get(images, known)]
    if not seeds:
        return None, f"no seed in common with {name}"
    sizes = [
        n for n, its in curves.items() if all(seed in its for seed in seeds) and any(its[seed] > 0 for seed in seeds)
    ]
    if len(sizes) < 2:
        return None, f"{name} has fewer than two sizes with these seeds"
    reference = _curve(name, {n: curves[n] for n in sizes}, seeds)
    ratios = label_efficiency(Pair(_curve("", {images: errors}, seeds), reference, interpolated=True))
    if not ratios:
        return None, f"outside the sizes of {name}"
    if math.isnan(ratios[0].value):
        return None, f"the curve of {name} rises there"
    return (ratios[0].inverse if ladder.is_whole else ratios[0]), ""


def _errors(group: Group, value: str) -> Errors:
    falls = value.endswith(FALLING)
    return {seed: number if falls else 1 - number for seed, number in group.by_seed(value).items()}


def _curve(label: str, errors: Mapping[int, Errors], seeds: list[tuple[Any, ...]]) -> Curve:
    table = np.array([[its[seed] for its in errors.values()] for seed in seeds], float)
    return Curve(label, np.array([*errors], float), table, tuple(seeds))
