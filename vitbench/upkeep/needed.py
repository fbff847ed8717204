"""Finds the sets of decoded images that the runs of a folder need: those that they were trained on, or will be."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.data.sizes import PUBLIC_SETS
from vitbench.errors import UserError
from vitbench.machine.disk import LARGE, read_json
from vitbench.runs.records import folders_kept_apart, run_folders
from vitbench.settings.compose import read_yaml

HEADER_NAME = re.compile(r"[\w-]+-[0-9a-f]{16}(-files)?\.json")  # the names that vitbench/data/cache.py gives
OWN = "imagefolder"  # its sets have the name of the folder, which can be any name


class Needs(NamedTuple):
    """What runs say about their images."""

    fingerprints: set[str]  # the fingerprints of whole sets
    reduced: set[tuple[str, tuple[int, ...]]]  # the fingerprints of sets from which data.classes chose, and the classes
    sources: set[str]  # the sources of runs that have no record; all sets that may be theirs are needed

    @classmethod
    def of(cls, runs: Path) -> Needs:
        """Reads records, the settings of runs without one, and what sweeps noted about runs that have not begun."""
        needs = cls(set(), set(), set())
        there = run_folders(runs)
        kept_apart = [run for place in folders_kept_apart(runs) for run in run_folders(place)]
        for folder in [*there, *kept_apart]:
            try:
                record = read_json(folder / "record.json")
                fingerprint, classes = str(record["data_fingerprint"]), record["config"]["data"].get("classes")
                needs.fingerprints.add(fingerprint)
                if classes:
                    needs.reduced.add((fingerprint, tuple(classes)))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                if (source := _source_of(folder)) is not None:
                    needs.sources.add(source)
        names = {folder.name for folder in there}
        for plan in sorted((runs / ".plans").glob("*.json")):
            try:
                planned = {str(run) for run in read_json(plan, LARGE)["ids"]}
            except (OSError, ValueError, KeyError, TypeError):
                needs.sources.add(OWN)
                continue
            for run in planned - names:
                known = [source for source in (*PUBLIC_SETS, "shapes") if f"-{source}-" in run]
                needs.sources.add(known[0] if len(known) == 1 else OWN)
        return needs

    def has(self, stem: str, header: dict[str, Any]) -> bool:
        """Whether a set may be needed. `stem` is the name of its header without the ending; `header` is its content."""
        fingerprint = header["fingerprint"]
        may_be = OWN in self.sources or any(stem.startswith(f"{source}-") for source in self.sources)
        if may_be or fingerprint in self.fingerprints:
            return True
        chosen = {classes for _, classes in self.reduced}
        return any((reduced_fingerprint(fingerprint, classes), classes) in self.reduced for classes in chosen)


def reduced_fingerprint(fingerprint: str, classes: tuple[int, ...]) -> str:
    """Returns the fingerprint that vitbench/data/classes.py makes where some classes of a set are chosen."""
    return hashlib.sha256(json.dumps([fingerprint, list(classes)]).encode()).hexdigest()[:16]


def _source_of(folder: Path) -> str | None:
    """Returns the source of images of a run without a record; None where the folder is no run.

    Where the settings cannot be read, returns OWN, which stands for any source.
    """
    if not (folder / "config.yaml").exists():
        return None if not (folder / "record.json").exists() else OWN
    with suppress(UserError, KeyError, TypeError):
        return str(read_yaml(folder / "config.yaml")["data"]["source"])
    return OWN


def is_header(path: Path) -> dict[str, Any] | None:
    """Returns the content of the header of a set of decoded images; None for any other file."""
    with suppress(OSError, ValueError):
        header = read_json(path, LARGE)
        shape, count = header.get("shape"), header.get("train")
        is_shape = isinstance(shape, list) and len(shape) == 4 and all(type(it) is int and it >= 0 for it in shape)
        if is_shape and type(count) is int and isinstance(header.get("fingerprint"), str) and "labels" in header:
            return header
    return None
