"""The tables of a report: curves, sizes, certificates, pairs, differences, and tested runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from vitbench.comparing.axes import IMAGES
from vitbench.comparing.formats import Table
from vitbench.fitting.findings import CERTAIN, Certified, Report
from vitbench.fitting.limits import Size
from vitbench.fitting.sentences import interval_words, mean_words, size_words
from vitbench.numbers.crossover import LEAST_SIZES
from vitbench.numbers.curves import LAST_BITS, UNRELIABLE, Curve
from vitbench.numbers.intervals import Interval, least_p, smallest_difference
from vitbench.numbers.pair import LEAST_SEEDS
from vitbench.numbers.words import (
    column_words,
    decimals_of,
    is_share,
    number,
    plural,
    rounded,
    shown_number,
    shown_p,
    signed_words,
)

OUTSIDE = "‡"  # marks sizes that do not count


def report_tables(report: Report) -> list[Table]:
    """Makes the tables; those of pairs, certificates and tested runs only if there are any."""
    return [
        _curves_table(report),
        *([_sizes_table(report)] if _limits_known(report) else []),
        *([_certificates_table(report)] if report.certified else []),
        *([_pairs_table(report)] if any(compared.pooled.interval.n for compared in report.pairs) else []),
        *([_differences_table(report)] if any(compared.differences for compared in report.pairs) else []),
        *([_checkpoints_table(report)] if any(compared.tested for compared in report.pairs) else []),
    ]


def _limits_known(report: Report) -> bool:
    """Whether anything is known of what limits the points."""
    return any(size.limit != "unknown" or size.epochs is not None for line in report.lines for size in line.sizes)


def _curves_table(report: Report) -> Table:
    sizes = {_sizes_of(curve) for curve in report.curves}
    share = is_share(report.value)
    unit = ", %" if share else ""
    head = ["curve", "form", "exponent, 95 % interval", f"offset{unit}, 95 % interval", "R2", "held-back error"]
    lines, notes = [], list(report.warnings)
    for curve in report.curves:
        offset = "-" if curve.offset is None else _with_ends(curve.offset, 100 if share else 1, 1 if share else 3)
        fit = [_with_ends(curve.exponent, 1, 3), offset, _fixed(curve.r2, 3), _percent(curve.held_back)]
        lines.append([curve.label, curve.form, *fit, *([_sizes_of(curve)] if len(sizes) > 1 else [])])
        if curve.held_back > UNRELIABLE:
            miss = f"without its largest size the fit misses it by {100 * curve.held_back:.0f} %"
            notes.append(f"{curve.label}: unreliable; {miss}")
    notes += report.rises
    for line in report.lines:
        if not line.is_fitted:
            lines.append([line.label, *["-"] * (len(head) - 1 + (len(sizes) > 1))])
            counted = f"{len(line.counted.n)} of its {len(line.sizes)} sizes count"
            notes.append(f"{line.label}: not fitted, {counted}, and a fit takes {LEAST_SIZES}")
    if report.axis is IMAGES and not _limits_known(report):
        notes.append(
            "it is not known whether images limit the points, because nothing says how long the networks were trained"
        )
    what = column_words(report.value)
    over = next(iter(sizes)) if len(sizes) == 1 else ""
    head += ["sizes"] if len(sizes) > 1 else []
    caption = f"Learning curves: {what} e over n {report.axis.heading}" + (f"; {over}" if over else "")
    return Table("curves", caption, head, lines, 2, notes, [], [], [report.value])


def _sizes_table(report: Report) -> Table:
    """What limits each point of each curve."""
    what = column_words(report.value)
    sizes = [(line.label, size) for line in report.lines for size in line.sizes]
    columns: dict[str, Callable[[Size], str | None]] = {
        "epochs": lambda size: None if size.epochs is None else f"{size.epochs:.3g}",
        "train": lambda size: _if_known(mean_words, size.trained, report.value),
        "test": lambda size: mean_words(size.value, report.value),
        "gap": lambda size: _if_known(interval_words, size.gap, report.value),
        "loss gap": lambda size: _if_known(interval_words, size.loss_gap, "test_loss"),
        "above ref.": lambda size: _if_known(interval_words, size.excess, report.value),
    }
    cells = [
        [*(column(size) for column in columns.values()), limited_by(size, (label, size.n) in report.certified_sizes)]
        for label, size in sizes
    ]
    names = [*columns, "limited by"]
    known = [i for i in range(len(names)) if any(row[i] is not None for row in cells)]
    head = ["curve", report.axis.unit, *(names[i] for i in known)]
    lines = [
        [label, number(size.n), *(row[i] or "-" for i in known)]
        for (label, size), row in zip(sizes, cells, strict=True)
    ]
    notes = []
    if any(not size.counts for _, size in sizes):
        notes.append("exponents, offsets and verdicts use only the sizes that images limit, or perhaps limit")
    if references := sorted({size.reference for _, size in sizes if size.reference}):
        drawn = " or ".join(map(number, references))
        notes.append(f"above ref.: the {what} minus that of as many samples drawn from {drawn} images, paired by seed")
    if any(size.trained is not None for _, size in sizes):
        images = "training images (train) and on test images (test)"
        notes.append("gap: test minus train, paired by seed")
    else:
        images = "test images (test)"
    if any(size.loss_gap is not None for _, size in sizes):
        notes.append("loss gap: the loss on test images minus that on the last training batches")
    unit = " in %" if is_share(report.value) else ""
    caption = f"What limits each point: {what}{unit} on {images}"
    return Table("sizes", caption, head, lines, 1, notes, [], [], [report.value])


def _if_known(write: Callable[[Interval, str], str], interval: Interval | None, value: str) -> str | None:
    return None if interval is None else write(interval, value)


def limited_by(size: Size, is_certified: bool = False) -> str:
    """Says what limits a point, as far as reference, gap and certificate tell."""
    if size.limit == "unknown":
        return "not known"
    by = {"images": ["images"], "perhaps": ["images?"], "not": []}[size.limit]
    fall = size.certificate and size.certificate.fall
    if fall and fall.low > 0:
        by.append("budget")
    elif fall and fall.high < 0:
        by.append("too long a training")
    if not by and size.is_solved:
        return "nothing, solved"
    return " and ".join(by) or ("size" if is_certified else "budget, size")


def _certificates_table(report: Report) -> Table:
    lines = []
    for found in report.certified:
        certificate = found.size.certificate
        assert certificate is not None
        cells = [number(found.size.n), number(certificate.samples), str(certificate.fall.n)]
        threshold = "-" if math.isnan(found.difference) else size_words(CERTAIN * found.difference, report.value)
        fall = interval_words(certificate.fall, report.value)
        lines.append([found.curve.label, *cells, fall, threshold, certificate_words(found)])
    what = column_words(report.value)
    in_points = " in points" if is_share(report.value) else ""
    caption = (
        f"Certificates: the same runs with more samples, and by how much their {what} fell{in_points}, ± 95 % interval"
    )
    notes = [
        "the interval is that of sqrt(2) times the deviation over the seeds of the curve; certified: its upper end is"
        " below `half`, half of the smallest difference that a verdict on this curve rests on"
    ]
    head = ["curve", "images", "samples", "runs", "fall", "half", "reading"]
    return Table("certificates", caption, head, lines, 1, notes, [], [], [report.value])


def certificate_words(found: Certified) -> str:
    """Reads a certificate: certified, also limited by the budget, trained too long, or that it cannot be told."""
    assert found.size.certificate is not None
    fall = found.size.certificate.fall
    words = ["certified"] if found.is_certified else []
    if fall.low > 0:
        words.append("also limited by the budget")
    if fall.high < 0:
        words.append("trained too long")
    return "; ".join(words) or "cannot be told"


def _pairs_table(report: Report) -> Table:
    """The pooled test of each pair."""
    counts = {(len(c.pooled_pair.n), c.pooled.interval.n) for c in report.pairs if c.pooled.interval.n}
    lines = []
    for compared in report.pairs:
        pooled = compared.pooled
        if not pooled.interval.n:
            continue
        cells = [
            interval_words(pooled.interval, report.value),
            shown_p(compared.p_holm),
            shown_p(pooled.sign_flip),
            interval_words(pooled.slope, report.value) if pooled.slope.n else "-",
            "n/a" if math.isnan(pooled.smallest) else size_words(pooled.smallest, report.value),
        ]
        over = [f"{len(compared.pooled_pair.n)}, {pooled.interval.n}"] if len(counts) > 1 else []
        lines.append([compared.pair.a.label, compared.pair.b.label, *over, *cells])
    what = column_words(report.value) + (" in points" if is_share(report.value) else "")
    alike = [f"{plural(sizes, 'size')} and {seeds} seeds" for sizes, seeds in counts] if len(counts) == 1 else []
    caption = (
        f"Pairs: {what}, first minus second, mean over {(alike or ['the sizes that count'])[0]}, paired by seed and"
        " subset; ± 95 % interval"
    )
    seeds = min(seeds for _, seeds in counts)
    notes = [
        "Holm p: of Student's paired t, corrected for the pairs; flip p: of the exact sign-flip test, which cannot go"
        f" below {shown_p(least_p(seeds))} with {seeds} seeds",
        f"slope: of the difference, per ten times the {report.axis.unit}; smallest: the true difference that this many"
        " seeds would show in four of five studies (80 % power)",
    ]
    if any(compared.crossover.verdict == "limited" for compared in report.pairs):
        notes.append("where too few sizes count, the difference is that at this budget, over all sizes")
    if seeds < LEAST_SEEDS:
        notes.append("two seeds are too few for certainty")
    of_counts = ["sizes, n"] if len(counts) > 1 else []
    head = ["model", "against", *of_counts, "difference", "Holm p", "flip p", "slope", "smallest"]
    return Table("pairs", caption, head, lines, 2, notes, [], [], [report.value])


def _differences_table(report: Report) -> Table:
    differences = [difference for compared in report.pairs for difference in compared.differences]
    digits = decimals_of(report.value, [difference.interval for difference in differences])
    what = column_words(report.value)
    lines = []
    for compared in report.pairs:
        for n, interval, counts in compared.differences:
            shown = signed_words(report.value, interval, digits)
            smallest = shown_number(report.value, smallest_difference(interval), digits)
            models = [compared.pair.a.label, compared.pair.b.label]
            lines.append([*models, number(n) + ("" if counts else OUTSIDE), shown, str(interval.n), smallest])
    in_points = " in points" if is_share(report.value) else ""
    caption = (
        f"Differences of {what}{in_points} at each size, first minus second, paired by seed and subset:"
        " mean ± 95 % interval"
    )
    notes = []
    solved = any({each.n for each in c.differences if not each.counts} & c.solved for c in report.pairs)
    if any(not difference.counts for difference in differences):
        why = "solved, or limited by budget or size" if solved else "limited by budget or size"
        notes.append(f"{OUTSIDE} does not count: {why}, or both models guess")
    head = ["model", "against", report.axis.unit, "difference", "n", "smallest"]
    return Table("differences", caption, head, lines, 2, notes, [], [], [report.value])


def _checkpoints_table(report: Report) -> Table:
    lines = []
    for compared in report.pairs:
        for test, p_holm in compared.tested:
            models = [compared.pair.a.label, compared.pair.b.label]
            counts = [f"{test.images:,}", str(test.seed), f"{test.only_a:,}", f"{test.only_b:,}"]
            lines.append([*models, *counts, shown_p(test.p), shown_p(p_holm)])
    caption = (
        "Runs of one seed on the same test images: how many images only one of the two has right, and McNemar's exact p"
    )
    head = ["model", "against", "images", "seed", "only model", "only against", "p", "Holm p"]
    return Table("checkpoints", caption, head, lines, 2, [], [], [], [report.value])


def _percent(share: float) -> str:
    return "<0.1 %" if LAST_BITS < share < 0.0005 else f"{100 * share:.1f} %"


def _fixed(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else rounded(value, digits)


def _with_ends(interval: Interval, scale: float, digits: int) -> str:
    ends: Iterable[float] = (scale * interval.low, scale * interval.high)
    bracket = "n/a" if math.isnan(interval.low) else "[" + ", ".join(rounded(end, digits) for end in ends) + "]"
    return f"{_fixed(scale * interval.mean, digits)} {bracket}"


def _sizes_of(curve: Curve) -> str:
    return f"{len(curve.n)} sizes from {number(curve.n[0])} to {number(curve.n[-1])}, {len(curve.seeds)} seeds"
