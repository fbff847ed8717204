"""Filters such as `where.data.fraction=[0.01,1]`: finds their columns, and the values that they match."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitbench.numbers.words import is_number, shown_value, typed_value
from vitbench.settings.choices import column_of, settings_key
from vitbench.settings.compose import flatten


def filters(where: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens filters to columns: {"data": {"name": "x", "fraction": 1}} to {"data": "x", "data.fraction": 1}."""
    return {column_of(settings_key(key)): value for key, value in flatten(where).items()}


def matches(value: Any, wanted: Any) -> bool:
    """Whether a setting has the value that was typed, or one of a list of values.

    Numbers are compared by value (0.2 is 0.20), and a value also matches the word that a study has for it.
    """
    if isinstance(wanted, list) and not (isinstance(value, list | tuple) and [*value] == wanted):
        return any(matches(value, choice) for choice in wanted)
    if is_number(value) and is_number(wanted):
        return bool(value == wanted)
    return typed_value(wanted) in (typed_value(value), shown_value(value))
