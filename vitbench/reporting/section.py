"""One study in a report: its evidence, and the tables, figures and fits that follow from it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vitbench import plot
from vitbench.comparing import formats
from vitbench.comparing.axes import AXIS_OF_COLUMN, IMAGES
from vitbench.comparing.evidence import Counted, read_counts, read_evidence, read_swept
from vitbench.comparing.formats import escape_markdown
from vitbench.comparing.grouping import mixed_settings
from vitbench.comparing.rungs import find_ladder
from vitbench.comparing.select import Runs
from vitbench.comparing.table import LADDER_KEYS, TABLE_KEYS, build_table, choose_layouts
from vitbench.errors import DataError, NothingChosen, UserError
from vitbench.fitting.findings import Report, report_of
from vitbench.fitting.lines import lines_of
from vitbench.fitting.mcnemar import Count, count_kept
from vitbench.fitting.render import render_report, report_sentences
from vitbench.machine.disk import read_file
from vitbench.numbers.words import plural, printable
from vitbench.reporting.pictures import Picture, kept_pictures
from vitbench.runs.study import Study, load_study

FORMS = ("md", "csv", "tex")
WRONG, MIXED = "WRONG", "mixed "  # how notes of a table begin that say what is wrong, and what its runs differ in
Built = TypeVar("Built")
Layout = Mapping[str, Any]  # what a study says of one table or figure
Layouts = Mapping[str, Layout]


@dataclass(frozen=True)
class Section:
    """One study's evidence and what is made from it."""

    study: Study
    runs: Runs
    commands: list[str]  # those that ran the study
    hand_written: str  # the text of notes.md, in Markdown
    counted: Sequence[Counted]  # of mcnemar.csv
    pictures: Sequence[Picture] = ()

    @classmethod
    def read(cls, folder: Path) -> Section:
        """Reads a study's evidence from its folder in results/. Raises DataError for a missing or damaged file."""
        path = folder / "study.yaml"
        if not path.is_file():
            raise DataError(f"{path} is missing; `vitbench report study={folder.name}` writes it")
        study = replace(load_study(str(path)), name=folder.name)
        runs = replace(read_evidence(folder / "runs.csv"), swept=read_swept(folder / "probes.csv"))
        notes = folder / "notes.md"
        hand_written = read_file(notes).decode(errors="replace") if notes.is_file() else ""
        counted = read_counts(folder / "mcnemar.csv", runs.rows)
        pictures = [*kept_pictures(study, folder)]
        return cls(study, runs.renamed(study.names), commands_of(path), hand_written, counted, pictures)

    @cached_property
    def runs_with_caveats(self) -> Runs:
        """The runs, whose notes also hold what the study says it cannot show."""
        return replace(self.runs, notes=[*self.runs.notes, *([self.study.notes] if self.study.notes else [])])

    @cached_property
    def notes_in_two(self) -> tuple[str, str]:
        """notes.md as it stands above the tables, and below them: from its second heading of the highest rank on."""
        parts = [part for part in re.split(r"^(?=# )", self.hand_written, flags=re.MULTILINE) if part.strip()]
        return "".join(parts[:1]).strip(), "".join(parts[1:]).strip()

    def _those_with_runs(self, kind: str, layouts: Layouts, build: Callable[[str, Layout], Built]) -> dict[str, Built]:
        """Builds tables or figures, but for those whose runs or measurements the study does not have yet."""
        built = {}
        for name, layout in layouts.items():
            try:
                built[name] = build(name, layout)
            except NothingChosen as error:
                print(f"vitbench: study={self.study.name}: {kind}.{name} is left out: {error}", file=sys.stderr)
        return built

    @cached_property
    def tables(self) -> list[formats.Table]:
        layouts = choose_layouts({}, self.study, "tables", TABLE_KEYS)
        tables = self._those_with_runs(
            "tables", layouts, lambda name, layout: build_table(name or "results", self.runs, **layout)
        )
        return [*tables.values()]

    @cached_property
    def _said_once(self) -> list[str]:
        """What all tables of the study would say below them."""
        notes = [table.notes for table in self.tables]
        return [note for note in notes[0] if all(note in others for others in notes)] if len(notes) > 1 else []

    @cached_property
    def shown_tables(self) -> list[formats.Table]:
        """The tables, without the notes that the study's small print has; what is wrong stays where it was."""
        return [
            replace(table, notes=[note for note in table.notes if note.startswith(WRONG) or not self._is_small(note)])
            for table in self.tables
        ]

    def _is_small(self, note: str) -> bool:
        return note in self._said_once or note.startswith(MIXED)

    @cached_property
    def small_print(self) -> list[str]:
        """Sentences that hold for all of the study's numbers: what is missing, and in what its runs differ."""
        once = [note for note in self._said_once if not note.startswith((WRONG, MIXED))]
        differ = [f"The runs differ in their {key}: {counts}" for key, counts in mixed_settings(self.runs.rows)]
        return [f"{printable(note).rstrip('.')}." for note in [*once, *self.runs.notes, *differ]]

    @cached_property
    def figure_layouts(self) -> dict[str, Any]:
        """The layouts of the figures that can be drawn, by name."""
        if not self.study.figures:
            return {}
        layouts = choose_layouts({}, self.study, "figures", plot.FIGURE_KEYS)
        return {name: layouts[name] for name in self._those_with_runs("figures", layouts, self._check_drawable)}

    @cached_property
    def fitted(self) -> Report | None:
        """What `vitbench fit` finds in the evidence."""
        return self.fit(count_kept(self.counted) if self.counted else None)

    def _check_drawable(self, name: str, layout: Layout) -> None:
        """Raises NothingChosen where a figure lacks its runs, its results or the networks of its ladder."""
        runs = self.runs.filtered(layout.get("where") or {})
        ladders = {*LADDER_KEYS} & layout.keys()
        for setting in ladders:
            find_ladder(runs, setting, layout[setting])
        if not ladders:
            runs.measured("y", sorted(plot.drawn_results([{"y": "test_error", **layout}])), runs.swept_columns)

    def fit(self, count: Count | None) -> Report | None:
        """Fits curves as `vitbench fit` does, if a figure of the study asks for them and there are enough runs."""
        layout = next((layout for layout in self.figure_layouts.values() if layout.get("fit")), None)
        if layout is None:
            return None
        runs = self.runs_with_caveats.filtered(layout.get("where") or {})
        value, axis = str(layout.get("y") or "test_error"), AXIS_OF_COLUMN.get(str(layout.get("x")), IMAGES)
        try:
            lines, left_out = lines_of(runs, value, axis=axis)
        except UserError:  # too few seeds or sizes so far
            return None
        found = report_of(value, lines, left_out, runs, heading=self.heading, count=count, axis=axis)
        return replace(found, study=self.study.name)

    @cached_property
    def texts(self) -> dict[str, str]:
        """The files that hold numbers, by name."""
        notes = [printable(note) for note in self.runs_with_caveats.notes]
        files = {
            f"{table.name}.{form}": formats.render_tables(form, [table], self.heading, notes, self.study.name)
            for table in self.tables
            for form in FORMS
        }
        if self.fitted is not None:
            files |= {f"fit.{form}": render_report(form, self.fitted) for form in FORMS}
        return files

    def figures(self) -> Iterator[tuple[str, bytes]]:
        """Draws the study's figures; yields the name and the bytes of each file."""
        for name, layout in self.figure_layouts.items():
            try:
                drawn = plot.draw_figure(self.runs, caveat=self.study.caveat, **layout)
            except UserError as error:
                raise UserError(f"study={self.study.name}: figures.{name}: {error}") from None
            yield f"{name}.svg", drawn

    @property
    def heading(self) -> str:
        return printable(f"{self.study.title}. {self.study.question}")

    def markdown(self) -> str:
        """Writes the study's section of the README: what was found, how sure it is, and then what was expected."""
        name, study = self.study.name, self.study
        parts = [f"## {escape_markdown(printable(study.title))}", f"**{escape_markdown(printable(study.question))}**"]
        above, below = (re.sub(r"^(#+) ", r"##\1 ", notes, flags=re.MULTILINE) for notes in self.notes_in_two)
        parts += [above] if above else []
        for table in self.shown_tables:
            title = (
                f"**{escape_markdown(table.name.replace('_', ' ').capitalize())}**: " if len(self.tables) > 1 else ""
            )
            parts.append(title + formats.render_tables("md", [table], "", []).strip())
        parts += [
            f"![{escape_markdown(printable(study.title))}]({name}/{figure}.svg)" for figure in self.figure_layouts
        ]
        for picture in self.pictures:
            caption = escape_markdown(picture.caption)
            parts.append(f"![{caption}]({name}/{picture.path.name})\n\n{caption}")
        if self.fitted is not None:
            pairs = [f"{title}: {' '.join(sentences)}" for title, sentences in report_sentences(self.fitted)]
            items = "\n".join(f"- {escape_markdown(pair)}" for pair in pairs)
            parts.append(f"Learning curves and every difference: [fit.md]({name}/fit.md). In words:\n\n{items}")
        if study.expect:
            parts.append(f"Expected beforehand: {escape_markdown(printable(study.expect))}")
        parts += [below] if below else []
        if study.notes:
            parts.append(f"What this cannot show: {escape_markdown(printable(study.notes))}")
        if self.small_print:
            parts.append(f"<sub>{escape_markdown(' '.join(self.small_print))}</sub>")
        return "\n\n".join([*parts, self.foot()])

    def facts(self) -> dict[str, str]:
        """Says where the numbers come from: runs, seeds, commits, dates, hardware and time."""
        rows = self.runs.rows
        seeds = sorted({row["seed"] for row in rows})
        days = sorted({str(row["created"])[:10] for row in rows})
        hours = sum(row["train_seconds"] for row in rows) / 3600
        machines = (
            f"{row['hardware.name']}, {row['hardware.precision']}, {row['hardware.threads']} thread"
            + ("" if row["hardware.threads"] == 1 else "s")
            for row in rows
        )
        certificates = plural(len(self.runs.certificates), "certificate")
        return {
            "runs": f"{len(rows)} runs" + (f", {certificates}" if self.runs.certificates else ""),
            "seeds": f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}",
            "commit": f"commit {_join_distinct(row.get('commit') or 'none' for row in rows)}",
            "dates": days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
            "hardware": _join_distinct(machines),
            "training": f"{hours:.1f} hours of training",
        }

    def all_commands(self) -> list[str]:
        """The commands that ran the study, and those that measured it."""
        named = [word for command in self.commands for word in re.findall(r"'study=[^']*'|\bstudy=\S+", command)]
        return [*self.commands, *([f"vitbench probe {named[0]}"] if self.study.probes and named else [])]

    def foot(self) -> str:
        """Says where the numbers come from, in one line of Markdown."""
        commands = "; ".join(f"`{command}`" for command in self.all_commands())
        return (
            f"<sub>{escape_markdown(printable(', '.join(self.facts().values())))}. {commands}. Evidence:"
            f" [runs.csv]({self.study.name}/runs.csv)</sub>"
        )


def _join_distinct(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))


def commands_of(path: Path) -> list[str]:
    """The commands that ran a study, from the head of its study.yaml in results/; none where it is gone."""
    if not path.is_file():
        return []
    return [line[4:] for line in read_file(path).decode(errors="replace").splitlines() if line.startswith("# $ ")]
