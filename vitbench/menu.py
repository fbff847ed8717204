"""Menus: how a choice is found by its name, and which options it takes.

The options of a choice are the keyword arguments of its class or function, read from the source with `ast`: importing it
would import torch, which takes 2 s.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vitbench.errors import UserError, did_you_mean


class Choice(NamedTuple):
    """A line of a menu."""

    target: str  # "module:attribute", imported only when chosen
    help: str


def look_up(kind: str, name: str, menu: Mapping[str, Choice]) -> Callable[..., Any]:
    """The class or function behind a name of a menu; a name that is not on it is answered with near misses."""
    if name not in menu:
        raise UserError(f"{kind}={name}: {did_you_mean(name, menu)}")
    module, attribute = menu[name].target.split(":")
    return getattr(importlib.import_module(module), attribute)


class Parameter(NamedTuple):
    annotation: str
    default: Any  # REQUIRED where there is none


REQUIRED = object()


@cache
def parameters(target: str) -> dict[str, Parameter]:
    """What a class or function of a menu takes, read from its source without importing it."""
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
    """The parameters that have a default: the schema of a model or an encoding."""
    return {name: parameter for name, parameter in parameters(target).items() if parameter.default is not REQUIRED}
