"""Checks what a file says: that each field has the right type, is finite and lies in its range.

The types are declared by the TypedDicts of record.py and by the schema of the settings. A range is written into a type
as `Annotated[float, Range(...)]`. Every reader of a file that anyone can have made asks here, so that no list of fields
is kept twice.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from vitbench.menu import Range
from vitbench.numbers.words import printable
from vitbench.settings.check import RANGES
from vitbench.settings.choices import GROUPS, MENU_GROUPS, column_of
from vitbench.settings.compose import flatten
from vitbench.settings.types import types_of_settings

LARGEST = 1e40  # larger than every float32, in which networks compute; the squares of such numbers are still finite
DEEPEST = 8  # objects and lists are nested at most so deep

NAMED = ("seed", GROUPS["model"].name_key, GROUPS["data"].name_key, GROUPS["data"].shown_key)  # every run says them
CHOICES = tuple(group.name_key for group in MENU_GROUPS.values())
OBJECTS = {group.name_key.rpartition(".")[0] for group in GROUPS.values()} | {"machine", "distill", "data.test"}

# What is wrong with a value, as the rest of a sentence that begins with the name of its field; None: nothing.
Fault = str | None


def fault_of(declared: Any, value: Any) -> Fault:
    """Says what is wrong with an object of a file. `declared` is the TypedDict or NamedTuple that has its fields."""
    fault = _object(declared)(value)
    return fault and fault.lstrip(". ")


def fault_of_settings(settings: Mapping[str, Any]) -> Fault:
    """Says what is wrong with the settings of a run. Settings that no schema has must be plain and finite."""
    try:
        flat = flatten(settings)
    except RecursionError:
        return "config is nested too deeply"
    for key in NAMED:
        if type(flat.get(key)) is not (int if key == "seed" else str):
            return f"config.{key} is {_shown(flat.get(key))}; every run has one"
    checks = _checks_of_settings(*map(flat.get, CHOICES))
    for key, value in flat.items():
        if fault := checks.get(key, _plain)(value):
            return f"{printable(key)}{fault}"
    return None


def fault_of_row(row: Mapping[str, Any], settings: Collection[str], declared: Any) -> Fault:
    """Says what is wrong with a row of a table, whose columns are these settings and the flat fields of `declared`.

    In a row, None means that the run has no such value, and lists are tuples.
    """
    checks = _checks_of_row(declared, tuple(settings), *(row.get(column_of(key)) for key in CHOICES))
    for column, value in row.items():
        if value is not None and (fault := checks.get(column, _plain)(value)):
            return f"{column}{fault}"
    return None


@cache
def _checks_of_row(declared: Any, settings: tuple[str, ...], *members: Any) -> dict[str, Callable[[Any], Fault]]:
    """Returns the checks of a row's columns. A column that no schema has must be plain, and so must a result that has
    the name of a setting."""
    results = {column: check for column, check in _columns(declared).items() if column not in settings}
    by_key = _checks_of_settings(*members)
    of_settings = {column_of(key): check for key, check in by_key.items() if key not in OBJECTS}
    return results | {column: check for column, check in of_settings.items() if column in settings}


def _checks_of_settings(*members: Any) -> dict[str, Callable[[Any], Fault]]:
    """Returns, by key, the checks of the settings of a run with these choices: their types and ranges (check.py)."""
    return _cached_checks(*(member if isinstance(member, str) else None for member in members))


@cache
def _cached_checks(*members: str | None) -> dict[str, Callable[[Any], Fault]]:
    checks = {}
    for key, hint in types_of_settings(dict(zip(CHOICES, members, strict=True))).items():
        right = RANGES.get(key)
        checks[key] = _check_of(hint if right is None else Annotated[hint, right])
    # objects are flat here, so a value at the key of an object is wrong
    checks |= {key: _simple(lambda _: False, "an object") for key in OBJECTS}
    return checks | {"model.pe": _check_of(dict | None)}  # null: no encoding


@cache
def _columns(declared: Any, prefix: str = "") -> dict[str, Callable[[Any], Fault]]:
    """Returns the checks of a TypedDict's fields by the names of their columns: `hardware.name`."""
    checks: dict[str, Callable[[Any], Fault]] = {}
    for name, hint in get_type_hints(declared, include_extras=True).items():
        kind = get_args(hint)[0] if get_origin(hint) is NotRequired else hint
        checks |= _columns(kind, f"{prefix}{name}.") if is_typeddict(kind) else {prefix + name: _check_of(kind)}
    return checks


# -------------------------------------------------------------------------------------------------- checks of a type


@cache
def _check_of(hint: Any) -> Callable[[Any], Fault]:
    """Returns the check that a type asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (NotRequired, Annotated):
        inner = _check_of(arguments[0])
        ranges = [] if origin is NotRequired else [each for each in hint.__metadata__ if isinstance(each, Range)]
        return _both(inner, ranges[0]) if ranges else inner
    if origin in (Union, types.UnionType):
        return _any_of(
            tuple(_check_of(one) for one in arguments if one is not types.NoneType), types.NoneType in arguments
        )
    if origin is Literal:
        return _simple(lambda value: isinstance(value, str) and value in arguments, " or ".join(arguments))
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return _each(_check_of(arguments[0]), None)
    if origin is tuple:
        return _each(_check_of(arguments[0]), len(arguments))
    if origin is dict and arguments[1] is not Any:
        return _values(_check_of(arguments[1]))
    if is_typeddict(hint):
        return _object(hint)
    return _CHECKS.get(origin or hint, _plain)


def _of_type(kinds: tuple[type, ...], words: str) -> Callable[[Any], Fault]:
    """Returns the check of a plain value. It must be fast, because each record has a hundred such values."""

    def check(value: Any) -> Fault:
        if type(value) in kinds and (kinds[0] is not int or -LARGEST < value < LARGEST):
            return None
        return f" is {_shown(value)}; it must be {words}"

    return check


def _simple(holds: Callable[[Any], bool], words: str) -> Callable[[Any], Fault]:
    return lambda value: None if holds(value) else f" is {_shown(value)}; it must be {words}"


def _both(inner: Callable[[Any], Fault], right: Range) -> Callable[[Any], Fault]:
    def check(value: Any) -> Fault:
        fault = inner(value)
        return (
            fault if fault or value is None or right.holds(value) else f" is {_shown(value)}; it must be {right.words}"
        )

    return check


def _any_of(checks: tuple[Callable[[Any], Fault], ...], is_null_right: bool) -> Callable[[Any], Fault]:
    """Returns the check of a union. It tries null first: most values are null, and wording a fault takes longest."""

    def check(value: Any) -> Fault:
        if value is None and is_null_right:
            return None
        first = None
        for one in checks:
            if (fault := one(value)) is None:
                return None
            first = first or fault
        return first

    return check


def _each(inner: Callable[[Any], Fault], length: int | None) -> Callable[[Any], Fault]:
    def check(value: Any) -> Fault:
        if not isinstance(value, list | tuple) or len(value) != (len(value) if length is None else length):
            return f" is {_shown(value)}; it must be a list" + (f" of {length}" if length else "")
        return next((f"[{i}]{fault}" for i, one in enumerate(value) if (fault := inner(one))), None)

    return check


def _values(inner: Callable[[Any], Fault]) -> Callable[[Any], Fault]:
    def check(value: Any) -> Fault:
        if not isinstance(value, dict):
            return f" is {_shown(value)}; it must be an object"
        return next((f".{printable(key)}{fault}" for key, one in value.items() if (fault := inner(one))), None)

    return check


@cache
def _object(declared: Any) -> Callable[[Any], Fault]:
    hints = get_type_hints(declared, include_extras=True)
    checks = {name: _check_of(hint) for name, hint in hints.items()}
    required = [name for name, hint in hints.items() if get_origin(hint) is not NotRequired]

    def check(value: Any) -> Fault:
        if not isinstance(value, dict):
            return f" is {_shown(value)}; it must be an object"
        if lacking := [name for name in required if name not in value]:
            return f" lacks {', '.join(lacking)}"
        for name, one in value.items():
            if fault := checks.get(name, _plain)(one):
                return f".{printable(name)}{fault}"
        return None

    return check


def _plain(value: Any, depth: int = 0) -> Fault:
    """Checks that a value is what JSON can hold, with finite numbers, and not nested too deeply."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return None
    if kind is float or kind is int:
        return None if -LARGEST < value < LARGEST else f" is {_shown(value)}; no such number can be right"
    if depth > DEEPEST:
        return " is nested too deeply"
    if isinstance(value, Mapping):
        for key, one in value.items():
            if fault := _plain(one, depth + 1):
                return f".{printable(str(key))}{fault}"
    elif isinstance(value, list | tuple):
        return next((f"[{i}]{fault}" for i, one in enumerate(value) if (fault := _plain(one, depth + 1))), None)
    return None


def _shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


_CHECKS: dict[Any, Callable[[Any], Fault]] = {
    bool: _of_type((bool,), "true or false"),
    int: _of_type((int,), "a whole number"),
    float: _of_type((int, float), "a finite number"),
    str: _of_type((str,), "text"),
    dict: _simple(lambda value: isinstance(value, dict), "an object"),
}
