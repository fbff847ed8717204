"""Checks the options of a model, encoding, objective or probe against the signature of its class or function."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from functools import cache
from typing import Any

from vitbench.errors import UserError, did_you_mean
from vitbench.menu import MOST, tunables
from vitbench.settings.typed_text import unresolved

TYPE_WORDS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a word", "None": "null"}
_TYPES: dict[str, type] = {"int": int, "float": float, "bool": bool, "str": str}


def check_options(typed: str, group: str, given: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Returns the given options, converted to the types of their annotations.

    `typed` is what was chosen (`pe=rope`), `group` is the prefix of its options (`pe`), and `target` is the class or
    function on the menu. Raises UserError for an unknown option and for a value of a wrong type.
    """
    from omegaconf.errors import OmegaConfBaseException

    known = tunables(target)
    checked: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise UserError(f"{group}.{key}={_shown(value)}: {typed} has no such option; {did_you_mean(key, known)}")
        annotation = known[key].annotation
        if annotation == "Any" or (value is None and "None" in annotation):
            checked[key] = value
        elif annotation.startswith("tuple["):
            checked[key] = _listed(f"{group}.{key}", value, annotation)
        else:
            try:
                checked[key] = _converted(target, key, value, type(value).__name__)
            except (OmegaConfBaseException, TypeError, OverflowError):  # a list, which no option takes, is a TypeError
                must = " or ".join(TYPE_WORDS.get(kind.strip(), kind) for kind in annotation.split("|"))
                raise UserError(f"{group}.{key}={_shown(value)}: must be {must}") from None
        _check_size(f"{group}.{key}", checked[key])
    return checked


def _check_size(key: str, value: Any) -> None:
    """Refuses a number that is too large for any choice. Most choices have narrower ranges of their own."""
    most = MOST if key.startswith("probe.") else MOST**2
    for number in value if isinstance(value, list | tuple) else [value]:
        if isinstance(number, int | float) and not abs(number) <= most:  # also true of nan
            raise UserError(f"{key}={value}: must be at most {most:,}")


def _shown(value: Any) -> str:
    """Writes a value as it is typed: null and true, where Python says None and True."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _listed(key: str, value: Any, annotation: str) -> tuple[Any, ...]:
    """Converts a list to `tuple[float, ...]` and its like; an int is accepted as a float."""
    kind = _TYPES[annotation.removeprefix("tuple[").partition(",")[0]]
    values = value if isinstance(value, list | tuple) else [value]
    fits = (int, float) if kind is float else (kind,)
    if not values or any(type(one) not in fits for one in values):
        words = {int: "whole numbers", float: "numbers"}.get(kind, kind.__name__)
        raise UserError(f"{key}={value}: must be a list of {words}, for example [{kind(1)},{kind(2)}]")
    return tuple(kind(one) for one in values)


@cache
def _converted(target: str, key: str, value: Any, kind: str) -> Any:
    """Converts a value to the type of its annotation. `kind` keeps 1, 1.0 and True apart in the cache."""
    from omegaconf import OmegaConf

    if tunables(target)[key].annotation == "bool" and not isinstance(value, bool):
        raise TypeError  # OmegaConf would read any number as true
    return OmegaConf.structured(_schema_of(target)(**{key: unresolved(value)}))[key]


@cache
def _schema_of(target: str) -> type:
    """Makes a dataclass from a signature. OmegaConf checks and converts types by it."""
    slots = []
    for name, (annotation, default) in tunables(target).items():
        kinds = [part.strip() for part in annotation.split("|")]
        kind: Any = _TYPES.get(kinds[0], Any)
        if "None" in kinds:
            kind = kind | None
        slots.append((name, kind, field(default=default)))
    return make_dataclass("Options", slots)
