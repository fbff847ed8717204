"""What `vitbench fit` found, for people: the tables of a report, its sentences, and the whole in one of the formats."""

from __future__ import annotations

import math

from vitbench.comparing import formats
from vitbench.comparing.formats import Table
from vitbench.fitting import export
from vitbench.fitting.findings import Report
from vitbench.fitting.sentences import better, verdict, worth
from vitbench.numbers.crossover import LEAST_SEEDS
from vitbench.numbers.curves import FEW_SEEDS, UNRELIABLE, Curve
from vitbench.numbers.intervals import least_p
from vitbench.numbers.words import column_label, decimals_of, is_share, printable, shown_number


def render_report(form: str, report: Report) -> str:
    """The whole report in one of the formats."""
    if form == "json":
        return export.to_json(report)
    if form == "csv":
        return export.to_csv(report)
    if form == "tex":  # sentences are text, not part of a caption
        tables = formats.render_tables("tex", report_tables(report), report.heading, [])
        lines = [*(f"{name}: {' '.join(said)}" for name, said in report_sentences(report)), *report_foot(report)]
        items = [rf"\item {formats.escape_latex(line)}" for line in lines]
        return tables + "\n".join(["", r"\begin{itemize}", *items, r"\end{itemize}", ""]) if items else tables
    return formats.render_tables(form, report_tables(report), report.heading, report_lines(report))


def _fixed(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _bracketed(value: float, low: float, high: float, digits: int) -> str:
    ends = "n/a" if math.isnan(low) else f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{_fixed(value, digits)} {ends}"


def _p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "<0.001"


def _sizes(curve: Curve) -> str:
    return f"{len(curve.n)} sizes from {curve.n[0]:,.0f} to {curve.n[-1]:,.0f}, {len(curve.seeds)} seeds"


def report_tables(report: Report) -> list[Table]:
    return [
        _curves(report),
        *([_differences(report)] if any(pair.differences for pair in report.pairs) else []),
        *([_checkpoints(report)] if any(pair.tested for pair in report.pairs) else []),
    ]


def _curves(report: Report) -> Table:
    sizes = {_sizes(curve) for curve in report.curves}
    share = is_share(report.value)
    head = ["curve", "form", "exponent, 95 % interval", "offset, %" if share else "offset", "R2", "held-back error"]
    lines, notes = [], list(report.warnings)
    for curve in report.curves:
        offset = curve.offset
        lines.append(
            [
                curve.label,
                curve.form,
                _bracketed(curve.exponent.mean, curve.exponent.low, curve.exponent.high, 3),
                "-" if offset is None else shown_number(report.value, offset.mean, 1 if share else 3),
                _fixed(curve.r2, 3),
                f"{100 * curve.held_back:.1f} %",
                *([_sizes(curve)] if len(sizes) > 1 else []),
            ]
        )
        if curve.held_back > UNRELIABLE:
            notes.append(
                f"{curve.label}: unreliable; without its largest size the fit misses it by"
                f" {100 * curve.held_back:.0f} %"
            )
    what = column_label(report.value).split(",")[0]
    over = sizes.pop() if len(sizes) == 1 else ""
    head += [] if over else ["sizes"]
    caption = f"Learning curves: {what} e over n training images" + (f"; {over}" if over else "")
    return Table("curves", caption, head, lines, 2, notes, [], [], [report.value])


def _differences(report: Report) -> Table:
    tests = [one for pair in report.pairs for one in pair.differences]
    digits = decimals_of(report.value, [one.paired.interval for one in tests])
    what = column_label(report.value).split(",")[0]
    lines = []
    for pair in report.pairs:
        for n, (interval, p), p_holm in pair.differences:
            mean, half = (shown_number(report.value, x, digits) for x in (interval.mean, interval.half))
            lines.append(
                [
                    pair.pair.a.label,
                    pair.pair.b.label,
                    f"{n:,.0f}",
                    f"{'+' if interval.mean > 0 else ''}{mean} ± {half}",
                    str(interval.n),
                    _p(p),
                    _p(p_holm),
                ]
            )
    notes = []
    ns = [one.paired.interval.n for one in tests]
    least = least_p(max(ns))
    if least * len(tests) > 0.05:
        corrected = (
            f", {_p(min(1.0, least * len(tests)))} after Holm's correction for {len(tests)}" if len(tests) > 1 else ""
        )
        notes.append(
            f"{max(ns)} pairs cannot go below p = {_p(least)}{corrected}: no p here can call a difference "
            "significant; read the intervals"
        )
    points = " in points" if is_share(report.value) else ""
    caption = f"Differences of {what}{points}, first minus second, paired by seed and subset: mean ± 95 % interval"
    head = ["model", "against", "images", "difference", "n", "p", "Holm p"]
    return Table("differences", caption, head, lines, 2, notes, [], [], [report.value])


def _checkpoints(report: Report) -> Table:
    lines = [
        [
            pair.pair.a.label,
            pair.pair.b.label,
            f"{one.images:,}",
            str(one.seed),
            f"{one.only_a:,}",
            f"{one.only_b:,}",
            _p(one.p),
            _p(p_holm),
        ]
        for pair in report.pairs
        for one, p_holm in pair.tested
    ]
    caption = (
        "Runs of one seed on the same test images: how many images only one of the two has right, and McNemar's exact p"
    )
    head = ["model", "against", "images", "seed", "only model", "only against", "p", "Holm p"]
    return Table("checkpoints", caption, head, lines, 2, [], [], [], [report.value])


def report_sentences(report: Report) -> list[tuple[str, list[str]]]:
    """Of each pair its name, where they cross, what one is worth in the other's images, and which of two runs is better."""
    return [
        (pair.name, [line for line in (verdict(pair, report.value), worth(pair), better(pair)) if line])
        for pair in report.pairs
    ]


def report_lines(report: Report) -> list[str]:
    """All sentences as lines of text, what must be known about the runs after them."""
    lines = [line for name, said in report_sentences(report) for line in (f"{name}:", *(f"  {one}" for one in said))]
    return [*lines, *report_foot(report)]


def report_foot(report: Report) -> list[str]:
    few = min((len(pair.pair.a.seeds) for pair in report.pairs if pair.pair.paired), default=FEW_SEEDS)
    bootstrap = [
        f"Intervals of crossovers and image ratios are approximate: bootstrap over {few} seeds."
        if few >= LEAST_SEEDS
        else "Two seeds give crossovers and image ratios no interval."
    ]
    return [*(bootstrap if few < FEW_SEEDS else []), *map(printable, report.notes)]
