"""`vitbench merge from=[a.tar.gz,b.tar.gz] runs=FOLDER`: the runs of archives join those of a folder.

Everything is unpacked beside the runs and checked before anything is put in place (archive.py, received.py), and a run
appears as a whole. Runs are known by their ids:

    not there yet           it is put in place
    there, same results     nothing changes, but for files that it lacks: what probes measured, and what its own record
                            has the checksum of, such as weights. The machine, the times and the versions may differ
    there, other results    or there and not ended, or not readable: all such runs are named, and nothing at all is put
                            in place; with `apart=FOLDER` they go there, and the others where they belong

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

# what two machines that compute the same run may say otherwise
OF_A_MACHINE = {
    *("created", "commit", "hardware", "versions", "packages", "schema", "files", "sha256", "config"),
    *("train_seconds", "total_train_seconds", "compile_seconds", "images_per_second", "warnings", "scan", "init"),
}
DESCRIBED = {"init", "teacher"}  # settings that can be typed in several ways, of which an id says what they mean
PREDICTED = ("predictions.npy", "labels.npy")


@dataclass
class Merged:
    """What becomes of the runs of archives."""

    placed: dict[Path, ReceivedRun] = field(default_factory=dict)  # by the folder where a run belongs
    same: list[ReceivedRun] = field(default_factory=list)
    added: dict[Path, Path] = field(default_factory=dict)  # by the place of a file that a run there lacks, the new one
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
    """The archives that were typed for from=, one or a list; UserError where there is none."""
    words = [] if typed is None else typed if isinstance(typed, list) else [typed]
    if not words or not all(isinstance(word, str) and word for word in words):
        raise UserError("type the archives of `vitbench pack`, from=ARCHIVE or from=[ARCHIVE,ARCHIVE]")
    return [Path(with_home("from", word)).expanduser() for word in words]


def _check_apart(apart: Path, runs: Path) -> None:
    """UserError for a folder in which no run can be put from beside the others, or in which they would be read."""
    check_folder(apart, "apart")
    if apart.resolve().is_relative_to(runs.resolve()):
        raise UserError(f"apart={apart}: must lie outside of runs={runs}, for no table mixes what contradicts")
    if _device(apart) != _device(runs):
        raise UserError(f"apart={apart}: must be on the same disk as runs={runs}")


def _device(path: Path) -> int:
    """The disk of a folder, or of the first one above it that is there."""
    return next(place.stat().st_dev for place in (path.absolute(), *path.absolute().parents) if place.exists())


@contextmanager
def unpacked(paths: Sequence[Path], beside: Path, show: bool | None = None) -> Iterator[list[Received]]:
    """Unpacks and checks archives in a folder within `beside`, which goes when `with` ends; readers pass over it."""
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
    """The runs of the archives that were typed for from=, in a folder for a while, and the study that they are of."""
    paths = paths_of(typed)
    with tempfile.TemporaryDirectory(prefix="vitbench-") as place, unpacked(paths, Path(place)) as received:
        runs = Path(place) / "runs"
        merged = merge(received, runs)
        studies = [*dict.fromkeys(archive.study.name for archive in received if archive.study)]
        if study is None and len(studies) != 1:
            what = f"studies {listed(studies)}" if studies else "no study"
            raise UserError(f"from={listed(map(str, paths))}: {what} there; type study=NAME")
        for note in merged.notes:
            print(f"vitbench: {printable(note)}", file=sys.stderr)
        yield runs, study or str(runs / f"{studies[0]}.yaml")


def merge(received: Iterable[Received], runs: Path, apart: Path | None = None) -> Merged:
    """Puts unpacked runs in place, on the same disk; DataError where a run contradicts another one, and nothing is."""
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
            f"{plural(count, 'run')} cannot join{also}, and nothing was put in place; `vitbench merge` with "
            "apart=FOLDER puts such runs there, where that folder has none of these ids"
        )
    os.sync()  # so that after a loss of power, too, a run that is in place is whole
    for target, run in merged.placed.items():
        _place(run.folder, target)
    for target, source in merged.added.items():
        _place(source, target)
    for archive in received:
        _join_study(archive, runs, merged.notes)
    return merged


def _decide(merged: Merged, run: ReceivedRun, runs: Path, apart: Path | None) -> None:
    """Finds out where a run belongs, also beside those that the same merge puts in place."""
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
    """How a run differs from the one that is there, or comes first; None, and that one's record, where it does not."""
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
    """The settings and results in which records of one id differ, with both values: those that no machine decides."""
    flat = [flat_settings(record["config"]) for record in (there, other)]
    for key in sorted(flat[0].keys() | flat[1].keys()):
        first, second = (each.get(key) for each in flat)
        if first != second and key not in NOT_IDENTITY | DESCRIBED:
            yield key, first, second
    left_out = {*OF_A_MACHINE}
    if there["config"].get("eval_every") != other["config"].get("eval_every"):
        left_out |= {"train_loss"}  # a mean over the steps since the evaluation before
    a, b = ({key: value for key, value in record.items() if key not in left_out} for record in (there, other))
    for name in a:
        if name in b and a[name] != b[name]:
            yield name, a[name], b[name]
    digests = there.get("files", {}), other.get("files", {})
    for name in PREDICTED:
        if all(name in each for each in digests) and digests[0][name] != digests[1][name]:
            yield name, digests[0][name][:8], digests[1][name][:8]


def _add_lacking(merged: Merged, run: ReceivedRun, there: Path, target: Path, record: Record) -> None:
    """Notes the files that a run there lacks: those of probes, and those that its own record vouches for."""
    for name, digest in run.digests.items():
        if os.path.lexists(there / name) or target / name in merged.added:
            continue
        if name.startswith("probes/") or record.get("files", {}).get(name) == digest:
            merged.added[target / name] = run.folder / name


def _place(source: Path, target: Path) -> None:
    """Moves what is new to a place where nothing is."""
    with storage(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            raise StorageError(f"{target} came to be meanwhile; type the same again")
        os.rename(source, target)


def _join_study(archive: Received, runs: Path, notes: list[str]) -> None:
    """Puts the file of a study beside the runs, unless there is one, and adds what sweeps noted to what is known."""
    if archive.study is None or archive.study_file is None or archive.notes is None:
        return
    path = runs / archive.study_file.name
    if not os.path.lexists(path):
        _place(archive.study_file, path)
    elif not path.is_file() or path.read_bytes() != archive.study_file.read_bytes():
        notes.append(f"{path} is another study than that of {archive.source}, and stays")
    if archive.notes.ids or archive.notes.certificates:  # rows that stand in results/ of others do not stand in ours
        add_notes(notes_path(archive.study, runs), archive.notes._replace(evidence=[]))


# ------------------------------------------------------------------------------------------------------------ printing


def _report(received: Sequence[Received], merged: Merged, runs: Path, apart: Path | None) -> Iterator[str]:
    for archive in received:
        of_study = f" of study {archive.study.name}" if archive.study else ""
        machines = [machine_of(run.record)["hardware"] for run in archive.runs]
        yield f"{archive.source}: {plural(len(archive.runs), 'run')}{of_study}, {listed(dict.fromkeys(machines))}"
    new = sum(target.parent == runs for target in merged.placed)
    yield f"{runs}: {plural(new, 'run')} put in place, {len(merged.same):,} with the same results there already"
    if merged.added:
        yield f"{plural(len(merged.added), 'file')} added to runs that lacked them"
    if merged.apart:
        yield f"{apart}: {plural(len(merged.apart), 'run')} put there, for {runs} has other results under the same ids"
        yield from (f"  {line}" for line in merged.apart)
    yield from _machines(merged.placed)


def _machines(placed: Mapping[Path, ReceivedRun]) -> Iterator[str]:
    """A line for each thing in which the machines of the new runs differ."""
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
