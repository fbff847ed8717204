"""What a comparison says, in sentences: whether and where one model overtakes another, and what it is worth in images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vitbench.numbers.curves import GUARD, UNRELIABLE
from vitbench.numbers.words import is_share

if TYPE_CHECKING:
    from vitbench.fitting.findings import Compared


def verdict(compared: Compared, value: str) -> str:
    """The crossover in one sentence."""
    pair, found = compared.pair, compared.crossover
    if found.why == "few":
        seeds = len(set(pair.a.seeds) & set(pair.b.seeds))
        return f"Crossover undefined: {seeds} seeds and {len(pair.n)} sizes in common, where 2 and 3 are the least."
    trail = compared.trail.label
    gaps = [abs(one.paired.interval.mean) for one in compared.differences]
    largest, gap = images(pair.n[-1]), _gap(gaps, value)
    missed = f"{100 * found.unmet_share:.0f} % of draws do not" if found.unmet_share else "all draws"
    nowhere = f"{missed} cross within {GUARD:g} times the largest size"
    trust = _doubt(compared)
    if found.verdict == "observed":
        return (
            f"Crossover observed: {trail} overtakes {found.leader} at about {_about(found.n)} images"
            f" {_where(compared)}; {nowhere}."
        )
    if found.verdict == "extrapolated":
        return (
            f"Crossover extrapolated x{found.times:.1f}: {trail} would overtake {found.leader} at about "
            f"{_about(found.n)} images {_where(compared)}, {found.times:.1f} times the largest size; {nowhere}{trust}."
        )
    if found.verdict == "beyond guard":
        return (
            f"No crossover up to {largest} images, and beyond guard after that: {gap.rstrip(',')}, and the curves would"
            f" meet only beyond {GUARD:g} times as many, which is not extrapolated{trust}."
        )
    if found.verdict == "none":
        if found.why == "grows":
            ratios = np.exp(-np.abs(pair.ratios.mean(0)))[[0, -1]]
            return (
                f"No crossover up to {largest} images: {found.leader} pulls away, its error falls from "
                f"{ratios[0]:.2f} to {ratios[1]:.2f} times that of {trail}."
            )
        parallel, never = "the curves are parallel within their intervals", "the fitted curves never meet"
        rest = {"parallel": parallel, "never": never}[found.why]
        return f"No crossover up to {largest} images: {gap} {'but' if gaps[-1] < max(gaps) else 'and'} {rest}."
    return f"Crossover undefined up to {largest} images: {_unsettled(compared)}."


def brief(compared: Compared) -> str:
    """The same as one line of a figure's small print."""
    pair, found = compared.pair, compared.crossover
    a, b, trail = pair.a.label, pair.b.label, compared.trail.label
    if found.why == "few":
        return f"{a}, {b}: too few seeds or sizes in common"
    if found.verdict == "observed":
        return f"{trail} overtakes {found.leader} at {_about(found.n)} images {_where(compared)}"
    if found.verdict == "extrapolated":
        return (
            f"{trail} would overtake {found.leader} at {_about(found.n)} images {_where(compared)} "
            f"(extrapolated x{found.times:.1f}{_doubt(compared, 'held-back check failed')})"
        )
    if found.verdict == "undefined":
        return f"{a}, {b}: crossover undefined, {_unsettled(compared)}"
    why = {
        "grows": f"{found.leader} pulls away",
        "parallel": f"{found.leader} leads, parallel curves",
        "never": f"{found.leader} leads, the fits never meet",
        "": f"the fits would meet only beyond {GUARD:g} times as many{_doubt(compared, 'held-back check failed')}",
    }[found.why]
    return f"{a}, {b}: no crossover up to {images(pair.n[-1])} images; {why}"


def worth(compared: Compared) -> str:
    """The label-efficiency ratio in one sentence: at the largest size that has a number, else the tightest bound."""
    known = [ratio for ratio in compared.ratios if math.isfinite(ratio.value)]
    who = f"{compared.follower.label} needs"
    if known:
        r = known[-1]
        where = _bounded(r.low, r.high, _times, r.least, r.most)
        words = (
            f"{who} {_times(r.value)}x {where} the images of {compared.leader.label} to match its error at"
            f" {images(r.n)}"
        )
        last = compared.ratios[-1]
        more = last.value == math.inf and last.most > 1.05  # at B's own largest size it goes without saying
        return words + (f", and more than {_times(last.most)}x at {images(last.n)}." if more else ".")
    never = [ratio for ratio in compared.ratios if ratio.value == math.inf]
    if not never:
        return ""
    r = never[0]
    return (
        f"{who} more than {_times(r.most)}x the images of {compared.leader.label} to match its error at {images(r.n)}."
    )


def better(compared: Compared) -> str:
    """McNemar's test in one sentence: which of two runs of one seed is better on the same test images."""
    tested = compared.tested
    if not tested:
        return ""
    a, b = compared.pair.a.label, compared.pair.b.label
    wins = {a: 0, b: 0}
    for one, p_holm in tested:
        if p_holm < 0.05:
            wins[a if one.only_a > one.only_b else b] += 1
    said = [f"{name} is better in {count}" for name, count in wins.items() if count]
    seeds = "the one seed" if len(tested) == 1 else f"{len(tested)} seeds"
    none = "no difference that McNemar's test calls significant" if not said else ""
    at = f"Same test images, trained on {images(tested[0].checkpoints.images)}:"
    return f"{at} of {seeds}, {' and '.join(said)} (McNemar, Holm p < 0.05)." if said else f"{at} {none}, in {seeds}."


def _where(compared: Compared) -> str:
    found, n = compared.crossover, compared.pair.n
    return _bounded(found.low, found.high, _about, n[0], GUARD * n[-1])


def _doubt(compared: Compared, short: str = "") -> str:
    doubt = [curve.label for curve in (compared.pair.a, compared.pair.b) if curve.held_back > UNRELIABLE]
    if not doubt:
        return ""
    return f"; {short}" if short else f"; not to be relied on, the held-back check of {' and '.join(doubt)} failed"


def _unsettled(compared: Compared) -> str:
    found = compared.crossover
    return {
        "equal": "no size shows a difference whose interval excludes 0",
        "repeated": "the order changes more than once",
        "uncertain": f"{found.leader} leads where the intervals exclude 0, but at other sizes the order is not settled",
    }[found.why]


def _gap(gaps: Sequence[float], value: str) -> str:
    """From the smallest to the largest size, and what it was between where it was much wider there."""
    first, widest, last = gaps[0], max(gaps), gaps[-1]
    if is_share(value):
        digits = 0 if min(gaps) >= 0.02 and round(100 * first) != round(100 * last) else 1
        words, unit = [f"{100 * gap:.{digits}f}" for gap in (first, widest, last)], " points"
    else:
        words, unit = [f"{gap:.3f}" for gap in (first, widest, last)], ""
    if widest > 1.1 * max(first, last):
        return f"the gap grows from {words[0]} to {words[1]}{unit}, then shrinks to {words[2]},"
    if words[0] == words[2]:
        return f"the gap stays at {words[0]}{unit}"
    return f"the gap {'shrinks' if last < first else 'grows'} from {words[0]} to {words[2]}{unit}"


def _bounded(low: float, high: float, say: Callable[[float], str], least: float, most: float) -> str:
    """[2.9, 4.4], with < and > where draws leave the range in which there are numbers."""
    if math.isnan(low):
        return "[n/a]"
    left = f"< {say(least)}" if low == -math.inf else f"> {say(most)}" if low == math.inf else say(low)
    right = f"> {say(most)}" if high == math.inf else f"< {say(least)}" if high == -math.inf else say(high)
    return f"[{left}, {right}]"


def images(n: float) -> str:
    return f"{n:,.0f}"


def _about(n: float) -> str:
    """Three digits are more than a crossing is known to."""
    return f"{float(f'{n:.3g}'):,.0f}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:,.0f}"
