"""Which sets of decoded images the runs of a folder need: those they were trained on, and those they go on with."""

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

HEADER_NAME = re.compile(r"[\w-]+-[0-9a-f]{16}(-files)?\.json")  # as vitbench/data/cache.py calls them
OWN = "imagefolder"  # its sets are called as the folder is, which may be called anything


class Needs(NamedTuple):
    """What runs say of their images."""

    fingerprints: set[str]  # of whole sets
    reduced: set[tuple[str, tuple[int, ...]]]  # of a set of which data.classes chose some
    sources: set[str]  # of runs that have not ended, or that nobody can ask: all sets that may be theirs are needed

    @classmethod
    def of(cls, runs: Path) -> Needs:
        """Asks records, the settings of runs that have none, and what sweeps planned and nobody has begun."""
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
        """Whether a set, by the name of its header and by what that holds, is or may be needed."""
        fingerprint = header["fingerprint"]
        may_be = OWN in self.sources or any(stem.startswith(f"{source}-") for source in self.sources)
        if may_be or fingerprint in self.fingerprints:
            return True
        chosen = {classes for _, classes in self.reduced}
        return any((reduced_fingerprint(fingerprint, classes), classes) in self.reduced for classes in chosen)


def reduced_fingerprint(fingerprint: str, classes: tuple[int, ...]) -> str:
    """What vitbench/data/classes.py makes of a set's fingerprint where some classes are chosen."""
    return hashlib.sha256(json.dumps([fingerprint, list(classes)]).encode()).hexdigest()[:16]


def _source_of(folder: Path) -> str | None:
    """Which source a run without a record reads; None of a folder that is no run. Of what cannot be read, any."""
    if not (folder / "config.yaml").exists():
        return None if not (folder / "record.json").exists() else OWN
    with suppress(UserError, KeyError, TypeError):
        return str(read_yaml(folder / "config.yaml")["data"]["source"])
    return OWN


def is_header(path: Path) -> dict[str, Any] | None:
    """What the header of a set of decoded images holds; None of any other file."""
    with suppress(OSError, ValueError):
        header = read_json(path, LARGE)
        shape, count = header.get("shape"), header.get("train")
        is_shape = isinstance(shape, list) and len(shape) == 4 and all(type(it) is int and it >= 0 for it in shape)
        if is_shape and type(count) is int and isinstance(header.get("fingerprint"), str) and "labels" in header:
            return header
    return None
