"""What a folder of `--config-dir` may hold: choices of one's own, with values. Hydra would execute what it names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitbench.errors import UserError
from vitbench.settings.compose import read_yaml

EXECUTED = ("hydra", "_target_")  # Hydra makes what they name: callbacks, launchers, handlers of logs
PLACES = ("runs", "cache", "results", "out", "file", "trackers")  # where a command writes, which only its own line says
_HARMLESS = re.compile(r"\$\{recipe:\$\{model\.arch\},\w+\}|\$\{(?!hydra)[\w.]+\}")  # conf/ has these itself
_PACKAGE = re.compile(r"^\s*#\s*@\s*package\b:?\s*(.*?)\s*$", re.MULTILINE)


def check_config_folder(folder: Path) -> None:
    """Reads every file of the folder as data, before Hydra meets it; UserError names the first that is no choice."""
    if not os.path.isdir(folder):  # which takes a name of any length
        raise UserError(f"--config-dir {folder}: no such folder")
    for path in _files(folder):
        group = path.parent.relative_to(folder).parts
        if "hydra" in group:
            raise UserError(f"{path}: a group of Hydra's, which executes what it names; type it instead")
        content = read_yaml(path)
        for package in _PACKAGE.findall(path.read_text(encoding="utf-8-sig")):
            own = "model.pe" if group == ("pe",) else ".".join(group)
            if package not in ("_group_", own, f"{own}.{path.stem}") or not group:
                raise UserError(f"{path}: @package {package}: a choice sets what is its own, and not what is elsewhere")
        _check_defaults(path, content.pop("defaults", []))
        _check_keys(path, content)


def _files(folder: Path) -> Iterator[Path]:
    """Yields the files that Hydra could read, also behind links to folders, each folder once."""
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
            raise UserError(f"{path}: defaults: {word}: leads out of this choice; only others of vitbench's are named")


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
    """Refuses keys by which a file would execute something or say where is written, and references to secrets."""
    if isinstance(value, list):
        for each in value:
            _check_keys(path, each)
    elif isinstance(value, dict):
        for key, inner in value.items():
            name = str(key).partition(".")[0].partition("@")[0]
            if name in EXECUTED:
                raise UserError(f"{path}: {key}: Hydra executes what it names; it is typed on the command line")
            if name in PLACES:
                raise UserError(f"{path}: {key}: says where is written; it is typed on the command line")
            _check_keys(path, inner)
    elif "${" in _HARMLESS.sub("", str(value)):  # `${oc.env:KEY}`
        raise UserError(f"{path}: {value}: reads what is outside the settings; type the value")
