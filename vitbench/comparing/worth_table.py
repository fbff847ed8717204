"""The table of what each bias is worth, and its sentences: `table study=cnn_ladder whole=resnet`.

A line is a rung at one number of images. Settings of `model` are named without their prefix there. CSV and JSON have
all digits and a row for each line, with what tells the rungs apart in columns of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vitbench.comparing.cells import cell_writer, describe_seeds, no_interval_notes, power_notes, shown_of_seeds
from vitbench.comparing.differences import Against
from vitbench.comparing.figure import count_seeds
from vitbench.comparing.formats import Table
from vitbench.comparing.grouping import Group, comparison_warnings
from vitbench.comparing.heads import captions
from vitbench.comparing.rungs import Ladder, find_ladder, setting_word
from vitbench.comparing.select import Runs
from vitbench.comparing.worth import RungAtSize, check_value, measure, usual_size
from vitbench.numbers.curves import FEW_SEEDS
from vitbench.numbers.efficiency import Ratio
from vitbench.numbers.intervals import Interval
from vitbench.numbers.pair import LEAST_SEEDS
from vitbench.numbers.words import (
    bracketed,
    column_head,
    column_phrase,
    column_words,
    decimals_of,
    is_share,
    listed,
    number,
    shown_half,
    shown_number,
    times,
)

LEAST_RUNGS = 3  # rungs from which on a sentence names the highest and the lowest


def build_worth_table(name: str, runs: Runs, *, setting: str, words: str, value: str | None, show: str) -> Table:
    """Builds the table for `whole=WORDS` or `bare=WORDS`; raises UserError as find_ladder does."""
    value = check_value(runs, value)
    ladder = find_ladder(runs, setting, words)
    measured = measure(ladder, value)
    groups: list[Group] = [*measured]
    compared: list[Group] = [each.difference for each in measured if each.difference]
    intervals = [each.interval(value) for each in measured]
    show = shown_of_seeds(intervals, show)
    write_value = cell_writer(groups, value, show, signed=False)
    write_difference = cell_writer(compared, value, show, signed=True)
    lines = []
    for each in measured:
        numbers = [
            f"{each.images:,}",
            write_value(each),
            str(each.interval(value).n),
            write_difference(each.difference) if each.difference else "-",
            "-" if each.rung is ladder.reference else each.reason or worth_words(each.worth, show != "mean"),
            _cost("parameters", each),
            "n/a" if math.isnan(each.multiply_adds_ratio) else f"{each.multiply_adds_ratio:.2f}",
            _cost("train_seconds", each),
        ]
        lines.append([each.rung.name, *numbers])
    difference_label = f"difference{', points' if is_share(value) else ''}"
    head = ["rung", "images", column_head(value), "n", difference_label, "worth", "params", "MACs ratio", "seconds"]
    what = f"{column_phrase(value)}, {describe_seeds(intervals, show)}; {describe_worth(ladder, value)}"
    caption, printed = captions(what, groups)
    notes = [*no_interval_notes(intervals, show), *comparison_warnings(groups), *worth_notes(ladder, measured)]
    notes += power_notes(compared, [value])
    sentences = [
        *extremes_sentence(ladder, measured, value),
        *(worth_sentence(ladder, each) for each in spoken_of(ladder, measured)),
    ]
    return Table(name, caption, head, lines, 1, notes, groups, [*ladder.keys], [value], sentences, printed)


def describe_worth(ladder: Ladder, value: str) -> str:
    """Says what the worth is a ratio of."""
    name, same = ladder.reference.name, "the same loss" if value.endswith("loss") else "the same error"
    if ladder.is_whole:
        return f"worth: the images that a rung has, per image that {name} needs for {same}"
    return f"worth: the images that {name} needs for {same}, per image that a rung has"


def worth_notes(ladder: Ladder, measured: Sequence[RungAtSize]) -> list[str]:
    """Lists what makes worths weaker than they look: few seeds, and rungs that were trained for other steps."""
    notes = []
    counts = {each.interval(each.value).n for each in measured if each.worth}
    few = [n for n in counts if LEAST_SEEDS <= n < FEW_SEEDS]
    if few:
        notes.append(
            f"worth: a bootstrap over {count_seeds(few)}; below {FEW_SEEDS} seeds its intervals are too narrow"
        )
    other_steps = dict.fromkeys(
        each.rung.name for each in measured if each.difference and _steps(each) != _steps(each.difference.reference)
    )
    if other_steps:
        notes.append(f"trained for other numbers of steps than {ladder.reference.name}: {', '.join(other_steps)}")
    return notes


def _steps(group: Group) -> set[int]:
    return {row["steps"] for row in group.rows}


def _cost(cost: str, group: Group) -> str:
    mean = group.interval(cost).mean
    return shown_number(cost, mean, 1 if mean < 10 else 0)


# ----------------------------------------------------------------------------------------------------------- worths


def worth_words(worth: Ratio | None, with_interval: bool = True) -> str:
    """Writes 3.1x [2.4, 4.0], or > 10.0x where the reference has no size as large or as small."""
    if worth is None:
        return "n/a"
    bound = {math.inf: f"> {times(worth.most)}x", -math.inf: f"< {times(worth.least)}x"}.get(worth.value)
    said = bound or f"{times(worth.value)}x"
    # where all draws lie beyond the bound, an interval would only repeat it
    if not with_interval or math.isnan(worth.low) or (bound and worth.low == worth.high):
        return said
    return f"{said} {bracketed(worth.low, worth.high, times, worth.least, worth.most)}"


def spoken_of(ladder: Ladder, measured: Sequence[RungAtSize]) -> list[RungAtSize]:
    """Returns each rung but the reference at one number of images, those that are worth most first.

    It is the number that most rungs have, so that sentences compare. Where a rung has no worth there, it is the largest
    number at which it has one, or else the largest that it has.
    """
    usual = usual_size(measured)
    chosen: dict[str, RungAtSize] = {}
    for each in measured:
        best = chosen.get(each.rung.name, each)
        chosen[each.rung.name] = max(best, each, key=lambda one: (bool(one.worth), one.images == usual, one.images))
    spoken = [each for each in chosen.values() if each.rung is not ladder.reference]
    return sorted(spoken, key=lambda each: -each.worth.value if each.worth else math.inf)


def worth_sentence(ladder: Ladder, each: RungAtSize) -> str:
    """Says what a bias is worth at one number of images, or that it is not known or cannot be told."""
    subject, several = _subject(ladder, each)
    are, it = ("are", "them") if several else ("is", "it")
    images, worth = f"{each.images:,}", each.worth
    if worth is None:
        return f"What {subject} {are} worth at {images} images is not known ({each.rung.name}: {each.reason})."
    interval: Interval = each.interval(each.value)
    said = worth_words(worth).replace("> ", "more than ", 1 if worth.value == math.inf else 0)
    said = said.replace("< ", "less than ", 1 if worth.value == -math.inf else 0)
    no_interval = f" ({count_seeds([interval.n])}, no interval)" if math.isnan(worth.low) else ""
    if not (each.is_told or no_interval):
        they, help_ = ("they", "help") if several else ("it", "helps")
        holds_1 = not (worth.low > 1 or worth.high < 1)
        but = "" if holds_1 or each.difference is None else f", but {_difference_words(each.difference, each.value)}"
        return (
            f"Whether {subject} {help_} cannot be told: at {images} images {they} {are} worth {said} the images{but}."
        )
    with_it, without_it = _image_counts(ladder, each.images, worth)
    if each.is_told and worth.high < 1:
        they, hurt = ("they", "hurt") if several else ("it", "hurts")
        return (
            f"{subject} {hurt}: at {images} images {they} {are} worth {said} the images, as with {it} {with_it} images"
            f" do what {without_it} do without {it}."
        )
    return (
        f"{subject} {are} worth {said} the images at {images}{no_interval}: with {it}, {with_it} images do what"
        f" {without_it} do without {it}."
    )


def extremes_sentence(ladder: Ladder, measured: Sequence[RungAtSize], value: str) -> list[str]:
    """Says which rung has the highest and which the lowest mean where most rungs were trained; empty of few rungs."""
    size = usual_size(measured)
    changes = {
        each.rung.name: each.difference
        for each in measured
        if each.images == size and each.difference and each.interval(value).n
    }
    if len(changes) < LEAST_RUNGS:
        return []
    lowest, *_, highest = sorted(changes, key=lambda name: changes[name].interval(value).mean)
    seeds = {change.interval(value).n for change in changes.values()}
    no_interval = f"; {count_seeds(seeds)}, no interval" if max(seeds) < LEAST_SEEDS else ""
    best, worst = (_change(changes[name], value) for name in (highest, lowest))
    return [
        f"With {size:,} images, {highest} has the highest {column_words(value)} of {len(changes)} rungs"
        f" ({best} against {ladder.reference.name}), and {lowest} the lowest ({worst}{no_interval})."
    ]


def _change(difference: Against, value: str) -> str:
    interval = difference.interval(value)
    digits = decimals_of(value, [interval])
    half = "" if math.isnan(interval.half) else f" ± {shown_half(value, interval.half, digits)}"
    return f"{shown_number(value, interval.mean, digits)}{half}{' points' if is_share(value) else ''}"


def _difference_words(difference: Against, value: str) -> str:
    return f"{column_words(value)} differs by {_change(difference, value)}"


def _subject(ladder: Ladder, each: RungAtSize) -> tuple[str, bool]:
    """Names the bias in question, and says whether it is several settings."""
    rung, reference = each.rung, ladder.reference
    if "model" in rung.own:
        one, other = (reference, rung) if ladder.is_whole else (rung, reference)
        return f"{one.name} in place of {other.name}", False
    settings = rung.instead_of if ladder.is_whole else rung.own
    words = [setting_word(key, value) for key, value in settings.items()]
    together = " together" if len(words) > 1 else ""
    # two rungs lack the same setting of the whole where it has more than two values
    is_one_of_several = sum(other.instead_of == settings for other in ladder.rungs) > 1
    instead = f" (in place of {rung.name})" if ladder.is_whole and is_one_of_several else ""
    return f"{listed(words)}{together}{instead}", len(words) > 1


def _image_counts(ladder: Ladder, images: int, worth: Ratio) -> tuple[str, str]:
    """How many images with the bias do as much as how many without it; at a bound, more or fewer than so many."""
    if math.isinf(worth.value):
        factor = worth.most if worth.value > 0 else worth.least
        more = (worth.value > 0) != ladder.is_whole
        bound = f"{'more' if more else 'fewer'} than "
    else:
        factor, bound = worth.value, ""
    needed = float(f"{images / factor if ladder.is_whole else images * factor:.3g}")
    reference = f"{bound}{number(needed)}"
    return (reference, f"{images:,}") if ladder.is_whole else (f"{images:,}", reference)
