"""What was found of two curves, in sentences: where they cross, how many images one needs, and which run is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vitbench.comparing.formats import TOTAL_SECONDS
from vitbench.fitting.findings import Compared, is_matched
from vitbench.numbers.curves import GUARD, UNRELIABLE
from vitbench.numbers.words import is_share

COST_WORDS = {  # what is said of costs that are matched, and of costs that are not
    "multiply_adds": ("FLOP-matched", "FLOPs"),
    "parameters": ("param-matched", "parameters"),
    TOTAL_SECONDS: ("time-matched", "training time"),
}


def pair_title(compared: Compared) -> str:
    """Names the two curves, and the costs in which they are matched."""
    costs = cost_words(compared.costs)
    return f"{compared.pair.a.label} against {compared.pair.b.label}" + (f" ({costs})" if costs else "")


def cost_words(ratios: Mapping[str, float]) -> str:
    """Writes FLOP-matched 0.94x; parameters 4.1x; time-matched 1.02x."""
    return "; ".join(
        f"{COST_WORDS[cost][not is_matched(ratio)]} {_cost_ratio(ratio)}" for cost, ratio in ratios.items()
    )


def _cost_ratio(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 100 else f"{ratio:,.0f}x"


# -------------------------------------------------------------------------------------------------------- crossovers


def crossover_sentence(compared: Compared, value: str) -> str:
    """Says in one sentence whether and where two curves cross."""
    pair, crossover = compared.pair, compared.crossover
    if crossover.why == "few":
        seeds = len(set(pair.a.seeds) & set(pair.b.seeds))
        return f"Crossover undefined: {seeds} seeds and {len(pair.n)} sizes in common, where 2 and 3 are the least."
    leader, follower = crossover.first_leader, compared.first_follower.label
    gaps = [abs(difference.paired.interval.mean) for difference in compared.differences]
    largest, gap = f"{pair.n[-1]:,.0f}", _gap(gaps, value)
    unmet = f"{100 * crossover.unmet_share:.0f} % of draws do not" if crossover.unmet_share else "all draws"
    draws = f"{unmet} cross within {GUARD:g} times the largest size"
    doubt = _doubt(compared)
    place = f"at about {_about(crossover.n)} images {_interval(compared)}"
    if crossover.verdict == "observed":
        return f"Crossover observed: {follower} overtakes {leader} {place}; {draws}."
    if crossover.verdict == "extrapolated":
        times = f"{crossover.times:.1f}"
        return (
            f"Crossover extrapolated x{times}: {follower} would overtake {leader} {place}, {times} times the largest"
            f" size; {draws}{doubt}."
        )
    if crossover.verdict == "beyond guard":
        return (
            f"No crossover up to {largest} images, and beyond guard after that: {gap.rstrip(',')}, and the curves would"
            f" meet only beyond {GUARD:g} times as many, which is not extrapolated{doubt}."
        )
    if crossover.verdict == "undefined":
        return f"Crossover undefined up to {largest} images: {_why_undefined(compared)}."
    if crossover.why == "grows":
        first, last = np.exp(-np.abs(pair.ratios.mean(0)))[[0, -1]]
        return (
            f"No crossover up to {largest} images: {leader} pulls away, its error falls from {first:.2f} to"
            f" {last:.2f} times that of {follower}."
        )
    parallel, never = "the curves are parallel within their intervals", "the fitted curves never meet"
    why = {"parallel": parallel, "never": never}[crossover.why]
    return f"No crossover up to {largest} images: {gap} {'but' if gaps[-1] < max(gaps) else 'and'} {why}."


def crossover_note(compared: Compared) -> str:
    """Says the same in few words, for the small print of a figure."""
    pair, crossover = compared.pair, compared.crossover
    both, leader, follower = f"{pair.a.label}, {pair.b.label}", crossover.first_leader, compared.first_follower.label
    failed = "held-back check failed"
    if crossover.why == "few":
        return f"{both}: too few seeds or sizes in common"
    if crossover.verdict == "observed":
        return f"{follower} overtakes {leader} at {_about(crossover.n)} images {_interval(compared)}"
    if crossover.verdict == "extrapolated":
        return (
            f"{follower} would overtake {leader} at {_about(crossover.n)} images {_interval(compared)} "
            f"(extrapolated x{crossover.times:.1f}{_doubt(compared, failed)})"
        )
    if crossover.verdict == "undefined":
        return f"{both}: crossover undefined, {_why_undefined(compared)}"
    why = {
        "grows": f"{leader} pulls away",
        "parallel": f"{leader} leads, parallel curves",
        "never": f"{leader} leads, the fits never meet",
        "": f"the fits would meet only beyond {GUARD:g} times as many{_doubt(compared, failed)}",
    }[crossover.why]
    return f"{both}: no crossover up to {pair.n[-1]:,.0f} images; {why}"


def _interval(compared: Compared) -> str:
    crossover, n = compared.crossover, compared.pair.n
    return _bracketed(crossover.low, crossover.high, _about, n[0], GUARD * n[-1])


def _doubt(compared: Compared, short: str = "") -> str:
    """Says which fits are unreliable, or what `short` says, if one of them is."""
    unreliable = [curve.label for curve in (compared.pair.a, compared.pair.b) if curve.held_back > UNRELIABLE]
    if not unreliable:
        return ""
    return "; " + (short or f"not to be relied on, the held-back check of {' and '.join(unreliable)} failed")


def _why_undefined(compared: Compared) -> str:
    leader = compared.crossover.first_leader
    return {
        "equal": "no size shows a difference whose interval excludes 0",
        "repeated": "the order changes more than once",
        "uncertain": f"{leader} leads where the intervals exclude 0, but at other sizes the order is not settled",
    }[compared.crossover.why]


def _gap(gaps: Sequence[float], value: str) -> str:
    """Says how a gap changes from the smallest size to the largest, by way of its widest if it is much wider there."""
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


def _about(n: float) -> str:
    """Writes three digits of a number of images, which is more than a crossover is known to."""
    return f"{float(f'{n:.3g}'):,.0f}"


# ------------------------------------------------------------------------------------- images, and runs of one seed


def efficiency_sentence(compared: Compared) -> str:
    """Says how many times the leader's images the follower needs; it is empty where nothing is known.

    The sentence is about the largest size at which the number is known, and else gives the tightest lower bound.
    """
    ratios, leader = compared.ratios, compared.leader.label
    needs = f"{compared.follower.label} needs"
    known = [ratio for ratio in ratios if math.isfinite(ratio.value)]
    if known:
        ratio, last = known[-1], ratios[-1]
        interval = _bracketed(ratio.low, ratio.high, _times, ratio.least, ratio.most)
        sentence = (
            f"{needs} {_times(ratio.value)}x {interval} the images of {leader} to match its error at {ratio.n:,.0f}"
        )
        says_more = last.value == math.inf and last.most > 1.05  # at the follower's own largest size it would not
        return sentence + (f", and more than {_times(last.most)}x at {last.n:,.0f}." if says_more else ".")
    bounded = [ratio for ratio in ratios if ratio.value == math.inf]
    if not bounded:
        return ""
    ratio = bounded[0]
    return f"{needs} more than {_times(ratio.most)}x the images of {leader} to match its error at {ratio.n:,.0f}."


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:,.0f}"


def _bracketed(low: float, high: float, write: Callable[[float], str], least: float, most: float) -> str:
    """Writes [2.9, 4.4], with < and > where an end is outside the range in which there are numbers."""
    if math.isnan(low):
        return "[n/a]"

    def write_end(end: float) -> str:
        return f"< {write(least)}" if end == -math.inf else f"> {write(most)}" if end == math.inf else write(end)

    return f"[{write_end(low)}, {write_end(high)}]"


def mcnemar_sentence(compared: Compared) -> str:
    """Says which of two runs of one seed is better on the same test images; it is empty where none were tested."""
    tested = compared.tested
    if not tested:
        return ""
    a, b = compared.pair.a.label, compared.pair.b.label
    wins = {a: 0, b: 0}
    for test, p_holm in tested:
        if p_holm < 0.05:
            wins[a if test.only_a > test.only_b else b] += 1
    better = [f"{label} is better in {count}" for label, count in wins.items() if count]
    seeds = "the one seed" if len(tested) == 1 else f"{len(tested)} seeds"
    opening = f"Same test images, trained on {tested[0].checkpoints.images:,.0f}:"
    if not better:
        return f"{opening} no difference that McNemar's test calls significant, in {seeds}."
    return f"{opening} of {seeds}, {' and '.join(better)} (McNemar, Holm p < 0.05)."
