"""What was found of two curves, in sentences: which errs less, where they cross, and how many images one needs.

A sentence says no more than its numbers: where an interval holds 0, the matter "cannot be told".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vitbench.comparing.axes import IMAGES, Axis
from vitbench.comparing.formats import TOTAL_SECONDS
from vitbench.fitting.findings import Compared, is_matched
from vitbench.numbers.crossover import LEAST_SIZES
from vitbench.numbers.curves import GUARD, UNRELIABLE
from vitbench.numbers.intervals import Interval
from vitbench.numbers.pair import LEAST_SEEDS
from vitbench.numbers.words import (
    bracketed,
    decimals_of,
    is_share,
    listed,
    number,
    p_words,
    plural,
    rounded,
    rounded_half,
    share_words,
    times,
)

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


def pair_sentences(compared: Compared, value: str, axis: Axis = IMAGES) -> list[str]:
    """All that is said of a pair."""
    said = [
        pooled_sentence(compared, value, axis),
        crossover_sentence(compared, axis),
        efficiency_sentence(compared, axis),
        mcnemar_sentence(compared),
    ]
    return [sentence for sentence in said if sentence]


# ------------------------------------------------------------------------------------------------- which errs less


def pooled_sentence(compared: Compared, value: str, axis: Axis = IMAGES) -> str:
    """Says which model errs less over all sizes that count, or how their difference changes; or that it is not told."""
    pair, pooled = compared.pooled_pair, compared.pooled
    interval, n = pooled.interval, pair.n
    opening = "At this budget, " if compared.crossover.verdict == "limited" else ""
    if not interval.n:
        return ""
    what = value.removeprefix("test_")
    if pooled.changes:
        means = pair.differences.mean(0)
        first, last = (f"{_signed(mean, value)}" for mean in (means[0], means[-1]))
        if compared.crossover.verdict == "observed":
            way = "cross"
        elif means[0] * means[-1] < 0:
            way = "may cross"
        elif (means[1:-1] * means[0] < 0).any():
            way = "may cross and cross back"
        else:
            way = "approach" if abs(means[-1]) < abs(means[0]) else "part"
        changes = f"{'t' if opening else 'T'}he difference of {what} changes with the {axis.unit}"
        scale = " in points" if is_share(value) else ""
        return f"{opening}{changes}: {first} at {number(n[0])}, {last} at {number(n[-1])}; the curves {way}{scale}."
    sizes = f"mean over {len(n)} sizes from {number(n[0])} to {number(n[-1])}" if len(n) > 1 else f"at {number(n[0])}"
    over = f"{sizes} {axis.unit}, {interval.n} seeds"
    if compared.is_sure:
        less, more = (pair.b, pair.a) if interval.mean > 0 else (pair.a, pair.b)
        by = points(replace(interval, mean=abs(interval.mean)), value)
        return f"{opening}{less.label} errs less than {more.label}, by {by} ({over}, Holm {p_words(compared.p_holm)})."
    if interval.n < LEAST_SEEDS:
        return f"Two seeds are too few for a verdict: the means differ by {points(interval, value)} ({over})."
    shown = f"{points(interval, value)} ({over}, Holm {p_words(compared.p_holm)})"
    power = ""
    if not math.isnan(pooled.smallest):
        smallest = f"{size_words(pooled.smallest, value)}{_scale(value)[2]}"
        power = f"; a study of {interval.n} seeds often misses a true difference below {smallest}"
    return f"{opening}{'i' if opening else 'I'}t cannot be told which errs less: the difference is {shown}{power}."


def points(interval: Interval, value: str) -> str:
    """Writes 4.0 ± 0.6 points, or 0.120 ± 0.031 of a loss."""
    return interval_words(interval, value) + _scale(value)[2]


def interval_words(interval: Interval, value: str) -> str:
    """Writes the same without its unit."""
    scale, least, _ = _scale(value)
    digits = max(least, decimals_of(value, [interval]))
    half = "n/a" if interval.why else rounded_half(scale * interval.half, digits)
    return f"{rounded(scale * interval.mean, digits)} ± {half}"


def mean_words(interval: Interval, value: str) -> str:
    return size_words(interval.mean, value)


def size_words(size: float, value: str) -> str:
    scale, digits, _ = _scale(value)
    digits += int(scale * size < 0.5 * 10.0**-digits)
    return f"{scale * size:.1g}" if 0 < scale * size < 0.5 * 10.0**-digits else f"{scale * size:.{digits}f}"


def _signed(difference: float, value: str) -> str:
    scale, digits, unit = _scale(value)
    digits += int(abs(scale * difference) < 1)
    tiny = 0 < abs(scale * difference) < 0.5 * 10.0**-digits
    return f"{scale * difference:+.1g}{unit}" if tiny else f"{scale * difference:+.{digits}f}{unit}"


def _scale(value: str) -> tuple[int, int, str]:
    """The factor, the digits and the unit in which a difference is written."""
    return (100, 1, " points") if is_share(value) else (1, 3, "")


# -------------------------------------------------------------------------------------------------------- crossovers


def crossover_sentence(compared: Compared, axis: Axis = IMAGES) -> str:
    """Says in one sentence whether and where two curves cross."""
    pair, crossover = compared.pair, compared.crossover
    unit, leader, follower = axis.unit, crossover.first_leader, compared.first_follower.label
    if crossover.why in ("few", "chance"):
        return f"Crossover undefined: {_why_few(compared)}."
    if crossover.verdict == "limited":
        solved = [n for n in compared.left_out if n in compared.solved]
        limited = [n for n in compared.left_out if n not in compared.solved]
        alone = any(n in curve.n for n in limited for curve in (pair.a, pair.b))
        who = "at least one of the two models is" if alone else "both models are"
        said = [f"at {listed(map(number, limited))} {unit} {who} limited by budget or size"] if limited else []
        said += [f"at {listed(map(number, solved))} {unit} one of them has nothing left to learn"] if solved else []
        opening = f"{' and '.join(said)}, not by images" if limited and not solved else " and ".join(said)
        return f"{opening[0].upper()}{opening[1:]}: this evidence cannot say what more images would do."
    largest = number(pair.n[-1])
    place = f"at about {number(crossover.n)} {unit} {_interval(compared)}"
    if crossover.verdict == "observed":
        unmet = f"; {share_words(crossover.unmet_share)} of the draws have none" if crossover.unmet_share else ""
        return f"Crossover observed: {follower} overtakes {leader} {place}{unmet}."
    ends_early = pair.n[-1] < compared.whole.n[-1]  # larger sizes were measured, but images do not limit them
    of_sizes = "size that counts" if ends_early else "size"
    doubt = _doubt(compared)
    if ends_early:
        larger = listed(number(n) for n in compared.left_out if n > pair.n[-1])
        doubt += f"; {larger} do not count, because there the budget or the size of a model is the limit"
    if crossover.verdict == "extrapolated":
        times = f"{crossover.times:.1f}"
        unmet = f"{share_words(crossover.unmet_share)} of draws do not" if crossover.unmet_share else "all draws"
        return (
            f"Crossover extrapolated x{times}: {follower} would overtake {leader} {place}, {times} times the largest"
            f" {of_sizes}; {unmet} cross within {GUARD:g} times that{doubt}."
        )
    if crossover.verdict == "undefined":
        return f"Crossover undefined up to {largest} {unit}: {_why_undefined(compared)}."
    sure = "" if _keeps_order(compared) else " that is sure"
    opening, ratios = f"No crossover{sure} up to {largest} {unit}", _ratios(compared)
    if crossover.verdict == "beyond guard":
        return (
            f"{opening}, and none that the fits settle beyond: {ratios}. This ratio shrinks, and the curves may or may"
            f" not meet; the fits do not settle it up to {GUARD:g} times the largest {of_sizes}{doubt}."
        )
    why = {
        "grows": "This ratio grows",
        "parallel": "Whether this ratio shrinks cannot be told",
        "never": f"This ratio shrinks, but the fits do not meet within {GUARD:g} times the largest {of_sizes}",
    }[crossover.why]
    return f"{opening}: {ratios}. {why}."


def _keeps_order(compared: Compared) -> bool:
    """Whether the means at all sizes have one order, so that a table shows none of them the other way round."""
    means = compared.pair.differences.mean(0)
    return bool((means >= 0).all() or (means <= 0).all())


def _ratios(compared: Compared) -> str:
    """Says how the ratio of the errors changes from the smallest size to the largest."""
    follower, leader = compared.first_follower.label, compared.crossover.first_leader
    sign = 1 if follower == compared.pair.a.label else -1
    ratios = np.exp(sign * compared.pair.ratios.mean(0))
    widest = int(ratios.argmax())
    said = [f"{ratios[0]:.2f} times that of {leader} at the smallest size"]
    if ratios[widest] > 1.05 * max(ratios[0], ratios[-1]):
        said.append(f"{ratios[widest]:.2f} times at {number(compared.pair.n[widest])}")
    said.append(f"{ratios[-1]:.2f} times at the largest")
    return f"the error of {follower} is {listed(said)}"


def crossover_note(compared: Compared, axis: Axis = IMAGES) -> str:
    """Says the same in few words, for the small print of a figure."""
    pair, crossover, unit = compared.pair, compared.crossover, axis.unit
    both = f"{pair.a.label}{',' if ',' in pair.a.label else ''} and {pair.b.label}"
    leader, follower = crossover.first_leader, compared.first_follower.label
    failed = "held-back check failed"
    if crossover.why in ("few", "chance"):
        return f"{both}: {_why_few(compared)}"
    if crossover.verdict == "limited":
        return f"{both}: limited by budget or size, not by images"
    if crossover.verdict == "observed":
        return f"{follower} overtakes {leader} at {number(crossover.n)} {unit} {_interval(compared)}"
    if crossover.verdict == "extrapolated":
        return (
            f"{follower} would overtake {leader} at {number(crossover.n)} {unit} {_interval(compared)} "
            f"(extrapolated x{crossover.times:.1f}{_doubt(compared, failed)})"
        )
    if crossover.verdict == "undefined":
        return f"{both}: crossover undefined, {_why_undefined(compared)}"
    why = {
        "grows": f"{leader} errs less, by a ratio that grows",
        "parallel": f"{leader} errs less; whether the ratio of errors shrinks cannot be told",
        "never": f"{leader} errs less; the ratio of errors shrinks, but the fits do not meet",
        "": f"the ratio of errors shrinks; the curves may or may not meet{_doubt(compared, failed)}",
    }[crossover.why]
    return f"{both}: no crossover up to {number(pair.n[-1])} {unit}; {why}"


def _interval(compared: Compared) -> str:
    crossover, n = compared.crossover, compared.pair.n
    return bracketed(crossover.low, crossover.high, number, n[0], GUARD * n[-1])


def _doubt(compared: Compared, short: str = "") -> str:
    """Says which fits are unreliable, or what `short` says, if one of them is."""
    unreliable = [curve.label for curve in (compared.pair.a, compared.pair.b) if curve.held_back > UNRELIABLE]
    if not unreliable:
        return ""
    return "; " + (short or f"do not rely on it, because the held-back check of {' and '.join(unreliable)} failed")


def _why_few(compared: Compared) -> str:
    pair = compared.whole
    if compared.crossover.why == "chance":
        guessed = listed(map(number, pair.shared[pair.at_chance]))
        return f"neither model is surely better than guessing at {guessed}, which leaves {plural(len(pair.n), 'size')}"
    common = f"{plural(len({*pair.a.seeds} & {*pair.b.seeds}), 'seed')} and {plural(len(pair.n), 'size')} in common"
    return f"{common}, and a verdict takes {LEAST_SEEDS} and {LEAST_SIZES}"


def _why_undefined(compared: Compared) -> str:
    leader = compared.crossover.first_leader
    if compared.crossover.why != "changes":
        return {
            "equal": "no test says which of the two errs less",
            "mixed": f"{leader} errs less on average over all sizes, but surely more at one of them",
            "fits": f"{leader} errs less on average over all sizes, but by the fits no longer at the largest",
        }[compared.crossover.why]
    intervals = {difference.n: difference.interval for difference in compared.differences}
    sure = [n for n in compared.pair.n[[0, -1]].tolist() if intervals[n].low > 0 or intervals[n].high < 0]
    if not sure:
        return "the difference changes with the size, and it is not sure at either end which errs less"
    places = listed(map(number, sure))
    return f"the difference changes with the size, and which errs less is sure at {places}, but not over all sizes"


# ----------------------------------------------------------------------------------- images, and runs of one seed


def efficiency_sentence(compared: Compared, axis: Axis = IMAGES) -> str:
    """Says how many times the leader's images the follower needs; it is empty where nothing is known of that.

    It is empty, too, where no test says that the two differ: a ratio would claim what the difference does not show.
    The sentence is about the largest size at which the number is known, and else gives the tightest lower bound.
    """
    ratios, leader = compared.ratios, compared.leader.label
    if not (compared.is_sure or compared.pooled.changes or compared.crossover.verdict == "observed"):
        return ""
    needs = f"{compared.follower.label} needs"
    known = [ratio for ratio in ratios if math.isfinite(ratio.value)]
    if known:
        ratio, last = known[-1], ratios[-1]
        found = f"{times(ratio.value)}x {bracketed(ratio.low, ratio.high, times, ratio.least, ratio.most)}"
        if ratio.low < 1 < ratio.high:  # fewer, or more
            sentence = (
                f"Whether {compared.follower.label} needs more {axis.unit} than {leader} to match its error at"
                f" {number(ratio.n)} cannot be told: {found}"
            )
        else:
            sentence = f"{needs} {found} the {axis.unit} of {leader} to match its error at {number(ratio.n)}"
        says_more = last.value == math.inf and last.most > 1.05  # at the follower's own largest size it would not
        return sentence + (f"; it needs more than {times(last.most)}x at {number(last.n)}." if says_more else ".")
    bounded = [ratio for ratio in ratios if ratio.value == math.inf]
    if not bounded:
        return ""
    ratio = bounded[0]
    return (
        f"{needs} more than {times(ratio.most)}x the {axis.unit} of {leader} to match its error at {number(ratio.n)}."
    )


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
    seeds = plural(len(tested), "seed")
    opening = f"On the same test images, after training on {tested[0].checkpoints.images:,.0f} images,"
    if not better:
        return f"{opening} McNemar's test finds no significant difference ({seeds})."
    return f"{opening} {' and '.join(better)} of {seeds} (McNemar, Holm p < 0.05)."
