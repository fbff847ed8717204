"""Makes the id of a run: a readable prefix, and a hash of what decides its numbers. Runs with one id are the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.machine.disk import checksum
from vitbench.menu import tunables
from vitbench.settings.choices import GROUPS, MENU_GROUPS, menu_of
from vitbench.settings.compose import flatten
from vitbench.settings.described import settings_of
from vitbench.settings.overrides import PRETRAINED, is_file_of_weights
from vitbench.settings.schema import SCHEMA_OF_SOURCE, SWEEP_KEYS, DataConfig, TrainConfig

RESULTS_VERSION = 1  # part of every id; raise it when the same settings give other numbers

# These change where or how fast a run is computed, but not its numbers.
NOT_IDENTITY = {
    "runs",
    "eval_every",
    "keep",
    "trackers",
    "machine",
    "data.root",
    "data.cache",
    *(group.name_key for group in GROUPS.values() if group.menu is None),
    *SWEEP_KEYS,
}

# These are part of every id, even where they are the default.
ALWAYS = {"seed"}.union(*({group.name_key, group.shown_key} for group in GROUPS.values() if group.is_decisive))


@cache
def defaults_of(model: str | None, pe: str | None, data: str | None, objective: str | None) -> dict[str, Any]:
    """Returns the flat settings of these choices, with every option at its default. A choice of None has no options."""
    from omegaconf import OmegaConf

    def options(group: str, member: str | None) -> dict[str, Any]:
        if member is None:
            return {}
        return {key: option.default for key, option in tunables(menu_of(group)[member].target).items()}

    frame: Any = OmegaConf.to_container(OmegaConf.structured(TrainConfig))
    frame["model"] = options("model", model) | ({} if pe is None else {"pe": options("pe", pe)})
    frame["data"] = OmegaConf.to_container(OmegaConf.structured(SCHEMA_OF_SOURCE.get(data or "", DataConfig)))
    frame["objective"] = {"name": GROUPS["objective"].implied, **options("objective", objective)}
    return flatten(json.loads(json.dumps(frame)))  # tuples become lists, as they are in settings


@cache
def can_decide(key: str) -> bool:
    """Whether a setting can decide a run's numbers."""
    return not any(key == skip or key.startswith(f"{skip}.") for skip in NOT_IDENTITY)


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that decide a run's numbers: its choices, and all that differs from the defaults."""
    flat = flatten(settings)
    members = {name: flat.get(group.name_key, group.implied) for name, group in MENU_GROUPS.items()}
    defaults = defaults_of(**members)
    deciding = {
        key: value
        for key, value in flat.items()
        if (key in ALWAYS or key not in defaults or value != defaults[key]) and can_decide(key)
    }
    if "init" in deciding:
        deciding["init"] = identity_of_init(settings)  # the same for all ways of typing it
    if "teacher" in deciding:
        deciding["teacher"] = id_of(settings, "teacher")  # the same for all ways of typing it
    return dict(sorted(deciding.items()))


def run_id(settings: Mapping[str, Any]) -> str:
    """Returns the id of a run, such as vit-rope-cifar10-f0.1-s0-3fa9c1d2: a readable prefix, and a hash."""
    text = json.dumps([RESULTS_VERSION, identity(settings)], sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    data = settings["data"]
    share = f"n{data['count']}" if data["count"] is not None else f"f{data['fraction']:g}"
    model = settings["model"]
    encoding = [model["pe"]["name"]] if model.get("pe") else []
    named = [*([model["arch"]] if "arch" in model else []), *encoding]
    parts = [model["name"], *named, data["name"], share]
    readable = "-".join([*parts, f"s{settings['seed']}"])
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", readable)
    return f"{plain[:80].lstrip('.')}-{digest}"


def identity_of_init(settings: Mapping[str, Any]) -> str:
    """Returns what `init` is in a run's identity: the id of a run, the checksum of a file, or a name in a library."""
    typed: str = settings["init"]
    if run := id_of(settings, "init"):
        return run
    return f"sha256:{checksum(file_of_init(typed))}" if is_file_of_weights(typed) else typed


def file_of_init(typed: str) -> Path:
    """Returns the file that `init` names. Raises UserError where there is none."""
    path = Path(typed).expanduser()
    if not os.path.isfile(path):  # unlike Path.is_file, it takes a name of any length
        is_there = os.path.exists(path)
        what = "is a folder" if os.path.isdir(path) else "is no regular file" if is_there else "no such file"
        raise UserError(f"init={typed}: {what}" + ("; type a file of weights" if is_there else ""))
    return path


def id_of(settings: Mapping[str, Any], key: str) -> str | None:
    """Returns the id of the run that `key` names or describes; None where it is null, or names other weights."""
    described = settings_of(settings, key)
    if described is not None:
        return run_id(described)
    value = settings.get(key)
    elsewhere = (
        value is not None and key == "init" and (":" in value or value == PRETRAINED or is_file_of_weights(value))
    )
    return None if value is None or elsewhere else str(value)
