"""`vitbench merge from=[a.tar.gz,b.tar.gz] runs=FOLDER`: adds the runs of archives to those of a folder.

Everything is unpacked beside the runs and checked before anything is put in place (archive.py, received.py), and a run
appears as a whole. Runs are known by their ids:

    not there yet           the run is put in place
    there, same results     the run stays, and gets only the files that it lacks: what probes measured, and files such
                            as weights whose checksum its own record has. Machine, times and versions may differ
    there, other results    all such runs are named, and nothing is put in place; with `apart=FOLDER` they go there, and
                            the others where they belong. So it is with a run there that has not ended or is unreadable

So nothing is overwritten, and the same command again changes nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitbench.errors import FEW, DataError, StorageError, UserError
from vitbench.machine.disk import check_folder, storage
from vitbench.machine.progress import MEGABYTE, progress
from vitbench.numbers.text import say
from vitbench.numbers.words import listed, plural, printable
from vitbench.runs.plan import add_notes, notes_path
from vitbench.runs.received import Received, ReceivedRun, machine_of, receive
from vitbench.runs.record import Record, flat_settings
from vitbench.runs.records import read_record
from vitbench.settings.identity import NOT_IDENTITY
from vitbench.settings.typed_text import with_home

# fields in which two machines may differ that computed the same run
OF_A_MACHINE = {
    *("created", "commit", "hardware", "versions", "packages", "schema", "files", "sha256", "config"),
    *("train_seconds", "total_train_seconds", "compile_seconds", "images_per_second", "warnings", "scan", "init"),
}
DESCRIBED = {"init", "teacher"}  # these can be typed in several ways; the run's id includes what they mean
PREDICTED = ("predictions.npy", "labels.npy")


@dataclass
class Merged:
    """What becomes of the runs of archives."""

    placed: dict[Path, ReceivedRun] = field(default_factory=dict)  # by the folder where a run belongs
    same: list[ReceivedRun] = field(default_factory=list)  # runs that are there already
    added: dict[Path, Path] = field(default_factory=dict)  # new files, by the place where a run lacks them
    apart: list[str] = field(default_factory=list)  # a line for each run that went to apart=
    contradictions: list[str] = field(default_factory=list)  # a line for each run that belongs nowhere
    notes: list[str] = field(default_factory=list)


def main(config: Any) -> int:
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    runs = Path(asked["runs"]).expanduser()
    apart = None if asked["apart"] is None else Path(asked["apart"]).expanduser()
    paths = paths_of(asked["archives"])
    check_folder(runs, "runs")
    if apart is not None:
        _check_apart(apart, runs)
    with unpacked(paths, runs, asked["machine"]["progress"]) as received:
        merged = merge(received, runs, apart)
    for note in merged.notes:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    say("".join(f"{printable(line)}\n" for line in _report(received, merged, runs, apart)))
    return 0


def paths_of(typed: Any) -> list[Path]:
    """Returns the archives that were typed for from=, one or a list. Raises UserError where there is none."""
    words = [] if typed is None else typed if isinstance(typed, list) else [typed]
    if not words or not all(isinstance(word, str) and word for word in words):
        raise UserError("from= is missing: type archives of `vitbench pack`, from=ARCHIVE or from=[ARCHIVE,ARCHIVE]")
    return [Path(with_home("from", word)).expanduser() for word in words]


def _check_apart(apart: Path, runs: Path) -> None:
    """Raises UserError for a folder that lies within runs=, or on another disk, where no run can be moved to it."""
    check_folder(apart, "apart")
    if apart.resolve().is_relative_to(runs.resolve()):
        raise UserError(f"apart={apart}: must lie outside of runs={runs}, so that no table mixes contradicting runs")
    if _device(apart) != _device(runs):
        raise UserError(f"apart={apart}: must be on the same disk as runs={runs}")


def _device(path: Path) -> int:
    """Returns the number of the disk that a folder is on, or the first existing folder above it."""
    return next(place.stat().st_dev for place in (path.absolute(), *path.absolute().parents) if place.exists())


@contextmanager
def unpacked(paths: Sequence[Path], beside: Path, show: bool | None = None) -> Iterator[list[Received]]:
    """Unpacks and checks archives in a hidden folder within `beside`, which is deleted when `with` ends."""
    with storage(beside):
        is_new = not beside.exists()
        beside.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=".merge.", suffix=f".{os.getpid()}.tmp", dir=beside))
    size = sum(path.stat().st_size for path in paths if path.is_file())
    try:
        with progress("unpack", size / MEGABYTE, "MB", show) as display:
            tell = display.megabytes()
            received = [receive(path, place / str(number), tell) for number, path in enumerate(paths)]
        yield received
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if is_new and not any(beside.iterdir()):
            beside.rmdir()


@contextmanager
def read_in_place(typed: Any, study: str | None) -> Iterator[tuple[Path, str]]:
    """Yields a temporary folder with the runs of the archives that were typed for from=, and their study."""
    paths = paths_of(typed)
    with tempfile.TemporaryDirectory(prefix="vitbench-") as place, unpacked(paths, Path(place)) as received:
        runs = Path(place) / "runs"
        merged = merge(received, runs)
        studies = [*dict.fromkeys(archive.study.name for archive in received if archive.study)]
        if study is None and len(studies) != 1:
            what = f"studies {listed(studies)}" if studies else "no study"
            raise UserError(f"from={listed(map(str, paths))}: holds {what}; type study=NAME")
        for note in merged.notes:
            print(f"vitbench: {printable(note)}", file=sys.stderr)
        yield runs, study or str(runs / f"{studies[0]}.yaml")


def merge(received: Iterable[Received], runs: Path, apart: Path | None = None) -> Merged:
    """Puts unpacked runs in place, on the same disk.

    Raises DataError where a run contradicts another one; then nothing is put in place.
    """
    merged = Merged()
    received = [*received]
    for archive in received:
        for run in archive.runs:
            _decide(merged, run, runs, apart)
    if merged.contradictions:
        for line in merged.contradictions[:FEW]:
            print(f"vitbench: {printable(line)}", file=sys.stderr)
        count = len(merged.contradictions)
        also = "" if count <= FEW else f", {FEW} of them named above"
        raise DataError(
            f"{plural(count, 'run')} cannot be added{also}, and nothing was put in place; type apart=FOLDER with "
            "`vitbench merge` to put such runs into a folder that has none of these ids"
        )
    os.sync()  # so that a run in place is whole even after a loss of power
    for target, run in merged.placed.items():
        _place(run.folder, target)
    for target, source in merged.added.items():
        _place(source, target)
    for archive in received:
        _join_study(archive, runs, merged.notes)
    return merged


def _decide(merged: Merged, run: ReceivedRun, runs: Path, apart: Path | None) -> None:
    """Decides where a run belongs. Runs that the same merge puts in place count as being there."""
    contradictions: list[str] = []
    for home in [runs] if apart is None else [runs, apart]:
        target = home / run.id
        first = merged.placed.get(target)
        if first is None and not os.path.lexists(target):
            merged.placed[target] = run
            if contradictions:
                merged.apart.append(contradictions[0])
            return
        difference, record = _difference(first, target, run)
        if difference is None:
            merged.same.append(run)
            if record is not None:
                _add_lacking(merged, run, first.folder if first else target, target, record)
            return
        contradictions.append(f"{run.id}: {difference}")
    merged.contradictions += contradictions[-1:]


def _difference(first: ReceivedRun | None, target: Path, run: ReceivedRun) -> tuple[str | None, Record | None]:
    """Says how a run differs from the one that is there or comes first. Without a difference, returns None and that
    one's record."""
    try:
        there = first.record if first else read_record(target / "record.json")
    except (FileNotFoundError, NotADirectoryError):
        return f"a run of this id in {target.parent} has not ended", None
    except UserError as error:
        return str(error), None
    differences = [*differences_of(there, run.record)]
    if not differences:
        return None, there
    (name, *values), *others = [(name, _shown(a), _shown(b)) for name, a, b in differences]
    home = first.source if first else target.parent
    parts = [f"{name} is {values[0]} in {home} and {values[1]} in {run.source}"]
    parts += [f"{name} {a} and {b}" for name, a, b in others[:2]]
    parts += [f"and {plural(len(others) - 2, 'other')}"] if len(others) > 2 else []
    machines = zip(machine_of(there).items(), machine_of(run.record).values(), strict=True)
    computed = [f"{key} {a} and {b}" for (key, a), b in machines if a != b]
    return f"{', '.join(parts)}; {', '.join(computed) or 'computed on machines that are alike'}", None


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def differences_of(there: Record, other: Record) -> Iterator[tuple[str, Any, Any]]:
    """Yields the settings and results in which two records of one id differ, with both values, without those that a
    machine may change."""
    flat = [flat_settings(record["config"]) for record in (there, other)]
    for key in sorted(flat[0].keys() | flat[1].keys()):
        first, second = (each.get(key) for each in flat)
        if first != second and key not in NOT_IDENTITY | DESCRIBED:
            yield key, first, second
    left_out = {*OF_A_MACHINE}
    if there["config"].get("eval_every") != other["config"].get("eval_every"):
        left_out |= {"train_loss"}  # it is a mean over the steps since the last evaluation
    a, b = ({key: value for key, value in record.items() if key not in left_out} for record in (there, other))
    for name in a:
        if name in b and a[name] != b[name]:
            yield name, a[name], b[name]
    digests = there.get("files", {}), other.get("files", {})
    for name in PREDICTED:
        if all(name in each for each in digests) and digests[0][name] != digests[1][name]:
            yield name, digests[0][name][:8], digests[1][name][:8]


def _add_lacking(merged: Merged, run: ReceivedRun, there: Path, target: Path, record: Record) -> None:
    """Notes the files that the run there lacks: those of probes, and those whose checksum its own record has."""
    for name, digest in run.digests.items():
        if os.path.lexists(there / name) or target / name in merged.added:
            continue
        if name.startswith("probes/") or record.get("files", {}).get(name) == digest:
            merged.added[target / name] = run.folder / name


def _place(source: Path, target: Path) -> None:
    """Moves a file or folder to a place where nothing is."""
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise StorageError(f"another process has made {target} meanwhile; repeat the command")
        os.rename(source, target)


def _join_study(archive: Received, runs: Path, notes: list[str]) -> None:
    """Puts the file of a study beside the runs, unless there is one, and adds the notes of its sweeps to ours."""
    if archive.study is None or archive.study_file is None or archive.notes is None:
        return
    path = runs / archive.study_file.name
    if not os.path.lexists(path):
        _place(archive.study_file, path)
    elif not path.is_file() or path.read_bytes() != archive.study_file.read_bytes():
        notes.append(f"{path} stays as it is; the study in {archive.source} differs from it")
    if archive.notes.ids or archive.notes.certificates:  # evidence in results/ of others is not evidence in ours
        add_notes(notes_path(archive.study, runs), archive.notes._replace(evidence=[]))


# ------------------------------------------------------------------------------------------------------------ printing


def _report(received: Sequence[Received], merged: Merged, runs: Path, apart: Path | None) -> Iterator[str]:
    for archive in received:
        of_study = f" of study {archive.study.name}" if archive.study else ""
        machines = [machine_of(run.record)["hardware"] for run in archive.runs]
        yield f"{archive.source}: {plural(len(archive.runs), 'run')}{of_study}, {listed(dict.fromkeys(machines))}"
    new = sum(target.parent == runs for target in merged.placed)
    yield f"{runs}: added {plural(new, 'run')}; {len(merged.same):,} were there already with the same results"
    if merged.added:
        yield f"added {plural(len(merged.added), 'file')} to runs that lacked them"
    if merged.apart:
        yield f"{apart}: added {plural(len(merged.apart), 'run')}, because {runs} has other results for the same ids"
        yield from (f"  {line}" for line in merged.apart)
    yield from _machines(merged.placed)


def _machines(placed: Mapping[Path, ReceivedRun]) -> Iterator[str]:
    """Yields a line for each thing in which the machines of the new runs differ."""
    found: dict[str, dict[str, int]] = {}
    for run in placed.values():
        for key, words in machine_of(run.record).items():
            counts = found.setdefault(key, {})
            counts[words] = counts.get(words, 0) + 1
    if any(len(counts) > 1 for counts in found.values()):
        yield "The new runs were computed on different machines:"
    for key, counts in found.items():
        if len(counts) > 1:
            yield f"  {key}: {listed(f'{n:,} with {words}' for words, n in sorted(counts.items()))}"
