"""A report for people: its sentences, its tables, and both together in one of the formats."""

from __future__ import annotations

import math

from vitbench.comparing import formats
from vitbench.comparing.formats import Table
from vitbench.fitting import export
from vitbench.fitting.findings import Report
from vitbench.fitting.sentences import crossover_sentence, efficiency_sentence, mcnemar_sentence, pair_title
from vitbench.numbers.crossover import LEAST_SEEDS
from vitbench.numbers.curves import FEW_SEEDS, UNRELIABLE, Curve
from vitbench.numbers.intervals import Interval, least_p
from vitbench.numbers.words import column_label, decimals_of, is_share, printable, shown_number


def render_report(form: str, report: Report) -> str:
    """Writes the whole report in one of the formats."""
    if form == "json":
        return export.to_json(report)
    if form == "csv":
        return export.to_csv(report)
    if form == "tex":  # the sentences are a list below the tables, because a caption is no place for them
        tables = formats.render_tables("tex", report_tables(report), report.heading, [])
        paragraphs = [f"{title}: {' '.join(sentences)}" for title, sentences in report_sentences(report)]
        items = [rf"\item {formats.escape_latex(line)}" for line in [*paragraphs, *report_foot(report)]]
        return tables + "\n".join(["", r"\begin{itemize}", *items, r"\end{itemize}", ""]) if items else tables
    return formats.render_tables(form, report_tables(report), report.heading, report_lines(report))


def report_lines(report: Report) -> list[str]:
    """Lists all sentences, and after them what must be known about the runs."""
    lines = []
    for title, sentences in report_sentences(report):
        lines += [f"{title}:", *(f"  {sentence}" for sentence in sentences)]
    return [*lines, *report_foot(report)]


def report_sentences(report: Report) -> list[tuple[str, list[str]]]:
    """Returns for each pair its title, and what is said of its crossover, of images and of single runs."""
    sentences = []
    for compared in report.pairs:
        crossover = crossover_sentence(compared, report.value)
        said = [crossover, efficiency_sentence(compared), mcnemar_sentence(compared)]
        sentences.append((pair_title(compared), [sentence for sentence in said if sentence]))
    return sentences


def report_foot(report: Report) -> list[str]:
    """Says how much the intervals are worth where seeds are few, and then the report's notes."""
    fewest = min((len(compared.pair.a.seeds) for compared in report.pairs if compared.pair.paired), default=FEW_SEEDS)
    notes = [*map(printable, report.notes)]
    if fewest < LEAST_SEEDS:
        return ["Two seeds give crossovers and image ratios no interval.", *notes]
    if fewest < FEW_SEEDS:
        few = f"Intervals of crossovers and image ratios are approximate: bootstrap over {fewest} seeds."
        return [few, *notes]
    return notes


# ------------------------------------------------------------------------------------------------------------ tables


def report_tables(report: Report) -> list[Table]:
    """Makes the tables of curves, of differences and of tested runs; the latter two only if there are any."""
    return [
        _curves_table(report),
        *([_differences_table(report)] if any(compared.differences for compared in report.pairs) else []),
        *([_checkpoints_table(report)] if any(compared.tested for compared in report.pairs) else []),
    ]


def _curves_table(report: Report) -> Table:
    sizes = {_sizes_of(curve) for curve in report.curves}
    share = is_share(report.value)
    head = ["curve", "form", "exponent, 95 % interval", "offset, %" if share else "offset", "R2", "held-back error"]
    lines, notes = [], list(report.warnings)
    for curve in report.curves:
        offset = "-" if curve.offset is None else shown_number(report.value, curve.offset.mean, 1 if share else 3)
        fit = [_exponent(curve.exponent), offset, _fixed(curve.r2, 3), f"{100 * curve.held_back:.1f} %"]
        lines.append([curve.label, curve.form, *fit, *([_sizes_of(curve)] if len(sizes) > 1 else [])])
        if curve.held_back > UNRELIABLE:
            miss = f"without its largest size the fit misses it by {100 * curve.held_back:.0f} %"
            notes.append(f"{curve.label}: unreliable; {miss}")
    what = column_label(report.value).split(",")[0]
    over = sizes.pop() if len(sizes) == 1 else ""
    head += [] if over else ["sizes"]
    caption = f"Learning curves: {what} e over n training images" + (f"; {over}" if over else "")
    return Table("curves", caption, head, lines, 2, notes, [], [], [report.value])


def _differences_table(report: Report) -> Table:
    differences = [difference for compared in report.pairs for difference in compared.differences]
    digits = decimals_of(report.value, [difference.paired.interval for difference in differences])
    what = column_label(report.value).split(",")[0]
    lines = []
    for compared in report.pairs:
        for n, (interval, p), p_holm in compared.differences:
            mean, half = (shown_number(report.value, x, digits) for x in (interval.mean, interval.half))
            shown = f"{'+' if interval.mean > 0 else ''}{mean} ± {half}"
            models = [compared.pair.a.label, compared.pair.b.label]
            lines.append([*models, f"{n:,.0f}", shown, str(interval.n), _shown_p(p), _shown_p(p_holm)])
    notes = []
    most_pairs, tests = max(difference.paired.interval.n for difference in differences), len(differences)
    least = least_p(most_pairs)
    if least * tests > 0.05:
        corrected = f", {_shown_p(min(1.0, least * tests))} after Holm's correction for {tests}" if tests > 1 else ""
        notes.append(
            f"{most_pairs} pairs cannot go below p = {_shown_p(least)}{corrected}: no p here can call a difference "
            "significant; read the intervals"
        )
    points = " in points" if is_share(report.value) else ""
    caption = f"Differences of {what}{points}, first minus second, paired by seed and subset: mean ± 95 % interval"
    head = ["model", "against", "images", "difference", "n", "p", "Holm p"]
    return Table("differences", caption, head, lines, 2, notes, [], [], [report.value])


def _checkpoints_table(report: Report) -> Table:
    lines = []
    for compared in report.pairs:
        for test, p_holm in compared.tested:
            models = [compared.pair.a.label, compared.pair.b.label]
            counts = [f"{test.images:,}", str(test.seed), f"{test.only_a:,}", f"{test.only_b:,}"]
            lines.append([*models, *counts, _shown_p(test.p), _shown_p(p_holm)])
    caption = (
        "Runs of one seed on the same test images: how many images only one of the two has right, and McNemar's exact p"
    )
    head = ["model", "against", "images", "seed", "only model", "only against", "p", "Holm p"]
    return Table("checkpoints", caption, head, lines, 2, [], [], [], [report.value])


def _fixed(value: float, digits: int) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _exponent(exponent: Interval) -> str:
    ends = "n/a" if math.isnan(exponent.low) else f"[{exponent.low:.3f}, {exponent.high:.3f}]"
    return f"{_fixed(exponent.mean, 3)} {ends}"


def _shown_p(p: float) -> str:
    return "n/a" if math.isnan(p) else f"{p:.2g}" if p >= 0.001 else "<0.001"


def _sizes_of(curve: Curve) -> str:
    return f"{len(curve.n)} sizes from {curve.n[0]:,.0f} to {curve.n[-1]:,.0f}, {len(curve.seeds)} seeds"
