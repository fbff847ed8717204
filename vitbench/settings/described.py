"""Words that describe a run beside another one: `init='data.fraction=1'` is the run with this run's settings but for these.

The described run has no `init` and no `teacher` of its own. So one line of a study serves every seed and every model, and
a table groups its runs by the words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from vitbench.errors import UserError
from vitbench.settings.check import check
from vitbench.settings.compose import CONF_DIR, as_settings, compose, flatten
from vitbench.settings.overrides import explain, is_words, parsed, setting, words_of

# what a run that another starts from does not take over from it
ALONE = ("teacher", "distill", "model.distill_token", "init", "head", "freeze", "optim.layer_decay", "keep")


INSTEAD = {"data.count": "data.fraction", "optim.epochs": "optim.steps"}  # what words say of one takes back the other


_PLACES = {
    "model": "model.name",
    "pe": "model.pe.name",
    "optim": "optim.name",
    "augment": "augment.name",
    "data": "data.source",
    "objective": "objective.name",
}


_BRINGS = {"model": ("pe", "optim"), "data": ("augment",)}  # choices that another one makes


_OWN = {"model.": "model.name", "model.pe.": "model.pe.name", "objective.": "objective.name"}  # options of a choice


def settings_described(settings: Mapping[str, Any], words: str) -> dict[str, Any]:
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
        before = flatten(as_settings(_composed(tuple(own.values()))))
        kept = {group: word for group, word in own.items() if group not in brought}
        config = _composed(tuple((kept | chosen).values())).copy()
        after = flatten(as_settings(config))
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
        return json.dumps(check(as_settings(config)))
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


def settings_of(settings: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """The settings of the run that words describe; None where `key` names a run, or none."""
    value = settings.get(key)
    if value is None or not is_words(value):
        return None
    try:
        return settings_described(settings, value)
    except UserError as error:
        raise UserError(f"{key}='{value}': {error}") from None
