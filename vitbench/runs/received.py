"""Unpacks an archive of runs and checks all that it holds, with the reader of each kind of file, before it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import DataError, StorageError, UserError
from vitbench.runs.archive import NOTES, STUDY, unpack
from vitbench.runs.plan import Noted, notes_path, read_notes
from vitbench.runs.predictions import Missing, check_probabilities, read_classes
from vitbench.runs.probe_rows import files_of, read_rows
from vitbench.runs.record import Record
from vitbench.runs.records import REMEDY, read_record
from vitbench.runs.study import Study, load_study
from vitbench.settings.compose import read_yaml


class ReceivedRun(NamedTuple):
    """A run that was unpacked into a folder of its own."""

    folder: Path
    record: Record
    source: str  # the archive, as it was typed
    digests: dict[str, str]  # the SHA-256 of its files, by their names within the run's folder

    @property
    def id(self) -> str:
        return self.folder.name


class Received(NamedTuple):
    """What an archive holds."""

    source: str  # the archive, as it was typed
    runs: list[ReceivedRun]
    study: Study | None
    study_file: Path | None
    notes: Noted | None  # what sweeps of the study noted


def receive(path: Path, folder: Path, tell: Callable[[int], None] = lambda size: None) -> Received:
    """Unpacks an archive into a new folder and checks all that it holds. Raises DataError where something is wrong."""
    digests = unpack(path, folder, tell)
    source = str(path)
    with _named(source, folder):
        studies = [folder / name for name in digests if STUDY.fullmatch(name)]
        if len(studies) > 1:
            raise DataError(f"it holds {len(studies)} studies; `vitbench pack` writes only one")
        study = load_study(str(studies[0])) if studies else None
        runs: dict[str, dict[str, str]] = {}
        for name, digest in digests.items():
            if name.startswith("runs/") and not NOTES.fullmatch(name):
                _, run, file = name.split("/", 2)
                runs.setdefault(run, {})[file] = digest
        if not runs:
            raise DataError("it holds no run")
        received = [_checked(folder / "runs" / run, source, files) for run, files in sorted(runs.items())]
        notes = read_notes(notes_path(study, folder / "runs")) if study else None
    return Received(source, received, study, studies[0] if studies else None, notes)


@contextmanager
def _named(source: str, folder: Path) -> Iterator[None]:
    """Turns an error in an unpacked file into a DataError that names the archive and the file within it."""
    try:
        yield
    except StorageError:
        raise
    except (UserError, Missing) as error:
        message = str(error).replace(f"{folder}/", "").replace(REMEDY, "ask for the archive again")
        raise DataError(f"{source}: {message}") from None


def _checked(folder: Path, source: str, files: dict[str, str]) -> ReceivedRun:
    """Reads each file of a run. Raises UserError or Missing for the first file that cannot be read."""
    if "record.json" not in files:
        raise DataError(f"runs/{folder.name} has no record.json; `vitbench pack` packs only runs that have ended")
    record = read_record(folder / "record.json")
    if record["id"] != folder.name:
        raise DataError(f"{folder / 'record.json'} is the record of {record['id']}")
    vouched = record.get("files", {})
    for name, digest in files.items():
        if digest != vouched.get(name, digest):
            raise DataError(f"{folder / name} does not match its record (its checksum differs)")
        if name.endswith(".safetensors") and name not in vouched:
            raise DataError(f"{folder / name}: the record does not know these weights")
    if "config.yaml" in files:
        read_yaml(folder / "config.yaml")
    for name in ("predictions.npy", "labels.npy"):
        if name in files:
            read_classes(folder.parent, record, name)
    if "probabilities.npy" in files:
        check_probabilities(folder / "probabilities.npy", record["test_images"])
    for path in files_of(folder):
        read_rows(path)
    return ReceivedRun(folder, record, source, files)


def machine_of(record: Record) -> dict[str, Any]:
    """Describes the machine that computed a run: its hardware and the versions of its software."""
    hardware, versions = record["hardware"], record["versions"]
    return {"hardware": f"{hardware['name']} ({hardware['device']}, {hardware['precision']})", **versions}
