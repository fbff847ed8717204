"""A report for people: its sentences and its tables, together in one of the formats."""

from __future__ import annotations

from vitbench.comparing import formats
from vitbench.comparing.latex import latex_list
from vitbench.fitting import export
from vitbench.fitting.findings import Report
from vitbench.fitting.remarks import advice_sentences, budget_words, form_sentences, target_sentences
from vitbench.fitting.sentences import pair_sentences, pair_title
from vitbench.fitting.tables import report_tables
from vitbench.numbers.curves import FEW_SEEDS
from vitbench.numbers.pair import LEAST_SEEDS
from vitbench.numbers.words import printable


def render_report(form: str, report: Report) -> str:
    """Writes the whole report in one of the formats."""
    if form == "json":
        return export.to_json(report)
    if form == "csv":
        return export.to_csv(report)
    if form == "tex":
        tables = formats.render_tables("tex", report_tables(report), report.heading, [], f"{report.study} fit")
        paragraphs = [f"{title}: {' '.join(sentences)}" for title, sentences in report_sentences(report)]
        return "\n".join([tables, *latex_list([*paragraphs, *report_foot(report)]), ""])
    return formats.render_tables(form, report_tables(report), report.heading, report_lines(report))


def report_lines(report: Report) -> list[str]:
    """Lists all sentences, and after them what must be known about the runs."""
    lines = []
    for title, sentences in report_sentences(report):
        lines += [f"{title}:", *(f"  {sentence}" for sentence in sentences)]
    return [*lines, *report_foot(report)]


def report_sentences(report: Report) -> list[tuple[str, list[str]]]:
    """Returns for each pair its title, and what is said of it."""
    return [(pair_title(compared), pair_sentences(compared, report.value, report.axis)) for compared in report.pairs]


def report_foot(report: Report) -> list[str]:
    """Says what to run next, what was asked for, what few seeds are worth, and then the report's notes."""
    fewest = min((len(compared.pair.a.seeds) for compared in report.pairs if compared.pair.paired), default=FEW_SEEDS)
    few = []
    if fewest < LEAST_SEEDS:
        few = ["Two seeds are too few for certainty: pairs get no verdict, no crossover and no image ratio."]
    elif fewest < FEW_SEEDS:
        few = [
            f"Intervals of image ratios and of extrapolated crossovers are approximate: bootstrap over {fewest} seeds."
        ]
    said = [*advice_sentences(report), *target_sentences(report), *form_sentences(report), *budget_words(report), *few]
    return [*said, *map(printable, report.notes)]
