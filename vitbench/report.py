"""Results that anyone can check: `vitbench report study=NAME`, `vitbench report`, `vitbench report check=true`.

    results/<study>/  runs.csv        the evidence, a row for each run (vitbench/comparing/evidence.py)
                      probes.csv      what probes measured along something, if a figure draws it
                      mcnemar.csv     how many test images only one of two runs has right, if a figure fits curves
                      study.yaml      the study as it was run, below the commands that ran it
                      <table>.md|csv|tex, <figure>.svg, fit.md|csv|tex
                      sha256sums.txt  of these files (vitbench/comparing/sums.py)
                      notes.md        what we read from these; it is written by hand, and no report changes it
    results/bench/<machine>.json      what `vitbench bench file=` measured, and <machine>.md
    results/README.md                 a section for each study, made from these files

With `study=` the runs are read from `runs=`, and their evidence is written anew; rows of planned runs that are gone are
kept from the runs.csv that is there. All other files are made from the
evidence alone, so that `check=true` can make them again and compare, even where the runs are gone.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from vitbench import plot
from vitbench.comparing import formats
from vitbench.comparing.agreement import check_file
from vitbench.comparing.axes import AXIS_OF_COLUMN, IMAGES
from vitbench.comparing.evidence import (
    OWN_PAGE,
    Counted,
    check_results,
    counts_text,
    evidence_text,
    joined,
    read_counts,
    read_evidence,
    read_swept,
    swept_text,
)
from vitbench.comparing.formats import escape_markdown
from vitbench.comparing.rungs import find_ladder
from vitbench.comparing.select import Runs, select_runs
from vitbench.comparing.sums import EVIDENCE, SUMS, check_sums, forget_sums, write_sums
from vitbench.comparing.table import LADDER_KEYS, TABLE_KEYS, build_table, choose_layouts
from vitbench.errors import DataError, NothingChosen, UserError
from vitbench.fitting.findings import Report, report_of
from vitbench.fitting.lines import lines_of
from vitbench.fitting.mcnemar import Count, count_by, count_in, count_kept
from vitbench.fitting.render import render_report, report_sentences
from vitbench.machine.disk import read_file, storage, write
from vitbench.machine.redact import redacted
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.runs.merge import read_in_place
from vitbench.runs.plan import planned_ids, typed_words
from vitbench.runs.run import Run
from vitbench.runs.study import Study, find_study, load_study
from vitbench.timing import bench

FORMS = ("md", "csv", "tex")
Built = TypeVar("Built")
Layout = Mapping[str, Any]  # what a study says of one table or figure
Layouts = Mapping[str, Layout]
PLACES = ("runs", "data.cache")  # these settings say where files are, which is different for everyone


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    if asked["archives"] is None:
        return report(asked)
    if asked["check"]:
        raise UserError("check=true: reads results/ alone; leave from= out")
    with read_in_place(asked["archives"], asked["study"]) as (runs, study):
        return report(asked | {"runs": str(runs), "study": study})


def report(asked: Mapping[str, Any]) -> int:
    """Writes what `results/` holds, or checks it, by the settings that were asked for."""
    results = Path(asked["results"]).expanduser()
    if not asked["check"]:
        own = None if asked["study"] is None else find_study(asked["study"]).stem
        check_results(results, own, replace=asked["replace"])
    if asked["study"] is not None and not asked["check"]:
        collect(asked["study"], Path(asked["runs"]).expanduser(), results)
    kept = sorted(path.parent.name for path in results.glob("*/runs.csv"))
    if not kept:
        raise UserError(f"results={results}: no study there; `vitbench report study=NAME` writes one from its runs")
    wanted = [find_study(asked["study"]).stem] if asked["study"] is not None else kept
    if not {*wanted} <= {*kept}:
        raise UserError(f"study={asked['study']}: not in {results}; there: {', '.join(kept)}")
    sections = {study: Section.read(results / study) for study in kept}
    texts = {results / study / file: text for study in wanted for file, text in sections[study].texts.items()}
    speeds = {path: bench.read_bench(path) for path in sorted((results / "bench").glob("*.json"))}
    texts |= {path.with_suffix(".md"): bench.markdown(speed) for path, speed in speeds.items()}
    texts[results / "README.md"] = readme(sections.values(), speeds)
    if asked["check"]:
        for path, text in texts.items():
            check_file(path, text)
        for study in wanted:
            sections[study].check_folder(results / study)
        say(f"{results}: {len(texts)} files agree with the runs.csv of {', '.join(wanted)}\n")
        return 0
    figures = {results / study / file: blob for study in wanted for file, blob in sections[study].figures()}
    forget_sums(results / study for study in wanted)
    for path, blob in [*figures.items(), *((path, text.encode()) for path, text in texts.items())]:
        write(path, blob)
    for study in wanted:
        write_sums(results / study, {*(path.name for path in [*texts, *figures]), *EVIDENCE, "study.yaml"})
    say("".join(f"{path}\n" for path in [*texts, *figures]))
    return 0


def collect(name: str, folder: Path, results: Path) -> None:
    """Writes a study's evidence and its study.yaml from its runs in `folder`."""
    study, source = load_study(name), find_study(name)
    runs = select_runs(str(folder), {}, study)
    for note in runs.notes:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    planned, target = planned_ids(study, folder), results / study.name
    typed = [_without_places(shlex.split(words)) for words in typed_words(study, folder) or [""]]
    commands = [shlex.join(["vitbench", "sweep", f"study={study.name}", *words]) for words in typed]
    count = count_in(folder)
    if (target / "runs.csv").is_file():
        before = replace(read_evidence(target / "runs.csv"), swept=read_swept(target / "probes.csv"))
        counted = read_counts(target / "mcnemar.csv", before.rows)
        if gone := before.ids & {*planned} - runs.ids:
            print(
                f"vitbench: {target / 'runs.csv'}: {plural(len(gone), 'row')} kept of runs that are not in {folder}",
                file=sys.stderr,
            )
            runs = joined(runs, before, gone)
            commands = [*commands_of(target / "study.yaml"), *commands]
            count = count_by(count, count_kept(counted))
    without_result = {run_id: _state(folder / run_id) for run_id in planned if run_id not in runs.ids}
    with storage(target):
        target.mkdir(parents=True, exist_ok=True)
        forget_sums([target])
    text = source.read_text(encoding="utf-8-sig")
    body = re.sub(r"\A(# \$ .*\n)+", "", text)  # a study.yaml from results has commands above it already
    head = "".join(f"# $ {printable(command)}\n" for command in dict.fromkeys(commands))
    write(target / "study.yaml", redacted(head + body).encode())
    write(target / "runs.csv", evidence_text(runs, without_result).encode())
    section = Section(study, runs, [], "", [])
    fitted = section.fit(count)
    for note in fitted.notes if fitted else []:
        if note not in section.runs_with_caveats.notes:  # it says which predictions are lacking
            print(f"vitbench: {printable(note)}", file=sys.stderr)
    optional = {
        "probes.csv": swept_text(runs, plot.drawn_results(study.figures.values())),
        "mcnemar.csv": counts_text(fitted.counted) if fitted else "",
    }
    for file, content in optional.items():
        if content:
            write(target / file, content.encode())
        else:
            (target / file).unlink(missing_ok=True)


def commands_of(path: Path) -> list[str]:
    """The commands that ran a study, from the head of its study.yaml in results/."""
    return [line[4:] for line in read_file(path).decode(errors="replace").splitlines() if line.startswith("# $ ")]


def _state(folder: Path) -> str:
    run = Run(folder, {})
    return "failed" if run.failure() else "unfinished" if run.states() else "missing"


def _without_places(words: Iterable[str]) -> list[str]:
    """Leaves out of a command what says where files are, so that it suits anyone's machine."""
    keys = {word: word.partition("=")[0] for word in words}
    return [
        "data.root=FOLDER" if key == "data.root" else word
        for word, key in keys.items()
        if key not in PLACES and not key.startswith("machine.")
    ]


# ---------------------------------------------------------------------------------------------------------- sections


@dataclass(frozen=True)
class Section:
    """One study's evidence and what is made from it."""

    study: Study
    runs: Runs
    commands: list[str]  # those that ran the study
    hand_written: str  # the text of notes.md
    counted: Sequence[Counted]  # of mcnemar.csv

    @classmethod
    def read(cls, folder: Path) -> Section:
        """Reads a study's evidence from its folder in results/; raises DataError where a file is missing or damaged."""
        path = folder / "study.yaml"
        if not path.is_file():
            raise DataError(f"{path} is missing; `vitbench report study={folder.name}` writes it")
        study = replace(load_study(str(path)), name=folder.name)
        runs = replace(read_evidence(folder / "runs.csv"), swept=read_swept(folder / "probes.csv"))
        notes = folder / "notes.md"
        hand_written = read_file(notes).decode(errors="replace") if notes.is_file() else ""
        counted = read_counts(folder / "mcnemar.csv", runs.rows)
        return cls(study, runs.renamed(study.names), commands_of(path), hand_written, counted)

    @cached_property
    def runs_with_caveats(self) -> Runs:
        """The runs, with what the study says it cannot show among their notes."""
        return replace(self.runs, notes=[*self.runs.notes, *([self.study.notes] if self.study.notes else [])])

    def _those_with_runs(self, kind: str, layouts: Layouts, build: Callable[[str, Layout], Built]) -> dict[str, Built]:
        """Builds tables or figures and leaves out those whose runs or measurements a study does not have yet."""
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
        """Raises NothingChosen where a figure's runs, the networks of its ladder or its results are not there."""
        runs = self.runs.filtered(layout.get("where") or {})
        ladders = {*LADDER_KEYS} & layout.keys()
        for setting in ladders:
            find_ladder(runs, setting, layout[setting])
        if not ladders:
            runs.measured("y", sorted(plot.drawn_results([{"y": "test_error", **layout}])), runs.swept_columns)

    def fit(self, count: Count | None) -> Report | None:
        """Fits curves as `vitbench fit` does, if a figure of the study asks for it and there are enough runs."""
        layout = next((layout for layout in self.figure_layouts.values() if layout.get("fit")), None)
        if layout is None:
            return None
        runs = self.runs_with_caveats.filtered(layout.get("where") or {})
        value, axis = str(layout.get("y") or "test_error"), AXIS_OF_COLUMN.get(str(layout.get("x")), IMAGES)
        try:
            lines, left_out = lines_of(runs, value, axis=axis)
        except UserError:  # too few seeds or sizes so far
            return None
        return report_of(value, lines, left_out, runs, heading=self.heading, count=count, axis=axis)

    @cached_property
    def texts(self) -> dict[str, str]:
        """The files that hold numbers, by name."""
        notes = [printable(note) for note in self.runs_with_caveats.notes]
        files = {
            f"{table.name}.{form}": formats.render_tables(form, [table], self.heading, notes)
            for table in self.tables
            for form in FORMS
        }
        if self.fitted is not None:
            files |= {f"fit.{form}": render_report(form, self.fitted) for form in FORMS}
        return files

    def figures(self) -> Iterator[tuple[str, bytes]]:
        """Draws the study's figures; yields the name and the bytes of each file."""
        for name, layout in self.figure_layouts.items():
            yield f"{name}.svg", plot.draw_figure(self.runs, title=self.study.title, caveat=self.study.caveat, **layout)

    def check_folder(self, folder: Path) -> None:
        """Raises DataError where a figure is missing, counts are not those that `fit` uses, or a file is too many."""
        figures = {f"{name}.svg" for name in self.figure_layouts}
        present = {path.name for path in folder.iterdir()}
        for file in sorted(figures - present):
            raise DataError(f"{folder / file} is missing; `vitbench report` makes it")
        check_sums(folder)
        if "mcnemar.csv" in present:
            check_file(folder / "mcnemar.csv", counts_text(self.fitted.counted) if self.fitted else "")
        for file in sorted(present - figures - {*self.texts, *EVIDENCE, SUMS, "study.yaml", "notes.md"}):
            raise DataError(f"{folder / file}: no report makes such a file; remove it")

    @property
    def heading(self) -> str:
        return printable(f"{self.study.title}. {self.study.question}")

    def markdown(self) -> str:
        """Writes the study's section of the README."""
        name, study = self.study.name, self.study
        parts = [f"## {escape_markdown(printable(study.title))}", f"**{escape_markdown(printable(study.question))}**"]
        if study.expect:
            parts.append(f"Expected: {escape_markdown(printable(study.expect))}")
        for table in self.tables:
            title = (
                f"**{escape_markdown(table.name.replace('_', ' ').capitalize())}**: " if len(self.tables) > 1 else ""
            )
            parts.append(title + formats.render_tables("md", [table], "", []).strip())
        parts += [
            f"![{escape_markdown(printable(study.title))}]({name}/{figure}.svg)" for figure in self.figure_layouts
        ]
        if self.fitted is not None:
            pairs = [f"{title}: {' '.join(sentences)}" for title, sentences in report_sentences(self.fitted)]
            items = "\n".join(f"- {escape_markdown(pair)}" for pair in pairs)
            parts.append(f"Learning curves and every difference: [fit.md]({name}/fit.md). In words:\n\n{items}")
        if self.hand_written:
            parts.append(re.sub(r"^(#+) ", r"##\1 ", self.hand_written.strip(), flags=re.MULTILINE))
        parts += [escape_markdown(printable(note)) for note in self.runs_with_caveats.notes]
        return "\n\n".join([*parts, self.foot()])

    def foot(self) -> str:
        """Says where the numbers come from: seeds, commits, dates, hardware, time and commands."""
        rows = self.runs.rows
        seeds = sorted({row["seed"] for row in rows})
        days = sorted({str(row["created"])[:10] for row in rows})
        hours = sum(row["train_seconds"] for row in rows) / 3600
        machines = (
            f"{row['hardware.name']}, {row['hardware.precision']}, {row['hardware.threads']} thread"
            + ("" if row["hardware.threads"] == 1 else "s")
            for row in rows
        )
        parts = [
            f"{len(rows)} runs",
            *([plural(len(self.runs.certificates), "certificate")] if self.runs.certificates else []),
            f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}",
            f"commit {_join_distinct(row.get('commit') or 'none' for row in rows)}",
            days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
            _join_distinct(machines),
            f"{hours:.1f} hours of training",
        ]
        named = [word for command in self.commands for word in command.split() if word.startswith("study=")]
        probed = [f"vitbench probe {named[0]}"] if self.study.probes and named else []
        commands = "; ".join(f"`{command}`" for command in [*self.commands, *probed])
        return (
            f"<sub>{escape_markdown(printable(', '.join(parts)))}. {commands}. Evidence:"
            f" [runs.csv]({self.study.name}/runs.csv)</sub>"
        )


def _join_distinct(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))


def readme(sections: Collection[Section], speeds: Mapping[Path, Mapping[str, Any]]) -> str:
    """Writes results/README.md: contents, the sections, and links to what `vitbench bench` measured."""
    contents = [
        f"- [{escape_markdown(printable(section.study.title))}](#{_anchor(section.study.title)}): "
        f"{escape_markdown(printable(section.study.question))}"
        for section in sections
    ]
    head = (
        f"{OWN_PAGE} from the runs.csv of each study; `vitbench report check=true` makes every table"
        " and fit again and fails where a number differs. What was read from them is written by hand."
        " `docs/metrics.md` defines the numbers. A commit with a + had changes beside it."
    )
    parts = ["# Results", head, "\n".join(contents), *(section.markdown() for section in sections)]
    if speeds:
        machines = [
            f"- [{escape_markdown(speed['hardware']['name'])}](bench/{path.stem}.md)" for path, speed in speeds.items()
        ]
        parts += ["## Speed", "What `vitbench bench` measured, with the goals set for it:", "\n".join(machines)]
    return "\n\n".join(parts) + "\n"


def _anchor(title: str) -> str:
    """Makes a heading's anchor as GitHub does."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
