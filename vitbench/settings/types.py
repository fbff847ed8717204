"""Returns the types of settings by their keys, as the schema and the options of each choice declare them."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any

from vitbench.menu import tunables
from vitbench.settings.choices import GROUPS, MENU_GROUPS, menu_of
from vitbench.settings.schema import SCHEMA_OF_SOURCE, DataConfig, TrainConfig


def types_of_settings(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the type of each setting of a run. `flat` says its choices; options of unknown choices are left out."""
    members = {name: flat.get(group.name_key) for name, group in MENU_GROUPS.items()}
    known = {
        name: member if isinstance(member, str) and member in menu_of(name) else None
        for name, member in members.items()
    }
    return _types(**known)


@cache
def _types(model: str | None, pe: str | None, data: str | None, objective: str | None) -> dict[str, Any]:
    members = {"model": model, "pe": pe, "objective": objective}
    types = _of_dataclass(TrainConfig, "")
    types |= _of_dataclass(SCHEMA_OF_SOURCE.get(data or "", DataConfig), "data.")
    types |= {group.name_key: str | None for group in GROUPS.values()}
    for name, member in members.items():
        if member is not None:
            options = {key: option.annotation for key, option in tunables(menu_of(name)[member].target).items()}
            hints = typing.get_type_hints(type("Options", (), {"__annotations__": options}), vars(typing))
            types |= {GROUPS[name].options_prefix + key: hint for key, hint in hints.items()}
    return types


def _of_dataclass(schema: type, prefix: str) -> dict[str, Any]:
    types: dict[str, Any] = {}
    for key, hint in typing.get_type_hints(schema).items():
        if is_dataclass(hint):
            types |= _of_dataclass(typing.cast(type, hint), f"{prefix}{key}.")
        elif typing.get_origin(hint) is not dict:  # an open group, whose options its menu has
            types[prefix + key] = hint
    return types
