"""`vitbench check`: computes the checksums of runs, decoded images, notes and results again, and finds damaged files.

    what is damaged              where `repair=true` moves it              what makes it anew
    a run: record, file          runs/.damaged/<id>, as a whole            its command, or its sweep
    a file of a probe            runs/.damaged/<id>-<file>                 `vitbench probe`
    notes of sweeps              runs/.damaged/<file>                      the sweep
    decoded images, costs        <data.cache>/.damaged/                    any command that needs them
    results/<study>/             stays, because it may be in git           `vitbench report`, or git

Runs that have not ended are left out, because resuming checks their states. Files that older versions wrote without
checksums are left out, too, except weights, which always had one, and files whose values show that they are damaged.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.comparing.evidence import read_evidence
from vitbench.comparing.formats import Table, print_rich, render_tables
from vitbench.comparing.sums import faults_of, read_sums
from vitbench.data.cache import damaged
from vitbench.data.stored import locked
from vitbench.errors import DataError, TryAgain, UserError, check_choice
from vitbench.machine.disk import read_json, sha256_of, storage
from vitbench.machine.progress import MEGABYTE, progress
from vitbench.machine.seal import SEAL, is_whole
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.runs.predictions import Missing, read_classes
from vitbench.runs.probe_rows import files_of, read_rows
from vitbench.runs.record import Record
from vitbench.runs.records import Damaged, folders_kept_apart, read_record, run_folders
from vitbench.runs.run import FILES, Run
from vitbench.settings.compose import cache_folder

ASIDE = ".damaged"  # readers of runs, caches and results ignore names that begin with a dot
FORMATS = ("text", "json")


class Finding(NamedTuple):
    """A damaged file."""

    kind: str  # run, probe, sweep, images, costs or results
    path: Path
    problem: str
    unit: Path | None  # the file or folder that is moved aside because of it; None: nothing
    moved: Path | None = None  # where that is now


class Looked(NamedTuple):
    """What was looked at, and what was found."""

    findings: list[Finding]
    counts: Counter[str]  # how many things of each kind were looked at, and how many files have no checksum


def main(config: Any) -> int:
    """Prints what is damaged. Returns 0 where nothing is, or all of it was moved aside; otherwise 3."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    check_choice("format", asked["format"], FORMATS)
    runs, results = (Path(asked[key]).expanduser() for key in ("runs", "results"))
    cache = Path(cache_folder(asked["data"]["cache"]))
    looked = look(runs, results, cache, asked["machine"]["progress"])
    if asked["repair"]:
        looked = looked._replace(findings=_moved(looked.findings, runs, cache))
    say(_json(*looked) if asked["format"] == "json" else _text(*looked, asked["repair"]))
    return 0 if all(finding.moved for finding in looked.findings) else DataError.exit_code


def look(runs: Path, results: Path, cache: Path, show: bool | None = None) -> Looked:
    """Checks all files in these folders. A folder that does not exist counts as empty."""
    looked = Looked([], Counter())
    studies = sorted(path.parent for path in results.glob("*/runs.csv"))
    headers = sorted(path for path in cache.glob("*.json") if path.is_file())
    folders = [folder for home in (runs, *folders_kept_apart(runs)) for folder in run_folders(home)]
    size = sum(_size(folder) for folder in [*folders, *studies]) + sum(_size_of_set(header) for header in headers)
    with progress("check", size / MEGABYTE, "MB", show) as display:
        tell = display.megabytes()
        for folder in folders:
            looked.findings.extend(_of_run(folder, looked.counts, tell))
        looked.findings.extend(_sealed("sweep", runs / ".plans", looked.counts))
        looked.findings.extend(_sealed("costs", cache / "costs", looked.counts))
        for header in headers:
            looked.counts["images"] += 1
            problems = damaged(header, tell)
            looked.findings.extend(Finding("images", header, problem, header) for problem in problems)
        for study in studies:
            looked.findings.extend(_of_study(study, looked.counts, tell))
    return looked


def _of_run(folder: Path, counts: Counter[str], tell: Callable[[int], None]) -> Iterator[Finding]:
    """Yields what is wrong with a run that has ended, and with the files of its probes."""
    try:
        record = read_record(folder / "record.json")
    except (FileNotFoundError, NotADirectoryError):
        counts["unfinished"] += 1
        return
    except UserError as error:
        unit = folder if isinstance(error, Damaged) else None  # otherwise a later vitbench wrote it, or the disk fails
        yield Finding("run", folder / "record.json", _without(folder, error), unit)
        record = None
    counts["run"] += 1
    if record is not None:
        files = record.get("files")
        found = _without_checksums(folder, record) if files is None else _hashed(folder, files, counts, tell)
        counts["old"] += files is None
        yield from (Finding("run", folder / name, problem, folder) for name, problem in found)
    for path in files_of(folder):
        counts["probe"] += 1
        try:
            read_rows(path)
        except UserError as error:
            yield Finding("probe", path, _without(path, error), path)


def _hashed(
    folder: Path, files: dict[str, str], counts: Counter[str], tell: Callable[[int], None]
) -> Iterator[tuple[str, str]]:
    """Yields the files of a run that do not match its record. Weights that somebody removed are only counted."""
    for name, expected in files.items():
        counts["file"] += 1
        try:
            if Path(name).name != name or sha256_of(folder / name, tell) != expected:
                yield name, "is damaged (its checksum differs)"
        except FileNotFoundError:
            if name.endswith(".safetensors"):
                counts["without weights"] += 1
            else:
                yield name, "is missing"
        except OSError as error:
            yield name, f"cannot be read: {error.strerror}"


def _without_checksums(folder: Path, record: Record) -> Iterator[tuple[str, str]]:
    """Yields the damaged files of a run that an older vitbench wrote, where weights or predictions show it."""
    from vitbench.training.checkpoint import load_tensors  # imports torch

    for path in sorted(path for pattern in FILES for path in folder.glob(pattern)):
        try:
            if path.suffix == ".safetensors":
                load_tensors(path)
            elif path.name in ("predictions.npy", "labels.npy"):
                read_classes(folder.parent, {**record, "id": folder.name}, path.name)
        except (UserError, Missing) as error:
            yield path.name, _without(path, error)


def _sealed(kind: str, folder: Path, counts: Counter[str]) -> Iterator[Finding]:
    """Yields damaged notes: JSON objects that have their own checksum."""
    for path in sorted(folder.glob("*.json")):
        counts[kind] += 1
        try:
            content = read_json(path)
            if SEAL in content and not is_whole(content):
                yield Finding(kind, path, "is damaged (its checksum differs)", path)
        except OSError as error:
            yield Finding(kind, path, f"cannot be read: {error.strerror}", path)
        except ValueError:
            if not (kind == "costs" and path.read_bytes()[:1] == b"["):  # older versions wrote costs as a list
                yield Finding(kind, path, "is not whole (broken JSON)", path)


def _of_study(folder: Path, counts: Counter[str], tell: Callable[[int], None]) -> Iterator[Finding]:
    """Yields what is wrong with the results of a study."""
    counts["results"] += 1
    try:
        for path, problem in faults_of(folder, tell).items():
            yield Finding("results", path, problem, None)
        counts["results without checksums"] += not read_sums(folder)
        read_evidence(folder / "runs.csv")
    except DataError as error:
        yield Finding("results", folder, _without(folder, error), None)


# -------------------------------------------------------------------------------------------------------- moving aside


def _moved(findings: list[Finding], runs: Path, cache: Path) -> list[Finding]:
    """Moves each damaged file or folder aside once; returns the findings with the new places."""
    places: dict[Path, Path | None] = {}
    for unit, kind in {finding.unit: finding.kind for finding in findings if finding.unit}.items():
        assert unit is not None
        home = cache if kind in ("images", "costs") else runs
        name = f"{unit.parents[1].name}-{unit.name}" if kind == "probe" else unit.name
        places[unit] = _move(kind, unit, _free(home / ASIDE / name))
    return [finding._replace(moved=places[finding.unit] if finding.unit else None) for finding in findings]


def _move(kind: str, unit: Path, target: Path) -> Path | None:
    """Moves a file or folder and returns its new place; None where another process holds the run."""
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "images":
        with storage(unit), locked(unit.with_suffix(".lock")):
            for path in (unit.with_suffix(".npy"), unit):
                if path.exists():
                    os.replace(path, target.with_suffix(path.suffix))
        return target
    if kind != "run":
        with storage(unit):
            os.replace(unit, target)
        return target
    try:
        with Run(unit, {}).claim(), storage(unit):
            os.rename(unit, target)
    except TryAgain as error:
        print(f"vitbench: {printable(str(error))}", file=sys.stderr)
        return None
    for left in (".lock", ".holder.json"):
        (target / left).unlink(missing_ok=True)
    return target


def _free(path: Path) -> Path:
    """Returns the path, or the first of `<stem>-2`, `<stem>-3` ... that does not exist."""
    number, free = 1, path
    while free.exists() or free.with_suffix(".npy").exists():
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


# ------------------------------------------------------------------------------------------------------------ printing


def _text(findings: list[Finding], counts: Counter[str], repair: bool) -> str:
    """Returns the findings as a table, followed by notes on what was looked at."""
    notes = _notes(findings, counts)
    if not findings:
        return "".join(f"{note}\n" for note in notes)
    head = ["what", "file", "problem", *(["moved to"] if repair else [])]
    lines = [
        [one.kind, str(one.path), one.problem, *([str(one.moved or "it stays")] if repair else [])] for one in findings
    ]
    cells = [[*map(printable, line)] for line in lines]
    table = Table("check", "Damaged files", head, cells, len(head), [], [], [], [])
    if not repair and any(one.unit for one in findings):
        notes.append("`vitbench check repair=true` moves damaged files aside, so that the same commands make them anew")
    if sys.stdout.isatty():
        print_rich([table], "", notes)
        return ""
    return render_tables("text", [table], "", notes)


def _notes(findings: list[Finding], counts: Counter[str]) -> list[str]:
    looked = [
        plural(counts["run"], "run"),
        plural(counts["file"], "file"),
        plural(counts["probe"], "file") + " of probes",
        plural(counts["images"], "set") + " of decoded images",
        plural(counts["results"], "folder") + " of results",
    ]
    told = [
        ("unfinished", "run", "not checked, because not ended"),
        ("old", "run", "of an older vitbench, with checksums of weights only"),
        ("without weights", "file", "of weights missing, because somebody removed them"),
        ("results without checksums", "folder", "of results without checksums; `vitbench report` writes them"),
    ]
    others = [f"{plural(counts[key], noun)} {words}" for key, noun, words in told if counts[key]]
    found = f"{len(findings):,} damaged" if findings else "all are whole"
    return [f"checked {', '.join(looked)}: {found}", *others]


def _json(findings: list[Finding], counts: Counter[str]) -> str:
    wrong = [
        {"what": one.kind, "path": str(one.path), "problem": one.problem, "moved": one.moved and str(one.moved)}
        for one in findings
    ]
    return json.dumps({"looked_at": dict(counts), "wrong": wrong}, indent=1) + "\n"


def _without(path: Path, error: Exception) -> str:
    """Returns the message of an error without the path, which has its own column."""
    return str(error).replace(f"{path}/", "").removeprefix(f"{path} ").removeprefix("record.json ")


def _size(folder: Path) -> int:
    with os.scandir(folder) as entries:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file())


def _size_of_set(header: Path) -> int:
    try:
        return header.with_suffix(".npy").stat().st_size
    except OSError:
        return 0
