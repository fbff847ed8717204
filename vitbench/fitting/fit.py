"""Fits learning curves and compares them: `vitbench fit study=data_scaling`, `vitbench fit runs=t.csv`.

A curve is a model: its runs on all shares of the images. Curves are compared in pairs that differ in the model or its
encoding and in nothing else that varies: every ViT with every CNN, every encoding with `pe=none`, and a pretrained
model with the same model from scratch. Where there are no such pairs (in a table of one's own), each curve is compared
with each other. `docs/reference/metrics.md` defines the numbers.
"""

from __future__ import annotations

import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from vitbench.comparing import formats
from vitbench.comparing.axes import AXES
from vitbench.comparing.evidence import asker_of, is_table, read_counts, read_evidence
from vitbench.comparing.select import Runs, select_runs
from vitbench.errors import UserError, check_choice
from vitbench.fitting.findings import Report, report_of
from vitbench.fitting.fit_file import read_table
from vitbench.fitting.lines import check_falling, lines_of
from vitbench.fitting.mcnemar import count_in, count_kept
from vitbench.fitting.render import render_report, report_lines, report_tables
from vitbench.numbers.text import say
from vitbench.numbers.words import printable


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    form = check_choice("format", asked["format"], formats.TABLE_ENDINGS.values())
    report = find(asked)
    if form == "text" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formats.print_rich(report_tables(report), report.heading, report_lines(report))
    else:
        say(render_report(form, report))
        for note in [*report.warnings, *report.rises, *report.notes] if form == "csv" else []:
            print(f"vitbench: {printable(note)}", file=sys.stderr)
    return 0


def find(asked: dict[str, Any]) -> Report:
    """Fits the curves that were asked for and compares them."""
    from vitbench.runs.study import load_study

    axis = AXES[check_choice("x", asked["x"], AXES)]
    study = load_study(asked["study"]) if asked["study"] is not None else None
    asker = asker_of(asked["runs"], study)
    heading = printable(f"{asker.title}. {asker.question}") if asker else ""
    path = Path(asked["runs"]).expanduser()
    runs: Runs | None
    if is_table(asked["runs"]):
        value, lines, left_out, runs = read_table(path, asked["value"], axis, asked["where"], study)
        counts = path.with_name("mcnemar.csv")  # It names runs that where. may have left out.
        counted = read_counts(counts, read_evidence(path).rows) if runs and counts.exists() else []
        count = count_kept(counted) if counted else None
    else:
        runs = select_runs(asked["runs"], asked["where"], study)
        value = check_falling(runs, asked["value"] or "test_error")
        lines, left_out = lines_of(runs, value, axis=axis)
        count = count_in(path)
    if asker and asker.notes and runs:
        runs.notes.append(asker.notes)
    target = check_target(asked["target"], value)
    found = report_of(value, lines, left_out, runs, asked["against"], heading, count, axis, asked["form"], target)
    return replace(found, study=study.name if study else "")


def check_target(typed: float | None, value: str) -> float | None:
    """The error or loss that is asked for: of an error one types the accuracy."""
    if typed is None:
        return None
    if not value.endswith("_error"):
        if not 0 < typed < math.inf:
            raise UserError(f"target={typed:g}: must be a loss above 0")
        return typed
    if not 0 < typed < 1:
        raise UserError(f"target={typed:g}: must be an accuracy between 0 and 1 (0.9, not 90)")
    return 1 - typed
