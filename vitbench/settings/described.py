"""Reads words that describe a run beside another one: `init='data.fraction=1'` is the same run on all images.

The described run itself has no `init` and no `teacher`. With such words, one line of a study serves every seed and
every model, and a table can group its runs by the words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from vitbench.errors import UserError
from vitbench.settings.check import check
from vitbench.settings.choices import CONF_GROUPS, GROUPS
from vitbench.settings.compose import CONF_DIR, as_settings, compose, flatten
from vitbench.settings.overrides import explain, is_words, setting, words_of
from vitbench.settings.typed_text import parsed, unresolved

# The described run does not take over these settings from the run that it is described beside.
ALONE = (
    "teacher",
    "distill",
    "model.distill_token",
    "init",
    "head",
    "freeze",
    "classifier",
    "optim.layer_decay",
    "keep",
    "checkpoint",
)

# Where the words set one of these two, the settings of the other are dropped.
INSTEAD = {"data.count": "data.fraction", "optim.epochs": "optim.steps", "optim.warmup_steps": "optim.warmup"}


def settings_of(settings: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Returns the settings of the run that the words at `key` describe; None where `key` names a run, or is null."""
    value = settings.get(key)
    if value is None or not is_words(value):
        return None
    try:
        return settings_described(settings, value)
    except UserError as error:
        raise UserError(f"{key}='{value}': {error}") from None


def settings_described(settings: Mapping[str, Any], words: str) -> dict[str, Any]:
    """Returns the checked settings of the run that `words` describe beside a run of `settings`.

    A choice among the words (`model=resnet`) brings what it brings on a command line, such as its recipe. Settings that
    this changes are those of the choice; all others are those of `settings`. Of a model's own options, another model
    takes over only the size. Raises UserError in the words of the command line.
    """
    described: dict[str, Any] = json.loads(_described(json.dumps(settings, sort_keys=True), words))
    return described


@cache  # a sweep asks several times for each of its runs
def _described(text: str, words: str) -> str:
    """Does the same as `settings_described` from JSON to JSON, which can be cached."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    settings = json.loads(text)
    typed = [setting(word) for word in words_of(words)]
    try:
        overrides = _single_values(typed)
        chosen = {group: word for word in typed if (group := word.partition("=")[0]) in CONF_GROUPS}
        config = _with_choices(settings, chosen)
        values = {one.key_or_group: one.value() for one in overrides if one.key_or_group not in chosen}
        if "data.root" in values and settings["data"]["source"] == "imagefolder":
            config.data.name = None  # as_settings then names the images after their folder, unless the words name them
        for key, value in (_taken_back(values) | values).items():
            OmegaConf.update(config, key, value)
        return json.dumps(check(as_settings(config)))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, "train", typed) from None


def _single_values(typed: Sequence[str]) -> list[Any]:
    """Returns the words as Hydra reads them. Raises UserError for a word that has several values."""
    overrides = [parsed(word) for word in typed]
    for word, override in zip(typed, overrides, strict=True):
        if override.is_sweep_override():
            raise UserError(f"{word}: has several values, but describes one run; type one value")
    return overrides


def _with_choices(settings: Mapping[str, Any], chosen: dict[str, str]) -> Any:
    """Returns a configuration with the chosen groups, `{"model": "model=resnet"}`, and otherwise these settings."""
    from omegaconf import OmegaConf

    own = _own_choices(settings)
    brought = {other for group in chosen if group in GROUPS for other in GROUPS[group].brings}
    kept = {group: word for group, word in own.items() if group not in brought}
    config = _composed(tuple((kept | chosen).values())).copy()
    before, after = flatten(as_settings(_composed(tuple(own.values())))), flatten(as_settings(config))
    for key, value in flatten(settings).items():
        if key in after and after[key] == before.get(key) and not _is_left(key, before, after):
            OmegaConf.update(config, key, unresolved(value))  # a record's settings are data, even `${oc.env:KEY}`
    return config


@cache
def _composed(groups: tuple[str, ...]) -> Any:
    return compose([*groups])


def _own_choices(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns, by group, the words that choose what a run chose.

    A member that `conf/` does not have is left out, because the settings have each of its values.
    """
    flat = flatten(settings)
    members = {name: flat.get(group.name_key) for name, group in GROUPS.items()}
    return {
        group: f"{group}={member}"
        for group, member in members.items()
        if member and (CONF_DIR / group / f"{member}.yaml").is_file()
    }


def _is_left(key: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the described run does not take over a setting: one of ALONE, or an option of a replaced choice."""
    if any(key == alone or key.startswith(f"{alone}.") for alone in ALONE):
        return True
    replaced = [group for group in GROUPS.values() if before.get(group.name_key) != after.get(group.name_key)]
    return key != "model.size" and any(group.is_open and key.startswith(group.options_prefix) for group in replaced)


def _taken_back(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the other setting of a pair in INSTEAD becomes where the words set one of the two."""
    pairs = [*INSTEAD.items(), *((second, first) for first, second in INSTEAD.items())]
    return {
        other: 1.0 if other == "data.fraction" else None
        for key, other in pairs
        if values.get(key) is not None and other not in values
    }
