"""Which other run a run is compared with: `probe.cka.other=...`, before anything is measured.

An id, `other=resnet-shapes-f1-s0-3fa9c1d2`; or labels, each with an id or with the settings in which the other run
differs:

    other={cnn:{model:resnet,data.fraction:1},seed:{seed:[0,1]}}

Settings are the columns of tables. It is the finished run in the same folder, on the same images, that has them and
differs in nothing else, the seed included, but in what they bring along: a model its recipe and its own options. So
`cnn` is the ResNet of the same seed on all images, and that one itself has no partner. Where values are listed, the
first one that another run has counts: `seed` is seed 0, of seed 0 itself seed 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.comparing.grouping import IMAGES_KEY
from vitbench.comparing.select import UNIMPORTANT_KEYS, Row, Runs, select_runs
from vitbench.errors import UserError
from vitbench.runs.records import find_record
from vitbench.settings.choices import GROUPS
from vitbench.settings.compose import flatten

Reader = Callable[[Path], Runs]


def reader() -> Reader:
    """What reads a folder of runs, each once."""
    return cache(lambda folder: select_runs(str(folder), {}))


def resolve_partners(option: str, other: Any, folder: Path, read: Reader) -> Any:
    """The option with ids in place of what it says of the runs: an id or {label: id}, None where it is the run itself.

    `option` is its name on the command line, `folder` the run's own, beside those of the others.
    """
    if isinstance(other, Mapping):
        for label in other:
            if not str(label).isidentifier() or label == "self":
                raise UserError(f"{option}.{label}: a label is a word of letters, digits and _, and not self")
        return {str(label): _id(f"{option}.{label}", said, folder, read) for label, said in other.items()}
    return _id(option, other, folder, read)


def _id(typed: str, said: Any, folder: Path, read: Reader) -> str | None:
    if isinstance(said, str):
        try:
            record = find_record(folder.parent / said)
        except UserError as error:
            raise UserError(f"{typed}: {error}") from None
        if record["status"] == "diverged":
            raise UserError(f"{typed}={said}: diverged and has no weights")
        return said
    if not isinstance(said, Mapping) or not said:
        raise UserError(
            f"{typed}={said}: must be the ID of a run, or settings such as {{model:resnet,data.fraction:1}}"
        )
    there = read(folder.parent)
    (own,) = [row for row in there.rows if row["id"] == folder.name]
    try:
        found = there.filtered(said).rows
    except UserError as error:
        raise UserError(f"{typed}: {str(error).removeprefix('where.')}") from None
    found = [row for row in found if row["status"] == "finished" and row[IMAGES_KEY] == own[IMAGES_KEY]]
    wanted = flatten(said)
    if own in found and not any(isinstance(value, list) for value in wanted.values()):
        return None
    others = [row for row in found if row is not own]
    if not others:
        raise UserError(f"{typed}: no other run has been trained on the images of {folder.name}")
    # a model brings its recipe and, or not, an encoding
    free = {*wanted, *GROUPS["model"].brings} if "model" in wanted else {*wanted}

    def differs(row: Row) -> list[str]:
        """The settings that nobody named and that no named one brings along."""
        changed = [
            key
            for key in there.settings
            if row.get(key) != own.get(key)
            and key not in {*UNIMPORTANT_KEYS, *wanted}
            and key.partition(".")[0] not in free
        ]
        return [
            key
            for key in changed
            if not ("model" in wanted and key.startswith("model.") and None in (row.get(key), own.get(key)))
        ]

    def rank(row: Row) -> tuple[int, ...]:
        """In how much a row differs at all, after the place of its values in the lists."""
        places = (
            one.index(row.get(key)) if isinstance(one, list) and row.get(key) in one else 0
            for key, one in wanted.items()
        )
        return (*places, sum(row.get(key) != own.get(key) for key in there.settings if key not in UNIMPORTANT_KEYS))

    fit = sorted((row for row in others if not differs(row)), key=rank)
    if not fit:
        near = min(others, key=lambda row: len(differs(row)))
        raise UserError(
            f"{typed}: no finished run differs in that alone; {near['id']} differs in {', '.join(differs(near))} too"
        )
    if len(fit) > 1 and rank(fit[0]) == rank(fit[1]):
        raise UserError(f"{typed}: {fit[0]['id']} and {fit[1]['id']} fit equally well; name more settings")
    return str(fit[0]["id"])
