"""Compares runs: `vitbench table`, `vitbench table study=quickstart`, `vitbench table where.data=cifar10 format=md`.

Two layouts. Without `columns=` a line is a group of runs that differ in their seeds only, with its mean, interval and
costs. With `columns=data.fraction` the values of that setting stand side by side, and a line is one model. In both, a
setting that nobody asked for but that tells groups apart becomes a key of the lines: nothing unlike is averaged.
With `against=resnet` the numbers are differences from the line of that name, paired by seed. `docs/metrics.md` says what
the numbers mean. CSV and JSON always have a group a line and every digit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing import differences, formats
from vitbench.comparing.formats import TOTAL, Table, costs_of
from vitbench.comparing.grouping import (
    Group,
    comparison_warnings,
    distinguishing_keys,
    groups_of,
    shared_settings,
    sort_key,
)
from vitbench.comparing.select import Runs, select_runs
from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.text import say
from vitbench.numbers.words import decimals_of, printable, shown_number, shown_value

if TYPE_CHECKING:
    from vitbench.numbers.intervals import Interval
    from vitbench.runs.study import Study

HEADS = {
    "train_images": "images",
    "parameters": "params",
    "multiply_adds": "MACs",
    "train_seconds": "seconds",
    TOTAL: "total s",
    "images_per_second": "images/s",
}  # short, for a terminal of 80 columns; docs/metrics.md has the long of it
SHOW = {"ci95": "mean ± 95 % interval", "sd": "mean ± standard deviation", "mean": "mean"}
TABLE_KEYS = ("rows", "columns", "value", "show", "against")  # of a table, in a study and on the command line
STUDY_TABLE_KEYS = (*TABLE_KEYS, "where")  # on the command line where= holds for all tables


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench.runs.study import load_study

    asked: Any = OmegaConf.to_container(config, resolve=True)
    form = _format(asked["format"], asked["file"])
    study = load_study(asked["study"]) if asked["study"] is not None else None
    layouts = choose(asked, study, "tables", TABLE_KEYS, STUDY_TABLE_KEYS)
    runs = select_runs(asked["runs"], asked["where"], study)
    tables = [build_table(name, runs, **layout) for name, layout in layouts.items()]
    if len(tables) > 1:
        tables = [replace(table, caption=f"{table.name}: {table.caption}") for table in tables]
    if form == "csv" and len(tables) > 1:
        raise UserError(f"format=csv holds one table; choose with name=: {', '.join(layouts)}")
    heading = printable(f"{study.title}. {study.question}" if study else "")
    notes = [printable(note) for note in [*runs.notes, *([study.notes] if study and study.notes else [])]]
    if asked["file"]:
        from vitbench.machine.disk import write

        path = Path(asked["file"]).expanduser()
        write(
            path, formats.render_tables(form, tables, heading, notes).encode("utf-8", "backslashreplace"), folders=True
        )
        say(f"{path}\n")
    elif form == "text" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formats.print_rich(tables, heading, notes)
    else:
        say(formats.render_tables(form, tables, heading, notes))
    if form == "csv":  # which has no place for them
        for note in [*notes, *(f"! {line}" for table in tables for line in table.notes)]:
            print(f"vitbench: {note}", file=sys.stderr)
    return 0


def _format(name: str, file: str | None) -> str:
    if name not in formats.TABLE_ENDINGS.values():
        raise UserError(f"format={name}: {did_you_mean(name, formats.TABLE_ENDINGS.values())}")
    if file is None:
        return name
    ending = Path(file).suffix.lower()
    if ending not in formats.TABLE_ENDINGS:
        raise UserError(f"file={file}: the ending says the format; choices: {', '.join(formats.TABLE_ENDINGS)}")
    if name not in ("text", formats.TABLE_ENDINGS[ending]):
        raise UserError(f"format={name} file={file}: which of the two? leave format= out, the ending says it")
    return formats.TABLE_ENDINGS[ending]


def choose(
    asked: Mapping[str, Any], study: Study | None, kind: str, keys: Sequence[str], in_study: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The tables (or figures) to make: the study's or one of no name, with what the command line says on top."""
    name, typed = asked["name"], {key: asked[key] for key in keys if asked[key] is not None}
    if study is None:
        if name is not None:
            raise UserError(f"name={name}: chooses among the {kind} of a study; say which with study=")
        return {"": typed}
    there: Mapping[str, Mapping[str, Any]] = getattr(study, kind)
    if name is not None and name not in there:
        raise UserError(f"name={name}: {did_you_mean(name, there)}")
    for title, layout in there.items():
        for key in layout:
            if key not in in_study:
                raise UserError(f"study={study.name}: {kind}.{title}.{key}: {did_you_mean(key, in_study)}")
    chosen = {name: there[name]} if name is not None else there or {"": {}}
    if isinstance(typed.get("value"), list) and "columns" not in typed:  # side by side, in place of the study's columns
        chosen = {title: {key: its[key] for key in its if key != "columns"} for title, its in chosen.items()}
    return {title: {**layout, **typed} for title, layout in chosen.items()}


# ---------------------------------------------------------------------------------------------------------- layout


def build_table(
    name: str,
    runs: Runs,
    *,
    rows: Any = None,
    columns: str | None = None,
    value: Any = None,
    show: str | None = None,
    against: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> Table:
    """`value` is a result, or a list of them to stand side by side."""
    runs = runs.filtered(where or {})
    values = [
        runs.check("value", str(one), runs.numbers())
        for one in (value if isinstance(value, list) else [value or "test_accuracy"])
    ]
    if not values or (len(values) > 1 and columns is not None):
        raise UserError(f"value={shown_value(value)} columns={columns}: several results, or one along a setting")
    show = runs.check("show", (show or "ci95").removeprefix("mean ± "), SHOW)
    wanted = runs.listed("rows", rows)
    if columns is not None:
        runs.check("columns", columns, runs.keys)
    groups = groups_of(runs)
    across = [columns] if columns is not None else []
    keys = distinguishing_keys(groups, [*across, *wanted])[len(across) :]
    keys = keys or ([] if across else ["model"])
    groups.sort(key=lambda group: sort_key({key: group.settings[key] for key in [*keys, *across]}))
    common, warnings = shared_settings(groups), comparison_warnings(groups)
    if against is not None:
        groups, without = differences.against(groups, keys, columns, str(against))
        warnings += [f"no {against} to compare with: {', '.join(without)}"] if without else []
    cells = [_cells(groups, value, show, signed=against is not None) for value in values]
    if len(values) > 1:
        head, lines = _several(groups, keys, values, cells)
    else:
        make = _side_by_side if columns is not None else _one_a_line
        head, lines = make(groups, keys, columns or "", values[0], cells[0])
    intervals = [group.interval(value) for group in groups for value in values]
    ns = {i.n for i in intervals}
    over = "one seed" if ns == {1} else f"{SHOW[show]} over {f'n={ns.pop()} ' if len(ns) == 1 else ''}seeds"
    what = f"{groups[0].label(values[0]).replace(', ', ' in ')}, " if len(values) == 1 else ""
    minus = f"minus that of {against}, paired by seed, " if against is not None else ""
    caption = f"{what}{minus}{over}; {common}".rstrip("; ")
    notes = warnings
    if show == "ci95" and (why := sorted({i.why for i in intervals if i.n and i.why})):
        notes.insert(0, f"n/a: no interval from {' or '.join(why)}")
    return Table(name, caption, head, lines, len(keys), notes, groups, [*keys, *across], values)


def _cells(groups: Sequence[Group], value: str, show: str, signed: bool) -> Callable[[Interval], str]:
    digits = decimals_of(value, [group.interval(value) for group in groups])

    def cell(interval: Interval) -> str:
        mean = shown_number(value, interval.mean, digits)
        mean = f"+{mean}" if signed and interval.mean > 0 else mean
        if show == "mean" or interval.n == 0:
            return mean
        return f"{mean} ± {shown_number(value, interval.half if show == 'ci95' else interval.sd, digits)}"

    return cell


def _one_a_line(
    groups: Sequence[Group], keys: Sequence[str], _: str, value: str, cell: Callable[[Interval], str]
) -> tuple[list[str], list[list[str]]]:
    costs = [cost for cost in costs_of(groups) if cost != value]
    diverged = any(group.diverged for group in groups)
    head = [*keys, groups[0].label(value), "n", *(["diverged"] if diverged else []), *(HEADS[cost] for cost in costs)]
    lines = []
    for group in groups:
        interval = group.interval(value)
        lines.append(
            [
                *(shown_value(group.settings[key]) for key in keys),
                cell(interval),
                str(interval.n),
                *([str(group.diverged)] if diverged else []),
                *(_span(cost, [group]) for cost in costs),
            ]
        )
    return head, lines


def _several(
    groups: Sequence[Group], keys: Sequence[str], values: Sequence[str], cells: Sequence[Callable[[Interval], str]]
) -> tuple[list[str], list[list[str]]]:
    """Results side by side, a line a group; how many runs have one is said where not all have it."""
    lines = []
    for group in groups:
        found = [group.interval(value) for value in values]
        n = max(i.n for i in found)
        shown_values = [cell(i) + (f" (n={i.n})" if 0 < i.n < n else "") for cell, i in zip(cells, found, strict=True)]
        lines.append([*(shown_value(group.settings[key]) for key in keys), *shown_values, str(n)])
    return [*keys, *map(groups[0].label, values), "n"], lines


def _side_by_side(
    groups: Sequence[Group], keys: Sequence[str], columns: str, value: str, cell: Callable[[Interval], str]
) -> tuple[list[str], list[list[str]]]:
    across = sorted({group.settings[columns] for group in groups}, key=lambda v: sort_key({columns: v}))
    by_line: dict[tuple[Any, ...], dict[Any, Group]] = {}
    for group in groups:
        by_line.setdefault(tuple(group.settings[key] for key in keys), {})[group.settings[columns]] = group
    ns = {group.interval(value).n for group in groups}
    kinds = ("parameters", "multiply_adds", "train_seconds", TOTAL)
    costs = [cost for cost in costs_of(groups) if cost in kinds and cost != value]
    across_head = [f"{columns}={shown_value(across[0])}", *map(shown_value, across[1:])]
    head = [*keys, *across_head, *(HEADS[cost] for cost in costs)]

    def entry(group: Group | None) -> str:
        if group is None:
            return "no run"
        interval = group.interval(value)
        more = ([f"n={interval.n}"] if len(ns) > 1 else []) + ([f"{group.diverged} diverged"] if group.diverged else [])
        return cell(interval) + (f" ({', '.join(more)})" if more else "")

    lines = [
        [
            *map(shown_value, line),
            *(entry(there.get(v)) for v in across),
            *(_span(cost, [*there.values()]) for cost in costs),
        ]
        for line, there in by_line.items()
    ]
    return head, lines


def _span(cost: str, groups: Sequence[Group]) -> str:
    """A cost of several groups: the mean of each, from the least to the most."""
    means = [group.interval(cost).mean for group in groups]
    kept = [mean for mean in means if mean == mean]
    if not kept:
        return "n/a"
    digits = 1 if cost in ("train_seconds", TOTAL) and min(kept) < 10 else 0
    low, high = shown_number(cost, min(kept), digits), shown_number(cost, max(kept), digits)
    return low if low == high else f"{low}-{high}"
