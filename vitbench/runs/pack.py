"""`vitbench pack study=NAME file=NAME.tar.gz`: puts the runs of a folder or of a study into one archive for others.

The archive has all that is needed to read, compare and report the runs, and no weights unless `checkpoints=true`
(archive.py). Every file is read first and compared with its checksum in the run's record; a damaged run is named and
left out.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import FEW, DataError, UserError
from vitbench.machine.disk import LARGE, read_file, sha256_of
from vitbench.machine.outputs import check_output, output_file
from vitbench.machine.progress import MEGABYTE, progress
from vitbench.machine.redact import redacted
from vitbench.numbers.text import say
from vitbench.numbers.words import plural, printable
from vitbench.runs.archive import ENDINGS, MOST_FILES, STUDY, most_bytes, sums_text, write_archive
from vitbench.runs.plan import notes_path, planned_ids
from vitbench.runs.probe_rows import files_of, read_rows
from vitbench.runs.record import Record
from vitbench.runs.records import read_record, run_folders
from vitbench.runs.study import Study, find_study, load_study


class Packed(NamedTuple):
    """What goes into an archive."""

    files: dict[str, Path | bytes]  # by their names in the archive
    digests: dict[str, str]  # by the same names
    runs: int  # number of runs
    problems: list[str]  # a line for each run and file that is damaged and left out


def main(config: Any) -> int:
    """Writes the archive. Returns 0, or 3 where something damaged was left out."""
    from omegaconf import OmegaConf

    asked: Any = OmegaConf.to_container(config, resolve=True)
    study = load_study(asked["study"]) if asked["study"] is not None else None
    path = Path(asked["file"] or f"{study.name if study else 'runs'}{ENDINGS[0]}").expanduser()
    if not path.name.endswith(ENDINGS):
        raise UserError(f"file={path}: must end in {' or '.join(ENDINGS)}")
    check_output(path, replace=asked["replace"])
    runs = Path(asked["runs"]).expanduser()
    folders, notes = folders_of(runs, study)
    packed = gather(folders, asked["checkpoints"], asked["machine"]["progress"])
    if study is not None:
        _add_study(packed, study, find_study(asked["study"]), runs)
    _check_names(packed.files)
    size = sum(len(content) if isinstance(content, bytes) else _size(content) for content in packed.files.values())
    with (
        output_file(path, replace=asked["replace"]) as file,
        progress("pack", size / MEGABYTE, "MB", asked["machine"]["progress"]) as display,
    ):
        write_archive(file, packed.files, packed.digests, display.megabytes())
    for note in [*notes, *packed.problems[:FEW]]:
        print(f"vitbench: {printable(note)}", file=sys.stderr)
    if more := len(packed.problems[FEW:]):
        print(f"vitbench: {more} more are damaged; `vitbench check` lists all", file=sys.stderr)
    content = hashlib.sha256(sums_text(packed.digests)).hexdigest()[:16]
    of_study = f" of study {study.name}" if study else ""
    say(
        f"{path}: {plural(packed.runs, 'run')}{printable(of_study)}, {plural(len(packed.files), 'file')}, "
        f"{_size(path) / MEGABYTE:.2g} MB ({size / MEGABYTE:.2g} MB unpacked), content {content}\n"
    )
    return DataError.exit_code if packed.problems else 0


def folders_of(runs: Path, study: Study | None) -> tuple[list[Path], list[str]]:
    """Returns the folders of the runs that have ended, and notes on missing ones. Raises UserError where none has."""
    ended = [folder for folder in run_folders(runs) if os.path.lexists(folder / "record.json")]
    if study is None:
        if not ended:
            raise UserError(f"runs={runs}: has no finished run; `vitbench train` makes one")
        return ended, []
    planned = {*planned_ids(study, runs)}
    chosen = [folder for folder in ended if folder.name in planned]
    if not chosen:
        raise UserError(
            f"study={study.name}: none of its {len(planned)} runs has ended in runs={runs}; "
            f"`vitbench sweep study={study.name}` starts them"
        )
    missing = len(planned) - len(chosen)
    return chosen, [f"{missing} of the {len(planned)} planned runs have not ended and are left out"] if missing else []


def gather(folders: list[Path], weights: bool, show: bool | None = None) -> Packed:
    """Finds the files of runs and reads all of them. Damaged ones are left out and noted in `problems`."""
    packed = Packed({}, {}, 0, [])
    found: list[tuple[Path, Record, list[str]]] = []
    for folder in folders:
        try:
            record = read_record(folder / "record.json")
            if record["id"] != folder.name:
                raise UserError(f"{folder / 'record.json'} is the record of {record['id']}")
            found.append((folder, record, _files(folder, record, weights)))
        except (UserError, OSError) as error:
            packed.problems.append(f"left out: {error}")
    size = sum(_size(folder / name) for folder, _, names in found for name in names)
    runs = 0
    with progress("read", size / MEGABYTE, "MB", show) as display:
        tell = display.megabytes()
        for folder, record, names in found:
            digests = _digests(folder, record, names, packed.problems, tell)
            runs += digests is not None
            for name, digest in (digests or {}).items():
                packed.files[f"runs/{folder.name}/{name}"] = folder / name
                packed.digests[f"runs/{folder.name}/{name}"] = digest
    if not runs:
        raise DataError(f"no run can be packed; {packed.problems[0]}")
    return packed._replace(runs=runs)


def _files(folder: Path, record: Record, weights: bool) -> list[str]:
    """Returns the names of those files of a run that go into an archive."""
    names = [*os.listdir(folder), *(f"probes/{path.name}" for path in files_of(folder))]
    vouched = record.get("files", {})
    return [
        name
        for name in sorted(names)
        if most_bytes(f"runs/{folder.name}/{name}") is not None
        and (not name.endswith(".safetensors") or (weights and name in vouched))
    ]


def _digests(
    folder: Path, record: Record, names: list[str], problems: list[str], tell: Callable[[int], None]
) -> dict[str, str] | None:
    """Returns the digest of each file; None where a file differs from the run's record. A damaged file of a probe is
    left out."""
    vouched, digests = record.get("files", {}), {}
    for name in names:
        try:
            if name.startswith("probes/"):
                read_rows(folder / name)
            digests[name] = sha256_of(folder / name, tell)
        except (UserError, OSError) as error:
            why = f"{folder / name}: {error.strerror}" if isinstance(error, OSError) else str(error)
            problems.append(f"left out: {why}")
            continue
        if digests[name] != vouched.get(name, digests[name]):
            problems.append(f"left out: {folder}, whose {name} is damaged (its checksum differs)")
            return None
    return digests


def _add_study(packed: Packed, study: Study, file: Path, runs: Path) -> None:
    """Adds the file of the study, and what its sweeps noted."""
    if not STUDY.fullmatch(f"{study.name}.yaml"):
        raise UserError(f"study={file}: a file in an archive has a name of only letters, digits, _, . and -; rename it")
    added = {f"{study.name}.yaml": redacted(file.read_text(encoding="utf-8-sig")).encode()}
    with suppress(OSError):  # runs that no sweep started have no notes
        path = notes_path(study, runs)
        added[f"runs/.plans/{path.name}"] = read_file(path, LARGE)
    for name, blob in added.items():
        packed.files[name] = blob
        packed.digests[name] = hashlib.sha256(blob).hexdigest()


def _check_names(files: Mapping[str, Path | bytes]) -> None:
    """Raises UserError for files that no reader of an archive would accept."""
    if len(files) >= MOST_FILES:
        raise UserError(f"{len(files):,} files are too many; an archive holds {MOST_FILES:,}, so pack one study=")
    for name, content in files.items():
        most = most_bytes(name)
        assert most is not None, name
        if (size := len(content) if isinstance(content, bytes) else _size(content)) > most:
            raise UserError(
                f"{content if isinstance(content, Path) else name} has {size:,} bytes; an archive takes {most:,}"
            )


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0
