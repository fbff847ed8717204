"""Finds the runs that a run is compared with (`probe.cka.other=...`), before anything is measured.

`other` is the id of one run, `other=resnet-shapes-f1-s0-3fa9c1d2`. Or it gives each of several runs a label, and
describes each run by its id or by settings, which have the names of the columns of tables:

    other={cnn:{model:resnet,data.fraction:1},seed:{seed:[0,1]}}

Settings describe the finished run in the same folder and on the same images that has these settings, and otherwise the
settings of the run itself. Only options of the described settings (`model.depth` of `model`) may differ as well, and
with a model its encoding and its recipe. So `cnn` is the ResNet of the same seed on all images; for that ResNet itself,
there is no `cnn`. Of several values, the first that another run has counts: `seed` is the run with seed 0, and for that
run itself the one with seed 1. The word `pixels` means the images themselves instead of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.comparing.grouping import IMAGES_KEY
from vitbench.comparing.select import UNIMPORTANT_KEYS, Row, Runs, select_runs
from vitbench.errors import UserError
from vitbench.probes.menu import RAW_PIXELS
from vitbench.runs.records import find_record
from vitbench.settings.choices import GROUPS
from vitbench.settings.compose import flatten

Reader = Callable[[Path], Runs]


def reader() -> Reader:
    """Returns a function that reads a folder of runs, and reads each folder only once."""
    return cache(lambda folder: select_runs(str(folder), {}))


def resolve_partners(option: str, other: Any, folder: Path, read: Reader) -> Any:
    """Replaces settings in `other` by ids of runs: returns an id or {label: id}, None where it is the run itself.

    `option` is the name of `other` on the command line. `folder` is the folder of the run itself; the others are beside
    it.
    """
    if isinstance(other, Mapping):
        for label in other:
            if not str(label).isidentifier() or label == "self":
                raise UserError(f"{option}.{label}: a label must be a word of letters, digits and _, other than self")
        return {str(label): _partner(f"{option}.{label}", each, folder, read) for label, each in other.items()}
    return _partner(option, other, folder, read)


def _partner(option: str, described: Any, folder: Path, read: Reader) -> str | None:
    """Returns the id of the run that is described by its id or by settings, or RAW_PIXELS."""
    if described == RAW_PIXELS:
        return RAW_PIXELS
    if isinstance(described, str):
        try:
            record = find_record(folder.parent / described)
        except UserError as error:
            raise UserError(f"{option}: {error}") from None
        if record["status"] == "diverged":
            raise UserError(f"{option}={described}: diverged and has no weights")
        return described
    if not isinstance(described, Mapping) or not described:
        raise UserError(
            f"{option}={described}: must be the ID of a run, or settings such as {{model:resnet,data.fraction:1}}"
        )
    return _run_with(described, option, folder, read)


def _run_with(described: Mapping[str, Any], option: str, folder: Path, read: Reader) -> str | None:
    """Returns the id of the run that has these settings and otherwise differs least from the run itself; None where
    it is the run itself."""
    runs = read(folder.parent)
    (own,) = [row for row in runs.rows if row["id"] == folder.name]
    try:
        rows = runs.filtered(described).rows
    except UserError as error:
        raise UserError(f"{option}: {str(error).removeprefix('where.')}") from None
    rows = [row for row in rows if row["status"] == "finished" and row[IMAGES_KEY] == own[IMAGES_KEY]]
    wanted = flatten(described)
    if own in rows and not any(isinstance(value, list) for value in wanted.values()):
        return None
    others = [row for row in rows if row is not own]
    if not others:
        raise UserError(f"{option}: no other run has been trained on the images of {folder.name}")
    settings = [key for key in runs.settings if key not in UNIMPORTANT_KEYS]

    free = {*wanted, *GROUPS["model"].brings} if "model" in wanted else {*wanted}

    def differences(row: Row) -> list[str]:
        """Returns the settings in which a row differs from the run itself although they are not described."""
        fixed = (key for key in settings if key not in wanted and key.partition(".")[0] not in free)
        return [key for key in fixed if row.get(key) != own.get(key)]

    def rank(row: Row) -> tuple[int, ...]:
        """Returns the places of the row's values in the described lists, then the number of settings that differ."""
        places = [
            values.index(row.get(key)) if isinstance(values, list) and row.get(key) in values else 0
            for key, values in wanted.items()
        ]
        return (*places, sum(row.get(key) != own.get(key) for key in settings))

    fitting = sorted((row for row in others if not differences(row)), key=rank)
    if not fitting:
        nearest = min(others, key=lambda row: len(differences(row)))
        raise UserError(
            f"{option}: no finished run differs only in that; {nearest['id']} also differs in"
            f" {', '.join(differences(nearest))}"
        )
    if len(fitting) > 1 and rank(fitting[0]) == rank(fitting[1]):
        raise UserError(f"{option}: {fitting[0]['id']} and {fitting[1]['id']} fit equally well; name more settings")
    return str(fitting[0]["id"])
