"""Compares runs: `vitbench table`, `vitbench table study=quickstart`, `vitbench table where.data=cifar10 format=md`.

There are two layouts. Without `columns=` each line is a group of runs that differ only in their seeds, with its mean,
interval and costs. With `columns=data.fraction` the values of that setting stand side by side, and a line is a model.
In both, a setting that tells groups apart becomes a key of the lines even if nobody asked for it, so that nothing
unlike is averaged. With `against=resnet` the numbers are differences from the line of that name, paired by seed, and
with `matched=test_accuracy` these are taken at equal accuracy (vitbench/comparing/matched.py). With `whole=resnet` or
`bare=vit` a line says what a bias is worth in images (vitbench/comparing/worth_table.py). With `per=class` a line is a
class of the images, and with `per=confusion` the table says which class is taken for which (per_class.py). With
`per=run` a line is a run, with all that is known of it.

CSV and JSON always have one line per group and all digits. `docs/reference/metrics.md` defines the numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.comparing import differences, formats
from vitbench.comparing.cells import (
    SHOW,
    cell_writer,
    degenerate_notes,
    describe_seeds,
    no_interval_notes,
    power_notes,
    shown_of_seeds,
)
from vitbench.comparing.evidence import asker_of, choose_runs, evidence_text, refuse_table
from vitbench.comparing.formats import COSTS, TOTAL_SECONDS, Table, cost_range, costs_of
from vitbench.comparing.grouping import (
    PLACES,
    Group,
    comparison_warnings,
    distinguishing_keys,
    groups_of,
    sort_key,
    with_place,
)
from vitbench.comparing.heads import captions, column_heads, key_columns
from vitbench.comparing.matched import build_matched_table
from vitbench.comparing.per_class import build_class_table
from vitbench.comparing.select import Runs
from vitbench.comparing.worth_table import build_worth_table
from vitbench.errors import UserError, check_choice, did_you_mean
from vitbench.machine.outputs import check_output, write_output
from vitbench.numbers.text import say
from vitbench.numbers.words import column_head, column_words, plural, printable, shown_value

if TYPE_CHECKING:
    from vitbench.runs.study import Study

LADDER_KEYS = ("whole", "bare")  # these ask for the worth of each bias, in a table or a figure
TABLE_KEYS = ("rows", "columns", "value", "show", "against", "matched", *LADDER_KEYS)  # these lay out a table


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    from vitbench.runs.study import load_study

    asked: Any = OmegaConf.to_container(config, resolve=True)
    form = _format(asked["format"], asked["file"])
    path = Path(asked["file"]).expanduser() if asked["file"] else None
    if path:
        check_output(path, replace=asked["replace"])
    study = load_study(asked["study"]) if asked["study"] is not None else None
    per = asked["per"]
    if per == "run":
        return _write_runs(asked, form, path, study)
    if per:
        refuse_table(asked["runs"], per)
    layouts = {} if per else choose_layouts(asked, study, "tables", TABLE_KEYS)
    runs = choose_runs(asked["runs"], asked["where"], study)
    tables = [build_table(name, runs, **layout) for name, layout in layouts.items()]
    if per:
        others = {key: asked[key] for key in ("name", *TABLE_KEYS) if key != "show"}
        tables = [build_class_table(runs, asked["runs"], per=per, show=asked["show"], others=others)]
    if len(tables) > 1:
        tables = [replace(table, caption=f"{table.name}: {table.caption}") for table in tables]
    if form == "csv" and len(tables) > 1:
        raise UserError(f"format=csv holds one table; choose with name=: {', '.join(layouts)}")
    asker = asker_of(asked["runs"], study)
    heading = printable(f"{asker.title}. {asker.question}" if asker else "")
    notes = [printable(note) for note in [*runs.notes, *([asker.notes] if asker and asker.notes else [])]]
    typed = next((key for key in ("matched", "against") if asked[key] is not None), "")
    tables = [replace(table, label_end=typed) for table in tables]
    if path:
        text = formats.render_tables(form, tables, heading, notes, study.name if study else path.stem)
        write_output(path, text.encode("utf-8", "backslashreplace"), replace=asked["replace"])
        say(f"{path}\n")
    elif form == "text" and sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        formats.print_rich(tables, heading, notes)
    else:
        say(formats.render_tables(form, tables, heading, notes, study.name if study else ""))
    if form == "csv":  # a CSV has no place for notes
        for note in [*notes, *(f"! {line}" for table in tables for line in table.notes)]:
            print(f"vitbench: {note}", file=sys.stderr)
    return 0


def _write_runs(asked: Mapping[str, Any], form: str, path: Path | None, study: Study | None) -> int:
    """Writes every run as a line of CSV, with all its settings and results (docs/reference/records.md)."""
    if form != "csv":
        raise UserError("per=run: has too many columns for anything but CSV; add format=csv, or file=NAME.csv")
    if others := [key for key in ("name", *TABLE_KEYS) if asked[key] is not None]:
        raise UserError(f"per=run: has all columns; leave {' and '.join(f'{key}=' for key in others)} out")
    runs = choose_runs(asked["runs"], asked["where"], study)
    text = evidence_text(runs, {})
    if path:
        write_output(path, text.encode("utf-8", "backslashreplace"), replace=asked["replace"])
    say(f"{path}\n" if path else text)
    for note in runs.notes:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    return 0


def _format(typed: str, file: str | None) -> str:
    """Returns the format that was typed, or the one that the ending of `file` says."""
    check_choice("format", typed, formats.TABLE_ENDINGS.values())
    if file is None:
        return typed
    ending = Path(file).suffix.lower()
    if ending not in formats.TABLE_ENDINGS:
        raise UserError(f"file={file}: the ending says the format; choices: {', '.join(formats.TABLE_ENDINGS)}")
    if typed not in ("text", formats.TABLE_ENDINGS[ending]):
        raise UserError(f"format={typed} file={file}: which of the two? leave format= out, the ending says it")
    return formats.TABLE_ENDINGS[ending]


def choose_layouts(
    asked: Mapping[str, Any], study: Study | None, kind: str, keys: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns the study's layouts for "tables" or "figures" by name, or without a study one layout that has no name.

    What was typed for one of `keys` replaces what the study says. In a study a layout can also have `where`; a typed
    `where` is no part of a layout, because it holds for all of them. A typed ladder (`whole=`, `bare=`) is a layout of
    its own, unless `name` chooses one of the study's.
    """
    name, typed = asked.get("name"), {key: asked[key] for key in keys if asked.get(key) is not None}
    if study is None:
        if name is not None:
            raise UserError(f"name={name}: chooses among the {kind} of a study; say which with study=")
        return {"": typed}
    is_own = name is None and not typed.keys().isdisjoint(LADDER_KEYS)
    layouts: Mapping[str, Mapping[str, Any]] = {} if is_own else getattr(study, kind)
    if name is not None:
        check_choice("name", name, layouts)
    allowed = (*keys, "where")
    for title, layout in layouts.items():
        for key in layout:
            if key not in allowed:
                raise UserError(f"study={study.name}: {kind}.{title}.{key}: {did_you_mean(key, allowed)}")
    chosen = {name: layouts[name]} if name is not None else layouts or {"": {}}
    # several results that were typed stand side by side, where the study may have its columns
    replaced = {"columns"} if isinstance(typed.get("value"), list) else set()
    return {
        title: {key: layout[key] for key in layout if key not in replaced} | typed for title, layout in chosen.items()
    }


def build_table(
    name: str,
    runs: Runs,
    *,
    rows: Any = None,
    columns: str | None = None,
    value: Any = None,
    show: str | None = None,
    against: str | None = None,
    matched: str | None = None,
    whole: str | None = None,
    bare: str | None = None,
    where: Mapping[str, Any] | None = None,
) -> Table:
    """Builds a table; `value` is a result, or a list of results that stand side by side."""
    others = {"rows": rows, "columns": columns, "against": against, "matched": matched}
    ladder = choose_ladder({"whole": whole, "bare": bare}, others, value)
    runs = runs.filtered(where or {})
    show = check_choice("show", (show or "ci95").removeprefix("mean ± "), SHOW)
    if ladder is not None:
        return build_worth_table(name, runs, setting=ladder[0], words=ladder[1], value=value, show=show)
    if matched is not None:
        if columns is not None:
            raise UserError(
                f"matched={matched} columns={columns}: runs along a line become one number; leave columns= out"
            )
        return build_matched_table(name, runs, rows=rows, value=value, show=show, against=against, matched=matched)
    results = value if isinstance(value, list) else [value or "test_accuracy"]
    values, unmeasured = runs.measured("value", [*map(str, results)])
    if not values or (len(values) > 1 and columns is not None):
        raise UserError(f"value={shown_value(value)} columns={columns}: several results, or one along a setting")
    row_keys = runs.listed("rows", rows)
    if columns in PLACES:
        runs = with_place(runs, columns)
    column_keys = [check_choice("columns", columns, [*runs.keys, *PLACES])] if columns is not None else []
    groups = groups_of(runs)
    keys = distinguishing_keys(groups, [*column_keys, *row_keys])[len(column_keys) :]
    keys = keys or ([] if column_keys else ["model"])
    groups.sort(key=lambda group: sort_key({key: group.settings[key] for key in [*keys, *column_keys]}))
    compared_groups, notes = groups, comparison_warnings(groups)
    if against is not None:
        compared, unpaired = differences.against(groups, keys, columns, str(against))
        groups = [*compared]
        notes += [f"no {against} to compare with: {', '.join(unpaired)}"] if unpaired else []
    intervals = [group.interval(value) for group in groups for value in values]
    show = shown_of_seeds(intervals, show)
    writers = [cell_writer(groups, value, show, signed=against is not None) for value in values]
    if columns is not None:
        head, lines = _columns_side_by_side(groups, keys, columns, values[0], writers[0])
    elif len(values) > 1:
        head, lines = _results_side_by_side(groups, keys, values, writers)
    else:
        head, lines = _group_a_line(groups, keys, values[0], writers[0])
    what = f"{groups[0].phrase(values[0])}, " if len(values) == 1 else ""
    minus = f"minus that of {against}, paired by seed, " if against is not None else ""
    seeds = f"{minus}{describe_seeds(intervals, show)}"
    caption, printed = captions(what + seeds, compared_groups)
    if len(values) > 1:
        of_several = f"{column_words(values[0])} and {plural(len(values) - 1, 'other result')}, {seeds}"
        printed = captions(of_several, compared_groups)[1]
    notes = [*unmeasured, *no_interval_notes(intervals, show), *notes]
    notes += [*degenerate_notes(groups, values), *(power_notes(groups, values) if against is not None else [])]
    shown = [*keys, *column_keys]
    made = Table(name, caption, head, lines, len(keys), notes, groups, shown, values, caption_in_print=printed)
    return replace(made, costs=_last_costs(head))


def _last_costs(head: Sequence[str]) -> list[str]:
    """Lists the costs in the last columns of a table; the number of images is no cost of a line."""
    names = {column_head(cost): cost for cost in COSTS if cost != "train_images"}
    return [names[word] for word in takewhile(names.__contains__, reversed(head))][::-1]


def choose_ladder(
    ladders: Mapping[str, str | None], others: Mapping[str, Any], value: Any, result: str = "value"
) -> tuple[str, str] | None:
    """Returns the setting and the words of the ladder that was asked for; None where there is none.

    Raises UserError where two were asked for, or anything else that lays out, and where there are several results.
    """
    given = {key: words for key, words in ladders.items() if words is not None}
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"{' '.join(f'{key}={words}' for key, words in given.items())}: give one of them")
    setting, words = next(iter(given.items()))
    unfit = {key: typed for key, typed in others.items() if typed is not None}
    if unfit:
        typed = " ".join(f"{key}={shown_value(typed)}" for key, typed in unfit.items())
        hint = f"leave {' and '.join(f'{key}=' for key in unfit)} out"
        raise UserError(f"{setting}={words} {typed}: {setting}= lays out everything by itself; {hint}")
    if isinstance(value, list):
        raise UserError(f"{setting}={words} {result}={shown_value(value)}: a worth is one of one result; give one")
    return setting, words


def _group_a_line(
    groups: Sequence[Group], keys: Sequence[str], value: str, write_cell: Callable[[Group], str]
) -> tuple[list[str], list[list[str]]]:
    """Returns head and lines of a table of one result, with its n and the costs of each group."""
    diverged = any(group.diverged for group in groups)
    key_heads, write_keys = key_columns(groups, keys)
    head = [*key_heads, groups[0].head(value), "n", *(["diverged"] if diverged else [])]
    costs = [cost for cost in costs_of(groups) if cost != value and column_head(cost) not in key_heads]
    lines = []
    for group in groups:
        interval = group.interval(value)
        counts = [str(interval.n), *([str(group.diverged)] if diverged else [])]
        cost_cells = [cost_range(cost, [group]) for cost in costs]
        lines.append([*write_keys(group), write_cell(group), *counts, *cost_cells])
    return [*head, *map(column_head, costs)], lines


def _results_side_by_side(
    groups: Sequence[Group], keys: Sequence[str], values: Sequence[str], writers: Sequence[Callable[[Group], str]]
) -> tuple[list[str], list[list[str]]]:
    """Returns head and lines of a table of several results; a result that not all runs have is shown with its n."""
    key_heads, write_keys = key_columns(groups, keys)
    lines = []
    for group in groups:
        intervals = [group.interval(value) for value in values]
        n = max(i.n for i in intervals)
        cells = [
            write_cell(group) + (f" (n={i.n})" if 0 < i.n < n else "")
            for write_cell, i in zip(writers, intervals, strict=True)
        ]
        lines.append([*write_keys(group), *cells, str(n)])
    return [*key_heads, *map(groups[0].head, values), "n"], lines


def _columns_side_by_side(
    groups: Sequence[Group], keys: Sequence[str], columns: str, value: str, write_cell: Callable[[Group], str]
) -> tuple[list[str], list[list[str]]]:
    """Returns head and lines of a table of one result, with the values of the setting `columns` side by side."""
    column_values = sorted({group.settings[columns] for group in groups}, key=lambda v: sort_key({columns: v}))
    groups_by_line: dict[tuple[Any, ...], dict[Any, Group]] = {}
    for group in groups:
        groups_by_line.setdefault(tuple(group.settings[key] for key in keys), {})[group.settings[columns]] = group
    ns = {group.interval(value).n for group in groups}
    shown_costs = {"parameters", "multiply_adds", "train_seconds", TOTAL_SECONDS} - {value}
    costs = [cost for cost in costs_of(groups) if cost in shown_costs]
    key_heads, write_keys = key_columns(groups, keys)
    head = [*key_heads, *column_heads(groups, columns, column_values), *map(column_head, costs)]

    def write_group(group: Group | None) -> str:
        if group is None:
            return "no run"
        interval = group.interval(value)
        counts = [f"n={interval.n}"] if len(ns) > 1 else []
        counts += [f"{group.diverged} diverged"] if group.diverged else []
        return write_cell(group) + (f" ({', '.join(counts)})" if counts else "")

    lines = []
    for line_groups in groups_by_line.values():
        cells = [write_group(line_groups.get(v)) for v in column_values]
        cost_cells = [cost_range(cost, [*line_groups.values()]) for cost in costs]
        lines.append([*write_keys(next(iter(line_groups.values()))), *cells, *cost_cells])
    return head, lines
