"""Which runs a command is about: those of a folder or of a study that pass the filters `where.KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitbench.errors import NothingChosen, UserError, check_choice, did_you_mean
from vitbench.numbers.result_names import probe_of
from vitbench.numbers.words import RenamedValue, is_number, plural, typed_value
from vitbench.settings.filters import filters, matches

if TYPE_CHECKING:
    from vitbench.runs.study import Study

Row = dict[str, Any]  # a run, as `read_runs` gives it
SEED_KEYS = ("seed", "data.subset_seed")  # runs that differ in nothing else are averaged
SAMPLES_KEYS = ("optim.steps", "optim.epochs", "optim.min_steps")  # settings that say how many samples a run sees
# settings that decide no number
UNIMPORTANT_KEYS = ("runs", "eval_every", "keep", "trackers", "data.root", "data.cache")

CERTIFIES = "certifies"  # the column of a certificate that names the run which it certifies


def as_begun(row: Row) -> Row:
    """A branch as the run from scratch that it equals (vitbench/runs/branch.py); any other run as it is."""
    return row | {"init": None, "checkpoint": None} if row.get("checkpoint") is not None else row


@dataclass(frozen=True)
class Runs:
    """The runs that were asked for, and notes on those that are missing."""

    rows: list[Row]
    settings: list[str]  # the columns that are settings, of `rows` and of the runs that were filtered out
    notes: list[str] = field(default_factory=list)
    swept: dict[str, list[Row]] = field(default_factory=dict)  # by run id, what probes measured along something
    certificates: list[Row] = field(
        default_factory=list
    )  # runs of a study's `certify:`, which are in no table or curve
    lacks_probes: bool = False  # they come from a runs.csv without its probes.csv

    @property
    def keys(self) -> list[str]:
        """The settings that can make rows, columns and lines: not those that are averaged over or decide no number."""
        return [key for key in self.settings if key not in SEED_KEYS + UNIMPORTANT_KEYS]

    @cached_property
    def ids(self) -> set[str]:
        """The ids of all runs, certificates among them."""
        return {row["id"] for row in [*self.rows, *self.certificates]}

    @property
    def swept_columns(self) -> set[str]:
        """The results that probes measured along something."""
        return {row["column"] for rows in self.swept.values() for row in rows}

    def numbers(self) -> list[str]:
        """Lists the results that are numbers, which can be averaged."""
        numeric: set[str] = set()
        others = {*self.settings, "schema"}
        for row in self.rows:  # most have the columns of the one before
            numeric |= {key for key in row.keys() - numeric - others if is_number(row[key])}
        return sorted(numeric)

    def measured(
        self, setting: str, results: Sequence[str], swept: Collection[str] = ()
    ) -> tuple[list[str], list[str]]:
        """Returns those of `results` that some run has, and notes on those that probes give and no run has.

        `swept` are results that were measured along something. Raises NothingChosen where no run has any of them, and
        UserError for a name that is no result.
        """
        numbers = {*self.numbers(), *swept}
        for name in {*results} & self.swept_columns - numbers:
            raise UserError(f"{setting}={name}: a probe measured it along something; `vitbench plot y={name}` draws it")
        lacking = [name for name in results if name not in numbers and probe_of(name)]
        notes = _lacking_notes(lacking, {probe_of(number) for number in numbers}, self.lacks_probes)
        if lacking and len(lacking) == len(results):
            raise NothingChosen(f"{setting}={','.join(results)}: {'; '.join(notes)}")
        return [check_choice(setting, name, numbers) for name in results if name not in lacking], notes

    def listed(self, setting: str, value: Any) -> list[str]:
        """Lists what was typed for `rows` or `lines`, which take one key or a list of keys."""
        keys = [] if value is None else value if isinstance(value, list) else [value]
        return [check_choice(setting, str(key), self.keys) for key in keys]

    def renamed(self, names: Mapping[str, Mapping[str, str]]) -> Runs:
        """Gives values the words that a study has for them: `names` holds, by setting, the word of each typed value."""
        for key in names:
            if key not in self.settings:
                raise UserError(f"names.{key}: {did_you_mean(key, self.settings)}")

        def renamed(row: Row) -> Row:
            words = {key: words_of[row[key]] for key, words_of in names.items() if row.get(key) in words_of}
            return row | {key: RenamedValue(row[key], word) for key, word in words.items()}

        return replace(self, rows=[*map(renamed, self.rows)], certificates=[*map(renamed, self.certificates)])

    def filtered(self, where: Mapping[str, Any]) -> Runs:
        """Keeps the runs that pass the filters `where.KEY=VALUE`; if none does, the error says what there is.

        Certificates are all kept: they differ from their runs in settings that filters are about.
        """
        rows = self.rows
        columns = {key for row in rows for key in row}
        for key, wanted in filters(where).items():
            if key not in columns:
                raise UserError(f"where.{key}={typed_value(wanted)}: {did_you_mean(key, columns)}")
            passing = [row for row in rows if matches(row.get(key), wanted)]
            if not passing:
                values = sorted({typed_value(row.get(key)) for row in rows})
                some = ", ".join(values[:12]) + (f" and {len(values) - 12} others" if len(values) > 12 else "")
                raise NothingChosen(
                    f"where.{key}={typed_value(wanted)}: none of {plural(len(rows), 'run')}; there {key} is {some}"
                )
            rows = passing
        return replace(self, rows=rows, swept={row["id"]: self.swept.get(row["id"], []) for row in rows})


def _lacking_notes(
    lacking: Sequence[str], measured: Collection[tuple[str, str] | None], lacks_probes: bool
) -> list[str]:
    """Says which probe would give what no run has; `measured` are the probes, and checkpoints, that gave something."""
    if lacking and lacks_probes:
        beside = "what probes measured along something is in probes.csv, which must be beside runs.csv"
        return [f"no run has {', '.join(lacking)}; {beside}"]
    names_by_probe: dict[tuple[str, str], list[str]] = {}
    for name in lacking:
        names_by_probe.setdefault(probe_of(name) or ("", ""), []).append(name)
    notes = []
    for (probe, checkpoint), names in names_by_probe.items():
        words = f"vitbench probe probe={probe}" + ("" if checkpoint == "trained" else f" checkpoint={checkpoint}")
        them = "it" if len(names) == 1 else "them"
        gives = f"gave other numbers, and not {them}" if (probe, checkpoint) in measured else f"measures {them}"
        notes.append(f"no run has {', '.join(names)}; `{words}` {gives}")
    return notes


def select_runs(folder: str, where: Mapping[str, Any], study: Study | None = None) -> Runs:
    """Reads the runs in `folder` that belong to the study and pass the filters; if none does, the error says why."""
    from vitbench.runs.records import read_runs

    rows, settings, problems, unfinished, swept = read_runs(Path(folder).expanduser())
    notes = [f"not read: {problem}" for problem in problems]
    certificates: list[Row] = []
    if not rows:
        waiting = f"{len(unfinished)} have begun, none has ended" if unfinished else "`vitbench train` makes one"
        published = Path("results") / (study.name if study else "") / "runs.csv"
        for evidence in (Path(folder) / "runs.csv", published):
            if evidence.expanduser().is_file():
                waiting = f"runs={evidence} reads the published ones"
                break
        raise UserError("; ".join([f"runs={folder}: no finished run there; {waiting}", *problems[:1]]))
    if study is not None:
        from vitbench.runs.plan import ids_in_evidence, planned_ids_and_certificates

        ids, certified = planned_ids_and_certificates(study, Path(folder).expanduser())
        planned = {*ids}
        rows = [row for row in rows if row["id"] in planned]
        missing = planned - {row["id"] for row in rows}
        certificates = [row | {CERTIFIES: certified[row["id"]]} for row in rows if row["id"] in certified]
        rows = [row for row in rows if row["id"] not in certified]
        if not rows:
            raise UserError(
                f"study={study.name}: none of its {len(planned)} runs has ended in runs={folder}; "
                f"`vitbench sweep study={study.name}` starts them"
            )
        if gone := missing & {*ids_in_evidence(study, Path(folder).expanduser())}:
            notes.append(
                f"{len(gone)} of the {len(planned)} planned runs have only their evidence in results/: they are not in"
                f" {folder}, and neither read nor probed here"
            )
            missing -= gone
        if missing:
            begun = len(missing & set(unfinished))
            notes.append(
                f"missing: {len(missing)} of the {len(planned)} planned runs"
                + (f", {begun} of them begun (`vitbench ls runs`)" if begun else "")
            )
    elif unfinished:
        notes.append(f"{plural(len(unfinished), 'more run')} in {folder}, begun and not ended (`vitbench ls runs`)")
    selected = Runs(rows, settings, notes, {row["id"]: swept[row["id"]] for row in rows}, certificates)
    return selected.renamed(study.names if study else {}).filtered(where)
