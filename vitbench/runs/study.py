"""Reads and checks a study file, which chooses among what exists and holds no code. plan.py plans its runs."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitbench.errors import UserError, did_you_mean
from vitbench.machine.disk import read_file
from vitbench.numbers.words import is_number
from vitbench.settings.compose import MOST_YAML, STUDY_DIR, read_yaml
from vitbench.settings.overrides import setting, words_of


@dataclass(frozen=True)
class Study:
    name: str
    title: str
    question: str
    runs: tuple[str, ...]  # lines of overrides in the command line's own syntax
    common: str = ""  # `with:` in the file
    expect: str = ""
    notes: str = ""  # what the study cannot show
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # pictures that a probe draws: {name: {probe: equivariance, where: {model: vit}, checkpoint: init, caption: ""}}
    pictures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # the words by which tables and figures call values of settings: {setting: {value as typed: word}}
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # the runs that are done again with `factor` times the samples: {where: {setting: value}, factor: 2}
    certify: Mapping[str, Any] = field(default_factory=dict)
    probes: tuple[str, ...] = ()  # what `vitbench probe study=` measures: lines in the command line's own syntax

    def probe_words(self, keys: Iterable[str]) -> list[list[str]]:
        """Returns the words of each line of `probes:`, which may set only `keys` and parts of them; [[]] without lines.

        Raises UserError for other keys.
        """
        lines = [words_of_line(self, line) for line in self.probes]
        for word in itertools.chain(*lines):
            if (key := word.lstrip("+").partition("=")[0]).partition(".")[0] not in keys:
                raise UserError(f"study={self.name}: probes: {key}: {did_you_mean(key, keys)}")
        return lines or [[]]

    @property
    def caveat(self) -> str:
        """The first sentence of the notes, for the foot of a figure."""
        return self.notes.split(". ")[0].rstrip(".") + "." if self.notes else ""


FIELDS = {
    **dict.fromkeys(("title", "question", "expect", "notes", "with"), str),
    **dict.fromkeys(("runs", "probes"), list),
    **dict.fromkeys(("tables", "figures", "pictures", "names", "certify"), dict),
}
PICTURE_KEYS = ("probe", "where", "checkpoint", "caption")
CERTIFY_FIELDS = ("where", "factor")
OWN_FOLDER = Path("experiments")
RESERVED = {"runs", "probes", "mcnemar", "fit"}  # a report writes files of these names beside the study's tables
# Anyone can have made a study, so it may not say where a command writes.
PLACES = {**dict.fromkeys(("runs", "data.cache", "results", "out"), "FOLDER"), "file": "FILE", "trackers": "NAME"}
# the types of the keys of a table or a figure; table and plot themselves check which keys they know
LAYOUT_TYPES: dict[str, Any] = {
    **dict.fromkeys(("columns", "show", "against", "matched", "whole", "bare", "x", "log", "layer"), str),
    **dict.fromkeys(("probe", "caption", "title", "xlabel", "ylabel"), str),
    **dict.fromkeys(("rows", "value", "y", "lines"), str | list),
    **dict.fromkeys(("fit", "degenerate"), bool),
    **{"at": int | float, "where": dict, "checkpoint": str | int, "labels": dict | list, "inches": list},
}


def study_names() -> list[str]:
    """The names of the studies that come with vitbench and of the user's own."""
    return sorted({*(path.stem for path in STUDY_DIR.glob("*.yaml")), *own_studies()})


def own_studies() -> dict[str, Path]:
    """The user's own studies by name: the files in experiments/ of the working folder."""
    if not OWN_FOLDER.is_dir() or OWN_FOLDER.samefile(STUDY_DIR):
        return {}
    return {path.stem: path for path in sorted(OWN_FOLDER.glob("*.yaml")) if path.is_file() and path.stem.isprintable()}


def find_study(name: str) -> Path:
    """Returns the file of a study: one that comes with vitbench, experiments/NAME.yaml, or the path of a file.

    Raises UserError if there is none, or if a file of the user's own has the name of a study that comes with vitbench.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
    else:
        path = STUDY_DIR / f"{name}.yaml"
        own = own_studies().get(name)
        if own and path.is_file() and not _are_alike(own, path):
            raise UserError(
                f"study={name}: {own} has the name of another study, which comes with vitbench; "
                f"rename this file, or type study={own}"
            )
        path = own or path
    if not os.path.isfile(path):  # unlike Path.is_file, it takes a name of any length
        raise UserError(
            f"study={name}: {did_you_mean(name, study_names())} (a study of your own: the path of its .yaml file, "
            f"or its name if the file is in {OWN_FOLDER}/)"
        )
    return path


def _are_alike(one: Path, other: Path) -> bool:
    try:
        return read_file(one, MOST_YAML) == read_file(other, MOST_YAML)
    except OSError:
        return False


def load_study(name: str) -> Study:
    path = find_study(name)
    content = read_yaml(path)
    for key, value in content.items():
        if key not in FIELDS:
            raise UserError(f"{path}: {key}: {did_you_mean(str(key), FIELDS)}")
        if not isinstance(value, FIELDS[key]):
            raise UserError(f"{path}: {key} must be {_type_words(FIELDS[key])}")
    _check_layouts(path, content)
    _check_pictures(path, content)
    _check_certify(path, content.get("certify"))
    lines = content.get("runs") or []
    if not lines or not all(isinstance(line, str) for line in lines):
        raise UserError(f"{path}: runs must list lines such as `model=vit pe=none,rope seed=range(3)`")
    content |= {"runs": tuple(lines), "probes": tuple(str(line) for line in content.get("probes", []))}
    if "with" in content:
        content["common"] = content.pop("with")
    return Study(**{"name": path.stem, "title": path.stem, "question": ""} | content)


def _check_layouts(path: Path, content: Mapping[str, Any]) -> None:
    """Raises UserError for a table or figure whose name cannot be a file's, or that has a value of a wrong type, and
    for wrong `names:`."""
    for kind in ("tables", "figures", "pictures"):
        for name, layout in content.get(kind, {}).items():
            if not re.fullmatch(r"[\w-]{1,100}", str(name)) or not isinstance(name, str):
                raise UserError(f"{path}: {kind}.{name}: is the name of a file; use up to 100 letters, digits, _ and -")
            if not isinstance(layout, dict):
                raise UserError(f"{path}: {kind}.{name} must hold settings, such as value: test_accuracy")
            for key, value in layout.items():
                if key in LAYOUT_TYPES and not isinstance(value, LAYOUT_TYPES[key]):
                    raise UserError(f"{path}: {kind}.{name}.{key}: {value}: must be {_type_words(LAYOUT_TYPES[key])}")
    for name in RESERVED & {*content.get("tables", {})}:
        raise UserError(f"{path}: tables.{name}: every report writes a file of this name; choose another name")
    for key, words in content.get("names", {}).items():
        if not isinstance(words, dict) or not all(isinstance(word, str) for word in [*words, *words.values()]):
            raise UserError(f"{path}: names.{key} must map values of {key}, as they are typed, to words")
        for value in words:
            if not _is_word(value):
                raise UserError(f"{path}: names.{key}: {value}: only a word can have another name")
        if len({*words.values()}) < len(words):
            raise UserError(f"{path}: names.{key}: two values have the same name, and would look like one")


def _check_pictures(path: Path, content: Mapping[str, Any]) -> None:
    """Raises UserError for a picture that names no probe, has an unknown key, or has the name of a figure."""
    for name, layout in content.get("pictures", {}).items():
        for key in layout:
            if key not in PICTURE_KEYS:
                raise UserError(f"{path}: pictures.{name}.{key}: {did_you_mean(str(key), PICTURE_KEYS)}")
        if not re.fullmatch(r"\w+", str(layout.get("checkpoint", "trained"))):
            typed = layout["checkpoint"]
            raise UserError(f"{path}: pictures.{name}.checkpoint: {typed}: must be trained, init or a step")
        if "probe" not in layout:
            raise UserError(f"{path}: pictures.{name} must say which probe draws it, such as probe: equivariance")
        if name in content.get("figures", {}):
            raise UserError(f"{path}: pictures.{name}: a figure has this name, too; choose another name")


def _check_certify(path: Path, certify: Mapping[str, Any] | None) -> None:
    """Raises UserError for a wrong `certify:`. The settings that `where` names are checked when runs are planned."""
    if certify is None:
        return
    for key in certify:
        if key not in CERTIFY_FIELDS:
            raise UserError(f"{path}: certify.{key}: {did_you_mean(str(key), CERTIFY_FIELDS)}")
    where, factor = certify.get("where"), certify.get("factor", 2)
    if not isinstance(where, dict) or not where or not all(isinstance(key, str) for key in where):
        raise UserError(f"{path}: certify.where must say which runs, such as {{data.fraction: [0.01, 1], seed: 0}}")
    if not is_number(factor) or not 1 < factor < math.inf:
        raise UserError(f"{path}: certify.factor: {factor}: must be a number above 1")


def _is_word(typed: str) -> bool:
    """Whether what is typed is text, and not null, a number, true, false or a list."""
    try:
        json.loads(typed)
    except ValueError:
        return True
    return False


def _type_words(types: Any) -> str:
    """Names a type, or a union of types, in the words of an error message."""
    words = {str: "a word", list: "a list", dict: "settings (KEY: VALUE)", bool: "true or false", int: "a number"}
    return " or ".join(words[each] for each in getattr(types, "__args__", (types,)) if each in words)


def words_of_line(study: Study, line: str) -> list[str]:
    """Returns the words of a line of the study file. Raises UserError where one is not a setting of a run."""
    try:
        words = words_of(line)
    except UserError as error:
        raise UserError(f"study={study.name}: {error}") from None
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key) or re.fullmatch(r"hydra(\..*)?", key):
            raise UserError(f"study={study.name}: {word} is no setting of a run; settings are key=value")
        if key in PLACES:
            raise UserError(
                f"study={study.name}: {word}: a study cannot say this; type it on the command line, {key}={PLACES[key]}"
            )
        if re.search(r"(?<!\\)(\\\\)*\$\{", value):  # `\${` is text
            raise UserError(f"study={study.name}: {word}: type the value; a study has no references such as ${{...}}")
    return [setting(word, several=True) for word in words]
