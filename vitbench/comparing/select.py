"""The runs that a command was asked for: read from a folder, those of a study, filtered by `where.KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.errors import NothingChosen, UserError, did_you_mean
from vitbench.numbers.words import RenamedValue, is_number, plural, shown_value, typed_value

if TYPE_CHECKING:
    from vitbench.runs.study import Study


Row = dict[str, Any]  # a run, as `read_runs` gives it


SEED_KEYS = ("seed", "data.subset_seed")  # what is averaged over


UNIMPORTANT_KEYS = ("runs", "eval_every", "keep", "data.root", "data.cache")  # settings that decide no number


@dataclass(frozen=True)
class Runs:
    """The runs that were asked for, and what a reader has to know about those that are not there."""

    rows: list[Row]
    settings: list[str]  # the columns that are settings, of `rows` and of all that was filtered out
    notes: list[str] = field(default_factory=list)
    swept: dict[str, list[Row]] = field(default_factory=dict)  # what probes measured along something, by run

    @property
    def keys(self) -> list[str]:
        """The settings that can be rows, columns and lines: what is averaged over cannot."""
        return [key for key in self.settings if key not in SEED_KEYS + UNIMPORTANT_KEYS]

    def numbers(self) -> list[str]:
        """The columns that can be averaged: numeric results."""
        named = {key for row in self.rows for key, value in row.items() if is_number(value)}
        return sorted(named - set(self.settings) - {"schema"})

    def listed(self, setting: str, value: Any) -> list[str]:
        """A setting that takes one key or a list of keys, as a list."""
        keys = [] if value is None else value if isinstance(value, list) else [value]
        return [self.check(setting, str(key), self.keys) for key in keys]

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Runs:
        """With the words that a study has for values of its settings, by setting and by value as it is typed."""

        def row_of(row: Row) -> Row:
            return row | {
                key: RenamedValue(row[key], its[row[key]]) for key, its in names.items() if row.get(key) in its
            }

        for key in names:
            if key not in self.settings:
                raise UserError(f"names.{key}: {did_you_mean(key, self.settings)}")
        return replace(self, rows=[row_of(row) for row in self.rows])

    def filtered(self, where: Mapping[str, Any]) -> Runs:
        """Those that pass the filters `where.KEY=VALUE`; if none, one line that says what there is."""
        rows = self.rows
        columns = {key for row in rows for key in row}
        for key, wanted in _filters(where).items():
            if key not in columns:
                raise UserError(f"where.{key}={typed_value(wanted)}: {did_you_mean(key, columns)}")
            kept = [row for row in rows if matches(row.get(key), wanted)]
            if not kept:
                there = sorted({typed_value(row.get(key)) for row in rows})
                some = ", ".join(there[:12]) + (f" and {len(there) - 12} others" if len(there) > 12 else "")
                raise NothingChosen(
                    f"where.{key}={typed_value(wanted)}: none of {plural(len(rows), 'run')}; there {key} is {some}"
                )
            rows = kept
        return replace(self, rows=rows, swept={row["id"]: self.swept.get(row["id"], []) for row in rows})

    @staticmethod
    def check(setting: str, key: str, choices: Iterable[str]) -> str:
        """`key`, or one line that names the setting as typed."""
        if key not in choices:
            raise UserError(f"{setting}={key}: {did_you_mean(key, choices)}")
        return key


def select_runs(folder: str, where: Mapping[str, Any], study: Study | None = None) -> Runs:
    """The runs in `folder` that belong to the study and pass the filters; if none, one line that says what there is."""
    from vitbench.runs.records import read_runs

    rows, settings, problems, unfinished, swept = read_runs(Path(folder).expanduser())
    notes = [f"not read: {problem}" for problem in problems]
    if not rows:
        waiting = f"{len(unfinished)} have begun, none has ended" if unfinished else "`vitbench train` makes one"
        raise UserError("; ".join([f"runs={folder}: no finished run there; {waiting}", *problems[:1]]))
    if study is not None:
        from vitbench.runs.plan import planned_ids

        planned = planned_ids(study, Path(folder).expanduser())
        kept = [row for row in rows if row["id"] in set(planned)]
        missing = set(planned) - {row["id"] for row in kept}
        if not kept:
            raise UserError(
                f"study={study.name}: none of its {len(planned)} runs has ended in runs={folder}; "
                f"`vitbench sweep study={study.name}` starts them"
            )
        if missing:
            begun = len(missing & set(unfinished))
            notes.append(
                f"missing: {len(missing)} of the {len(planned)} planned runs"
                + (f", {begun} of them begun (`vitbench ls runs`)" if begun else "")
            )
        rows = kept
    elif unfinished:
        notes.append(f"{plural(len(unfinished), 'more run')} in {folder}, begun and not ended (`vitbench ls runs`)")
    selected = Runs(rows, settings, notes, {row["id"]: swept[row["id"]] for row in rows})
    return selected.renamed(study.names if study else {}).filtered(where)


def _filters(where: Mapping[str, Any]) -> dict[str, Any]:
    """{"data": {"name": "x", "fraction": 1}} -> {"data": "x", "data.fraction": 1}, as the columns are called."""
    from vitbench.settings.choices import column_of, settings_key
    from vitbench.settings.compose import flatten

    return {column_of(settings_key(key)): value for key, value in flatten(where).items()}


def matches(value: Any, wanted: Any) -> bool:
    """Whether a setting is what was typed, or one of a list of them; numbers by value, words also by a study's name."""
    if isinstance(wanted, list) and not (isinstance(value, list | tuple) and [*value] == wanted):
        return any(matches(value, one) for one in wanted)
    if is_number(value) and is_number(wanted):
        return bool(value == wanted)
    return typed_value(wanted) in (typed_value(value), shown_value(value))
