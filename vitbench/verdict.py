"""What `vitbench fit` found, in words and tables: the curves, each pair's differences, and a sentence for each pair."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from vitbench import compare, formats
from vitbench.crossover import Crossover, Pair, Ratio, crossover, label_efficiency
from vitbench.curves import FEW_SEEDS, GUARD, UNRELIABLE, Curve
from vitbench.formats import Table
from vitbench.stats import Paired, holm, least_p, paired


class Difference(NamedTuple):
    """Two models at one size."""

    n: float
    paired: Paired
    p_holm: float  # corrected over all differences of the report


class Compared(NamedTuple):
    """Two curves: the second one is the reference."""

    pair: Pair
    differences: list[Difference]
    crossover: Crossover
    follower: Curve  # which needs more images to match the leader's error at the largest size
    leader: Curve
    ratios: list[Ratio]  # how many times the leader's images

    @property
    def name(self) -> str:
        return f"{self.pair.a.label} against {self.pair.b.label}"


@dataclass(frozen=True)
class Report:
    value: str  # test_error
    curves: Sequence[Curve]
    chosen: Sequence[tuple[Curve, Curve]]
    heading: str = ""
    warnings: Sequence[str] = ()  # what makes the comparison weaker than it looks
    notes: Sequence[str] = ()

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
        made = []
        for pair, tested in found:
            differences = [Difference(n, one, next(corrected)) for n, one in tested]
            ahead = pair.paired and len(pair.n) > 0 and pair.ratios[:, -1].mean() < 0
            follower, leader = (pair.b, pair.a) if ahead else (pair.a, pair.b)
            ratios = label_efficiency(Pair(leader, follower)) if pair.paired else []
            made.append(Compared(pair, differences, crossover(pair), follower, leader, ratios))
        return made

    # ------------------------------------------------------------------------------------------------------- people

    def tables(self) -> list[Table]:
        return [self._curves(), *([self._differences()] if any(pair.differences for pair in self.pairs) else [])]

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
        return Table("curves", caption, head, lines, 2, notes, [], [], self.value)

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
        return Table("differences", caption, head, lines, 2, notes, [], [], self.value)

    def sentences(self) -> list[tuple[str, list[str]]]:
        """Of each pair its name, where they cross, and what one is worth in the other's images."""
        return [(pair.name, [line for line in (self.verdict(pair), worth(pair)) if line]) for pair in self.pairs]

    def words(self) -> list[str]:
        """All sentences as lines of text, what must be known about the runs after them."""
        lines = [line for name, said in self.sentences() for line in (f"{name}:", *(f"  {one}" for one in said))]
        return [*lines, *self.foot()]

    def foot(self) -> list[str]:
        few = min((len(pair.pair.a.seeds) for pair in self.pairs if pair.pair.paired), default=FEW_SEEDS)
        bootstrap = [f"Intervals of crossovers and image ratios are approximate: bootstrap over {few} seeds."]
        return [*(bootstrap if few < FEW_SEEDS else []), *map(compare.plain, self.notes)]

    def verdict(self, compared: Compared) -> str:
        """The crossover in one sentence."""
        pair, found = compared.pair, compared.crossover
        a, b = pair.a.label, pair.b.label
        if found.why == "few":
            seeds = len(set(pair.a.seeds) & set(pair.b.seeds))
            return f"Crossover undefined: {seeds} seeds and {len(pair.n)} sizes in common, where 2 and 3 are the least."
        trail = b if found.leader == a else a
        gaps = [abs(one.paired.interval.mean) for one in compared.differences]
        largest, gap = _images(pair.n[-1]), self._gap(gaps)
        missed = f"{100 * found.rootless:.0f} % of draws do not" if found.rootless else "all draws"
        nowhere = f"{missed} cross within {GUARD:g} times the largest size"
        doubt = [c.label for c in (pair.a, pair.b) if c.held_back > UNRELIABLE]
        trust = f"; not to be relied on, the held-back check of {' and '.join(doubt)} failed" if doubt else ""
        if found.verdict == "observed":
            where = _bounded(found.low, found.high, _about, pair.n[0], GUARD * pair.n[-1])
            return f"Crossover observed: {trail} overtakes {found.leader} at about {_about(found.n)} images {where}; {nowhere}."
        if found.verdict == "extrapolated":
            where = _bounded(found.low, found.high, _about, pair.n[0], GUARD * pair.n[-1])
            return (f"Crossover extrapolated x{found.times:.1f}: {trail} would overtake {found.leader} at about "
                    f"{_about(found.n)} images {where}, {found.times:.1f} times the largest size; {nowhere}{trust}.")  # fmt: skip
        if found.verdict == "beyond guard":
            return (f"No crossover up to {largest} images, and beyond guard after that: {gap.rstrip(',')}, and the curves would meet "
                    f"only beyond {GUARD:g} times as many, which is not extrapolated{trust}.")  # fmt: skip
        if found.verdict == "none":
            if found.why == "grows":
                ratios = np.exp(-np.abs(pair.ratios.mean(0)))[[0, -1]]
                return (f"No crossover up to {largest} images: {found.leader} pulls away, its error falls from "
                        f"{ratios[0]:.2f} to {ratios[1]:.2f} times that of {trail}.")  # fmt: skip
            rest = {"parallel": "the curves are parallel", "never": "the fitted curves never meet"}[found.why]
            return f"No crossover up to {largest} images: {gap} {'but' if gaps[-1] < max(gaps) else 'and'} {rest}."
        reasons = {
            "equal": "no size shows a difference whose interval excludes 0",
            "repeated": "the order changes more than once",
            "uncertain": f"{found.leader} leads where the intervals exclude 0, but at other sizes the order is not settled",
        }
        return f"Crossover undefined up to {largest} images: {reasons[found.why]}."

    def _gap(self, gaps: Sequence[float]) -> str:
        """From the smallest to the largest size, and what it was between where it was much wider there."""
        first, widest, last = gaps[0], max(gaps), gaps[-1]
        if compare.is_share(self.value):
            digits = 0 if min(gaps) >= 0.02 and round(100 * first) != round(100 * last) else 1
            words, unit = [f"{100 * gap:.{digits}f}" for gap in (first, widest, last)], " points"
        else:
            words, unit = [f"{gap:.3f}" for gap in (first, widest, last)], ""
        if widest > 1.1 * max(first, last):
            return f"the gap grows from {words[0]} to {words[1]}{unit}, then shrinks to {words[2]},"
        if words[0] == words[2]:
            return f"the gap stays at {words[0]}{unit}"
        return f"the gap {'shrinks' if last < first else 'grows'} from {words[0]} to {words[2]}{unit}"

    # ----------------------------------------------------------------------------------------------------- machines

    def json(self) -> dict[str, Any]:
        return {
            "title": self.heading or None,
            "value": self.value,
            "curves": [_curve(curve) for curve in self.curves],
            "pairs": [{
                "model": pair.pair.a.label, "against": pair.pair.b.label, "seeds": len(pair.pair.a.seeds),
                "differences": [{"images": n, **_ends(interval.mean, interval.low, interval.high), "n": interval.n,
                                 "p": p, "p_holm": p_holm} for n, (interval, p), p_holm in pair.differences],
                "crossover": {"verdict": pair.crossover.verdict, "why": pair.crossover.why or None,
                              "leads_at_first": pair.crossover.leader or None,
                              **_ends(pair.crossover.n, pair.crossover.low, pair.crossover.high, "images"),
                              "times_largest": pair.crossover.times, "share_of_draws_without": pair.crossover.rootless,
                              "sentence": self.verdict(pair)},
                "label_efficiency": {"model": pair.follower.label, "matches": pair.leader.label,
                                     "sentence": worth(pair) or None, "at": [_ratio(ratio) for ratio in pair.ratios]},
            } for pair in self.pairs],
            "notes": [*self.warnings, *self.notes],
        }  # fmt: skip

    def rows(self) -> Iterator[list[Any]]:
        """One number a row: model, against, images, statistic, value, its interval, n, words."""
        for c in self.curves:
            yield [
                c.label,
                None,
                None,
                "exponent",
                c.exponent.mean,
                c.exponent.low,
                c.exponent.high,
                len(c.seeds),
                c.form,
            ]
            if c.offset is not None:
                yield [c.label, None, None, "offset", c.offset.mean, c.offset.low, c.offset.high, len(c.seeds), c.form]
            yield [c.label, None, None, "log_b", c.fitted.log_b.item(), None, None, len(c.seeds), c.form]
            if c.form == "m4":
                yield [c.label, None, None, "alpha", c.fitted.alpha.item(), None, None, len(c.seeds), c.form]
            yield [c.label, None, None, "r2_log_error", c.r2, None, None, c.errors.size, c.form]
            yield [c.label, None, c.n[-1], "held_back_error", c.held_back, None, None, len(c.seeds), c.form]
        for pair in self.pairs:
            a, b = pair.pair.a.label, pair.pair.b.label
            for n, (i, p), p_holm in pair.differences:
                yield [a, b, n, "difference", i.mean, i.low, i.high, i.n, None]
                yield [a, b, n, "p_sign_flip", p, None, None, i.n, None]
                yield [a, b, n, "p_holm", p_holm, None, None, i.n, None]
            found = pair.crossover
            yield [
                a,
                b,
                None,
                "crossover",
                found.n,
                *_finite(found.low, found.high),
                len(pair.pair.a.seeds),
                found.verdict,
            ]
            yield [a, b, None, "draws_without_crossover", found.rootless, None, None, len(pair.pair.a.seeds), None]
            for ratio in pair.ratios:
                bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value, "")
                number = ratio.least if bound == "<" else ratio.most if bound else ratio.value
                yield [pair.follower.label, pair.leader.label, ratio.n, "label_efficiency", number,
                       *(_finite(ratio.low, ratio.high) if not bound else (None, None)), len(pair.pair.a.seeds), bound or None]  # fmt: skip


def worth(pair: Compared) -> str:
    """The label-efficiency ratio in one sentence: at the largest size that has a number, else the tightest bound."""
    known = [ratio for ratio in pair.ratios if math.isfinite(ratio.value)]
    who = f"{pair.follower.label} needs"
    if known:
        r = known[-1]
        where = _bounded(r.low, r.high, _times, r.least, r.most)
        words = (
            f"{who} {_times(r.value)}x {where} the images of {pair.leader.label} to match its error at {_images(r.n)}"
        )
        last = pair.ratios[-1]
        more = last.value == math.inf and last.most > 1.05  # at B's own largest size it goes without saying
        return words + (f", and more than {_times(last.most)}x at {_images(last.n)}." if more else ".")
    never = [ratio for ratio in pair.ratios if ratio.value == math.inf]
    if not never:
        return ""
    r = never[0]
    return f"{who} more than {_times(r.most)}x the images of {pair.leader.label} to match its error at {_images(r.n)}."


def render(form: str, report: Report) -> str:
    """The whole report in one of the formats."""
    if form == "json":
        return json.dumps(_plain(report.json()), indent=1, allow_nan=False) + "\n"
    if form == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["model", "against", "images", "statistic", "value", "ci95_low", "ci95_high", "n", "words"])
        writer.writerows([formats.escape_csv(cell) for cell in row] for row in report.rows())
        return out.getvalue()
    if form == "tex":  # sentences are text, not part of a caption
        tables = formats.render("tex", report.tables(), report.heading, [])
        lines = [*(f"{name}: {' '.join(said)}" for name, said in report.sentences()), *report.foot()]
        items = [rf"\item {formats.escape_latex(line)}" for line in lines]
        return tables + "\n".join(["", r"\begin{itemize}", *items, r"\end{itemize}", ""]) if items else tables
    return formats.render(form, report.tables(), report.heading, report.words())


def _curve(curve: Curve) -> dict[str, Any]:
    offset = curve.offset
    return {
        "label": curve.label, "form": curve.form, "images": curve.n.tolist(), "seeds": len(curve.seeds),
        "exponent": _ends(curve.exponent.mean, curve.exponent.low, curve.exponent.high),
        "offset": None if offset is None else _ends(offset.mean, offset.low, offset.high),
        "log_b": curve.fitted.log_b.item(), "alpha": curve.fitted.alpha.item() if curve.form == "m4" else None,
        "chance": curve.chance, "r2_log_error": curve.r2, "held_back_error": curve.held_back,
        "reliable": curve.held_back <= UNRELIABLE, "aicc": curve.aicc, "means": [math.exp(v) for v in curve.mean_logs],
    }  # fmt: skip


def _ratio(ratio: Ratio) -> dict[str, Any]:
    bound = {-math.inf: "<", math.inf: ">"}.get(ratio.value)
    known = _ends(ratio.value, ratio.low, ratio.high, "ratio") if bound is None else {}
    return {"images": ratio.n, "bound": bound} | (known or {"ratio": ratio.least if bound == "<" else ratio.most})


def _ends(mean: float, low: float, high: float, name: str = "value") -> dict[str, float]:
    return {name: mean, "ci95_low": low, "ci95_high": high}


def _plain(value: Any) -> Any:
    """JSON knows neither NaN nor infinity."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else int(value) if value.is_integer() else float(value)
    return value


def _finite(*values: float) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _fixed(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _bracketed(value: float, low: float, high: float, digits: int) -> str:
    ends = "n/a" if math.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{_fixed(value, digits)} {ends}"


def _bounded(low: float, high: float, say: Any, least: float, most: float) -> str:
    """[2.9, 4.4], with < and > where draws leave the range in which there are numbers."""
    if math.isnan(low):
        return "[n/a]"
    left = f"< {say(least)}" if low == -math.inf else f"> {say(most)}" if low == math.inf else say(low)
    right = f"> {say(most)}" if high == math.inf else f"< {say(least)}" if high == -math.inf else say(high)
    return f"[{left}, {right}]"


def _p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "<0.001"


def _images(n: float) -> str:
    return f"{n:,.0f}"


def _about(n: float) -> str:
    """Three digits are more than a crossing is known to."""
    return f"{float(f'{n:.3g}'):,.0f}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:,.0f}"


def _sizes(curve: Curve) -> str:
    return f"{len(curve.n)} sizes from {curve.n[0]:,.0f} to {curve.n[-1]:,.0f}, {len(curve.seeds)} seeds"
