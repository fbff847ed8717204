"""Results that anyone can check: `vitbench report study=NAME`, `vitbench report`, `vitbench report check=true`.

    results/<study>/  runs.csv        the evidence: a row a run (vitbench/comparing/evidence.py); with probes.csv, if figures need it
                      study.yaml      the study as it was run, with the commands above it
                      <table>.md|csv|tex, <figure>.svg, fit.md|csv|tex
                      notes.md        what was read from it; written by hand, never touched
    results/bench/<machine>.json      what `vitbench bench file=` measured, and <machine>.md
    results/README.md                 a section per study, made from these files

With `study=` the runs are read from `runs=` and runs.csv is written anew. Everything else is always made from runs.csv,
also where there are no runs any more: so `check=true` can make it again and compare.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vitbench import plot
from vitbench.comparing import formats, table
from vitbench.comparing.evidence import evidence_text, read_evidence, read_swept, swept_text
from vitbench.comparing.formats import escape_markdown
from vitbench.comparing.select import Runs, select_runs
from vitbench.errors import DataError, UserError
from vitbench.fitting import fit
from vitbench.fitting.findings import Report
from vitbench.fitting.lines import lines_of
from vitbench.fitting.verdict import render_report, report_sentences
from vitbench.machine.disk import storage, write
from vitbench.numbers.text import say
from vitbench.numbers.words import printable
from vitbench.runs.plan import planned_ids, typed_words
from vitbench.runs.run import Run
from vitbench.runs.study import Study, find_study, load_study
from vitbench.timing import bench

TOLERANCE = 1e-6  # relative, of a number that is made again
FORMS = ("md", "csv", "tex")
PLACES = ("runs", "data.cache")  # words of a command that say where, not what


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    results = Path(asked["results"]).expanduser()
    named = asked["study"] is not None
    if named and not asked["check"]:
        collect(asked["study"], Path(asked["runs"]).expanduser(), results)
    all_kept = kept(results)
    if not all_kept:
        raise UserError(f"results={results}: no study there; `vitbench report study=NAME` writes one from its runs")
    mine = [find_study(asked["study"]).stem] if named else all_kept
    if named and mine[0] not in all_kept:
        raise UserError(f"study={asked['study']}: not in {results}; there: {', '.join(all_kept)}")
    sections = {name: Section.read(results / name) for name in all_kept}
    files = {results / name / file: text for name in mine for file, text in sections[name].texts.items()}
    speeds = {path: bench.read_bench(path) for path in sorted((results / "bench").glob("*.json"))}
    files |= {path.with_suffix(".md"): bench.markdown(report) for path, report in speeds.items()}
    files[results / "README.md"] = readme(sections.values(), speeds)
    if asked["check"]:
        for path, text in files.items():
            check_file(path, text)
        for name in mine:
            sections[name].check_folder(results / name)
        say(f"{results}: {len(files)} files agree with the runs.csv of {', '.join(mine)}\n")
        return 0
    figures = {results / name / file: blob for name in mine for file, blob in sections[name].figures()}
    for path, blob in [*figures.items(), *((path, text.encode()) for path, text in files.items())]:
        write(path, blob)
    say("".join(f"{path}\n" for path in [*files, *figures]))
    return 0


def kept(results: Path) -> list[str]:
    """The studies whose evidence lies in `results`."""
    return sorted(path.parent.name for path in results.glob("*/runs.csv"))


def collect(name: str, folder: Path, results: Path) -> None:
    """Writes runs.csv and study.yaml of a study from its runs."""
    study, source = load_study(name), find_study(name)
    runs = select_runs(str(folder), {}, study)
    for note in runs.notes:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    ended = {row["id"] for row in runs.rows}
    others = {id_: _state(folder / id_) for id_ in planned_ids(study, folder) if id_ not in ended}
    typed = [_without_places(shlex.split(words)) for words in typed_words(study, folder) or [""]]
    commands = dict.fromkeys(shlex.join(["vitbench", "sweep", f"study={study.name}", *words]) for words in typed)
    made = results / study.name
    with storage(made):
        made.mkdir(parents=True, exist_ok=True)
    text = source.read_text(encoding="utf-8-sig")
    body = re.sub(r"\A(# \$ .*\n)+", "", text)  # a study that came out of results
    write(made / "study.yaml", ("".join(f"# $ {command}\n" for command in commands) + body).encode())
    write(made / "runs.csv", evidence_text(runs, others).encode())
    swept = swept_text(runs, plot.drawn_results(study.figures.values()))
    if swept:
        write(made / "probes.csv", swept.encode())
    else:
        (made / "probes.csv").unlink(missing_ok=True)


def _state(folder: Path) -> str:
    run = Run(folder, {})
    return "failed" if run.failure() else "unfinished" if run.states() else "missing"


def _without_places(words: Iterable[str]) -> list[str]:
    """What was typed, for others: their folders are called otherwise."""
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
    commands: list[str]
    notes: str  # Markdown

    @classmethod
    def read(cls, folder: Path) -> Section:
        path = folder / "study.yaml"
        if not path.is_file():
            raise DataError(f"{path} is missing; `vitbench report study={folder.name}` writes it")
        commands = [line[4:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# $ ")]
        notes = folder / "notes.md"
        study = replace(load_study(str(path)), name=folder.name)
        return cls(
            study,
            _evidence(folder).renamed(study.names),
            commands,
            notes.read_text(encoding="utf-8") if notes.is_file() else "",
        )

    @cached_property
    def tables(self) -> list[formats.Table]:
        layouts = table.choose_layouts({}, self.study, "tables", table.TABLE_KEYS)
        return [table.build_table(name or "results", self.runs, **layout) for name, layout in layouts.items()]

    @cached_property
    def fitted(self) -> Report | None:
        """What `vitbench fit` says, where a figure of the study asks for it."""
        drawn = next((layout for layout in self.study.figures.values() if layout.get("fit")), None)
        if drawn is None:
            return None
        runs = self.noted().filtered(drawn.get("where") or {})
        value = str(drawn.get("y") or "test_error")
        try:
            lines, left_out = lines_of(runs, value)
        except UserError:  # too few seeds or sizes so far
            return None
        return fit.report_of(value, lines, left_out, runs, heading=self.heading())

    def noted(self) -> Runs:
        """The runs with what the study says it cannot show."""
        return replace(self.runs, notes=[*self.runs.notes, *([self.study.notes] if self.study.notes else [])])

    @cached_property
    def texts(self) -> dict[str, str]:
        """The files that hold numbers, by name."""
        heading, notes = self.heading(), [printable(note) for note in self.noted().notes]
        files = {
            f"{one.name}.{form}": formats.render_tables(form, [one], heading, notes)
            for one in self.tables
            for form in FORMS
        }
        report = self.fitted
        if report is not None:
            files |= {f"fit.{form}": render_report(form, report) for form in FORMS}
        return files

    def figures(self) -> Iterator[tuple[str, bytes]]:
        if not self.study.figures:
            return
        layouts = table.choose_layouts({}, self.study, "figures", plot.FIGURE_KEYS)
        for name, layout in layouts.items():
            yield f"{name}.svg", plot.draw_figure(self.runs, title=self.study.title, caveat=self.study.caveat, **layout)

    def check_folder(self, folder: Path) -> None:
        """Raises DataError where a figure is missing, or where a file lies that no report made."""
        figures = {f"{name}.svg" for name in self.study.figures}
        there = {path.name for path in folder.iterdir()}
        for name in sorted(figures - there):
            raise DataError(f"{folder / name} is missing; `vitbench report` makes it")
        for name in sorted(there - figures - {*self.texts, "runs.csv", "probes.csv", "study.yaml", "notes.md"}):
            raise DataError(f"{folder / name}: no report makes such a file; remove it")

    def heading(self) -> str:
        return printable(f"{self.study.title}. {self.study.question}")

    def markdown(self) -> str:
        name, study = self.study.name, self.study
        parts = [f"## {escape_markdown(printable(study.title))}", f"**{escape_markdown(printable(study.question))}**"]
        if study.expect:
            parts.append(f"Expected: {escape_markdown(printable(study.expect))}")
        for one in self.tables:
            named = f"**{escape_markdown(one.name.replace('_', ' ').capitalize())}**: " if len(self.tables) > 1 else ""
            parts.append(named + formats.render_tables("md", [one], "", []).strip())
        parts += [f"![{escape_markdown(printable(study.title))}]({name}/{figure}.svg)" for figure in study.figures]
        report = self.fitted
        if report is not None:
            said = [f"- {escape_markdown(f'{pair}: ' + ' '.join(lines))}" for pair, lines in report_sentences(report)]
            parts.append(
                "\n".join([f"Learning curves and every difference: [fit.md]({name}/fit.md). In words:", "", *said])
            )
        if self.notes:
            parts.append(re.sub(r"^(#+) ", r"##\1 ", self.notes.strip(), flags=re.MULTILINE))
        parts += [escape_markdown(printable(note)) for note in self.noted().notes]
        return "\n\n".join([*parts, self.foot()])

    def foot(self) -> str:
        """Where the numbers come from: seeds, commits, dates, hardware, time, commands."""
        rows = self.runs.rows
        seeds = sorted({row["seed"] for row in rows})
        days = sorted({str(row["created"])[:10] for row in rows})
        hours = sum(row["train_seconds"] for row in rows) / 3600
        parts = [
            f"{len(rows)} runs",
            f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}",
            f"commit {_several(row.get('commit') or 'none' for row in rows)}",
            days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
            _several(
                f"{row['hardware.name']}, {row['hardware.precision']}, {row['hardware.threads']} thread"
                + ("" if row["hardware.threads"] == 1 else "s")
                for row in rows
            ),
            f"{hours:.1f} hours of training",
        ]
        probed = [f"vitbench probe study={self.study.name}"] if self.study.probes else []
        commands = "; ".join(f"`{command}`" for command in [*self.commands, *probed])
        return (
            f"<sub>{escape_markdown(printable(', '.join(parts)))}. {commands}. Evidence:"
            f" [runs.csv]({self.study.name}/runs.csv)</sub>"
        )


def _evidence(folder: Path) -> Runs:
    return replace(read_evidence(folder / "runs.csv"), swept=read_swept(folder / "probes.csv"))


def _several(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))


def readme(sections: Iterable[Section], speeds: Mapping[Path, Mapping[str, Any]]) -> str:
    sections = list(sections)
    head = [
        "# Results",
        (
            "Made by `vitbench report` from the runs.csv of each study; `vitbench report check=true` makes every table"
            " and fit again and fails where a number differs. What was read from them is written by hand."
            " `docs/metrics.md` defines the numbers. A commit with a + had changes beside it."
        ),
        "\n".join(
            f"- [{escape_markdown(printable(one.study.title))}](#{_anchor(one.study.title)}): "
            f"{escape_markdown(printable(one.study.question))}"
            for one in sections
        ),
    ]
    machines = [
        f"- [{escape_markdown(report['hardware']['name'])}](bench/{path.stem}.md)" for path, report in speeds.items()
    ]
    speed = (
        ["## Speed", "What `vitbench bench` measured, with the goals set for it:", "\n".join(machines)]
        if speeds
        else []
    )
    return "\n\n".join([*head, *(one.markdown() for one in sections), *speed]) + "\n"


def _anchor(title: str) -> str:
    """As GitHub makes it from a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# ---------------------------------------------------------------------------------------------------------- checking

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")


def check_file(path: Path, made: str) -> None:
    """Raises DataError at the first line of a committed file that is not what its runs.csv gives."""
    try:
        committed = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; `vitbench report` makes it") from None
    lines = zip_longest(committed.splitlines(), made.splitlines(), fillvalue="(nothing)")
    for number, (old, new) in enumerate(lines, 1):
        if not _same(old, new):
            raise DataError(f"{path} line {number}: `{old[:160]}`; its runs.csv gives `{new[:160]}`")


def _same(old: str, new: str) -> bool:
    """Equal words, and numbers that differ by less than TOLERANCE."""
    if old == new:
        return True
    if NUMBER.sub("", old) != NUMBER.sub("", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    floats = ((float(a.replace(",", "") or 0), float(b.replace(",", "") or 0)) for a, b in pairs)
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in floats)
