"""Checks a folder of `--config-dir`: it may hold only choices with values, because Hydra executes what it names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.settings.compose import read_yaml

EXECUTED = ("hydra", "_target_")  # Hydra executes what these keys name: callbacks, launchers, handlers of logs
PLACES = ("runs", "cache", "results", "out", "file", "trackers")  # these say where to write; only a command line may
_HARMLESS = re.compile(r"\$\{recipe:\$\{model\.arch\},\w+\}|\$\{(?!hydra)[\w.]+\}")  # references that conf/ has, too
_PACKAGE = re.compile(r"^\s*#\s*@\s*package\b:?\s*(.*?)\s*$", re.MULTILINE)


def check_config_folder(folder: Path) -> None:
    """Reads every file of the folder as data, before Hydra does. Raises UserError for the first that is no choice."""
    if not os.path.isdir(folder):  # unlike Path.is_dir, it takes a name of any length
        raise UserError(f"--config-dir {folder}: no such folder")
    for path in _files(folder):
        group = path.parent.relative_to(folder).parts
        if "hydra" in group:
            raise UserError(f"{path}: Hydra would execute what this file names; type its settings on the command line")
        content = read_yaml(path)
        for package in _PACKAGE.findall(path.read_text(encoding="utf-8-sig")):
            own = "model.pe" if group == ("pe",) else ".".join(group)
            if package not in ("_group_", own, f"{own}.{path.stem}") or not group:
                raise UserError(f"{path}: @package {package}: a choice may only set its own options; drop this line")
        _check_defaults(path, content.pop("defaults", []))
        _check_keys(path, content)


def _files(folder: Path) -> Iterator[Path]:
    """Yields the files that Hydra could read, also behind links to folders. Each folder is visited once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in sorted(files) if name.endswith((".yaml", ".yml")))


def _check_defaults(path: Path, defaults: Any) -> None:
    """Refuses entries that lead out of the folder, into Hydra's own groups, or to the top of the settings."""
    for word in _words(defaults):
        parts = re.split(r"[/@.:\s]+", word)
        if "hydra" in parts or ".." in word or "${" in word or word.endswith("_global_"):
            raise UserError(f"{path}: defaults: {word}: leads out of the folder; name only choices of vitbench")


def _words(value: Any) -> Iterator[str]:
    """Yields every word in nested lists and mappings, keys among them."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for each in value:
            yield from _words(each)
    else:
        yield str(value)


def _check_keys(path: Path, value: Any) -> None:
    """Refuses keys that would execute something or say where a command writes, and references to secrets."""
    if isinstance(value, list):
        for each in value:
            _check_keys(path, each)
    elif isinstance(value, dict):
        for key, inner in value.items():
            name = str(key).partition(".")[0].partition("@")[0]
            if name in EXECUTED:
                raise UserError(f"{path}: {key}: Hydra would execute what it names; type it on the command line")
            if name in PLACES:
                raise UserError(f"{path}: {key}: a file may not say where to write; type it on the command line")
            _check_keys(path, inner)
    elif "${" in _HARMLESS.sub("", str(value)):  # `${oc.env:KEY}`
        raise UserError(f"{path}: {value}: refers to something outside the settings; type the value instead")
