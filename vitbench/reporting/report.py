"""Results that anyone can check: `vitbench report study=NAME`, `vitbench report`, `vitbench report check=true`.

    results/<study>/  runs.csv        the evidence, a row for each run (vitbench/comparing/evidence.py)
                      probes.csv      what probes measured along an axis, such as layers, if a figure draws it
                      mcnemar.csv     how many test images only one of two runs classifies correctly, if a figure
                                      fits curves
                      study.yaml      the study as it was run, below the commands that ran it
                      <picture>.svg|png  what a probe drew of one network (vitbench/reporting/pictures.py)
                      <table>.md|csv|tex, <figure>.svg, fit.md|csv|tex
                      sha256sums.txt  of these files (vitbench/comparing/sums.py)
                      notes.md        what was found, written by hand, which no report changes; from its second
                                      heading on it stands below the tables and the expectation
    results/bench/<machine>.json      what `vitbench bench file=` measured, and <machine>.md
    results/README.md                 a section for each study, made from these files
    results/index.html                the same as a page (vitbench/reporting/page.py)

With `study=` the runs are read from `runs=`, and their evidence is written anew. Rows of planned runs that are gone are
kept from the runs.csv that is there. All other files are made from the evidence alone. So `check=true` can make them
again and compare, even where the runs are gone.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vitbench import plot
from vitbench.comparing.evidence import (
    OWN_PAGE,
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
from vitbench.comparing.select import select_runs
from vitbench.comparing.sums import EVIDENCE, SUMS, check_sums, forget_sums, write_sums
from vitbench.errors import DataError, UserError
from vitbench.fitting.mcnemar import count_by, count_in, count_kept
from vitbench.machine.disk import LARGE, read_file, storage, write
from vitbench.machine.outputs import check_output, write_output
from vitbench.machine.redact import redacted
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.reporting.page import grouped, index_page, study_page
from vitbench.reporting.pictures import read_pictures
from vitbench.reporting.section import Section, commands_of
from vitbench.runs.merge import read_in_place
from vitbench.runs.plan import planned_ids, typed_words
from vitbench.runs.run import Run
from vitbench.runs.study import find_study, load_study, own_studies
from vitbench.settings.compose import STUDY_DIR
from vitbench.timing import bench

TOLERANCE = 1e-6  # A number that is made again may differ by this share of itself.
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?")
PLACES = ("runs", "data.cache", "trackers")  # They say where files and curves are, which differs for everyone.


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
    """Writes what `results/` holds, or checks it, as the settings ask."""
    results = Path(asked["results"]).expanduser()
    page = Path(asked["file"]).expanduser() if asked["file"] is not None else None
    check_page(page, asked)
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
            check_folder(sections[study], results / study)
        say(f"{results}: {len(texts)} files agree with the runs.csv of {', '.join(wanted)}\n")
        return 0
    figures = {results / study / file: blob for study in wanted for file, blob in sections[study].figures()}
    forget_sums(results / study for study in wanted)
    for path, blob in [*figures.items(), *((path, text.encode()) for path, text in texts.items())]:
        write(path, blob)
    for study in wanted:
        pictures = {picture.path.name for picture in sections[study].pictures}
        write_sums(results / study, {*(path.name for path in [*texts, *figures]), *pictures, *EVIDENCE, "study.yaml"})
    pages = [results / "index.html"]
    index = index_page([*sections.values()])
    write(pages[0], index.encode())
    if page is not None:
        text = study_page(sections[wanted[0]]) if asked["study"] is not None else index
        write_output(page, text.encode(), replace=asked["replace"])
        pages.append(page)
    say("".join(f"{path}\n" for path in [*texts, *figures, *pages]))
    return 0


def check_page(page: Path | None, asked: Mapping[str, Any]) -> None:
    """Raises UserError where a page cannot be written to the file that was typed."""
    if page is None:
        return
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"file={asked['file']}: must end in .html")
    if asked["check"]:
        raise UserError(f"file={asked['file']} check=true: checking writes nothing; leave file= out")
    check_output(page, replace=asked["replace"])


def collect(name: str, folder: Path, results: Path) -> None:
    """Writes a study's evidence and its study.yaml from its runs in `folder`."""
    study, source = load_study(name), find_study(name)
    runs = select_runs(str(folder), {}, study)
    for note in runs.notes:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    planned, target = planned_ids(study, folder), results / study.name
    typed = [_without_places(shlex.split(words)) for words in typed_words(study, folder) or [""]]
    commands = [shlex.join(["vitbench", "sweep", f"study={_typed_again(source)}", *words]) for words in typed]
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
    section = Section(study, runs, [], "", [])
    # What is wrong with a table or a figure is raised here, before a file is written. What is left out is told later.
    with redirect_stderr(io.StringIO()):
        _ = section.tables, [*section.figures()]
    pictures = read_pictures(study, runs, folder, target)
    with storage(target):
        target.mkdir(parents=True, exist_ok=True)
        forget_sums([target])
    text = source.read_text(encoding="utf-8-sig")
    body = re.sub(r"\A(# \$ .*\n)+", "", text)  # A study.yaml of results already has commands above it.
    head = "".join(f"# $ {printable(command)}\n" for command in dict.fromkeys(commands))
    write(target / "study.yaml", redacted(head + body).encode())
    write(target / "runs.csv", evidence_text(runs, without_result).encode())
    for path, blob in pictures.items():
        write(path, blob)
    fitted = section.fit(count)
    for note in fitted.notes if fitted else []:
        if note not in section.runs_with_caveats.notes:  # This note says which predictions are lacking.
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


def _state(folder: Path) -> str:
    run = Run(folder, {})
    return "failed" if run.failure() else "unfinished" if run.states() else "missing"


def _typed_again(source: Path) -> str:
    """What to type for a study: its name, or for a file of one's own its path from here, FOLDER/NAME if elsewhere."""
    shipped = STUDY_DIR / f"{source.stem}.yaml"
    if shipped.is_file() and shipped.read_bytes() == source.read_bytes():
        return source.stem
    if source == own_studies().get(source.stem):
        return source.stem
    path = source.resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else f"FOLDER/{source.name}"


def _without_places(words: Iterable[str]) -> list[str]:
    """Leaves out of a command where files are, so that it can be typed on any machine."""
    keys = {word: word.partition("=")[0] for word in words}
    return [
        "data.root=FOLDER" if key == "data.root" else word
        for word, key in keys.items()
        if key not in PLACES and not key.startswith("machine.")
    ]


def readme(sections: Collection[Section], speeds: Mapping[Path, Mapping[str, Any]]) -> str:
    """Writes results/README.md: its contents, the sections, and links to what `vitbench bench` measured."""
    groups, contents = grouped(sections), []
    for title, group in groups.items():
        lines = [
            f"- [{escape_markdown(printable(section.study.title))}](#{_anchor(section.study.title)}): "
            f"{escape_markdown(printable(section.study.question))}"
            for section in group
        ]
        contents += [*([f"**{title}**"] if title else []), "\n".join(lines)]
    head = (
        f"{OWN_PAGE} from the runs.csv of each study. `vitbench report check=true` makes every table"
        " and fit again and fails where a number differs. What was found, and whether expectations held, is written by"
        " hand. `docs/reference/metrics.md` defines the numbers. A commit with a + had changes that were not committed."
    )
    ordered = [section.markdown() for group in groups.values() for section in group]
    parts = ["# Results", head, *contents, *ordered]
    if speeds:
        machines = [
            f"- [{escape_markdown(speed['hardware']['name'])}](bench/{path.stem}.md)" for path, speed in speeds.items()
        ]
        parts += ["## Speed", "What `vitbench bench` measured, with the goals set for it:", "\n".join(machines)]
    return "\n\n".join(parts) + "\n"


def _anchor(title: str) -> str:
    """Makes a heading's anchor as GitHub does."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


# ---------------------------------------------------------------------------------------------------------- checking


def check_folder(section: Section, folder: Path) -> None:
    """Raises DataError for a missing figure, for counts that differ from those of `fit`, and for a file too many."""
    figures = {f"{name}.svg" for name in section.figure_layouts}
    present = {path.name for path in folder.iterdir()}
    for file in sorted(figures - present):
        raise DataError(f"{folder / file} is missing; `vitbench report` makes it")
    check_sums(folder)
    if "mcnemar.csv" in present:
        check_file(folder / "mcnemar.csv", counts_text(section.fitted.counted) if section.fitted else "")
    pictures = {picture.path.name for picture in section.pictures}
    for file in sorted(present - figures - pictures - {*section.texts, *EVIDENCE, SUMS, "study.yaml", "notes.md"}):
        raise DataError(f"{folder / file}: no report makes such a file; remove it")


def check_file(path: Path, made_again: str) -> None:
    """Raises DataError at the first line of a committed file that is not what its runs.csv gives."""
    try:
        committed = read_file(path, LARGE).decode(errors="replace")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; `vitbench report` makes it") from None
    lines = zip_longest(committed.splitlines(), made_again.splitlines(), fillvalue="(nothing)")
    for number, (old, new) in enumerate(lines, 1):
        if not _same(old, new):
            raise DataError(f"{path} line {number}: `{old[:160]}`; its runs.csv gives `{new[:160]}`")


def _same(old: str, new: str) -> bool:
    """Says whether two lines have the same words, and numbers that differ by no more than TOLERANCE."""
    if old == new:
        return True
    if NUMBER.sub("", old) != NUMBER.sub("", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    floats = ((float(a.replace(",", "") or 0), float(b.replace(",", "") or 0)) for a, b in pairs)
    return all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in floats)
