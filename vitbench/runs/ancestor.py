"""Finds, checks and orders the parents of runs: the runs that a run begins from (`init=`) or learns from (`teacher=`).

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
from vitbench.runs.images import images_changed
from vitbench.runs.plan import Planner
from vitbench.runs.record import Record
from vitbench.runs.records import run_folders
from vitbench.runs.run import Run
from vitbench.settings.choices import GROUPS, typed_key
from vitbench.settings.compose import flatten
from vitbench.settings.described import settings_of
from vitbench.settings.identity import id_of
from vitbench.settings.share import places_of, subset_seed

PARENT_KEYS = ("init", "teacher")  # the settings that name a parent


class FinishedRun(NamedTuple):
    folder: Path
    record: Record


def finished_parent(settings: Mapping[str, Any], key: str) -> FinishedRun:
    """Returns the run that `key` (init or teacher) names or describes. Raises UserError where it has not finished."""
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
    if described is not None and images_changed(record, described):
        again = training_command(described)
        raise UserError(f"{typed}: the images have changed since {name} ended; it is trained again by: {again}")
    if record["status"] != "finished" or not run.weights().exists():
        raise UserError(f"{typed}: {name} {record['status']} and has no weights")
    return FinishedRun(folder, record)


def check_teacher(record: Record, settings: Mapping[str, Any], classes: Sequence[str], fingerprint: str) -> None:
    """Raises UserError where the teacher has learned other classes, or learned from other images than this run's."""
    name, its_classes = record["id"], record["classes"]
    if [*its_classes] != [*classes]:
        known, wanted = (f"{len(names)} classes ({', '.join(names[:3])} ...)" for names in (its_classes, classes))
        raise UserError(f"teacher={name}: knows {known}, but these images have {wanted}; choose one that knows these")
    if record["data_fingerprint"] != fingerprint:
        raise UserError(
            f"teacher={name}: learned from other images (data.name={record['config']['data']['name']}, "
            f"{record['image_size']} px); choose one that was trained on the images of this run"
        )
    places = [places_of(each, record["image_size"]) for each in (record["config"], settings)]
    if len({None if each is None else each.tobytes() for each in places}) > 1:
        raise UserError(
            f"teacher={name}: its images were rearranged in another way than this run's (data.permute and its share, "
            "tile and seed); type data.permute_seed=0 in both runs to rearrange them in the same way"
        )
    if record["test_accuracy"] is None:
        raise UserError(
            f"teacher={name}: was not trained to classify (objective={record['config']['objective']['name']})"
        )


def validation_leaks(settings: Mapping[str, Any], fingerprint: str) -> list[str]:
    """Returns a warning for each parent that may have learned from this run's validation images.

    That can be where the parent had the same images (with this fingerprint), but drew its share with another seed or
    held fewer images back for validation.
    """
    warnings = []
    for key in PARENT_KEYS:
        if id_of(settings, key) is None:
            continue
        _, record = finished_parent(settings, key)
        parent = record["config"]
        why = ""
        if parent["data"].get("online"):
            continue  # such images are drawn anew and belong to no split
        if subset_seed(parent) != subset_seed(settings):
            why = "drew its images with another seed"
        elif parent["data"]["val_fraction"] < settings["data"]["val_fraction"]:
            why = "held fewer images back for validation"
        if why and record["data_fingerprint"] == fingerprint:
            warnings.append(
                f"{key}={record['id']} {why}, so it may have learned from this run's validation images; "
                "no run learns from test images"
            )
    return warnings


def training_command(settings: Mapping[str, Any]) -> str:
    """Returns the command line that trains a run with these settings, without settings that only decide its speed."""
    flat, planner = flatten(settings), Planner()
    members = {name: (group, flat.get(group.name_key)) for name, group in GROUPS.items()}
    words = [f"{name}={member}" for name, (group, member) in members.items() if group.is_decisive and member]
    defaults = flatten(planner.settings(words))
    for name, (group, member) in members.items():
        if defaults.get(group.name_key) != member:
            words.append(f"{name}={member}")
            defaults = flatten(planner.settings(words))
    for key, value in flat.items():
        if value != defaults.get(key) and not key.startswith("machine.") and key != "data.cache":
            words.append(f"{typed_key(key)}={typed_value(value)}")
    return shlex.join(["vitbench", "train", *words])


def parents(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """Returns the ids of each run's parents; both mappings are by the id of the run."""
    return {
        run_id: {parent for key in PARENT_KEYS if (parent := id_of(run_settings, key))}
        for run_id, run_settings in settings.items()
    }


def generations(parents_of: Mapping[str, set[str]]) -> list[list[str]]:
    """Sorts the ids of runs into lists that are done one after the other, so that each run comes after its parents."""
    order = TopologicalSorter({run_id: parents_of[run_id] & {*parents_of} for run_id in parents_of})
    order.prepare()  # there can be no cycle, because an id is a hash that includes the parents' ids
    lists = []
    while ready := order.get_ready():
        lists.append(sorted(ready, key=[*parents_of].index))
        order.done(*ready)
    return lists
