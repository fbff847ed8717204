"""Runs that other runs start from: `teacher=RUN_ID`, or words that say how that run differs from this one.

`teacher='model=resnet'` is the run with this run's settings but for these words, and without a teacher of its own. So
one line of a study serves every seed and every share, and a table groups its runs by the words. No torch here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.config import CONF_DIR, flatten, plain
from vitbench.errors import UserError
from vitbench.identity import run_id
from vitbench.run import find_record

KEYS = ("teacher",)  # the settings that name a run
# what a run that another starts from does not take over from it
ALONE = ("teacher", "distill", "model.distill_token", "init", "head", "freeze", "optim.layer_decay")
_PLACES = {"model": "model.name", "pe": "model.pe.name", "optim": "optim.name", "augment": "augment.name",
           "data": "data.source", "objective": "objective.name"}  # fmt: skip
_BRINGS = {"model": ("pe", "optim"), "data": ("augment",)}  # choices that another one makes
_OWN = {"model.": "model.name", "model.pe.": "model.pe.name", "objective.": "objective.name"}  # options of a choice


def is_words(value: str) -> bool:
    """Whether a value describes a run and does not name one."""
    return "=" in value


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
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vitbench.check import check
    from vitbench.overrides import explain, setting

    settings = json.loads(text)
    try:
        typed = [setting(word) for word in shlex.split(words)]
    except ValueError as error:
        raise UserError(str(error).lower()) from None
    try:
        parsed = [OverridesParser.create().parse_override(word) for word in typed]
        for word, override in zip(typed, parsed, strict=True):
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
        for override in parsed:
            if override.key_or_group not in chosen:
                OmegaConf.update(config, override.key_or_group, override.value())
        return json.dumps(check(plain(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train", typed) from None


@cache
def _composed(groups: tuple[str, ...]) -> Any:
    from vitbench.study import compose_groups

    return compose_groups([*groups])


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


def settings_of(settings: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The settings of the run that words describe; None where `key` names a run, or none."""
    value = settings.get(key)
    if value is None or not is_words(value):
        return None
    try:
        return resolve(settings, value)
    except UserError as error:
        raise UserError(f"{key}='{value}': {error}") from None


def id_of(settings: Mapping[str, Any], key: str) -> str:
    """The id of the run that `key` names or describes."""
    described = settings_of(settings, key)
    return run_id(described) if described is not None else str(settings[key])


def finished(settings: Mapping[str, Any], key: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of that run; UserError where it has not finished."""
    name = id_of(settings, key)
    typed = f"{key}='{settings[key]}'" if is_words(settings[key]) else f"{key}={name}"
    folder = Path(settings["runs"]).expanduser() / name
    if is_words(settings[key]) and not (folder / "record.json").exists():
        raise UserError(f"{typed}: that run, {name}, has not finished in runs={settings['runs']}; train it first")
    try:
        record = find_record(folder)
    except UserError as error:
        raise UserError(f"{typed}: {error}") from None
    if record["status"] != "finished":
        raise UserError(f"{typed}: {name} {record['status']}; it left no weights")
    return folder, record


def needs(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """The runs that each run starts from or learns from, by id."""
    from vitbench import origin

    needed = {name: {id_of(its, key) for key in KEYS if its.get(key)} for name, its in settings.items()}
    return {
        name: its | ({begun} if (begun := origin.run_of(settings[name])) else set()) for name, its in needed.items()
    }


def order(needed: Mapping[str, set[str]]) -> list[list[str]]:
    """Runs in the order in which they can be done: each list starts from runs of those before it, or from others."""
    left, waves = dict(needed), []
    while left:
        waves.append([name for name, before in left.items() if not before & {*left}])
        left = {name: before for name, before in left.items() if before & {*left}}
    return waves  # which end: an id is a hash of what the run starts from
