"""Whether a run that has ended saw the images that its settings name now, and where it is kept if it did not.

A run's id holds the name of its images, and not what is in their folder. So its record has a scan of the files (names,
sizes, times), which is compared wherever a run counts as done. Where it differs, the decoded images decide. A run that
saw others is done again; its folder is moved to `runs/images-<their fingerprint>/`, which is a `runs=` of its own, and
comes back if those images do. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vitbench.data.menu import fingerprint_of, scan_of
from vitbench.machine.disk import storage
from vitbench.runs.record import Record
from vitbench.runs.records import kept_apart
from vitbench.runs.run import Run
from vitbench.settings.share import source_options


def done(run: Run) -> Record | None:
    """The record of a run that is done; None where it has not ended, or the images changed since.

    DataError where its images are there and cannot be used. Where they are not on this machine, nobody can tell.
    """
    record = run.record()
    return None if record is None or images_changed(record, run.settings) else record


def images_changed(record: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether the images that settings name are others than those of a record of these settings."""
    scan, seen = scan_of(**source_options(settings["data"])), record.get("scan")
    if scan is None or seen == scan._asdict():
        return False
    if seen is None and settings["data"]["source"] != "imagefolder":
        return False  # of a public set, whose name says what it holds
    return _fingerprint(settings) != record["data_fingerprint"]


def _fingerprint(settings: Mapping[str, Any]) -> str:
    """That of the images which settings name; they are decoded where they are new."""
    machine = settings["machine"]
    options = source_options(settings["data"]) | {"files": machine["images"] == "files"}
    return fingerprint_of(**options, progress=machine["progress"] is not False)


def cannot_be_compared(runs: Iterable[Run]) -> str | None:
    """What is told of runs that have ended on a folder of images which is not on this machine; None without one."""
    for run in runs:
        data = run.settings["data"]
        if data["source"] != "imagefolder" or scan_of(**source_options(data)) is not None:
            continue
        if record := run.record():
            its = record.get("scan", {}).get("root") or record["config"]["data"]["root"]
            return (
                f"data.root={data['root']}: no such folder here, so nobody can tell whether it holds what {run.id} was"
                f" trained on ({its})"
            )
    return None


def set_aside(run: Run) -> str | None:
    """Moves the folder of a run whose images changed since it ended; brings back the run on the present ones, if any.

    Returns what was done, in a line; None where there is nothing to do. TryAgain where another process holds the run.
    """
    record = run.record()
    if record is None or not images_changed(record, run.settings):
        return None
    with run.claim():
        if (record := run.record()) is None or not images_changed(record, run.settings):
            return None  # another process has done it
        kept = _free(kept_apart(run.folder.parent, record["data_fingerprint"]) / run.id)
        before = kept_apart(run.folder.parent, _fingerprint(run.settings)) / run.id
        with storage(kept):
            kept.parent.mkdir(exist_ok=True)
            (run.folder / ".holder.json").unlink(missing_ok=True)
            os.rename(run.folder, kept)
            if is_back := (before / "record.json").is_file():
                os.rename(before, run.folder)
    what = "the run on these images was kept, and is back" if is_back else "it is done again"
    root = run.settings["data"]["root"]
    return (
        f"{run.id}: the images changed since it ended (data.root={root}); {what}, and that of before is in"
        f" runs={kept.parent}"
    )


def _free(folder: Path) -> Path:
    """The folder, or where it exists the same below a place of the next number."""
    number, place = 1, folder
    while place.exists():
        number += 1
        place = folder.parent.with_name(f"{folder.parent.name}-{number}") / folder.name
    return place
