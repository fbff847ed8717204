"""Learning curves of runs, and what they say of each pair: `vitbench fit study=data_scaling`, `vitbench fit file=t.csv`.

A curve is a model: its runs on all shares of the images. Curves are compared in pairs that differ in the model or its
encoding and in nothing else that varies: every ViT with every CNN, and every encoding with `pe=none`; and a pretrained
model with the same one from scratch. Where there are no such pairs (a table of one's own), each two curves.
`docs/metrics.md` says what the numbers mean.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing import formats
from vitbench.comparing.grouping import comparison_warnings, groups_of
from vitbench.comparing.select import Runs, select_runs
from vitbench.errors import UserError, did_you_mean
from vitbench.fitting.lines import CurveOfRuns, falling, lines_of, pairs
from vitbench.numbers.text import say
from vitbench.numbers.words import printable

if TYPE_CHECKING:
    from vitbench.fitting.findings import Report


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench.fitting.verdict import render_report, report_lines, report_tables
    from vitbench.runs.study import load_study

    asked: Any = OmegaConf.to_container(config, resolve=True)
    form, value = asked["format"], asked["value"]
    if form not in formats.TABLE_ENDINGS.values():
        raise UserError(f"format={form}: {did_you_mean(form, formats.TABLE_ENDINGS.values())}")
    if asked["file"] is not None:
        from vitbench.fitting.fit_file import read_table

        if asked["study"] is not None or asked["where"]:
            raise UserError(f"file={asked['file']}: is read whole; study= and where. choose among runs")
        report = report_of(*read_table(Path(asked["file"]).expanduser(), value), against=asked["against"])
    else:
        study = load_study(asked["study"]) if asked["study"] is not None else None
        runs = select_runs(asked["runs"], asked["where"], study)
        value = falling(runs, value or "test_error")
        heading = printable(f"{study.title}. {study.question}") if study else ""
        if study and study.notes:
            runs.notes.append(study.notes)
        folder = Path(asked["runs"]).expanduser()
        report = report_of(value, *lines_of(runs, value), runs, asked["against"], heading, folder)
    if form == "text" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formats.print_rich(report_tables(report), report.heading, report_lines(report))
    else:
        say(render_report(form, report))
        for note in [*report.warnings, *report.notes] if form == "csv" else []:
            print(f"vitbench: {printable(note)}", file=sys.stderr)
    return 0


def report_of(
    value: str,
    lines: Sequence[CurveOfRuns],
    left_out: Sequence[str],
    runs: Runs | None = None,
    against: str | None = None,
    heading: str = "",
    folder: Path | None = None,
) -> Report:
    """What the curves say; `folder` is where predictions of the runs lie."""
    from vitbench.fitting import mcnemar
    from vitbench.fitting.findings import Facts, Report, cost_ratios

    chosen, by_label, facts = pairs(lines, against), {line.curve.label: line for line in lines}, {}
    notes = [*runs.notes] if runs else []
    missing = ""
    for a, b in chosen:
        its, others = by_label[a.label].rows, by_label[b.label].rows
        common = {*a.n.tolist()} & {*b.n.tolist()}
        if not common or not its or not others:
            continue
        tested: list[mcnemar.Checkpoints] = []
        if folder is not None and value == "test_error":
            try:
                tested = mcnemar.compare(folder, its, others, max(common))
            except mcnemar.Missing as error:
                missing = missing or f"no McNemar: {error}"
        facts[a.label, b.label] = Facts(cost_ratios(its, others, max(common)), tested)
    warnings = [*(comparison_warnings(groups_of(runs)) if runs else []), *map(printable, left_out)]
    notes += [missing] if missing else []
    return Report(value, [line.curve for line in lines], chosen, heading, warnings, notes, facts)


# ------------------------------------------------------------------------------------------------------------- lines
