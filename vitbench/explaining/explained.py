"""Collects what is known about each setting of a command: its sentence, its default, and the values it can have."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, NamedTuple

from vitbench.data.refusals import FITS, FOLDERS, SHAPES
from vitbench.explaining.comments import sentences_of_choice, sentences_of_schema
from vitbench.menu import Choice, Range, tunables
from vitbench.models.menu import SIZES
from vitbench.models.refusals import MIXER, RESNET
from vitbench.models.refusals import RANGES as VIT
from vitbench.objectives.distillation import DEIT
from vitbench.objectives.distillation import RANGES as DISTILLATION
from vitbench.objectives.refusals import MAE, SIMSIAM
from vitbench.probes.menu import MENU as PROBES
from vitbench.settings.check import RANGES, WORDS
from vitbench.settings.choices import GROUPS, menu_of, typed_key
from vitbench.settings.command_schemas import CHOSEN_BY_ADVISE, SCHEMAS
from vitbench.settings.compose import CONF_DIR
from vitbench.settings.options import TYPE_WORDS
from vitbench.settings.overrides import TYPED_FOR
from vitbench.settings.schema import SCHEMA_OF_SOURCE, SWEEP_KEYS, DataConfig
from vitbench.trackers.menu import MENU as TRACKERS

TEXT_OR_JSON = ("text", "json")
VALUES: dict[str, Sequence[str]] = {  # the values of settings that commands check themselves, by command and key
    "export format": ("safetensors", "onnx"),
    **dict.fromkeys(
        ("bench format", "inspect format", "check format", "doctor format", "clean format", "watch format"),
        TEXT_OR_JSON,
    ),
    **dict.fromkeys(("table format", "fit format"), ("text", "md", "csv", "tex", "json")),
    "table per": ("class", "confusion", "run"),
    "table show": ("ci95", "sd", "mean"),
    "plot per": ("confusion",),
    "plot style": ("paper", "slides", "dark"),
    "plot log": ("x", "y", "xy", "none"),
    "fit x": ("train_images", "samples_seen", "multiply_adds", "train_seconds"),
    "fit form": ("pow2", "pow3", "m4"),
    "predict probabilities": ("top", "all"),
    "features classifiers": ("linear", "nearest"),
    "advise data": ("imagefolder",),
    "track trackers": tuple(TRACKERS),
    "clean what": ("caches", "surveys", "features", "failed", "temporary", "damaged"),
}
VALUES_OF_RUNS: dict[str, Sequence[str]] = {
    **WORDS,
    "distill.kind": tuple(DEIT),
    "data.fit": FITS,
    "model.size": tuple(SIZES),
    "trackers": tuple(TRACKERS),
}
_RANGES_OF_RUNS: dict[str, Range] = {**RANGES, **DISTILLATION, **FOLDERS, **SHAPES}
_RANGES_OF_CHOICES: dict[str, Mapping[str, Range]] = {
    "model=vit": VIT,
    "model=resnet": RESNET,
    "model=mixer": MIXER,
    "model=timm": {"model.drop_path": VIT["model.drop_path"]},
    "objective=mae": MAE,
    "objective=simsiam": SIMSIAM,
}
# By command: keys that people type, and the keys that Hydra gets. People can type arch= and weights= of `probe`, too.
RENAMED = {
    command: {key: name for key, name in its.items() if name in ("outside", "archives")}
    for command, its in TYPED_FOR.items()
}
_LARGE_BOUND = re.compile(r" and at most (\d[\d.]*e\+?\d+|\d+(,\d{3})+)")
_CHOSEN_BY_NAME = frozenset(group.name_key for group in GROUPS.values())
_OPEN = ("model", "objective", "probe")  # the groups whose options are those of the classes on their menus


class Setting(NamedTuple):
    sentence: str
    default: Any
    kind: str  # what its type allows: "a whole number or null"
    values: Sequence[str]  # the words that can be typed, where there are few
    range: str  # the range of a number: "1 or more and at most 50,000,000 steps"

    def values_words(self) -> str:
        """Says what can be typed (words or a range), where the sentence does not say it.

        The range is given without its note and without the large bounds of docs/reference/typing.md, which only catch
        slips.
        """
        if self.values:
            return "" if all(word in self.sentence for word in self.values) else ", ".join(self.values)
        return _LARGE_BOUND.sub("", self.range.partition(" (")[0])


def settings_of_command(command: str, chosen: Mapping[str, Any]) -> dict[str, Setting]:
    """Returns all settings of a command by their typed keys, in the order of its schema, keys without a dot first.

    `chosen` has the member of each group, `{"model": "vit", "pe": None}`, and a list for `probe`.
    """
    found = dict(_of_schema(SCHEMAS[command], "", chosen, command))
    own = [key for key in found if command == "sweep" and key in SWEEP_KEYS]
    alone = [key for key in found if "." not in key]
    return {key: found[key] for key in dict.fromkeys([*own, *alone, *found])}


def _of_schema(schema: type, prefix: str, chosen: Mapping[str, Any], command: str) -> Iterator[tuple[str, Setting]]:
    """Yields the settings of a dataclass and of dataclasses within it, without the names that choices set."""
    hints, sentences = typing.get_type_hints(schema), sentences_of_schema(schema)
    for field in fields(schema):
        key, hint = prefix + field.name, hints[field.name]
        if hint is DataConfig:
            hint = SCHEMA_OF_SOURCE.get(chosen.get("data") or "", DataConfig)
        if key in _OPEN and typing.get_origin(hint) is dict:
            yield from _of_open_group(key, chosen)
        elif is_dataclass(hint):
            yield from _of_schema(typing.cast(type, hint), f"{key}.", chosen, command)
        elif key not in _CHOSEN_BY_NAME and not _is_no_setting(key, command, chosen):
            its_own = "" if "." in key or command in ("train", "sweep") else command
            yield typed_as(key, command), _setting(key, sentences[field.name], _default(field), hint, its_own)


def _is_no_setting(key: str, command: str, chosen: Mapping[str, Any]) -> bool:
    """Whether nobody types a key, because a data set says it, the probed run brings it, or advise chooses it."""
    if command == "advise" and key in CHOSEN_BY_ADVISE:
        return True
    of_run = command == "probe" and not chosen.get("data") and key.startswith("data.")
    return key == "augment" or (of_run and key not in ("data.root", "data.cache"))


def typed_as(key: str, command: str) -> str:
    """Returns a key as people type it. Hydra knows model= of `probe` and from= of `merge` by other names."""
    return {inside: typed for typed, inside in RENAMED.get(command, {}).items()}.get(key, typed_key(key))


def _of_open_group(group: str, chosen: Mapping[str, Any]) -> Iterator[tuple[str, Setting]]:
    """Yields the options of a model and its encoding, of an objective, or of probes."""
    for part in ("model", "pe") if group == "model" else (group,):
        members = chosen.get(part) or []
        for member in [members] if isinstance(members, str) else members:
            yield from options_of(part, member).items()


def options_of(group: str, member: str) -> dict[str, Setting]:
    """Returns the options of a member of an open group by their typed keys; {} where the menu lacks the member."""
    if member not in (menu := menu_of_group(group)):
        return {}
    prefix = f"probe.{member}." if group == "probe" else f"{group}."
    sentences, parameters = sentences_of_choice(group, member), tunables(menu[member].target)
    annotations = {key: its.annotation for key, its in parameters.items()}
    hints = typing.get_type_hints(type("Options", (), {"__annotations__": annotations}), vars(typing))
    ranges = _RANGES_OF_CHOICES.get(f"{group}={member}", {})
    return {
        prefix + key: _setting(prefix + key, sentences.get(key, ""), its.default, hints[key], ranges=ranges)
        for key, its in parameters.items()
    }


def _setting(
    key: str, sentence: str, default: Any, hint: Any, command: str = "", ranges: Mapping[str, Range] = _RANGES_OF_RUNS
) -> Setting:
    """Makes a setting of a run or, with `command`, of a command that alone has it."""
    values = VALUES.get(f"{command} {key}", ()) if command else VALUES_OF_RUNS.get(key, ())
    found = None if command else ranges.get(key)
    return Setting(sentence, default, kind_words(hint), values, found.words if found else "")


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def kind_words(hint: Any) -> str:
    """Says what can be typed for a type: `int | None` is "a whole number or null"."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(kind_words(part) for part in typing.get_args(hint))
    if hint is Any or typing.get_origin(hint) is dict:
        return "a value or a list"
    if typing.get_origin(hint) in (list, tuple):
        kinds = typing.get_args(hint)
        return "[from,to]" if kinds == (float, float) else f"a list of {'whole ' * (kinds[0] is int)}numbers"
    return "text" if hint is str else TYPE_WORDS["None" if hint is type(None) else hint.__name__]


def menu_of_group(group: str) -> Mapping[str, Choice]:
    """Returns the menu of a group of `conf/`; an empty menu where its members are presets."""
    if group == "probe":
        return PROBES
    return menu_of(group) if GROUPS[group].menu else {}


def sentence_of_member(group: str, member: str) -> str:
    """Returns the sentence of a member of a group: its line on the menu, or that of a preset; "" if it is not ours."""
    if menu := menu_of_group(group):
        return menu[member].help if member in menu else ""
    known = (CONF_DIR / group / f"{member}.yaml").is_file()
    return sentences_of_choice(group, member).get("name", "") if known else ""
