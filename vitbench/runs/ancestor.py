"""The runs that a run begins from (`init=`) or learns from (`teacher=`): found on disk, checked, and put in order.

Both settings name a run by its id, or describe it by words (vitbench/settings/described.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError, did_you_mean
from vitbench.numbers.words import typed_value
from vitbench.runs.plan import Planner
from vitbench.runs.records import run_folders
from vitbench.runs.run import Run
from vitbench.settings.choices import GROUPS, typed_key
from vitbench.settings.compose import flatten
from vitbench.settings.described import settings_of
from vitbench.settings.identity import id_of
from vitbench.settings.share import subset_seed

PARENT_KEYS = ("init", "teacher")  # the settings that name a run


class FinishedRun(NamedTuple):
    folder: Path
    record: dict[str, Any]


def finished_parent(settings: Mapping[str, Any], key: str) -> FinishedRun:
    """The run that `key` (init or teacher) names or describes; UserError where it has not finished."""
    described, name = settings_of(settings, key), str(id_of(settings, key))
    folder = Path(settings["runs"] if described is None else described["runs"]).expanduser() / name
    run = Run(folder, {})
    record = run.record()
    if record is None and described is None:
        known = [path.name for path in run_folders(folder.parent) if (path / "record.json").is_file()]
        near = did_you_mean(name, known) if known else "there is none"
        raise UserError(f"{key}={name}: no finished run in runs={settings['runs']}; {near}")
    typed = f"{key}={name}" if described is None else f"{key}='{settings[key]}'"
    if record is None:
        why = f"failed ({reason})" if (reason := run.failure()) else "is not finished"
        raise UserError(f"{typed}: {name} {why}; it is trained by: {training_command(described or {})}")
    if record["status"] != "finished" or not run.weights().exists():
        raise UserError(f"{typed}: {name} {record['status']} and has no weights")
    return FinishedRun(folder, record)


def check_teacher(record: Mapping[str, Any], classes: Sequence[str], fingerprint: str) -> None:
    """Refuses a teacher that has not learned to tell these classes on these images."""
    name, theirs = record["id"], record["classes"]
    if [*theirs] != [*classes]:
        known, wanted = (f"{len(names)} classes ({', '.join(names[:3])} ...)" for names in (theirs, classes))
        raise UserError(f"teacher={name}: knows {known}, these images have {wanted}; the teacher must know the same")
    if record["data_fingerprint"] != fingerprint:
        raise UserError(
            f"teacher={name}: saw other images (data.name={record['config']['data']['name']}, "
            f"{record['image_size']} px); a teacher must have the data of its student"
        )
    if record["test_accuracy"] is None:
        raise UserError(
            f"teacher={name}: was not trained to classify (objective={record['config']['objective']['name']})"
        )


def validation_leaks(settings: Mapping[str, Any], fingerprint: str) -> list[str]:
    """A line for each run which this one starts from, at the same images (whose fingerprint this is), and which may have
    learned from images that validate this run: it drew with another seed, or held fewer back."""
    lines = []
    for key in PARENT_KEYS:
        if id_of(settings, key) is None:
            continue
        _, record = finished_parent(settings, key)
        theirs = record["config"]
        why = (
            "drew its images with another seed"
            if subset_seed(theirs) != subset_seed(settings)
            else "held fewer images back for validation"
            if theirs["data"]["val_fraction"] < settings["data"]["val_fraction"]
            else ""
        )
        if why and record["data_fingerprint"] == fingerprint:
            lines.append(
                f"{key}={record['id']} {why}, so that it may have learned from this run's validation images; "
                "no run learns from test images"
            )
    return lines


def training_command(settings: Mapping[str, Any]) -> str:
    """The command line of a run, without what says how fast it is computed."""
    flat, planner = flatten(settings), Planner()
    members = {name: (group, flat.get(group.name_key)) for name, group in GROUPS.items()}
    words = [f"{name}={member}" for name, (group, member) in members.items() if group.is_decisive and member]
    usual = flatten(planner.settings(words))
    for name, (group, member) in members.items():
        if usual.get(group.name_key) != member:
            words.append(f"{name}={member}")
            usual = flatten(planner.settings(words))
    for key, value in flat.items():
        if value != usual.get(key) and not key.startswith("machine.") and key != "data.cache":
            words.append(f"{typed_key(key)}={typed_value(value)}")
    return shlex.join(["vitbench", "train", *words])


def parents(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """The ids of the runs that each run begins from or learns from, by the id of the run."""
    return {run: {found for key in PARENT_KEYS if (found := id_of(its, key))} for run, its in settings.items()}


def generations(parents_of: Mapping[str, set[str]]) -> list[list[str]]:
    """The ids in lists that can be done one after the other: a run's parents stand in the lists before its own, or nowhere."""
    order = TopologicalSorter({run: found & {*parents_of} for run, found in parents_of.items()})
    order.prepare()  # cannot find a circle: an id is a hash of what the run begins from
    lists = []
    while ready := order.get_ready():
        lists.append(sorted(ready, key=[*parents_of].index))
        order.done(*ready)
    return lists
