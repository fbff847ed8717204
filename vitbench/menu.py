"""Menus: find a choice by its name, and read which options it takes.

The options of a choice are the keyword arguments of its class or function. They are read from the source with `ast`,
because importing it would import torch, which takes 2 s.
"""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError, did_you_mean


class Choice(NamedTuple):
    """A line of a menu."""

    target: str  # "module:attribute", which is imported only when it is chosen
    help: str
    refuses: str | None = None  # "module:function" without torch, which takes the flat settings and raises UserError


def look_up(kind: str, name: str, menu: Mapping[str, Choice]) -> Callable[..., Any]:
    """Returns the class or function behind a name of a menu. For an unknown name, raises UserError with near misses."""
    if name not in menu:
        raise UserError(f"{kind}={name}: {did_you_mean(name, menu)}")
    return imported(menu[name].target)


def imported(target: str) -> Callable[..., Any]:
    """Imports the class or function that "module:attribute" names."""
    module, attribute = target.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


class Parameter(NamedTuple):
    annotation: str
    default: Any  # REQUIRED where it has none


REQUIRED = object()


@cache
def parameters(target: str) -> dict[str, Parameter]:
    """Reads the parameters of a class or function from its source, without importing it."""
    module, attribute = target.split(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return _parameters(node.args)
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            inits = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            return _parameters(inits[0].args) if inits else {}
    raise AttributeError(f"{target} is not defined at the top of its module")


def _parameters(arguments: ast.arguments) -> dict[str, Parameter]:
    named = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(named) - len(arguments.defaults))
    pairs = zip([*named, *arguments.kwonlyargs], [*defaults, *arguments.defaults, *arguments.kw_defaults], strict=True)
    return {
        argument.arg: Parameter(
            ast.unparse(argument.annotation) if argument.annotation else "Any",
            REQUIRED if default is None else ast.literal_eval(default),
        )
        for argument, default in pairs
    }


def tunables(target: str) -> dict[str, Parameter]:
    """Returns the parameters that have a default, which are the options of a choice."""
    return {name: parameter for name, parameter in parameters(target).items() if parameter.default is not REQUIRED}


class Range(NamedTuple):
    """The values that a setting can have."""

    words: str  # the end of a sentence that begins with "must be"
    holds: Callable[[Any], bool]

    def of(self, unit: str) -> Range:
        """Returns the same range with a unit: `1 or more images`."""
        return self._replace(words=f"{self.words} {unit}")

    def up_to(self, most: float) -> Range:
        """Returns the range without larger values, which a machine would need hours or all its memory to refuse."""
        shown = f"{most:,}" if most < 1e15 else f"{most:g}"
        return Range(f"{self.words} and at most {shown}", lambda value: self.holds(value) and value <= most)

    def with_note(self, note: str) -> Range:
        """Returns the same range with an explanation in brackets."""
        return self._replace(words=f"{self.words} ({note})")


ABOVE_0 = Range("above 0", lambda value: value > 0)
FROM_0 = Range("0 or more", lambda value: value >= 0)
FROM_1 = Range("1 or more", lambda value: value >= 1)
BELOW_1 = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
SHARE = Range("above 0 and at most 1", lambda value: 0 < value <= 1)

# No run needs more than these bounds, so a larger value is a typing error. A fixed bound is the same on every machine
# and is checked at once. Where a machine has too little memory, vitbench/training/prepare.py says so.
MOST_STEPS, MOST_IMAGES, MOST_PIXELS, MOST_BATCH = 50_000_000, 20_000_000, 16_384, 1_000_000
MOST_THREADS, MOST_WIDTH, MOST_DEPTH, MOST_HEADS, MOST = 1_024, 65_536, 1_000, 1_024, 1_000_000


def check_ranges(settings: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raises UserError for a value outside its range, and for infinity and nan. Settings without a range are not
    checked, and null is always allowed."""
    for key, right in ranges.items():
        value = settings.get(key)
        if value is None:
            continue
        if (isinstance(value, float) and not math.isfinite(value)) or not right.holds(value):
            raise UserError(f"{key}={value}: must be {right.words}")
