"""Runs that other runs start from: `init=RUN_ID` and `teacher=RUN_ID`, or words that say how that run differs from this one.

`init='data.fraction=1'` is the run with this run's settings but for these words, without an init or a teacher of its own.
So one line of a study serves every seed and every model, and a table groups its runs by the words. No torch here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.config import CONF_DIR, compose, flatten, plain
from vitbench.errors import UserError, did_you_mean
from vitbench.identity import run_id
from vitbench.overrides import explain, setting, words_of

KEYS = ("init", "teacher")  # the settings that name a run
# what a run that another starts from does not take over from it
ALONE = ("teacher", "distill", "model.distill_token", "init", "head", "freeze", "optim.layer_decay", "keep")
INSTEAD = {"data.count": "data.fraction", "optim.epochs": "optim.steps"}  # what words say of one takes back the other
_PLACES = {"model": "model.name", "pe": "model.pe.name", "optim": "optim.name", "augment": "augment.name",
           "data": "data.source", "objective": "objective.name"}  # fmt: skip
_BRINGS = {"model": ("pe", "optim"), "data": ("augment",)}  # choices that another one makes
_OWN = {"model.": "model.name", "model.pe.": "model.pe.name", "objective.": "objective.name"}  # options of a choice


def resolve(settings: Mapping[str, Any], words: str) -> dict[str, Any]:
    """The checked settings of the run that `words` describe beside a run of `settings`.

    A choice among the words (`model=resnet`) brings what it brings on a command line, here its recipe. Settings that this
    changes are the choice's, all others are those of `settings`; of a model's own options another model takes over the
    size alone. Raises UserError in the words of the command line.
    """
    found: dict[str, Any] = json.loads(_resolved(json.dumps(settings, sort_keys=True), words))
    return found


@cache
def _resolved(text: str, words: str) -> str:  # a sweep asks for each of its runs several times
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.check import check
    from vitbench.study import parsed

    settings = json.loads(text)
    typed = [setting(word) for word in words_of(words)]
    try:
        overrides = [parsed(word) for word in typed]
        for word, override in zip(typed, overrides, strict=True):
            if override.is_sweep_override():
                raise UserError(f"{word}: several values; a run starts from one other")
        chosen = {word.partition("=")[0]: word for word in typed if (CONF_DIR / word.partition("=")[0]).is_dir()}
        own = {group: f"{group}={name}" for group, name in _choices(settings).items()}
        brought = {other for group in chosen for other in _BRINGS.get(group, ())}
        before = flatten(plain(_composed(tuple(own.values()))))
        kept = {group: word for group, word in own.items() if group not in brought}
        config = _composed(tuple((kept | chosen).values())).copy()
        after = flatten(plain(config))
        for key, value in flatten(settings).items():
            if key in after and after[key] == before.get(key) and not _forgotten(key, before, after):
                OmegaConf.update(config, key, value)
        values = {one.key_or_group: one.value() for one in overrides if one.key_or_group not in chosen}
        for key, other in [*INSTEAD.items(), *((b, a) for a, b in INSTEAD.items())]:
            if values.get(key) is not None and other not in values:
                values = {other: 1.0 if other == "data.fraction" else None} | values
        if "data.root" in values and settings["data"]["source"] == "imagefolder":
            config.data.name = None  # after the folder, where the words say nothing
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return json.dumps(check(plain(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train", typed) from None


@cache
def _composed(groups: tuple[str, ...]) -> Any:
    return compose([*groups])


def _choices(settings: Mapping[str, Any]) -> dict[str, str]:
    """The options of groups that a run chose, as far as they are ours: its settings say what others set."""
    flat = flatten(settings)
    names = {group: flat.get(place) for group, place in _PLACES.items()}
    return {group: name for group, name in names.items() if name and (CONF_DIR / group / f"{name}.yaml").is_file()}


def _forgotten(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    if any(key == one or key.startswith(f"{one}.") for one in ALONE):
        return True
    changed = (prefix for prefix, name in _OWN.items() if before.get(name) != after.get(name))
    return key != "model.size" and any(key.startswith(prefix) for prefix in changed)


def is_words(value: str) -> bool:
    """Whether a value describes a run and does not name one."""
    return "=" in value


def settings_of(settings: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The settings of the run that words describe; None where `key` names a run, or none."""
    value = settings.get(key)
    if value is None or not is_words(value):
        return None
    try:
        return resolve(settings, value)
    except UserError as error:
        raise UserError(f"{key}='{value}': {error}") from None


def id_of(settings: Mapping[str, Any], key: str) -> str | None:
    """The id of the run that `key` names or describes; None where it is null, or weights from elsewhere."""
    described = settings_of(settings, key)
    if described is not None:
        return run_id(described)
    value = settings.get(key)
    elsewhere = value is not None and key == "init" and (":" in value or value.endswith(".safetensors"))
    return None if value is None or elsewhere else str(value)


def finished(settings: Mapping[str, Any], key: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of that run; UserError where it has not finished."""
    from vitbench.records import run_folders
    from vitbench.run import Run

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
        raise UserError(f"{typed}: {name} {why}; it is trained by: {command(described or {})}")
    if record["status"] != "finished" or not run.weights().exists():
        raise UserError(f"{typed}: {name} {record['status']} and has no weights")
    return folder, record


def check_teacher(record: Mapping[str, Any], classes: Sequence[str], fingerprint: str) -> None:
    """Refuses a teacher that has not learned to tell these classes on these images."""
    name, theirs = record["id"], record["classes"]
    if [*theirs] != [*classes]:
        known, wanted = (f"{len(names)} classes ({', '.join(names[:3])} ...)" for names in (theirs, classes))
        raise UserError(f"teacher={name}: knows {known}, these images have {wanted}; the teacher must know the same")
    if record["data_fingerprint"] != fingerprint:
        raise UserError(f"teacher={name}: saw other images (data.name={record['config']['data']['name']}, "
                        f"{record['image_size']} px); a teacher must have the data of its student")  # fmt: skip
    if record["test_accuracy"] is None:
        raise UserError(f"teacher={name}: was not trained to classify (objective={record['config']['objective']['name']})")  # fmt: skip


def leaks(settings: Mapping[str, Any], fingerprint: str) -> list[str]:
    """A line for each run which this one starts from, at the same images (whose fingerprint this is), and which may have
    learned from images that validate this run: it drew with another seed, or held fewer back."""

    def seed(its: Mapping[str, Any]) -> int:
        drawn: int | None = its["data"]["subset_seed"]
        return its["seed"] if drawn is None else drawn

    lines = []
    for key in KEYS:
        if id_of(settings, key) is None:
            continue
        _, record = finished(settings, key)
        theirs = record["config"]
        why = ("drew its images with another seed" if seed(theirs) != seed(settings)
               else "held fewer images back for validation"
               if theirs["data"]["val_fraction"] < settings["data"]["val_fraction"] else "")  # fmt: skip
        if why and record["data_fingerprint"] == fingerprint:
            lines.append(f"{key}={record['id']} {why}, so that it may have learned from this run's validation images; "
                         "no run learns from test images")  # fmt: skip
    return lines


def command(settings: Mapping[str, Any]) -> str:
    """The command line of a run, without what says how fast it is computed."""
    from vitbench.compare import typed
    from vitbench.study import Planner

    model, planner = settings["model"], Planner()
    words = [f"model={model['name']}", *([f"pe={model['pe']['name']}"] if model.get("pe") else []),
             f"data={settings['data']['source']}"]  # fmt: skip
    chosen = planner.settings(words)
    for group in ("optim", "augment", "objective"):
        if chosen[group]["name"] != settings[group]["name"]:
            words.append(f"{group}={settings[group]['name']}")
            chosen = planner.settings(words)
    usual = flatten(chosen)
    for key, value in flatten(settings).items():
        if value != usual.get(key) and not key.startswith("machine.") and key != "data.cache":
            words.append(f"{key.replace('model.pe.', 'pe.')}={typed(value)}")
    return shlex.join(["vitbench", "train", *words])


def needs(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """The runs that each run starts from or learns from, by id."""
    return {name: {found for key in KEYS if (found := id_of(its, key))} for name, its in settings.items()}


def order(needed: Mapping[str, set[str]]) -> list[list[str]]:
    """Runs in the order in which they can be done: each list starts from runs of those before it, or from others."""
    left, waves = dict(needed), []
    while left:
        waves.append([name for name, before in left.items() if not before & {*left}])
        left = {name: before for name, before in left.items() if before & {*left}}
    return waves  # which end: an id is a hash of what the run starts from
