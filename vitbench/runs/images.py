"""Checks whether a run that has ended saw the images that are there now, and moves it aside if it did not.

A run's id has the name of its images, but not what is in their folder. So the record has a scan of the files (names,
sizes, times), which is compared wherever a run counts as done. Where the scan differs, the decoded images decide. A run
that saw other images is done again. Its old folder is moved to `runs/images-<their fingerprint>/`, which can be read as
a `runs=` folder, and it comes back if those images do. Imports no torch.
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
    """Returns the record of a run that is done; None where it has not ended, or its images have changed since.

    Raises DataError where its images are there but cannot be used. Images that are not on this machine count as
    unchanged.
    """
    record = run.record()
    return None if record is None or images_changed(record, run.settings) else record


def images_changed(record: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether the images that `settings` name differ from those that the record's run saw."""
    scan, seen = scan_of(**source_options(settings["data"])), record.get("scan")
    if scan is None or seen == scan._asdict():
        return False
    if seen is None and settings["data"]["source"] != "imagefolder":
        return False  # a public set is known by its name
    return _fingerprint(settings) != record["data_fingerprint"]


def _fingerprint(settings: Mapping[str, Any]) -> str:
    """Returns the fingerprint of the images that settings name. New images are decoded for it."""
    machine = settings["machine"]
    options = source_options(settings["data"]) | {"files": machine["images"] == "files"}
    return fingerprint_of(**options, progress=machine["progress"] is not False)


def cannot_be_compared(runs: Iterable[Run]) -> str | None:
    """Warns of a run that has ended on a folder of images which is not on this machine; None where there is none."""
    for run in runs:
        data = run.settings["data"]
        if data["source"] != "imagefolder" or scan_of(**source_options(data)) is not None:
            continue
        if record := run.record():
            its = record.get("scan", {}).get("root") or record["config"]["data"]["root"]
            return (
                f"data.root={data['root']}: there is no such folder here, so vitbench cannot tell whether it has the"
                f" images that {run.id} was trained on ({its})"
            )
    return None


def set_aside(run: Run) -> str | None:
    """Moves the folder of a run aside whose images have changed, and brings back the run on the present images, if any.

    Returns what was done, in a line; None where there is nothing to do. Raises TryAgain where another process holds the
    run.
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
    what = "an earlier run on the present images is put back" if is_back else "it is done again"
    root = run.settings["data"]["root"]
    return (
        f"{run.id}: the images have changed since it ended (data.root={root}); {what}, and the run on the old images is"
        f" in runs={kept.parent}"
    )


def _free(folder: Path) -> Path:
    """Returns the folder or, where it exists already, one whose parent's name has the next free number."""
    number, place = 1, folder
    while place.exists():
        number += 1
        place = folder.parent.with_name(f"{folder.parent.name}-{number}") / folder.name
    return place
