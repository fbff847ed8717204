"""What `vitbench fit` found: the curves, each pair's differences and crossover, as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from vitbench import compare, costs, export, formats
from vitbench.crossover import LEAST_SEEDS, Crossover, Pair, Ratio, crossover, label_efficiency
from vitbench.curves import FEW_SEEDS, UNRELIABLE, Curve
from vitbench.formats import Table
from vitbench.mcnemar import Checkpoints
from vitbench.sentences import better, verdict, worth
from vitbench.stats import Paired, holm, least_p, paired


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
        words = costs.words(self.costs)
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
            at = [(n, *(dict(zip(c.seeds, c.errors[:, c.n.tolist().index(n)].tolist(), strict=True)) for c in (a, b)))
                  for n in pair.n.tolist() if seeds]  # fmt: skip
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
            made.append(Compared(pair, differences, crossover(pair), follower, leader, ratios,
                                 its.costs, [Tested(one, next(p_holm)) for one in its.checkpoints]))  # fmt: skip
        return made

    # ------------------------------------------------------------------------------------------------------- people

    def tables(self) -> list[Table]:
        return [
            self._curves(),
            *([self._differences()] if any(pair.differences for pair in self.pairs) else []),
            *([self._checkpoints()] if any(pair.tested for pair in self.pairs) else []),
        ]

    def _curves(self) -> Table:
        sizes = {_sizes(curve) for curve in self.curves}
        share = compare.is_share(self.value)
        head = ["curve", "form", "exponent, 95 % interval", "offset, %" if share else "offset", "R2", "held-back error"]
        lines, notes = [], list(self.warnings)
        for curve in self.curves:
            offset = curve.offset
            lines.append([
                curve.label, curve.form, _bracketed(curve.exponent.mean, curve.exponent.low, curve.exponent.high, 3),
                "-" if offset is None else compare.number(self.value, offset.mean, 1 if share else 3),
                _fixed(curve.r2, 3), f"{100 * curve.held_back:.1f} %", *([_sizes(curve)] if len(sizes) > 1 else []),
            ])  # fmt: skip
            if curve.held_back > UNRELIABLE:
                notes.append(
                    f"{curve.label}: unreliable; without its largest size the fit misses it by {100 * curve.held_back:.0f} %"
                )
        what = compare.label(self.value).split(",")[0]
        over = sizes.pop() if len(sizes) == 1 else ""
        head += [] if over else ["sizes"]
        caption = f"Learning curves: {what} e over n training images" + (f"; {over}" if over else "")
        return Table("curves", caption, head, lines, 2, notes, [], [], [self.value])

    def _differences(self) -> Table:
        tests = [one for pair in self.pairs for one in pair.differences]
        digits = compare.decimals(self.value, [one.paired.interval for one in tests])
        what = compare.label(self.value).split(",")[0]
        lines = []
        for pair in self.pairs:
            for n, (interval, p), p_holm in pair.differences:
                mean, half = (compare.number(self.value, x, digits) for x in (interval.mean, interval.half))
                lines.append([pair.pair.a.label, pair.pair.b.label, f"{n:,.0f}", f"{'+' if interval.mean > 0 else ''}{mean} ± {half}",
                              str(interval.n), _p(p), _p(p_holm)])  # fmt: skip
        notes = []
        ns = [one.paired.interval.n for one in tests]
        least = least_p(max(ns))
        if least * len(tests) > 0.05:
            corrected = (
                f", {_p(min(1.0, least * len(tests)))} after Holm's correction for {len(tests)}"
                if len(tests) > 1
                else ""
            )
            notes.append(f"{max(ns)} pairs cannot go below p = {_p(least)}{corrected}: no p here can call a difference "
                         "significant; read the intervals")  # fmt: skip
        points = " in points" if compare.is_share(self.value) else ""
        caption = f"Differences of {what}{points}, first minus second, paired by seed and subset: mean ± 95 % interval"
        head = ["model", "against", "images", "difference", "n", "p", "Holm p"]
        return Table("differences", caption, head, lines, 2, notes, [], [], [self.value])

    def _checkpoints(self) -> Table:
        lines = [[pair.pair.a.label, pair.pair.b.label, f"{one.images:,}", str(one.seed), f"{one.only_a:,}", f"{one.only_b:,}",
                  _p(one.p), _p(p_holm)] for pair in self.pairs for one, p_holm in pair.tested]  # fmt: skip
        caption = "Runs of one seed on the same test images: how many images only one of the two has right, and McNemar's exact p"
        head = ["model", "against", "images", "seed", "only model", "only against", "p", "Holm p"]
        return Table("checkpoints", caption, head, lines, 2, [], [], [], [self.value])

    def sentences(self) -> list[tuple[str, list[str]]]:
        """Of each pair its name, where they cross, what one is worth in the other's images, and which of two runs is better."""
        return [(pair.name, [line for line in (verdict(pair, self.value), worth(pair), better(pair)) if line])
                for pair in self.pairs]  # fmt: skip

    def words(self) -> list[str]:
        """All sentences as lines of text, what must be known about the runs after them."""
        lines = [line for name, said in self.sentences() for line in (f"{name}:", *(f"  {one}" for one in said))]
        return [*lines, *self.foot()]

    def foot(self) -> list[str]:
        few = min((len(pair.pair.a.seeds) for pair in self.pairs if pair.pair.paired), default=FEW_SEEDS)
        bootstrap = [f"Intervals of crossovers and image ratios are approximate: bootstrap over {few} seeds."
                     if few >= LEAST_SEEDS else "Two seeds give crossovers and image ratios no interval."]  # fmt: skip
        return [*(bootstrap if few < FEW_SEEDS else []), *map(compare.plain, self.notes)]


def render(form: str, report: Report) -> str:
    """The whole report in one of the formats."""
    if form == "json":
        return export.to_json(report)
    if form == "csv":
        return export.to_csv(report)
    if form == "tex":  # sentences are text, not part of a caption
        tables = formats.render("tex", report.tables(), report.heading, [])
        lines = [*(f"{name}: {' '.join(said)}" for name, said in report.sentences()), *report.foot()]
        items = [rf"\item {formats.escape_latex(line)}" for line in lines]
        return tables + "\n".join(["", r"\begin{itemize}", *items, r"\end{itemize}", ""]) if items else tables
    return formats.render(form, report.tables(), report.heading, report.words())


def _fixed(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _bracketed(value: float, low: float, high: float, digits: int) -> str:
    ends = "n/a" if math.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{_fixed(value, digits)} {ends}"


def _p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "<0.001"


def _sizes(curve: Curve) -> str:
    return f"{len(curve.n)} sizes from {curve.n[0]:,.0f} to {curve.n[-1]:,.0f}, {len(curve.seeds)} seeds"
